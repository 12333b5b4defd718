/* Biconnected components of the graph, and the rings of each: the relevant cycles, RDKit's set since 2026.9. */
#include "molecule.h"

#include <string.h>

bool add_ring(Molecule *m, const uint16_t *bonds, int n) {
    int start = m->ring_first[m->n_rings];
    if (m->n_rings == MAX_RINGS || start + n > MAX_RING_MEMBERS) return false;
    /* Bonds in any order: each atom is in two of them, and is taken where it is first met. */
    uint16_t *atoms = m->ring_atoms + start;
    int n_atoms = 0;
    bool seen[MAX_ATOMS];
    for (int i = 0; i < n; i++)
        for (int e = 0; e < 2; e++) seen[m->bonds[bonds[i]].ends[e]] = false;
    for (int i = 0; i < n; i++) {
        m->ring_bonds[start + i] = bonds[i];
        for (int e = 0; e < 2; e++) {
            int atom = m->bonds[bonds[i]].ends[e];
            if (seen[atom]) continue;
            if (n_atoms == n) return false;
            seen[atom] = true;
            atoms[n_atoms++] = (uint16_t)atom;
            m->ring_count[atom]++;
            if (!m->ring_size[atom] || m->ring_size[atom] > n) m->ring_size[atom] = (uint16_t)n;
        }
    }
    m->ring_first[++m->n_rings] = (uint16_t)(start + n);
    return n_atoms == n;
}

/* A component with one ring more than independent bonds allow: three chains between two atoms. */
static bool two_rings(Molecule *m, const uint16_t *edges, int n_edges) {
    uint8_t in_block[MAX_BONDS], count[MAX_ATOMS];
    for (int i = 0; i < n_edges; i++)
        for (int e = 0; e < 2; e++) count[m->bonds[edges[i]].ends[e]] = 0;
    for (int i = 0; i < n_edges; i++)
        for (int e = 0; e < 2; e++) count[m->bonds[edges[i]].ends[e]]++;
    int from = -1;
    for (int i = 0; i < n_edges && from < 0; i++)
        for (int e = 0; e < 2; e++)
            if (count[m->bonds[edges[i]].ends[e]] == 3) from = m->bonds[edges[i]].ends[e];
    if (from < 0) return false;
    memset(in_block, 0, (size_t)m->n_bonds);
    for (int i = 0; i < n_edges; i++) in_block[edges[i]] = 1;
    uint16_t chains[3][MAX_BONDS];
    int lengths[3], n_chains = 0;
    for (int k = m->first[from]; k < m->first[from + 1]; k++) {
        if (!in_block[m->near_bond[k]]) continue;
        if (n_chains == 3) return false;
        int atom = from, next = k, length = 0;
        for (;;) {
            int bond = m->near_bond[next];
            chains[n_chains][length++] = (uint16_t)bond;
            atom = m->near_atom[next];
            if (count[atom] != 2 || length > n_edges) break;
            for (next = m->first[atom]; next < m->first[atom + 1]; next++)
                if (in_block[m->near_bond[next]] && m->near_bond[next] != bond) break;
        }
        lengths[n_chains++] = length;
    }
    if (n_chains != 3 || lengths[0] + lengths[1] + lengths[2] != n_edges) return false;
    int a = 0, b = 1, c = 2, t;
    if (lengths[a] > lengths[b]) t = a, a = b, b = t;
    if (lengths[b] > lengths[c]) t = b, b = c, c = t;
    if (lengths[a] > lengths[b]) t = a, a = b, b = t;
    const int pairs[3][2] = {{a, b}, {a, c}, {b, c}};
    for (int i = 0; i < (lengths[a] == lengths[b] ? 3 : 2); i++) {
        uint16_t ring[2 * MAX_BONDS];
        int p = pairs[i][0], q = pairs[i][1];
        memcpy(ring, chains[p], sizeof(ring[0]) * (size_t)lengths[p]);
        memcpy(ring + lengths[p], chains[q], sizeof(ring[0]) * (size_t)lengths[q]);
        if (!add_ring(m, ring, lengths[p] + lengths[q])) return false;
    }
    return true;
}

enum { NO_PARENT = 0xFFFF };

/* A spanning forest. The ends of a bond that is not in it are joined by one path of it. */
typedef struct {
    uint16_t rank[MAX_ATOMS];   /* a parent has a smaller one */
    uint16_t parent[MAX_ATOMS];
    uint16_t bond[MAX_ATOMS];   /* that leads to the parent */
    bool in_forest[MAX_BONDS];
} Forest;

/* The bonds of the text but for ring closures are one, if no closure joins parts with a dot between them. */
static void take_written_forest(Molecule *m, Forest *f) {
    memset(f->in_forest, 0, (size_t)m->n_bonds);
    memset(f->in_forest, 1, (size_t)m->n_chain_bonds);
    for (int i = 0; i < m->n_atoms; i++) f->rank[i] = (uint16_t)i, f->parent[i] = NO_PARENT;
    for (int i = 0; i < m->n_chain_bonds; i++) {
        int atom = m->bonds[i].ends[1];
        f->parent[atom] = m->bonds[i].ends[0];
        f->bond[atom] = (uint16_t)i;
    }
    m->n_fragments = m->n_atoms - m->n_chain_bonds;
}

static void grow_forest(Molecule *m, Forest *f) {
    uint16_t queue[MAX_ATOMS + 1];
    bool seen[MAX_ATOMS];
    int head = 0, tail = 0;
    memset(seen, 0, (size_t)m->n_atoms);
    memset(f->in_forest, 0, (size_t)m->n_bonds);
    m->n_fragments = 0;
    for (int root = 0; root < m->n_atoms; root++) {
        if (seen[root]) continue;
        m->n_fragments++;
        seen[root] = true;
        f->parent[root] = NO_PARENT;
        queue[tail++] = (uint16_t)root;
        while (head < tail) {
            int atom = queue[head];
            f->rank[atom] = (uint16_t)head++;
            for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
                int near = m->near_atom[k], bond = m->near_bond[k];
                bool fresh = !seen[near]; /* no branch, as it could not be foretold */
                seen[near] = true;
                f->parent[near] = fresh ? (uint16_t)atom : f->parent[near];
                f->bond[near] = fresh ? (uint16_t)bond : f->bond[near];
                f->in_forest[bond] |= fresh;
                queue[tail] = (uint16_t)near;
                tail += fresh;
            }
        }
    }
}

/* Of each label the smallest of those that are one with it. */
static int root_of(uint16_t *same_as, int label) {
    while (same_as[label] != label) label = same_as[label] = same_as[same_as[label]];
    return label;
}

/* Bonds have one label if they are in one biconnected component: rings that a bond outside the forest closes, which
   share a bond, are in one. Bonds in no ring have label 0. Returns how many labels there are, or -1 if it is no spanning forest. */
static int label_bonds(const Molecule *m, const Forest *f, uint16_t *label, uint16_t *same_as) {
    int n = 1;
    memset(label, 0, sizeof(label[0]) * (size_t)m->n_bonds);
    for (int i = 0; i < m->n_bonds; i++) {
        if (f->in_forest[i]) continue;
        int u = m->bonds[i].ends[0], v = m->bonds[i].ends[1];
        label[i] = same_as[n] = (uint16_t)n;
        while (u != v) {
            int *later = f->rank[u] > f->rank[v] ? &u : &v, bond = f->bond[*later];
            if (f->parent[*later] == NO_PARENT) return -1;
            *later = f->parent[*later];
            if (!label[bond]) {
                label[bond] = (uint16_t)n;
                continue;
            }
            int a = root_of(same_as, label[bond]), b = root_of(same_as, n);
            same_as[a > b ? a : b] = (uint16_t)(a > b ? b : a);
        }
        n++;
    }
    return n;
}

bool find_rings(Molecule *m) {
    Forest forest;
    uint16_t label[MAX_BONDS], same_as[MAX_BONDS + 1], start[MAX_BONDS + 2], edges[MAX_BONDS];
    uint16_t n_closed[MAX_BONDS + 1];
    m->n_rings = 0;
    m->ring_first[0] = 0;
    memset(m->ring_size, 0, sizeof(m->ring_size[0]) * (size_t)m->n_atoms);
    memset(m->ring_count, 0, sizeof(m->ring_count[0]) * (size_t)m->n_atoms);
    take_written_forest(m, &forest);
    int n_labels = label_bonds(m, &forest, label, same_as);
    if (n_labels < 0) {
        grow_forest(m, &forest);
        n_labels = label_bonds(m, &forest, label, same_as);
    }
    memset(start, 0, sizeof(start[0]) * (size_t)(n_labels + 1));
    memset(n_closed, 0, sizeof(n_closed[0]) * (size_t)n_labels);
    for (int i = 0; i < m->n_bonds; i++) {
        m->bonds[i].in_ring = label[i];
        if (!label[i]) continue;
        m->block[i] = (uint16_t)root_of(same_as, label[i]);
        start[m->block[i] + 1]++;
        n_closed[m->block[i]] = (uint16_t)(n_closed[m->block[i]] + !forest.in_forest[i]);
    }
    for (int b = 1; b < n_labels; b++) start[b + 1] = (uint16_t)(start[b + 1] + start[b]);
    for (int i = 0; i < m->n_bonds; i++)
        if (label[i]) edges[start[m->block[i]]++] = (uint16_t)i; /* a start moves to the next one */
    for (int b = 1; b < n_labels; b++) {
        int first = start[b - 1], n = start[b] - first;
        if (n_closed[b] == 1 && !add_ring(m, edges + first, n)) return false;
        if (n_closed[b] == 2 && !two_rings(m, edges + first, n)) return false;
        if (n_closed[b] > 2 && !relevant_cycles(m, edges + first, n)) return false;
    }
    return true;
}
