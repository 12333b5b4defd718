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

static bool block_rings(Molecule *m, const uint16_t *edges, int n_edges, int number) {
    if (n_edges == 1) return true; /* a bridge */
    bool seen[MAX_ATOMS];
    int n_atoms = 0;
    for (int i = 0; i < n_edges; i++) {
        m->bonds[edges[i]].in_ring = true;
        m->block[edges[i]] = (uint16_t)number;
        seen[m->bonds[edges[i]].ends[0]] = seen[m->bonds[edges[i]].ends[1]] = false;
    }
    for (int i = 0; i < n_edges; i++)
        for (int e = 0; e < 2; e++) {
            int atom = m->bonds[edges[i]].ends[e];
            n_atoms += !seen[atom];
            seen[atom] = true;
        }
    int n_independent = n_edges - n_atoms + 1;
    if (n_independent == 1) return add_ring(m, edges, n_edges);
    return n_independent == 2 ? two_rings(m, edges, n_edges) : relevant_cycles(m, edges, n_edges);
}

typedef struct {
    int depth, n_blocks, n_edges;
    uint16_t found[MAX_ATOMS], low[MAX_ATOMS], next[MAX_ATOMS], path[MAX_ATOMS], edges[MAX_BONDS];
    int16_t entered[MAX_ATOMS]; /* by this bond */
} Search;

/* Leave the last atom of the path; the bonds above it are a component if nothing leads past its parent. */
static bool leave(Molecule *m, Search *s) {
    int atom = s->path[--s->depth];
    if (!s->depth) return true;
    int parent = s->path[s->depth - 1];
    if (s->low[atom] < s->low[parent]) s->low[parent] = s->low[atom];
    if (s->low[atom] < s->found[parent]) return true;
    int start = s->n_edges;
    while (start > 0 && s->edges[start - 1] != s->entered[atom]) start--;
    if (!start) return false;
    start--;
    bool certain = block_rings(m, s->edges + start, s->n_edges - start, s->n_blocks++);
    s->n_edges = start;
    return certain;
}

static void visit(Search *s, const Molecule *m, int atom, int bond, int *time) {
    s->found[atom] = s->low[atom] = (uint16_t)++*time;
    s->entered[atom] = (int16_t)bond;
    s->next[atom] = m->first[atom];
    s->path[s->depth++] = (uint16_t)atom;
}

bool find_rings(Molecule *m) {
    m->n_rings = 0;
    m->ring_first[0] = 0;
    m->n_fragments = 0;
    memset(m->ring_size, 0, sizeof(m->ring_size[0]) * (size_t)m->n_atoms);
    memset(m->ring_count, 0, sizeof(m->ring_count[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_bonds; i++) m->bonds[i].in_ring = false;
    Search s;
    s.depth = s.n_blocks = s.n_edges = 0;
    memset(s.found, 0, sizeof(s.found[0]) * (size_t)m->n_atoms);
    int time = 0;
    for (int root = 0; root < m->n_atoms; root++) {
        if (s.found[root]) continue;
        m->n_fragments++;
        visit(&s, m, root, -1, &time);
        while (s.depth) {
            int atom = s.path[s.depth - 1];
            if (s.next[atom] == m->first[atom + 1]) {
                if (!leave(m, &s)) return false;
                continue;
            }
            int k = s.next[atom]++, near = m->near_atom[k], bond = m->near_bond[k];
            if (bond == s.entered[atom]) continue;
            if (!s.found[near]) {
                s.edges[s.n_edges++] = (uint16_t)bond;
                visit(&s, m, near, bond, &time);
            } else if (s.found[near] < s.found[atom]) {
                s.edges[s.n_edges++] = (uint16_t)bond;
                if (s.found[near] < s.low[atom]) s.low[atom] = s.found[near];
            }
        }
    }
    return true;
}
