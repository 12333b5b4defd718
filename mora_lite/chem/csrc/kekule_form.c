/* RDKit's own choice among Kekule forms, for bonds that end single or double by it.

It walks through a ring system from the atom with the smallest number, in order of numbers, and gives each atom that
needs a double bond the first neighbour that needs one too; where that leads nowhere it goes back to its last choice.
*/
#include "molecule.h"

#include <string.h>

enum { MAX_WAITING = 4000, MAX_DONE = 2000, MAX_CHOICES = 6, MAX_STEPS_BACK = 100, MAX_STEPS = 40000 };

typedef struct {
    const Molecule *m;
    const bool *may_be_double; /* bonds */
    int block;
    int n_atoms, n_done, head, tail, n_choices_made;
    uint16_t atoms[MAX_ATOMS], done[MAX_DONE], waiting[2 * MAX_WAITING], choices_made[MAX_ATOMS];
    bool in_block[MAX_ATOMS], needs[MAX_ATOMS], has_choices[MAX_ATOMS];
    uint8_t n_choices[MAX_ATOMS];
    uint16_t choices[MAX_ATOMS][MAX_CHOICES];
    bool is_double[MAX_BONDS];
} Walk;

static bool contains(const uint16_t *list, int n, int value) {
    for (int i = 0; i < n; i++)
        if (list[i] == value) return true;
    return false;
}

static int bond_between(const Molecule *m, int a, int b) {
    for (int k = m->first[a]; k < m->first[a + 1]; k++)
        if (m->near_atom[k] == b) return m->near_bond[k];
    return -1;
}

/* Neighbours of an atom that are not done yet, by their numbers. */
static int neighbours_left(const Walk *w, int atom, uint16_t *near) {
    const Molecule *m = w->m;
    int n = 0;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        int other = m->near_atom[k], at = n;
        if (!w->in_block[other] || contains(w->done, w->n_done, other)) continue;
        if (n == MAX_CHOICES) return -1;
        for (; at > 0 && near[at - 1] > other; at--) near[at] = near[at - 1];
        near[at] = (uint16_t)other;
        n++;
    }
    return n;
}

static bool meet(Walk *w, int atom) {
    uint16_t near[MAX_CHOICES];
    int n = neighbours_left(w, atom, near), tail = w->tail;
    if (n < 0 || w->tail + n > 2 * MAX_WAITING) return false;
    w->n_choices[atom] = 0;
    for (int i = 0; i < n; i++) {
        if (!contains(w->waiting + w->head, tail - w->head, near[i])) w->waiting[w->tail++] = near[i];
        if (w->needs[atom] && w->needs[near[i]] && w->may_be_double[bond_between(w->m, atom, near[i])])
            w->choices[atom][w->n_choices[atom]++] = near[i];
    }
    return true;
}

/* Take back everything since the last choice. */
static bool go_back(Walk *w) {
    if (!w->n_choices_made) return false;
    int last = w->choices_made[w->n_choices_made - 1], at = 0;
    while (at < w->n_done && w->done[at] != last) at++;
    if (at == w->n_done || w->head < w->n_done - at) return false;
    for (int i = w->n_done - 1; i >= at; i--) w->waiting[--w->head] = w->done[i];
    w->n_done = at;
    for (int i = 0; i < w->m->n_bonds; i++) {
        const uint16_t *ends = w->m->bonds[i].ends;
        if (!w->is_double[i] || contains(w->done, at, ends[0]) || contains(w->done, at, ends[1])) continue;
        w->is_double[i] = false;
        w->needs[ends[0]] = w->needs[ends[1]] = true;
    }
    return true;
}

static bool choose(Walk *w, int atom) {
    int other = w->choices[atom][0], n = --w->n_choices[atom];
    memmove(w->choices[atom], w->choices[atom] + 1, sizeof(uint16_t) * (size_t)n);
    w->is_double[bond_between(w->m, atom, other)] = true;
    w->needs[atom] = w->needs[other] = false;
    if (w->has_choices[atom]) {
        if (n) return true;
        w->has_choices[atom] = false;
        w->n_choices_made--;
    } else if (n) {
        if (w->n_choices_made == MAX_ATOMS) return false;
        w->has_choices[atom] = true;
        w->choices_made[w->n_choices_made++] = (uint16_t)atom;
    }
    return true;
}

static bool walk(Walk *w) {
    int n_back = 0;
    for (int steps = 0; w->n_done < w->n_atoms || w->head < w->tail; steps++) {
        int atom = -1;
        if (w->head < w->tail) atom = w->waiting[w->head++];
        for (int i = 0; atom < 0 && i < w->n_atoms; i++)
            if (!contains(w->done, w->n_done, w->atoms[i])) atom = w->atoms[i];
        if (atom < 0 || w->n_done == MAX_DONE || steps == MAX_STEPS) return false;
        w->done[w->n_done++] = (uint16_t)atom;
        if (!w->has_choices[atom] && !meet(w, atom)) return false;
        if (!w->needs[atom]) continue;
        if (w->n_choices[atom]) {
            if (!choose(w, atom)) return false;
        } else if (n_back++ == MAX_STEPS_BACK || !go_back(w)) {
            return false;
        }
    }
    return true;
}

static void start(Walk *w, const bool *was_aromatic, const int *partner) {
    const Molecule *m = w->m;
    w->n_atoms = w->n_done = w->n_choices_made = 0;
    w->head = w->tail = MAX_WAITING; /* it grows on both sides */
    memset(w->in_block, 0, sizeof w->in_block);
    memset(w->is_double, 0, sizeof w->is_double);
    for (int i = 0; i < m->n_bonds; i++)
        if (m->bonds[i].in_ring && m->block[i] == w->block)
            w->in_block[m->bonds[i].ends[0]] = w->in_block[m->bonds[i].ends[1]] = true;
    for (int i = 0; i < m->n_atoms; i++) {
        w->has_choices[i] = false;
        w->needs[i] = partner[i] >= 0;
        if (!w->in_block[i]) continue;
        w->atoms[w->n_atoms++] = (uint16_t)i;
        if (partner[i] == NOT_AROMATIC) w->done[w->n_done++] = (uint16_t)i;
    }
    w->may_be_double = was_aromatic;
}

/* Orders of the bonds of one component that are not aromatic now but were. */
bool settle_form(Molecule *m, const bool *was_aromatic, const int *partner, int block) {
    Walk w;
    w.m = m, w.block = block;
    start(&w, was_aromatic, partner);
    if (!walk(&w)) return false;
    for (int i = 0; i < m->n_bonds; i++) {
        Bond *bond = &m->bonds[i];
        if (!bond->in_ring || m->block[i] != block || !was_aromatic[i] || bond->aromatic || bond->type == TRIPLE) continue;
        bond->type = w.is_double[i] ? DOUBLE : SINGLE;
    }
    return true;
}
