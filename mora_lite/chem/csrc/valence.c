/* RDKit's valence model: of each atom the valence of its bonds and the hydrogens that are implied. */
#include "molecule.h"

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

/* False only if `strict`, for a valence that RDKit refuses. */
bool explicit_valence(const Molecule *m, int number, bool strict, int *valence) {
    const Atom *atom = &m->atoms[number];
    int twice = 2 * atom->explicit_h;
    for (int k = m->first[number]; k < m->first[number + 1]; k++) twice += bond_valence2(&m->bonds[m->near_bond[k]]);
    int effective = effective_element(atom), lowest = default_valence(effective);
    const Element *element = &ELEMENTS[effective];
    if (atom->aromatic && lowest >= 0 && twice > 2 * lowest) {
        int allowed = lowest;
        for (int i = 0; i < element->n_valences && element->valences[i] != -1; i++) {
            if (2 * element->valences[i] > twice) break;
            allowed = element->valences[i];
        }
        if (twice - 2 * allowed <= 3) twice = 2 * allowed;
    }
    *valence = (twice + 1) / 2;
    if (!strict) return true;
    int most = last_valence(effective), offset = 0;
    if (can_be_hypervalent(atom, effective)) {
        most = last_valence(atom->element);
        offset = -atom->charge;
    }
    return !(most >= 0 && last_valence(atom->element) >= 0 && *valence + offset > most);
}

bool implicit_valence(const Molecule *m, int number, bool strict, int *valence) {
    const Atom *atom = &m->atoms[number];
    (void)m;
    *valence = 0;
    if (atom->no_implicit) return true;
    int effective = effective_element(atom);
    if (!effective) return true;
    int lowest = default_valence(effective), used = atom->explicit_valence + atom->radicals;
    if (lowest == -1) return true;
    if (can_be_hypervalent(atom, effective)) {
        effective = atom->element;
        used -= atom->charge;
    }
    const Element *element = &ELEMENTS[effective];
    if (atom->aromatic) {
        if (used <= lowest) {
            *valence = lowest - used;
            return true;
        }
        for (int i = 0; i < element->n_valences && element->valences[i] > 0; i++)
            if (used == element->valences[i]) return true;
        return !strict;
    }
    for (int i = 0; i < element->n_valences && element->valences[i] >= 0; i++)
        if (used <= element->valences[i]) {
            *valence = element->valences[i] - used;
            return true;
        }
    return !(strict && last_valence(effective) != -1 && last_valence(atom->element) > 0);
}

bool update_valences(Molecule *m, int atom, bool strict) {
    return explicit_valence(m, atom, strict, &m->atoms[atom].explicit_valence) &&
           implicit_valence(m, atom, strict, &m->atoms[atom].implicit_valence);
}
