/* Single and double bonds in place of aromatic ones: each atom that can take a double bond must get one. */
#include "molecule.h"

#include <string.h>

/* RDKit's rule, a property of the atom and its bonds alone. */
static bool takes_double_bond(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int orders = hydrogens(atom);
    for (int k = m->first[number]; k < m->first[number + 1]; k++) {
        const Bond *bond = &m->bonds[m->near_bond[k]];
        orders += bond->aromatic && bond->type != TRIPLE ? 1 : (bond_valence2(bond) + 1) / 2;
    }
    int charge = atom->charge;
    if (atom->element == 5 || (atom->element == 6 && charge > 0)) charge = -charge;
    const Element *element = &ELEMENTS[atom->element];
    int allowed = element->valences[0] + charge, total = total_valence(atom);
    int n_neighbours = degree(m, number) + (atom->no_implicit ? 0 : atom->implicit_valence);
    for (int i = 1; total > allowed && i < element->n_valences && element->valences[i] > 0; i++)
        allowed = element->valences[i] + charge;
    if (total == 5 && orders == 4 && allowed == 3 && n_neighbours == 3 && !charge && !hydrogens(atom) &&
        (atom->element == 7 || atom->element == 15 || atom->element == 33))
        allowed = 5;
    if (n_neighbours + atom->radicals >= allowed) return false;
    if (allowed == orders + 1 + atom->radicals) return true;
    return !atom->radicals && atom->no_implicit && allowed == orders + 2;
}

static bool may_be_double(const Molecule *m, const int *partner, int k) {
    const Bond *bond = &m->bonds[m->near_bond[k]];
    return bond->aromatic && bond->in_ring && bond->type != TRIPLE && partner[m->near_atom[k]] >= SINGLE_YET;
}

static int n_free(const Molecule *m, const int *partner, int atom, int *one) {
    int n = 0;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++)
        if (may_be_double(m, partner, k) && partner[m->near_atom[k]] == SINGLE_YET) n++, *one = m->near_atom[k];
    return n;
}

/* Pair atoms that have one choice first, then any; what is left goes to `augment`. */
static void pair_greedily(const Molecule *m, int *partner) {
    uint16_t stack[4 * MAX_BONDS];
    int n = 0, one = 0;
    for (int i = 0; i < m->n_atoms; i++)
        if (partner[i] == SINGLE_YET) stack[n++] = (uint16_t)i;
    for (int next = 0; next < m->n_atoms;) {
        while (n) {
            int atom = stack[--n];
            if (partner[atom] != SINGLE_YET || n_free(m, partner, atom, &one) != 1) continue;
            partner[atom] = one, partner[one] = atom;
            for (int k = m->first[one]; k < m->first[one + 1] && n < 3 * MAX_BONDS; k++)
                stack[n++] = m->near_atom[k];
        }
        if (partner[next] == SINGLE_YET && n_free(m, partner, next, &one)) {
            partner[next] = one, partner[one] = next;
            for (int e = 0; e < 2; e++) {
                int atom = e ? one : next;
                for (int k = m->first[atom]; k < m->first[atom + 1] && n < 3 * MAX_BONDS; k++)
                    stack[n++] = m->near_atom[k];
            }
        }
        next++;
    }
}

/* An alternating path from a single atom to another one. False if none is found, which is not proof of none. */
static bool augment(const Molecule *m, int *partner, int single) {
    int16_t from[MAX_ATOMS];
    uint16_t queue[MAX_ATOMS];
    bool outer[MAX_ATOMS];
    for (int i = 0; i < m->n_atoms; i++) from[i] = -1, outer[i] = false;
    int head = 0, tail = 0;
    queue[tail++] = (uint16_t)single;
    outer[single] = true;
    while (head < tail) {
        int v = queue[head++];
        for (int k = m->first[v]; k < m->first[v + 1]; k++) {
            int w = m->near_atom[k];
            if (!may_be_double(m, partner, k) || outer[w] || from[w] >= 0) continue;
            from[w] = (int16_t)v;
            if (partner[w] >= 0) {
                if (outer[partner[w]] || from[partner[w]] >= 0) return false; /* an odd circle */
                outer[partner[w]] = true;
                queue[tail++] = (uint16_t)partner[w];
                continue;
            }
            for (int at = w; at >= 0;) {
                int back = from[at], next = partner[back];
                partner[back] = at, partner[at] = back;
                at = back == single ? -1 : next;
            }
            return true;
        }
    }
    return false;
}

static bool in_two_blocks(const Molecule *m, int atom) {
    int block = -1;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        int bond = m->near_bond[k];
        if (!m->bonds[bond].in_ring) continue;
        if (block >= 0 && m->block[bond] != block) return true;
        block = m->block[bond];
    }
    return false;
}

/* partner: of each atom that gets a double bond the other one; of others NO_DOUBLE_BOND or NOT_AROMATIC. */
bool kekulize(Molecule *m, bool *was_aromatic, int *partner) {
    bool any = false;
    for (int i = 0; i < m->n_bonds; i++) was_aromatic[i] = m->bonds[i].aromatic;
    for (int i = 0; i < m->n_atoms; i++) {
        partner[i] = NOT_AROMATIC;
        if (!m->atoms[i].aromatic) continue;
        any = true;
        partner[i] = NO_DOUBLE_BOND;
        if (!m->ring_count[i] || in_two_blocks(m, i)) return false;
        if (takes_double_bond(m, i)) partner[i] = SINGLE_YET;
    }
    if (!any) return true;
    pair_greedily(m, partner);
    for (int i = 0; i < m->n_atoms; i++)
        if (partner[i] == SINGLE_YET && !augment(m, partner, i)) return false;
    for (int i = 0; i < m->n_bonds; i++) {
        Bond *bond = &m->bonds[i];
        if (!bond->aromatic) continue;
        if (bond->type != TRIPLE)
            bond->type = bond->in_ring && partner[bond->ends[0]] == bond->ends[1] ? DOUBLE : SINGLE;
        bond->aromatic = false;
    }
    for (int i = 0; i < m->n_atoms; i++) {
        Atom *atom = &m->atoms[i];
        if (!atom->aromatic) continue;
        atom->aromatic = false;
        if ((atom->element == 7 || atom->element == 15) && !atom->charge && atom->explicit_h == 1) {
            atom->no_implicit = false;
            atom->explicit_h = 0;
            update_valences(m, i, false);
        }
    }
    return true;
}

/* Whether a bond may be single in one Kekule form and double in another: an alternating walk leads round to it. */
static bool differs(const Molecule *m, const bool *candidate, const int *partner, int bond) {
    int u = m->bonds[bond].ends[0], v = m->bonds[bond].ends[1];
    bool paired = partner[u] == v, outer[MAX_ATOMS];
    int start = paired ? u : partner[v], goal = paired ? v : u;
    uint16_t queue[MAX_ATOMS];
    int head = 0, tail = 0;
    memset(outer, 0, sizeof(outer[0]) * (size_t)m->n_atoms);
    queue[tail++] = (uint16_t)start;
    outer[start] = true;
    while (head < tail) {
        int at = queue[head++];
        for (int k = m->first[at]; k < m->first[at + 1]; k++) {
            int x = m->near_atom[k];
            if (!candidate[m->near_bond[k]] || partner[at] == x) continue;
            if (paired && x == goal) return true;
            if (paired && x == u) continue;
            int y = partner[x];
            if (!paired && y == goal) return true;
            if (outer[y]) continue;
            outer[y] = true;
            queue[tail++] = (uint16_t)y;
        }
    }
    return false;
}

/* Where a bond's order depends on the Kekule form, take RDKit's. */
bool settle_forms(Molecule *m, const bool *was_aromatic, const int *partner) {
    bool candidate[MAX_BONDS], any = false;
    for (int i = 0; i < m->n_bonds; i++) {
        const Bond *bond = &m->bonds[i];
        candidate[i] = was_aromatic[i] && bond->in_ring && bond->type != TRIPLE && partner[bond->ends[0]] >= 0 &&
                       partner[bond->ends[1]] >= 0;
        any |= candidate[i] && !bond->aromatic;
    }
    int settled = -1; /* the component of the last bond that differs */
    for (int i = 0; any && i < m->n_bonds; i++) {
        if (!candidate[i] || m->bonds[i].aromatic || m->block[i] == settled) continue;
        if (!differs(m, candidate, partner, i)) continue;
        if (!settle_form(m, was_aromatic, partner, m->block[i])) return false;
        settled = m->block[i];
    }
    return true;
}
