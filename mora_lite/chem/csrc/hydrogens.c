/* Hydrogens that are written as atoms become part of their neighbours, where RDKit does the same. */
#include "molecule.h"

/* Whether a hydrogen's direction says on which side of a double bond its atom has it, and it has nothing else there. */
static bool has_geometry(const Molecule *m, int atom) {
    int k = m->first[atom], near = m->near_atom[k], n_double = 0;
    const Bond *bond = &m->bonds[m->near_bond[k]];
    if (m->atoms[atom].charge || m->atoms[near].element <= 1 || bond->type != SINGLE || !bond->direction) return false;
    for (int i = m->first[near]; i < m->first[near + 1]; i++) n_double += m->bonds[m->near_bond[i]].type == DOUBLE;
    return degree(m, near) == 2 && n_double == 1;
}

/* Whether RDKit keeps a hydrogen as an atom: one that is bound to nothing, or to another one that is bound to it alone,
   or whose direction has a meaning. */
static bool is_kept(const Molecule *m, int atom) {
    if (m->atoms[atom].explicit_h || m->atoms[atom].charge < -1 || m->atoms[atom].charge > 1) return false;
    if (!degree(m, atom)) return true;
    int k = m->first[atom], near = m->near_atom[k];
    const Bond *bond = &m->bonds[m->near_bond[k]];
    if (degree(m, atom) == 1 && has_geometry(m, atom)) return true;
    return degree(m, atom) == 1 && degree(m, near) == 1 && m->atoms[near].element == 1 && !m->atoms[atom].charge &&
           !m->atoms[near].charge && bond->type == SINGLE && !bond->direction;
}

/* Whether a hydrogen is a plain one at a heavy atom; others RDKit keeps, or treats in ways that are not done here. */
static bool is_plain(const Molecule *m, int atom) {
    if (degree(m, atom) != 1 || m->atoms[atom].charge || m->atoms[atom].explicit_h) return false;
    int k = m->first[atom];
    const Bond *bond = &m->bonds[m->near_bond[k]];
    return m->atoms[m->near_atom[k]].element > 1 && bond->type == SINGLE && !bond->direction;
}

/* Whether RDKit counts a hydrogen of this atom in the same way when it is no atom any longer. */
static bool keeps_hydrogens(Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    if (atom->no_implicit) return true;
    if (atom->aromatic) {
        int n_aromatic = 0;
        for (int k = m->first[number]; k < m->first[number + 1]; k++) n_aromatic += m->bonds[m->near_bond[k]].aromatic;
        if (atom->element == 7 || atom->element == 15) return true;
        return atom->element == 6 && degree(m, number) == 3 && n_aromatic == 2;
    }
    const Element *element = &ELEMENTS[atom->element];
    update_valences(m, number, false);
    for (int i = 0; i < element->n_valences; i++)
        if (element->valences[i] == total_valence(atom)) return true;
    return false;
}

/* Leave out atoms and their bonds. A centre's neighbours that go become hydrogens; one that goes itself is lost. */
void keep_atoms(Molecule *m, const bool *keep) {
    int new_number[MAX_ATOMS], n_atoms = 0, n_bonds = 0, n_chain_bonds = 0;
    for (int i = 0; i < m->n_atoms; i++) new_number[i] = keep[i] ? n_atoms++ : HYDROGEN;
    for (int i = 0; i < m->n_atoms; i++)
        if (keep[i]) m->atoms[new_number[i]] = m->atoms[i];
    for (int i = 0; i < m->n_bonds; i++) {
        Bond bond = m->bonds[i];
        if (!keep[bond.ends[0]] || !keep[bond.ends[1]]) continue;
        bond.from = (uint16_t)new_number[bond.from];
        for (int e = 0; e < 2; e++) {
            bond.ends[e] = (uint16_t)new_number[bond.ends[e]];
            if (bond.stereo) bond.leading[e] = (uint16_t)new_number[bond.leading[e]];
        }
        m->bonds[n_bonds++] = bond;
        n_chain_bonds += i < m->n_chain_bonds;
    }
    for (int i = 0; i < m->n_centres; i++) {
        Centre *centre = &m->centres[i];
        if (!keep[centre->atom]) continue; /* no atom refers to it any longer */
        centre->atom = (uint16_t)new_number[centre->atom];
        for (int k = 0; k < centre->n; k++)
            if (centre->around[k] != HYDROGEN) centre->around[k] = (int16_t)new_number[centre->around[k]];
    }
    m->n_atoms = n_atoms;
    m->n_bonds = n_bonds;
    m->n_chain_bonds = n_chain_bonds;
    index_bonds(m);
}

bool merge_hydrogens(Molecule *m) {
    if (!has_element(m, 1)) return true;
    bool keep[MAX_ATOMS];
    sum_bonds(m);
    for (int i = 0; i < m->n_atoms; i++) {
        keep[i] = m->atoms[i].element != 1 || is_kept(m, i);
        if (m->atoms[i].element == 1 && m->atoms[i].centre >= 0) return false;
        if (keep[i]) continue;
        if (!is_plain(m, i) || !keeps_hydrogens(m, m->near_atom[m->first[i]])) return false;
    }
    for (int i = 0; i < m->n_atoms; i++) {
        if (keep[i]) continue;
        Atom *heavy = &m->atoms[m->near_atom[m->first[i]]];
        if (heavy->explicit_h >= 8) return false;
        heavy->explicit_h++;
    }
    keep_atoms(m, keep);
    return true;
}
