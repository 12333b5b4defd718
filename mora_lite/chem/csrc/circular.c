/* The fingerprint: circular.py for one molecule. */
#include "molecule.h"

#include <string.h>

enum { RADIUS = 2, N_LEVELS = 6, MAX_MARKS = (RADIUS + 2) * MAX_ATOMS + 8 };

/* One mark for each level that a part's count reaches, which are 1, 2, 4 .. 32: the part and the number of the level. */
typedef struct {
    int n;
    uint64_t marks[MAX_MARKS];
} Marks;

/* A mark if the count of a part has just come to a level. Written in any case, as a branch could not be foretold. */
static void add_mark(Marks *marks, uint64_t part, uint64_t times) {
    static const uint8_t IS_LEVEL[] = {0, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1};
    static const uint8_t LEVEL[] = {0, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4};
    bool few = times <= 16;
    marks->marks[marks->n] = part + (few ? LEVEL[times] : N_LEVELS - 1);
    marks->n += few ? IS_LEVEL[times] : times == 32;
}

/* Surroundings of one radius; those of another are others. */
static void add_surroundings(Marks *marks, const uint64_t *hashes, int n) {
    uint64_t n_before[MAX_ATOMS];
    count_before(hashes, n, n_before);
    for (int i = 0; i < n; i++) add_mark(marks, hashes[i], n_before[i] + 1);
}

/* Elements, hydrogens among them. */
static void add_elements(Marks *marks, const Molecule *m) {
    uint16_t times[N_ELEMENTS] = {0};
    for (int i = 0; i < m->n_atoms; i++) times[1] = (uint16_t)(times[1] + m->atom_codes[i][HYDROGENS]);
    for (int level = 0; level < N_LEVELS; level++) {
        marks->marks[marks->n] = mix(1) + (unsigned)level;
        marks->n += times[1] >= 1 << level;
    }
    for (int i = 0; i < m->n_atoms; i++) {
        int element = m->atom_codes[i][ELEMENT];
        add_mark(marks, mix((uint64_t)element), ++times[element]);
    }
}

static void first_hashes(const Molecule *m, uint64_t *hashes) {
    for (int i = 0; i < m->n_atoms; i++) {
        const uint8_t *codes = m->atom_codes[i];
        uint64_t key = ((codes[ELEMENT] * BASE + codes[CHARGE]) * BASE + codes[DEGREE]) * BASE + codes[HYDROGENS];
        hashes[i] = (key * BASE + codes[IS_AROMATIC]) * BASE + (codes[RING_SIZE] > 0);
    }
    mix_all(hashes, m->n_atoms);
}

/* Before `own_order`, as it reads the bonds in the order of the text. */
void make_fingerprint(Molecule *m) {
    uint64_t hashes[2][MAX_ATOMS], keys[2 * MAX_BONDS], orders[MAX_BONDS];
    Marks marks;
    marks.n = 0;
    for (int i = 0; i < m->n_bonds; i++) orders[i] = m->bond_codes[i] / 16;
    bond_keys(m, orders, keys);
    first_hashes(m, hashes[0]);
    for (int radius = 0;; radius++) {
        add_surroundings(&marks, hashes[radius & 1], m->n_atoms);
        if (radius == RADIUS) break;
        refine(m, keys, hashes[radius & 1], hashes[~radius & 1]);
    }
    add_elements(&marks, m);
    mix_all(marks.marks, marks.n);
    memset(m->fingerprint, 0, FINGERPRINT_BYTES);
    for (int i = 0; i < marks.n; i++) {
        unsigned bit = (unsigned)(marks.marks[i] % (FINGERPRINT_BYTES * 8));
        m->fingerprint[bit >> 3] = (uint8_t)(m->fingerprint[bit >> 3] | 0x80 >> (bit & 7));
    }
}
