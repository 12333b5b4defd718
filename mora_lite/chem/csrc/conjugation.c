/* RDKit's conjugated bonds and hybridisation. */
#include "molecule.h"

/* What an atom may be: at the end of a conjugated bond, beside one that conjugates, between two. */
enum { CANDIDATE = 1, NEIGHBOUR = 2, MIDDLE = 4 };

static uint8_t role_of(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int lowest = default_valence(atom->element), outer = ELEMENTS[atom->element].outer;
    int n_near = degree(m, number) + hydrogens(atom);
    if (!atom->charge && lowest >= 0 && total_valence(atom) > lowest) return 0;
    if (atom->element > 10 && (outer == 5 || outer == 6) && !(outer == 6 && n_near < 2)) return 0;
    if (electrons(m, number) <= 0) return 0;
    return (uint8_t)(CANDIDATE | (n_near <= 3 ? NEIGHBOUR : 0) | (n_near == 2 || n_near == 3 ? MIDDLE : 0));
}

/* Of the bond from a middle atom to `near`, without branches: whether it is a double bond (or more) to a candidate, and in the upper half
   whether it leads to a neighbour. Sums of these say what the other bonds of the atom are. */
static uint32_t part_of(const Bond *bond, uint8_t near) {
    return ((uint32_t)(bond->type != SINGLE) & near) | (uint32_t)(near & NEIGHBOUR) << 15;
}

/* A double bond and any other one beside it conjugate. */
static bool conjugates(uint32_t all, uint32_t this_one, uint8_t middle) {
    uint32_t others = all - this_one;
    bool any_double = others & 0xFFFF, any_near = others >> 16;
    bool is_middle = middle & MIDDLE;
    return is_middle & ((this_one & any_near) | (this_one >> 16 & any_double));
}

static void find_conjugated_bonds(Molecule *m) {
    uint8_t role[MAX_ATOMS];
    uint32_t all[MAX_ATOMS];
    for (int i = 0; i < m->n_atoms; i++) all[i] = 0, role[i] = role_of(m, i);
    for (int i = 0; i < m->n_bonds; i++) {
        int a = m->bonds[i].ends[0], b = m->bonds[i].ends[1];
        all[a] += part_of(&m->bonds[i], role[b]);
        all[b] += part_of(&m->bonds[i], role[a]);
    }
    for (int i = 0; i < m->n_bonds; i++) {
        Bond *bond = &m->bonds[i];
        int a = bond->ends[0], b = bond->ends[1];
        bond->conjugated = bond->aromatic | conjugates(all[a], part_of(bond, role[b]), role[a]) |
                           conjugates(all[b], part_of(bond, role[a]), role[b]);
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

static uint8_t hybridisation(const Molecule *m, int number, bool conjugated) {
    static const uint8_t CODES[] = {1, 1, 2, 3, 4, 5, 6}; /* S, S, SP, SP2, SP3, SP3D, SP3D2 */
    const Atom *atom = &m->atoms[number];
    int n_near = degree(m, number) + hydrogens(atom);
    if (!atom->element) return 0;
    if (atom->centre >= 0 && n_near == 4) return 4;
    int n = n_orbitals(m, number);
    if (n == 4 && n_near <= 3 && conjugated) return 3;
    return n < 0 || n > 6 ? 0 : CODES[n];
}

void conjugate(Molecule *m) {
    bool conjugated[MAX_ATOMS];
    find_conjugated_bonds(m);
    for (int i = 0; i < m->n_atoms; i++) conjugated[i] = false;
    for (int i = 0; i < m->n_bonds; i++)
        for (int e = 0; e < 2; e++) conjugated[m->bonds[i].ends[e]] |= m->bonds[i].conjugated;
    for (int i = 0; i < m->n_atoms; i++) m->atoms[i].hybridisation = hybridisation(m, i, conjugated[i]);
}
