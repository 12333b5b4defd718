/* Hashes of atoms, round after round: refinement.py for one molecule. */
#include "molecule.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define HAS_WIDE
#define WIDE __attribute__((target("avx512f,avx512dq,avx512vl")))
#define INLINED static inline __attribute__((always_inline))
#else
#define INLINED static inline
#endif

INLINED void mixed(uint64_t *x, int n) {
    for (int i = 0; i < n; i++) x[i] = mix(x[i]);
}

/* The bonds of each atom stand beside one another, so the sum over them is the difference of two sums over all that
   come before: unsigned numbers wrap. No loop inside has a length that depends on the atom, and the compiler can mix
   several numbers at once. */
INLINED void round_of(const Molecule *m, const uint64_t *restrict keys, const uint64_t *restrict hashes,
                      uint64_t *restrict refined) {
    uint64_t received[2 * MAX_BONDS], before[2 * MAX_BONDS + 1], sum = 0;
    const uint16_t *restrict near = m->near_atom, *restrict first = m->first;
    int n = 2 * m->n_bonds;
    for (int k = 0; k < n; k++) received[k] = mix(hashes[near[k]] + keys[k]);
    for (int k = 0; k < n; k++) {
        before[k] = sum;
        sum += received[k];
    }
    before[n] = sum;
    for (int i = 0; i < m->n_atoms; i++) refined[i] = mix(hashes[i] * 3 + before[first[i + 1]] - before[first[i]]);
}

/* Of each number its place among them in ascending order, equal ones as they stand. Pairs are compared without a branch,
   since a branch on such numbers is foretold wrongly every other time. */
INLINED void rank_of(const uint64_t *x, int n, uint64_t *place) {
    for (int i = 0; i < n; i++) {
        uint64_t here = x[i], n_before = 0;
        for (int j = 0; j < i; j++) {
            uint64_t before = x[j] <= here;
            n_before += before;
            place[j] += 1 - before;
        }
        place[i] = n_before;
    }
}

/* Of each number how many equal ones stand before it. */
INLINED void count_before_of(const uint64_t *x, int n, uint64_t *n_before) {
    for (int i = 0; i < n; i++) {
        uint64_t here = x[i], sum = 0;
        for (int j = 0; j < i; j++) sum += x[j] == here;
        n_before[i] = sum;
    }
}

typedef struct {
    void (*count_before)(const uint64_t *, int, uint64_t *);
    void (*rank)(const uint64_t *, int, uint64_t *);
    void (*round)(const Molecule *, const uint64_t *, const uint64_t *, uint64_t *);
    void (*mix)(uint64_t *, int);
} Arithmetic;

static void plain_round(const Molecule *m, const uint64_t *keys, const uint64_t *hashes, uint64_t *refined) {
    round_of(m, keys, hashes, refined);
}

static void plain_mix(uint64_t *x, int n) { mixed(x, n); }

static void plain_rank(const uint64_t *x, int n, uint64_t *place) { rank_of(x, n, place); }

static void plain_count(const uint64_t *x, int n, uint64_t *n_before) { count_before_of(x, n, n_before); }

static Arithmetic arithmetic = {plain_count, plain_rank, plain_round, plain_mix};

#ifdef HAS_WIDE
WIDE static void wide_round(const Molecule *m, const uint64_t *keys, const uint64_t *hashes, uint64_t *refined) {
    round_of(m, keys, hashes, refined);
}

WIDE static void wide_mix(uint64_t *x, int n) { mixed(x, n); }

WIDE static void wide_count(const uint64_t *x, int n, uint64_t *n_before) { count_before_of(x, n, n_before); }

WIDE static void wide_rank(const uint64_t *x, int n, uint64_t *place) { rank_of(x, n, place); }
#endif

/* Choose what this processor can do. */
void refinement_init(void) {
#ifdef HAS_WIDE
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        arithmetic = (Arithmetic){wide_count, wide_rank, wide_round, wide_mix};
#endif
}

void mix_all(uint64_t *x, int n) { arithmetic.mix(x, n); }

void count_before(const uint64_t *x, int n, uint64_t *n_before) { arithmetic.count_before(x, n, n_before); }

void rank(const uint64_t *x, int n, uint64_t *place) { arithmetic.rank(x, n, place); }

/* codes: of the bonds, what their keys are made of. keys: of the bonds to each atom, in the order of `near_bond`. */
void bond_keys(const Molecule *m, const uint64_t *codes, uint64_t *keys) {
    for (int k = 0; k < 2 * m->n_bonds; k++) keys[k] = codes[m->near_bond[k]] + BOND_KEY;
    mix_all(keys, 2 * m->n_bonds);
}

void refine(const Molecule *m, const uint64_t *keys, const uint64_t *hashes, uint64_t *refined) {
    arithmetic.round(m, keys, hashes, refined);
}

uint64_t atom_key(const uint8_t *codes) {
    uint64_t key = 0;
    for (int c = 0; c < N_CODES; c++) key = key * BASE + codes[c];
    return key;
}
