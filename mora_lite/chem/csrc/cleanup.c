/* RDKit's clean-up of hypervalent nitrogen, phosphorus and halogens; bonds to metals that it would make dative. */
#include "molecule.h"

/* Turn the first bond of `type` to a neutral neighbour of `element` into one of one order less, with charges. */
static void split_charges(Molecule *m, int atom, int element, int type) {
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        Atom *near = &m->atoms[m->near_atom[k]];
        const Bond *bond = &m->bonds[m->near_bond[k]];
        if (near->element == element && !near->charge && bond->type == type) {
            set_order(m, m->near_bond[k], type - 1);
            m->atoms[atom].charge = 1;
            near->charge = -1;
            return;
        }
    }
}

static void clean_nitrogens(Molecule *m) {
    bool chosen[MAX_ATOMS], any = false;
    for (int i = 0; i < m->n_atoms; i++) {
        chosen[i] = m->atoms[i].element == 7 && !m->atoms[i].charge && explicit_valence(m, i) == 5;
        if (chosen[i]) {
            any = true;
            split_charges(m, i, 8, DOUBLE);
        }
    }
    for (int i = 0; any && i < m->n_atoms; i++)
        if (chosen[i]) split_charges(m, i, 7, TRIPLE);
}

static void clean_phosphorus(Molecule *m, int atom) {
    if (m->atoms[atom].charge || degree(m, atom) != 3 || explicit_valence(m, atom) != 5) return;
    int oxygen = -1;
    bool other = false;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        const Atom *near = &m->atoms[m->near_atom[k]];
        if (m->bonds[m->near_bond[k]].type != DOUBLE) continue;
        if (near->element == 8 && !near->charge)
            oxygen = k;
        else if ((near->element == 6 || near->element == 7) && degree(m, m->near_atom[k]) >= 2)
            other = true;
    }
    if (oxygen < 0 || !other) return;
    m->atoms[m->near_atom[oxygen]].charge = -1;
    set_order(m, m->near_bond[oxygen], SINGLE);
    m->atoms[atom].charge = 1;
}

static void clean_halogen(Molecule *m, int atom) {
    int valence = explicit_valence(m, atom), charge = 0;
    if (m->atoms[atom].charge || (valence != 3 && valence != 5 && valence != 7)) return;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++)
        if (m->atoms[m->near_atom[k]].element != 8) return;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++)
        if (m->bonds[m->near_bond[k]].type == DOUBLE) {
            set_order(m, m->near_bond[k], SINGLE);
            m->atoms[m->near_atom[k]].charge = -1;
            charge++;
        }
    m->atoms[atom].charge = (int8_t)charge;
}

#define BIT(element) (UINT64_C(1) << (element))
static const uint64_t NO_METALS[2] = {BIT(1) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(15) | BIT(16) | BIT(17) | BIT(34) |
                                          BIT(35) | BIT(53),
                                      0};

/* Metals, and all that may pass for one. */
bool may_be_metal(int element) { return !(NO_METALS[element >> 6] >> (element & 63) & 1); }

/* RDKit makes a bond from an overfull atom to a metal dative, and chooses it by canonical ranks. */
static bool has_dative_bonds(const Molecule *m) {
    for (int i = 0; i < m->n_atoms; i++) {
        if (!may_be_metal(m->atoms[i].element)) continue;
        for (int k = m->first[i]; k < m->first[i + 1]; k++) {
            int near = m->near_atom[k];
            const Atom *atom = &m->atoms[near];
            if (m->bonds[m->near_bond[k]].type != SINGLE) continue;
            int element = atom->element - atom->charge;
            if (element <= 0 || element >= N_ELEMENTS) return true;
            int valence = explicit_valence(m, near);
            int most = ELEMENTS[element].valences[ELEMENTS[element].n_valences - 1];
            bool crowded = atom->aromatic && degree(m, near) + atom->explicit_h >= 4;
            if (most > 0 && (valence > most || (valence == most && crowded))) return true;
        }
    }
    return false;
}

bool clean_up(Molecule *m) {
    static const int CLEANED[] = {15, 17, 35, 53};
    bool any = false, any_metal = false;
    for (int i = 0; i < 4; i++) any |= has_element(m, CLEANED[i]);
    for (int k = 0; k < 2; k++) any_metal |= (m->present[k] & ~NO_METALS[k]) != 0;
    if (has_element(m, 7)) clean_nitrogens(m);
    for (int i = 0; any && i < m->n_atoms; i++) {
        int element = m->atoms[i].element;
        if (element == 15) clean_phosphorus(m, i);
        if (element == 17 || element == 35 || element == 53) clean_halogen(m, i);
    }
    return !any_metal || !has_dative_bonds(m);
}
