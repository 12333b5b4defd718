/* RDKit's conjugated bonds and hybridisation. */
#include "molecule.h"

static bool may_conjugate(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int lowest = default_valence(atom->element), outer = ELEMENTS[atom->element].outer;
    if (!atom->charge && lowest >= 0 && total_valence(atom) > lowest) return false;
    if (atom->element > 10 && (outer == 5 || outer == 6) &&
        !(outer == 6 && degree(m, number) + hydrogens(atom) < 2))
        return false;
    return electrons(m, number) > 0;
}

/* n_near: neighbours of each atom, hydrogens among them. */
static void mark_around(Molecule *m, int number, const bool *candidate, const int *n_near) {
    if (!candidate[number] || n_near[number] < 2 || n_near[number] > 3) return;
    for (int i = m->first[number]; i < m->first[number + 1]; i++) {
        if (bond_valence2(&m->bonds[m->near_bond[i]]) < 3 || !candidate[m->near_atom[i]]) continue;
        for (int j = m->first[number]; j < m->first[number + 1]; j++) {
            int near = m->near_atom[j];
            if (i == j || !candidate[near] || n_near[near] > 3) continue;
            m->bonds[m->near_bond[i]].conjugated = true;
            m->bonds[m->near_bond[j]].conjugated = true;
        }
    }
}

static int n_orbitals(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int n_near = degree(m, number) + hydrogens(atom), outer = ELEMENTS[atom->element].outer;
    if (atom->element <= 1 || atom->element >= 89) return n_near;
    int valence = total_valence(atom), unused = outer - (valence + atom->charge);
    if (valence + outer - atom->charge < 8) return n_near + (unused - atom->radicals) / 2 + atom->radicals;
    return n_near + unused / 2;
}

static uint8_t hybridisation(const Molecule *m, int number) {
    static const uint8_t CODES[] = {1, 1, 2, 3, 4, 5, 6}; /* S, S, SP, SP2, SP3, SP3D, SP3D2 */
    const Atom *atom = &m->atoms[number];
    int n_near = degree(m, number) + hydrogens(atom);
    if (!atom->element) return 0;
    if (atom->centre >= 0 && n_near == 4) return 4;
    int n = n_orbitals(m, number);
    if (n == 4 && n_near <= 3)
        for (int k = m->first[number]; k < m->first[number + 1]; k++)
            if (m->bonds[m->near_bond[k]].conjugated) return 3;
    return n < 0 || n > 6 ? 0 : CODES[n];
}

void conjugate(Molecule *m) {
    bool candidate[MAX_ATOMS];
    int n_near[MAX_ATOMS];
    for (int i = 0; i < m->n_bonds; i++) m->bonds[i].conjugated = m->bonds[i].aromatic;
    for (int i = 0; i < m->n_atoms; i++) {
        candidate[i] = may_conjugate(m, i);
        n_near[i] = degree(m, i) + hydrogens(&m->atoms[i]);
    }
    for (int i = 0; i < m->n_atoms; i++) mark_around(m, i, candidate, n_near);
    for (int i = 0; i < m->n_atoms; i++) m->atoms[i].hybridisation = hybridisation(m, i);
}
