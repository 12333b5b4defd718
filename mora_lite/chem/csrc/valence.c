/* RDKit's valence model: of each atom the valence of its bonds and the hydrogens that are implied. */
#include "molecule.h"

#include <string.h>

static int last_valence(int element) { return ELEMENTS[element].valences[ELEMENTS[element].n_valences - 1]; }

/* That whose valences an ion has: the element with as many electrons. */
static int effective_element(const Atom *atom) {
    if (ELEMENTS[atom->element].n_valences == 1 && default_valence(atom->element) == -1) return atom->element;
    int element = atom->element - atom->charge;
    return element < 0 ? 0 : element >= N_ELEMENTS ? N_ELEMENTS - 1 : element;
}

static bool can_be_hypervalent(const Atom *atom, int effective) {
    return (effective > 16 && (atom->element == 15 || atom->element == 16)) ||
           (effective > 34 && (atom->element == 33 || atom->element == 34));
}

static int explicit_of(const Atom *atom, int twice_bonds, int effective) {
    int twice = 2 * atom->explicit_h + twice_bonds, lowest = default_valence(effective);
    const Element *element = &ELEMENTS[effective];
    if (atom->aromatic && lowest >= 0 && twice > 2 * lowest) {
        int allowed = lowest;
        for (int i = 0; i < element->n_valences && element->valences[i] != -1; i++) {
            if (2 * element->valences[i] > twice) break;
            allowed = element->valences[i];
        }
        if (twice - 2 * allowed <= 3) twice = 2 * allowed;
    }
    return (twice + 1) / 2;
}

int explicit_valence(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    return explicit_of(atom, twice_order(m, number), effective_element(atom));
}

/* Whether RDKit accepts an explicit valence. */
static bool is_allowed(const Atom *atom, int effective) {
    int most = last_valence(effective), offset = 0;
    if (can_be_hypervalent(atom, effective)) {
        most = last_valence(atom->element);
        offset = -atom->charge;
    }
    return !(most >= 0 && last_valence(atom->element) >= 0 && atom->explicit_valence + offset > most);
}

/* -1: RDKit refuses it. */
static int implicit_of(const Atom *atom, int effective, bool strict) {
    int lowest = default_valence(effective), used = atom->explicit_valence + atom->radicals;
    if (!effective || lowest == -1) return 0;
    if (can_be_hypervalent(atom, effective)) {
        effective = atom->element;
        used -= atom->charge;
    }
    const Element *element = &ELEMENTS[effective];
    if (atom->aromatic) {
        if (used <= lowest) return lowest - used;
        for (int i = 0; i < element->n_valences && element->valences[i] > 0; i++)
            if (used == element->valences[i]) return 0;
        return strict ? -1 : 0;
    }
    for (int i = 0; i < element->n_valences && element->valences[i] >= 0; i++)
        if (used <= element->valences[i]) return element->valences[i] - used;
    return strict && last_valence(effective) != -1 && last_valence(atom->element) > 0 ? -1 : 0;
}

static bool set_valences(Atom *atom, int twice_bonds, bool strict) {
    int effective = effective_element(atom);
    atom->explicit_valence = (int16_t)explicit_of(atom, twice_bonds, effective);
    if (strict && !is_allowed(atom, effective)) return false;
    int implied = atom->no_implicit ? 0 : implicit_of(atom, effective, strict);
    atom->implicit_valence = (int16_t)(implied > 0 ? implied : 0);
    return implied >= 0;
}

/* Valences of atoms that are written without brackets, and whether RDKit accepts them. */
enum { MAX_TWICE = 16 };
static struct {
    int8_t explicit_valence, implicit_valence;
    bool accepted;
} plain[N_ELEMENTS][2][MAX_TWICE];

void valence_init(void) {
    for (int z = 0; z < N_ELEMENTS; z++)
        for (int k = 0; k < 2 * MAX_TWICE; k++) {
            int aromatic = k / MAX_TWICE, twice = k % MAX_TWICE;
            Atom atom = {.element = (uint8_t)z, .aromatic = aromatic, .centre = -1};
            plain[z][aromatic][twice].accepted = set_valences(&atom, twice, true);
            plain[z][aromatic][twice].explicit_valence = (int8_t)atom.explicit_valence;
            plain[z][aromatic][twice].implicit_valence = (int8_t)atom.implicit_valence;
        }
}

/* Needs `sum_bonds`. False only if `strict`, for a valence that RDKit refuses. */
bool update_valences(Molecule *m, int number, bool strict) {
    Atom *atom = &m->atoms[number];
    int twice = twice_order(m, number);
    if (twice < MAX_TWICE && !(atom->charge | atom->no_implicit | atom->radicals | atom->explicit_h) &&
        plain[atom->element][atom->aromatic][twice].accepted) {
        atom->explicit_valence = plain[atom->element][atom->aromatic][twice].explicit_valence;
        atom->implicit_valence = plain[atom->element][atom->aromatic][twice].implicit_valence;
        return true;
    }
    return set_valences(atom, twice, strict);
}

static uint64_t weight(const Bond *bond) {
    static const uint64_t ONE = 1, WEIGHTS[] = {2, 4 | ONE << 32, 6 | ONE << 32, 3 | ONE << 16};
    uint64_t multiple = WEIGHTS[bond->type] >> 32;
    return WEIGHTS[bond->type] | (bond->in_ring ? 0 : multiple << 48);
}

void sum_bonds(Molecule *m) {
    memset(m->sums, 0, sizeof(m->sums[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_bonds; i++) {
        uint64_t here = weight(&m->bonds[i]);
        m->sums[m->bonds[i].ends[0]] += here;
        m->sums[m->bonds[i].ends[1]] += here;
    }
}

/* Change the type of a bond, and what it adds to the sums of its atoms. */
void set_order(Molecule *m, int number, int type) {
    Bond *bond = &m->bonds[number];
    uint64_t before = weight(bond);
    bond->type = (uint8_t)type;
    for (int e = 0; e < 2; e++) m->sums[bond->ends[e]] += weight(bond) - before;
}
