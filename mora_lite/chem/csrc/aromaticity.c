/* RDKit's aromaticity: rings, and fused systems of up to six rings, whose electrons number 4n + 2. */
#include "molecule.h"

#include <string.h>

enum { MAX_FUSED_RING = 24, MAX_CANDIDATES = 16, MOST_TOGETHER = 6, LARGE_RING = 9 };
enum { NONE = -1 }; /* an atom that cannot be part of an aromatic ring; others give 0, 1 or 2 electrons */

typedef struct {
    int n;
    uint16_t rings[MAX_CANDIDATES];
    uint32_t fused_with[MAX_CANDIDATES];
    int8_t gives[MAX_ATOMS];
    uint8_t times[MAX_ATOMS];
    uint8_t bond_times[MAX_BONDS];
} Perception;

static bool more_electronegative(int a, int b) {
    return ELEMENTS[a].outer > ELEMENTS[b].outer || (ELEMENTS[a].outer == ELEMENTS[b].outer && a < b);
}

static int donated(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int n = electrons(m, number), outside = -1;
    bool inside;
    if (n < 0) return NONE;
    inside = n_multiple(m, number) > n_multiple_outside(m, number);
    for (int k = m->first[number]; n_multiple_outside(m, number) && k < m->first[number + 1]; k++) {
        const Bond *bond = &m->bonds[m->near_bond[k]];
        if (bond_valence2(bond) >= 4 && !bond->in_ring && outside < 0) outside = m->near_atom[k];
    }
    if (n == 0) return outside >= 0 ? 0 : inside ? 1 : NONE;
    bool taken = outside >= 0 && more_electronegative(m->atoms[outside].element, atom->element);
    if (n == 1) {
        if (outside >= 0) return taken ? 0 : 1;
        if (atom->explicit_valence != degree(m, number) + atom->explicit_h) return 1;
        return atom->charge == 1 ? 0 : NONE;
    }
    if (taken) n--;
    return n % 2 ? 1 : 2;
}

static bool is_candidate(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    if (atom->element > 18 && atom->element != 34 && atom->element != 52) return false;
    int effective = atom->element - atom->charge;
    if (effective < 0 || effective >= N_ELEMENTS) return false;
    if (default_valence(atom->element) > 0 && total_valence(atom) > default_valence(effective)) return false;
    if (atom->radicals && (atom->element != 6 || atom->charge)) return false;
    return atom->explicit_valence - degree(m, number) <= 1 || n_multiple(m, number) <= 1;
}

static bool is_aromatic(int n_electrons) { return n_electrons % 4 == 2; }

static void make_aromatic(Molecule *m, int number) {
    Bond *bond = &m->bonds[number];
    bond->aromatic = true;
    m->atoms[bond->ends[0]].aromatic = m->atoms[bond->ends[1]].aromatic = true;
    if (bond->type != TRIPLE) bond->type = AROMATIC;
}

static void find_donors(const Molecule *m, Perception *p) {
    for (int i = 0; i < m->n_atoms; i++) p->gives[i] = NONE;
    for (int r = 0; r < m->n_rings; r++)
        for (int k = m->ring_first[r]; k < m->ring_first[r + 1]; k++) {
            int i = m->ring_atoms[k];
            const Atom *atom = &m->atoms[i];
            p->gives[i] = is_candidate(m, i) ? (int8_t)donated(m, i) : NONE;
            if ((atom->element != 8 && atom->element != 16) || atom->charge || degree(m, i) != 2) continue;
            if (m->ring_size[i] >= LARGE_RING) p->gives[i] = NONE; /* RDKit sees the smallest ring first */
        }
}

/* The rings that may be aromatic; those that are so each by itself become it. False if there are others. */
static bool try_single_rings(Molecule *m, Perception *p, uint16_t *candidates, int *n, bool *is_done) {
    bool all_done = true;
    *n = 0;
    for (int r = 0; r < m->n_rings; r++) {
        int sum = 0;
        bool all = true;
        for (int k = m->ring_first[r]; k < m->ring_first[r + 1]; k++) {
            sum += p->gives[m->ring_atoms[k]];
            all &= p->gives[m->ring_atoms[k]] != NONE;
        }
        if (!all) continue;
        is_done[*n] = is_aromatic(sum);
        all_done &= is_done[*n];
        if (is_done[*n])
            for (int k = m->ring_first[r]; k < m->ring_first[r + 1]; k++) make_aromatic(m, m->ring_bonds[k]);
        candidates[(*n)++] = (uint16_t)r;
    }
    return all_done;
}

static int size_of(const Molecule *m, int ring) { return m->ring_first[ring + 1] - m->ring_first[ring]; }

static int n_shared(const Molecule *m, int a, int b) {
    int n = 0;
    for (int i = m->ring_first[a]; i < m->ring_first[a + 1]; i++)
        for (int j = m->ring_first[b]; j < m->ring_first[b + 1]; j++) n += m->ring_bonds[i] == m->ring_bonds[j];
    return n;
}

static bool are_fused(const Molecule *m, int a, int b) {
    if (m->block[m->ring_bonds[m->ring_first[a]]] != m->block[m->ring_bonds[m->ring_first[b]]]) return false;
    return size_of(m, a) <= MAX_FUSED_RING && size_of(m, b) <= MAX_FUSED_RING && n_shared(m, a, b) == 1;
}

/* Electrons of a set of rings: atoms of one or two of them count. */
static int count_electrons(const Molecule *m, Perception *p, uint32_t set) {
    int sum = 0;
    for (int i = 0; i < p->n; i++)
        for (int k = m->ring_first[p->rings[i]]; set >> i & 1 && k < m->ring_first[p->rings[i] + 1]; k++)
            p->times[m->ring_atoms[k]]++;
    for (int i = 0; i < p->n; i++)
        for (int k = m->ring_first[p->rings[i]]; set >> i & 1 && k < m->ring_first[p->rings[i] + 1]; k++) {
            int atom = m->ring_atoms[k];
            if (p->times[atom] == 1 || p->times[atom] == 2) sum += p->gives[atom];
            p->times[atom] = 0;
        }
    return sum;
}

/* Bonds of one ring of the set are aromatic, and so are their atoms. Returns how many bonds are new. */
static int mark(Molecule *m, Perception *p, uint32_t set) {
    int fresh = 0;
    for (int i = 0; i < p->n; i++)
        for (int k = m->ring_first[p->rings[i]]; set >> i & 1 && k < m->ring_first[p->rings[i] + 1]; k++)
            p->bond_times[m->ring_bonds[k]]++;
    for (int i = 0; i < p->n; i++)
        for (int k = m->ring_first[p->rings[i]]; set >> i & 1 && k < m->ring_first[p->rings[i] + 1]; k++) {
            int number = m->ring_bonds[k];
            if (p->bond_times[number] == 1) {
                fresh += !m->bonds[number].aromatic;
                make_aromatic(m, number);
            }
            p->bond_times[number] = 0;
        }
    return fresh;
}

static bool is_connected(const Perception *p, uint32_t set) {
    uint32_t reached = set & (~set + 1), before = 0; /* its lowest ring */
    while (reached != before) {
        before = reached;
        for (int i = 0; i < p->n; i++)
            if (reached >> i & 1) reached |= p->fused_with[i] & set;
    }
    return reached == set;
}

/* Bonds of the system that are not aromatic yet. */
static int n_left(const Molecule *m, Perception *p) {
    int n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < p->n; i++)
            for (int k = m->ring_first[p->rings[i]]; k < m->ring_first[p->rings[i] + 1]; k++) {
                if (!pass) n += !p->bond_times[m->ring_bonds[k]] && !m->bonds[m->ring_bonds[k]].aromatic;
                p->bond_times[m->ring_bonds[k]] = !pass;
            }
    return n;
}

/* All connected sets of two rings and more, by their number, until every bond is aromatic. */
static void try_system(Molecule *m, Perception *p) {
    int n = n_left(m, p);
    for (int together = 2; together <= MOST_TOGETHER && together <= p->n && n > 0; together++) {
        uint32_t set = (UINT32_C(1) << together) - 1, end = UINT32_C(1) << p->n;
        while (set < end) {
            if (is_connected(p, set) && is_aromatic(count_electrons(m, p, set))) n -= mark(m, p, set);
            uint32_t lowest = set & (~set + 1), carried = set + lowest; /* the next set of as many */
            set = carried | ((set ^ carried) / lowest >> 2);
        }
    }
}

/* The rings that are fused with one another and with `seed`. False if they are too many. */
static bool gather_system(const Molecule *m, Perception *p, const uint16_t *candidates, int n, int seed, bool *taken) {
    p->n = 0;
    taken[seed] = true;
    p->rings[p->n++] = candidates[seed];
    for (int at = 0; at < p->n; at++) /* grows while it is read */
        for (int j = 0; j < n; j++) {
            if (taken[j] || !are_fused(m, p->rings[at], candidates[j])) continue;
            if (p->n == MAX_CANDIDATES) return false;
            taken[j] = true;
            p->rings[p->n++] = candidates[j];
        }
    for (int a = 0; a < p->n; a++) {
        p->fused_with[a] = 0;
        for (int b = 0; b < p->n; b++)
            if (a != b && are_fused(m, p->rings[a], p->rings[b])) p->fused_with[a] |= UINT32_C(1) << b;
    }
    return true;
}

bool perceive_aromaticity(Molecule *m) {
    if (!m->n_rings) return true;
    Perception perception, *p = &perception;
    uint16_t candidates[MAX_RINGS];
    bool is_done[MAX_RINGS], taken[MAX_RINGS];
    int n;
    find_donors(m, p);
    if (try_single_rings(m, p, candidates, &n, is_done)) return true;
    memset(p->times, 0, (size_t)m->n_atoms);
    memset(p->bond_times, 0, (size_t)m->n_bonds);
    memset(taken, 0, (size_t)n);
    for (int i = 0; i < n; i++) {
        if (taken[i] || is_done[i]) continue;
        if (!gather_system(m, p, candidates, n, i, taken)) return false;
        if (p->n > 1) try_system(m, p);
    }
    return true;
}
