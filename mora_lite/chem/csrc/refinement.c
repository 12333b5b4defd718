/* Hashes of atoms, round after round (refinement.py for one molecule), and what else is done to many 64-bit numbers.

The loops have no branch that depends on the numbers, so that the compiler can do several at once; they are compiled for
several kinds of processors. Some go on to the next multiple of `LANES`, for which arrays have room. */
#include "molecule.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define INLINED static inline __attribute__((always_inline))
#else
#define INLINED static inline
#endif

#ifdef _MSC_VER
#define restrict __restrict
#endif

enum { LANES = 8 }; /* a divisor of MAX_ATOMS and MAX_BONDS */

static int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

INLINED void mix_of(uint64_t *x, int n) {
    for (int i = 0; i < padded(n); i++) x[i] = mix(x[i]);
}

/* The bonds of each atom stand beside one another, so the sum over them is the difference of two sums over all that
   come before: unsigned numbers wrap. */
INLINED void round_of(const Molecule *m, const uint64_t *restrict keys, const uint64_t *restrict hashes,
                      uint64_t *restrict refined) {
    uint64_t received[2 * MAX_BONDS], before[2 * MAX_BONDS + 1], sum = 0;
    const uint16_t *restrict near = m->near_atom, *restrict first = m->first;
    int n = 2 * m->n_bonds;
    for (int k = 0; k < padded(n); k++) received[k] = mix(hashes[near[k]] + keys[k]);
    for (int k = 0; k < n; k++) {
        before[k] = sum;
        sum += received[k];
    }
    before[n] = sum;
    for (int i = 0; i < padded(m->n_atoms); i++)
        refined[i] = mix(hashes[i] * 3 + before[first[i + 1]] - before[first[i]]);
}

/* Of each number its place among them in ascending order, equal ones as they stand. */
INLINED void rank_of(const uint64_t *restrict x, int n, uint64_t *restrict place) {
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
INLINED void count_of(const uint64_t *restrict x, int n, uint64_t *restrict n_before) {
    for (int i = 0; i < n; i++) {
        uint64_t here = x[i], sum = 0;
        for (int j = 0; j < i; j++) sum += x[j] == here;
        n_before[i] = sum;
    }
}

typedef struct {
    void (*mix)(uint64_t *, int);
    void (*round)(const Molecule *, const uint64_t *, const uint64_t *, uint64_t *);
    void (*rank)(const uint64_t *, int, uint64_t *);
    void (*count)(const uint64_t *, int, uint64_t *);
} Arithmetic;

#define COMPILED(kind, target)                                                                                      \
    target static void mix_##kind(uint64_t *x, int n) { mix_of(x, n); }                                             \
    target static void round_##kind(const Molecule *m, const uint64_t *keys, const uint64_t *x, uint64_t *y) {      \
        round_of(m, keys, x, y);                                                                                    \
    }                                                                                                               \
    target static void rank_##kind(const uint64_t *x, int n, uint64_t *y) { rank_of(x, n, y); }                     \
    target static void count_##kind(const uint64_t *x, int n, uint64_t *y) { count_of(x, n, y); }                   \
    static const Arithmetic kind = {mix_##kind, round_##kind, rank_##kind, count_##kind};

COMPILED(plain, )
#if defined(__GNUC__) && defined(__x86_64__)
COMPILED(avx2, __attribute__((target("avx2"))))
COMPILED(avx512, __attribute__((target("avx512f,avx512dq,avx512vl"))))
#endif

static const Arithmetic *arithmetic = &plain;

/* Choose what this processor can do. */
void refinement_init(void) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) arithmetic = &avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        arithmetic = &avx512;
#endif
}

void mix_all(uint64_t *x, int n) { arithmetic->mix(x, n); }

void rank(const uint64_t *x, int n, uint64_t *place) { arithmetic->rank(x, n, place); }

void count_before(const uint64_t *x, int n, uint64_t *n_before) { arithmetic->count(x, n, n_before); }

/* codes: of the bonds, what their keys are made of. keys: of the bonds to each atom, in the order of `near_bond`. */
void bond_keys(const Molecule *m, const uint64_t *codes, uint64_t *keys) {
    for (int k = 0; k < 2 * m->n_bonds; k++) keys[k] = codes[m->near_bond[k]] + BOND_KEY;
    mix_all(keys, 2 * m->n_bonds);
}

void refine(const Molecule *m, const uint64_t *keys, const uint64_t *hashes, uint64_t *refined) {
    arithmetic->round(m, keys, hashes, refined);
}

uint64_t atom_key(const uint8_t *codes) {
    uint64_t key = 0;
    for (int c = 0; c < N_CODES; c++) key = key * BASE + codes[c];
    return key;
}
