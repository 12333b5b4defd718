/* What RDKit does to a molecule that was read, step by step. */
#include "molecule.h"

static int min(int a, int b) { return a < b ? a : b; }

static int radicals(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    const Element *element = &ELEMENTS[atom->element];
    if (!atom->no_implicit || !atom->element) return 0;
    if (element->n_valences == 1 && element->valences[0] == -1) {
        int left = element->outer - atom->charge;
        return degree(m, number) || left < 0 ? 0 : left % 2;
    }
    int valence = (2 * atom->explicit_h + twice_order(m, number)) / 2, shell = atom->element <= 2 ? 2 : 8;
    int n = shell - element->outer - valence + atom->charge;
    if (n < 0) {
        n = 0;
        for (int i = 0; element->n_valences > 1 && i < element->n_valences; i++)
            if (element->valences[i] - valence + atom->charge >= 0) {
                n = element->valences[i] - valence + atom->charge;
                break;
            }
    }
    int early = element->outer - valence - atom->charge;
    return early >= 0 ? min(n, early) : n;
}

/* The valences of an atom that is or was aromatic; it gets back the hydrogens that it would lose by becoming so. */
static bool adjust_hydrogens(Molecule *m, int number) {
    Atom *atom = &m->atoms[number];
    int before = atom->no_implicit ? 0 : atom->implicit_valence;
    if (!update_valences(m, number, true)) return false;
    if (atom->implicit_valence >= before) return true;
    atom->explicit_h = (uint8_t)(atom->explicit_h + before - atom->implicit_valence);
    return update_valences(m, number, true);
}

bool sanitize(Molecule *m) {
    bool was_aromatic[MAX_BONDS];
    int partner[MAX_ATOMS];
    sum_bonds(m);
    if (!clean_up(m)) return false;
    for (int i = 0; i < m->n_atoms; i++)
        if (!update_valences(m, i, true)) return false;
    if (!kekulize(m, was_aromatic, partner)) return false;
    for (int i = 0; m->brackets && i < m->n_atoms; i++)
        if (m->atoms[i].no_implicit) m->atoms[i].radicals = (uint8_t)radicals(m, i);
    if (!perceive_aromaticity(m) || !settle_forms(m, was_aromatic, partner)) return false;
    sum_bonds(m);
    conjugate(m);
    for (int i = 0; i < m->n_atoms; i++) {
        if (m->atoms[i].hybridisation != 4) m->atoms[i].centre = -1;
        if ((m->atoms[i].aromatic || partner[i] != NOT_AROMATIC) && !adjust_hydrogens(m, i)) return false;
    }
    return true;
}
