/* Relevant cycles of a biconnected component (Vismara 1997): those that are no sum of shorter ones. */
#include "molecule.h"

#include <string.h>

enum { MAX_LOCAL = 128, MAX_EDGES = 192, WORDS = MAX_EDGES / 64, MAX_FAMILIES = 600, MAX_MEMBERS = 256 };

typedef struct { uint64_t word[WORDS]; } Bits;

/* A family of cycles: shortest paths from `root` to `p` and `q`, joined by a bond or by the atom `apex`. */
typedef struct {
    uint8_t root, p, q;
    int16_t apex; /* -1: p and q are bound */
    uint16_t length;
    Bits edges; /* of one member */
} Family;

typedef struct {
    Molecule *m;
    int n, n_edges, n_families;
    const uint16_t *edge_bond; /* number of the bond of each edge */
    uint16_t start[MAX_LOCAL + 1];
    uint8_t near[2 * MAX_EDGES], edge[2 * MAX_EDGES];
    uint16_t distance[MAX_LOCAL];
    bool below[MAX_LOCAL]; /* a shortest path to the root has only smaller numbers than the root */
    uint64_t on_path[MAX_LOCAL][2];
    Bits path[MAX_LOCAL];
    uint32_t n_paths[MAX_LOCAL];
    uint8_t queue[MAX_LOCAL];
    Family families[MAX_FAMILIES];
    uint16_t order[MAX_FAMILIES];
    Bits basis[MAX_EDGES];
    bool has_basis[MAX_EDGES];
} Block;

static void flip(Bits *bits, int at) { bits->word[at >> 6] ^= UINT64_C(1) << (at & 63); }
static bool test(const Bits *bits, int at) { return bits->word[at >> 6] >> (at & 63) & 1; }
static void add(Bits *bits, const Bits *other) {
    for (int i = 0; i < WORDS; i++) bits->word[i] ^= other->word[i];
}

static bool index_block(Block *b, const uint16_t *edges, int n_edges) {
    Molecule *m = b->m;
    uint8_t local[MAX_ATOMS];
    bool seen[MAX_ATOMS];
    if (n_edges > MAX_EDGES) return false;
    b->n = 0, b->n_edges = n_edges, b->edge_bond = edges, b->n_families = 0;
    for (int i = 0; i < n_edges; i++) seen[m->bonds[edges[i]].ends[0]] = seen[m->bonds[edges[i]].ends[1]] = false;
    memset(b->start, 0, sizeof b->start);
    for (int i = 0; i < n_edges; i++)
        for (int e = 0; e < 2; e++) {
            int atom = m->bonds[edges[i]].ends[e];
            if (!seen[atom]) {
                if (b->n == MAX_LOCAL) return false;
                local[atom] = (uint8_t)b->n++;
                seen[atom] = true;
            }
            b->start[local[atom] + 1]++;
        }
    for (int i = 0; i < b->n; i++) b->start[i + 1] = (uint16_t)(b->start[i + 1] + b->start[i]);
    uint16_t next[MAX_LOCAL];
    memcpy(next, b->start, sizeof(next[0]) * (size_t)b->n);
    for (int i = 0; i < n_edges; i++)
        for (int e = 0; e < 2; e++) {
            int place = next[local[m->bonds[edges[i]].ends[e]]]++;
            b->near[place] = local[m->bonds[edges[i]].ends[1 - e]];
            b->edge[place] = (uint8_t)i;
        }
    return true;
}

/* Distances from `root`, which atoms are `below` it, how many shortest paths lead to each there, and one of them. */
static void search_from(Block *b, int root) {
    for (int i = 0; i < b->n; i++) b->distance[i] = UINT16_MAX, b->below[i] = false, b->n_paths[i] = 0;
    int head = 0, tail = 0;
    b->queue[tail++] = (uint8_t)root;
    b->distance[root] = 0, b->below[root] = true, b->n_paths[root] = 1;
    memset(&b->path[root], 0, sizeof b->path[root]);
    b->on_path[root][0] = b->on_path[root][1] = 0;
    while (head < tail) {
        int v = b->queue[head++];
        for (int k = b->start[v]; k < b->start[v + 1]; k++) {
            int w = b->near[k];
            if (b->distance[w] == UINT16_MAX) {
                b->distance[w] = (uint16_t)(b->distance[v] + 1);
                b->queue[tail++] = (uint8_t)w;
            }
            if (!b->below[v] || w >= root || b->distance[w] != b->distance[v] + 1) continue;
            if (b->n_paths[w] < 1000000) b->n_paths[w] += b->n_paths[v];
            if (b->below[w]) continue;
            b->below[w] = true;
            b->path[w] = b->path[v];
            flip(&b->path[w], b->edge[k]);
            memcpy(b->on_path[w], b->on_path[v], sizeof b->on_path[w]);
            b->on_path[w][w >> 6] |= UINT64_C(1) << (w & 63);
        }
    }
}

static bool apart(const Block *b, int p, int q) {
    return !(b->on_path[p][0] & b->on_path[q][0]) && !(b->on_path[p][1] & b->on_path[q][1]);
}

static Family *add_family(Block *b, int root, int p, int q, int apex) {
    if (b->n_families == MAX_FAMILIES) return 0;
    Family *family = &b->families[b->n_families++];
    family->root = (uint8_t)root, family->p = (uint8_t)p, family->q = (uint8_t)q, family->apex = (int16_t)apex;
    family->length = (uint16_t)(b->distance[p] + b->distance[q] + (apex < 0 ? 1 : 2));
    family->edges = b->path[p];
    add(&family->edges, &b->path[q]);
    return family;
}

static bool families_at(Block *b, int root, int y) {
    uint8_t before[MAX_LOCAL], edges[MAX_LOCAL];
    int n = 0;
    for (int k = b->start[y]; k < b->start[y + 1]; k++) {
        int z = b->near[k];
        if (!b->below[z]) continue;
        if (b->distance[z] + 1 == b->distance[y]) {
            before[n] = (uint8_t)z, edges[n++] = b->edge[k];
        } else if (b->distance[z] == b->distance[y] && z < y && apart(b, y, z)) {
            Family *family = add_family(b, root, y, z, -1);
            if (!family) return false;
            flip(&family->edges, b->edge[k]);
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            if (!apart(b, before[i], before[j])) continue;
            Family *family = add_family(b, root, before[i], before[j], y);
            if (!family) return false;
            flip(&family->edges, edges[i]);
            flip(&family->edges, edges[j]);
        }
    return true;
}

static bool add_bits(Block *b, const Bits *bits) {
    uint16_t bonds[MAX_EDGES];
    int n = 0;
    for (int i = 0; i < b->n_edges; i++)
        if (test(bits, i)) bonds[n++] = b->edge_bond[i];
    return add_ring(b->m, bonds, n);
}

/* Toggle the edges of the path number `which` from `v` back to the root. */
static void toggle_path(const Block *b, Bits *bits, int v, uint32_t which) {
    while (b->distance[v]) {
        for (int k = b->start[v]; k < b->start[v + 1]; k++) {
            int w = b->near[k];
            if (!b->below[w] || b->distance[w] + 1 != b->distance[v]) continue;
            if (which >= b->n_paths[w]) {
                which -= b->n_paths[w];
                continue;
            }
            flip(bits, b->edge[k]);
            v = w;
            break;
        }
    }
}

static bool add_members(Block *b, const Family *family) {
    search_from(b, family->root);
    uint32_t n_p = b->n_paths[family->p], n_q = b->n_paths[family->q];
    if (n_p > MAX_MEMBERS || n_q > MAX_MEMBERS || n_p * n_q > MAX_MEMBERS) return false;
    if (n_p * n_q == 1) return add_bits(b, &family->edges);
    Bits joint = family->edges; /* less its own paths: what joins p and q */
    add(&joint, &b->path[family->p]);
    add(&joint, &b->path[family->q]);
    for (uint32_t i = 0; i < n_p; i++)
        for (uint32_t j = 0; j < n_q; j++) {
            Bits bits = joint;
            toggle_path(b, &bits, family->p, i);
            toggle_path(b, &bits, family->q, j);
            if (!add_bits(b, &bits)) return false;
        }
    return true;
}

/* What is left of `bits` after elimination; the lowest edge of it, or -1 if nothing is left. */
static int reduce(const Block *b, Bits *bits) {
    for (int i = 0; i < b->n_edges; i++) {
        if (!test(bits, i)) continue;
        if (!b->has_basis[i]) return i;
        add(bits, &b->basis[i]);
    }
    return -1;
}

static void sort_families(Block *b) {
    int count[2 * MAX_LOCAL + 2] = {0};
    for (int i = 0; i < b->n_families; i++) count[b->families[i].length]++;
    for (int i = 0, sum = 0; i < 2 * MAX_LOCAL + 2; i++) {
        int here = count[i];
        count[i] = sum;
        sum += here;
    }
    for (int i = 0; i < b->n_families; i++) b->order[count[b->families[i].length]++] = (uint16_t)i;
}

bool relevant_cycles(Molecule *m, const uint16_t *edges, int n_edges) {
    Block block, *b = &block;
    b->m = m;
    if (!index_block(b, edges, n_edges)) return false;
    for (int root = 0; root < b->n; root++) {
        search_from(b, root);
        for (int y = 0; y < root; y++)
            if (b->below[y] && !families_at(b, root, y)) return false;
    }
    sort_families(b);
    memset(b->has_basis, 0, sizeof b->has_basis);
    int rank = 0, most = n_edges - b->n + 1;
    bool relevant[MAX_FAMILIES];
    for (int i = 0; i < b->n_families && rank < most;) {
        int length = b->families[b->order[i]].length, end = i;
        for (; end < b->n_families && b->families[b->order[end]].length == length; end++) {
            Bits bits = b->families[b->order[end]].edges;
            relevant[end] = reduce(b, &bits) >= 0; /* of strictly shorter ones */
        }
        for (int j = i; j < end; j++) {
            Bits bits = b->families[b->order[j]].edges;
            int lead = relevant[j] ? reduce(b, &bits) : -1;
            if (lead < 0) continue;
            b->basis[lead] = bits;
            b->has_basis[lead] = true;
            rank++;
        }
        for (int j = i; j < end; j++)
            if (relevant[j] && !add_members(b, &b->families[b->order[j]])) return false;
        i = end;
    }
    return rank == most;
}
