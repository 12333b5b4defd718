/* Single and double bonds in place of aromatic ones: each atom that can take a double bond must get one. */
#include "molecule.h"

#include <string.h>

/* RDKit's rule, a property of the atom and its bonds alone. */
static bool takes_double_bond(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int aromatic = n_aromatic(m, number); /* bonds that count as single ones here */
    int orders = hydrogens(atom) + (twice_order(m, number) - 3 * aromatic) / 2 + aromatic;
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

/* Atoms that are to be paired. n_free: of each one how many neighbours could still be its partner. */
typedef struct {
    const Molecule *m;
    int *partner;
    int n_waiting;
    uint16_t n_free[MAX_ATOMS];
    uint16_t waiting[2 * MAX_BONDS + 2 * MAX_ATOMS]; /* atoms that had one choice */
} Pairing;

static int free_neighbour(const Pairing *p, int atom) {
    const Molecule *m = p->m;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++)
        if (p->partner[m->near_atom[k]] == SINGLE_YET && may_be_double(m, p->partner, k)) return m->near_atom[k];
    return -1;
}

static void wait(Pairing *p, int atom) {
    p->waiting[p->n_waiting] = (uint16_t)atom;
    p->n_waiting += p->n_free[atom] == 1 && p->partner[atom] == SINGLE_YET;
}

static void pair(Pairing *p, int a, int b) {
    const Molecule *m = p->m;
    p->partner[a] = b, p->partner[b] = a;
    for (int e = 0; e < 2; e++) {
        int atom = e ? b : a;
        for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
            if (p->partner[m->near_atom[k]] != SINGLE_YET || !may_be_double(m, p->partner, k)) continue;
            p->n_free[m->near_atom[k]]--;
            wait(p, m->near_atom[k]);
        }
    }
}

/* Pair atoms that have one choice first, then any; what is left goes to `augment`. */
static void pair_greedily(const Molecule *m, const uint16_t *atoms, int n, int *partner) {
    Pairing pairing, *p = &pairing;
    p->m = m, p->partner = partner, p->n_waiting = 0;
    memset(p->n_free, 0, sizeof(p->n_free[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_bonds; i++) {
        const Bond *bond = &m->bonds[i];
        int a = bond->ends[0], b = bond->ends[1];
        bool may = bond->aromatic & bond->in_ring & (bond->type != TRIPLE) & (partner[a] == SINGLE_YET) &
                   (partner[b] == SINGLE_YET);
        p->n_free[a] = (uint16_t)(p->n_free[a] + may);
        p->n_free[b] = (uint16_t)(p->n_free[b] + may);
    }
    for (int i = 0; i < n; i++) wait(p, atoms[i]);
    for (int next = 0; next < n;) {
        int atom = p->n_waiting ? p->waiting[--p->n_waiting] : atoms[next++];
        if (partner[atom] != SINGLE_YET || !p->n_free[atom]) continue;
        pair(p, atom, free_neighbour(p, atom));
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
    if (degree(m, atom) < 4) return false;
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
    uint16_t atoms[MAX_ATOMS + 1];
    int n = 0;
    for (int i = 0; i < m->n_bonds; i++) was_aromatic[i] = m->bonds[i].aromatic;
    for (int i = 0; i < m->n_atoms; i++) {
        partner[i] = NOT_AROMATIC;
        atoms[n] = (uint16_t)i;
        n += m->atoms[i].aromatic;
    }
    if (!n) return true;
    for (int i = 0; i < n; i++) {
        if (!m->ring_count[atoms[i]] || in_two_blocks(m, atoms[i])) return false;
        partner[atoms[i]] = takes_double_bond(m, atoms[i]) ? SINGLE_YET : NO_DOUBLE_BOND;
    }
    pair_greedily(m, atoms, n, partner);
    for (int i = 0; i < n; i++)
        if (partner[atoms[i]] == SINGLE_YET && !augment(m, partner, atoms[i])) return false;
    for (int i = 0; i < m->n_bonds; i++) {
        Bond *bond = &m->bonds[i];
        uint8_t order = bond->in_ring & (partner[bond->ends[0]] == bond->ends[1]) ? DOUBLE : SINGLE;
        bond->type = bond->aromatic & (bond->type != TRIPLE) ? order : bond->type;
        bond->aromatic = false;
    }
    sum_bonds(m);
    for (int i = 0; i < n; i++) {
        Atom *atom = &m->atoms[atoms[i]];
        atom->aromatic = false;
        if ((atom->element == 7 || atom->element == 15) && !atom->charge && atom->explicit_h == 1) {
            atom->no_implicit = false;
            atom->explicit_h = 0;
            update_valences(m, atoms[i], false);
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
        candidate[i] = was_aromatic[i] & bond->in_ring & (bond->type != TRIPLE) & (partner[bond->ends[0]] >= 0) &
                       (partner[bond->ends[1]] >= 0);
        any |= candidate[i] & !bond->aromatic;
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
