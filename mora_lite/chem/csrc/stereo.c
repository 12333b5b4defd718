/* Codes of configurations that do not depend on the spelling: stereo.py for one molecule. */
#include "molecule.h"

#include <string.h>

enum { FIRST_COUNT = 4, MAX_MARKINGS = 16, SMALLEST_RING = 8, NOBODY = -1 };
enum { BUDGET = 4000000 }; /* neighbours looked at, of one molecule */

#define CODE_KEY (BASE * BASE * BASE)
#define MARK (UINT64_C(1) << 63)

typedef struct {
    const Molecule *m;
    int n;
    int marked; /* an atom, or NOBODY */
    long budget;
    StereoElement elements[MAX_ELEMENTS];
    uint64_t atom_keys[MAX_ATOMS];
    uint64_t hashes[2][MAX_ATOMS];
    int now; /* which of the two */
    uint64_t bonds[MAX_BONDS];
    uint64_t keys[2 * MAX_BONDS];
    int n_classes;
} Work;

/* The first bond at an atom that has a direction, or -1. */
static int directed_bond(const Molecule *m, int atom) {
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        const Bond *bond = &m->bonds[m->near_bond[k]];
        if (bond->direction && bond->type != DOUBLE) return m->near_bond[k];
    }
    return -1;
}

void find_double_bond_marks(Molecule *m) {
    for (int i = 0; m->directions && i < m->n_bonds; i++) {
        Bond *bond = &m->bonds[i];
        bond->stereo = 0;
        if (bond->type != DOUBLE) continue;
        int a = directed_bond(m, bond->ends[0]), b = directed_bond(m, bond->ends[1]);
        if (a < 0 || b < 0) continue;
        const Bond *first = &m->bonds[a], *last = &m->bonds[b];
        int towards = first->from == bond->ends[0] ? -first->direction : first->direction;
        int away = last->from == bond->ends[1] ? last->direction : -last->direction;
        bond->stereo = towards == away ? 1 : 2;
        bond->leading[0] = first->ends[first->ends[0] == bond->ends[0]];
        bond->leading[1] = last->ends[last->ends[0] == bond->ends[1]];
    }
}

static bool has_lone_pair(const uint8_t *codes) {
    switch (codes[0]) {
    case 15: case 16: case 33: case 34: case 51: case 52: return true;
    case 7: return codes[8] == 1 || codes[9] >= 3; /* held by a ring of three, or a cage */
    default: return false;
    }
}

/* A tetrahedral centre. Its hydrogen, if it has one, goes to the end. False: none. */
static bool add_centre(const Molecule *m, int atom, StereoElement *element) {
    const Centre *centre = &m->centres[m->atoms[atom].centre];
    const uint8_t *codes = m->atom_codes[atom];
    int n_near = degree(m, atom), n_hydrogens = codes[3], n = 0;
    bool odd = centre->odd;
    if (!(n_near + n_hydrogens == 4 && n_hydrogens <= 1) && !(n_near == 3 && !n_hydrogens && has_lone_pair(codes)))
        return false;
    memset(element, 0, sizeof *element);
    memset(element->groups, 0xFF, sizeof element->groups); /* all -1 */
    for (int i = 0; i < centre->n; i++) {
        if (centre->around[i] == HYDROGEN)
            odd ^= (centre->n - 1 - i) & 1;
        else
            element->groups[0][n++] = centre->around[i];
    }
    if (n != n_near) return false;
    element->owner = atom;
    element->odd = odd;
    return true;
}

static int smallest_ring(const Molecule *m, int bond) {
    int size = 0;
    for (int r = 0; r < m->n_rings; r++)
        for (int k = m->ring_first[r]; k < m->ring_first[r + 1]; k++)
            if (m->ring_bonds[k] == bond && (!size || m->ring_first[r + 1] - m->ring_first[r] < size))
                size = m->ring_first[r + 1] - m->ring_first[r];
    return size;
}

static bool add_double_bond(const Molecule *m, int number, StereoElement *element) {
    const Bond *bond = &m->bonds[number];
    if (bond->in_ring && smallest_ring(m, number) < SMALLEST_RING) return false;
    memset(element, 0, sizeof *element);
    memset(element->groups, 0xFF, sizeof element->groups);
    for (int e = 0; e < 2; e++) {
        int atom = bond->ends[e], other = bond->ends[1 - e], n = 0;
        element->groups[e][n++] = (int16_t)bond->leading[e];
        for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
            int near = m->near_atom[k];
            if (near == other || near == bond->leading[e]) continue;
            if (n == 2) return false;
            element->groups[e][n++] = (int16_t)near;
        }
        if (n + m->atom_codes[atom][3] > 2) return false;
    }
    element->owner = number;
    element->is_bond = true;
    element->odd = bond->stereo == 2;
    return true;
}

static bool collect(const Molecule *m, StereoElement *elements, int *n) {
    *n = 0;
    for (int i = 0; i < m->n_atoms; i++) {
        if (m->atoms[i].centre < 0) continue;
        if (*n == MAX_ELEMENTS) return false;
        *n += add_centre(m, i, &elements[*n]);
    }
    for (int i = 0; m->directions && i < m->n_bonds; i++) {
        if (!m->bonds[i].stereo) continue;
        if (m->bonds[i].type != DOUBLE || *n == MAX_ELEMENTS) return false;
        *n += add_double_bond(m, i, &elements[*n]);
    }
    return true;
}

/* Start a refinement of the molecule with these codes. */
static void start(Work *w, const uint8_t *codes) {
    const Molecule *m = w->m;
    memcpy(w->hashes[0], w->atom_keys, sizeof(uint64_t) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_bonds; i++) w->bonds[i] = m->bond_codes[i];
    for (int i = 0; i < w->n; i++) {
        const StereoElement *element = &w->elements[i];
        if (element->is_bond)
            w->bonds[element->owner] += codes[i];
        else
            w->hashes[0][element->owner] += codes[i] * CODE_KEY;
    }
    if (w->marked != NOBODY) w->hashes[0][w->marked] += MARK;
    for (int i = 0; i < m->n_atoms; i++) w->hashes[0][i] = mix(w->hashes[0][i]);
    bond_keys(m, w->bonds, w->keys);
    w->now = 0;
    w->n_classes = 0;
}

static bool step(Work *w) {
    w->budget -= w->m->n_atoms + 2 * w->m->n_bonds;
    refine(w->m, w->keys, w->hashes[w->now], w->hashes[1 - w->now]);
    w->now = 1 - w->now;
    return w->budget > 0;
}

/* Whether the last round has told more atoms apart. */
static bool has_grown(Work *w) {
    enum { SLOTS = 1024 };
    uint64_t table[SLOTS];
    bool used[SLOTS] = {false};
    int n = 0, before = w->n_classes;
    for (int i = 0; i < w->m->n_atoms; i++) {
        uint64_t hash = w->hashes[w->now][i];
        unsigned at = (unsigned)hash & (SLOTS - 1);
        while (used[at] && table[at] != hash) at = (at + 1) & (SLOTS - 1);
        n += !used[at];
        used[at] = true;
        table[at] = hash;
    }
    w->n_classes = n;
    w->budget -= SLOTS / 8 + w->m->n_atoms;
    return n > before;
}

/* The code of an element by the hashes as they are; 0 if they do not tell its atoms apart. */
static uint8_t parity(const Work *w, const StereoElement *element) {
    const uint64_t *hashes = w->hashes[w->now];
    bool odd = element->odd;
    for (int e = 0; e < 2; e++)
        for (int i = 0; i < 4 && element->groups[e][i] >= 0; i++)
            for (int j = i + 1; j < 4 && element->groups[e][j] >= 0; j++) {
                uint64_t a = hashes[element->groups[e][i]], b = hashes[element->groups[e][j]];
                if (a == b) return 0;
                odd ^= a > b;
            }
    return (uint8_t)(1 + odd);
}

static bool resolve(Work *w, uint8_t *codes) {
    for (;;) {
        uint8_t fresh[MAX_ELEMENTS] = {0};
        int n_open = 0, n_fresh = 0;
        for (int i = 0; i < w->n; i++) n_open += !codes[i];
        start(w, codes);
        for (int round = 1; n_open; round++) {
            if (!step(w)) return false;
            for (int i = 0; i < w->n; i++) {
                if (codes[i] || fresh[i]) continue;
                fresh[i] = parity(w, &w->elements[i]);
                if (fresh[i]) n_open--, n_fresh++;
            }
            if (round >= FIRST_COUNT && !has_grown(w)) break;
        }
        if (!n_fresh) return true;
        for (int i = 0; i < w->n; i++) codes[i] = (uint8_t)(codes[i] + fresh[i]);
    }
}

static bool make_stable(Work *w, const uint8_t *codes) {
    start(w, codes);
    do
        if (!step(w)) return false;
    while (has_grown(w));
    return true;
}

static uint64_t class_of(const Work *w, const StereoElement *element) {
    const uint64_t *hashes = w->hashes[w->now];
    uint64_t sum = element->is_bond ? 1 : hashes[element->owner];
    for (int e = 0; e < 2; e++)
        for (int i = 0; i < 4; i++)
            if (element->groups[e][i] >= 0) sum += mix(hashes[element->groups[e][i]]);
    return mix(sum);
}

/* Add the atoms of an element that are alike to `atoms`; of several kinds those of the smallest hash. */
static bool add_like_atoms(const Work *w, const StereoElement *element, bool *chosen) {
    const uint64_t *hashes = w->hashes[w->now];
    int best = -1, best_end = 0;
    for (int e = 0; e < 2; e++)
        for (int i = 0; i < 4 && element->groups[e][i] >= 0; i++)
            for (int j = i + 1; j < 4 && element->groups[e][j] >= 0; j++) {
                int a = element->groups[e][i];
                if (hashes[a] != hashes[element->groups[e][j]]) continue;
                if (best < 0 || hashes[a] < hashes[best]) best = a, best_end = e;
            }
    if (best < 0) return false;
    for (int i = 0; i < 4 && element->groups[best_end][i] >= 0; i++)
        if (hashes[element->groups[best_end][i]] == hashes[best]) chosen[element->groups[best_end][i]] = true;
    return true;
}

/* The class of open elements to be tried next: its members, and in `atoms` whom to mark. Returns how many; -1: unsure. */
static int choose_marking(Work *w, const uint8_t *codes, bool *members, int *atoms) {
    uint64_t tried = 0;
    bool any = false;
    for (;;) {
        uint64_t value = 0;
        bool found = false;
        for (int i = 0; i < w->n; i++) {
            if (codes[i] || w->elements[i].alone) continue;
            uint64_t here = class_of(w, &w->elements[i]);
            if ((any && here <= tried) || (found && here >= value)) continue;
            value = here, found = true;
        }
        if (!found) return 0;
        w->budget -= 16 * w->n;
        if (w->budget < 0) return -1;
        bool chosen[MAX_ATOMS] = {false};
        for (int i = 0; i < w->n; i++) {
            members[i] = !codes[i] && !w->elements[i].alone && class_of(w, &w->elements[i]) == value;
            if (members[i] && !add_like_atoms(w, &w->elements[i], chosen)) return -1;
        }
        int n = 0;
        for (int a = 0; a < w->m->n_atoms && n <= MAX_MARKINGS; a++)
            if (chosen[a]) {
                if (n < MAX_MARKINGS) atoms[n] = a;
                n++;
            }
        if (n <= MAX_MARKINGS) return n;
        tried = value, any = true;
    }
}

/* Try all atoms of a marking; `codes` become those of the best if there is any that resolves two elements at once. */
static bool try_markings(Work *w, uint8_t *codes, const int *atoms, int n, bool *found) {
    uint8_t best[MAX_ELEMENTS];
    uint64_t best_sum = 0;
    *found = false;
    for (int i = 0; i < n; i++) {
        uint8_t after[MAX_ELEMENTS];
        int n_new = 0;
        uint64_t sum = 0;
        memcpy(after, codes, (size_t)w->n);
        w->marked = atoms[i];
        bool certain = resolve(w, after);
        w->marked = NOBODY;
        if (!certain || !make_stable(w, after)) return false;
        for (int k = 0; k < w->n; k++) n_new += after[k] != codes[k];
        for (int a = 0; a < w->m->n_atoms; a++) sum += mix(w->hashes[w->now][a]);
        if (n_new < 2 || (*found && sum >= best_sum)) continue;
        *found = true;
        best_sum = sum;
        memcpy(best, after, (size_t)w->n);
    }
    if (*found) memcpy(codes, best, (size_t)w->n);
    return true;
}

static bool mark_and_resolve(Work *w, uint8_t *codes) {
    for (;;) {
        bool members[MAX_ELEMENTS], found;
        int atoms[MAX_MARKINGS];
        if (!make_stable(w, codes)) return false;
        int n = choose_marking(w, codes, members, atoms);
        if (n <= 0) return !n;
        if (!try_markings(w, codes, atoms, n, &found)) return false;
        for (int i = 0; !found && i < w->n; i++) w->elements[i].alone |= members[i];
        if (!resolve(w, codes)) return false;
    }
}

bool tell_elements(Molecule *m, const StereoElement *elements, int n) {
    Work work;
    uint8_t codes[MAX_ELEMENTS] = {0};
    if (!n) return true;
    work.m = m, work.n = n, work.marked = NOBODY, work.budget = BUDGET;
    memcpy(work.elements, elements, sizeof(elements[0]) * (size_t)n);
    for (int i = 0; i < m->n_atoms; i++) work.atom_keys[i] = atom_key(m->atom_codes[i]);
    if (!resolve(&work, codes)) return false;
    for (int i = 0; i < n; i++)
        if (!codes[i]) {
            if (!mark_and_resolve(&work, codes)) return false;
            break;
        }
    for (int i = 0; i < n; i++) {
        int owner = elements[i].owner;
        if (elements[i].is_bond)
            m->bond_codes[owner] = (uint8_t)(m->bond_codes[owner] + codes[i]);
        else
            m->atom_codes[owner][CHIRALITY] = codes[i];
    }
    return true;
}

bool stereo_codes(Molecule *m) {
    StereoElement elements[MAX_ELEMENTS];
    int n;
    return (!m->n_centres && !m->directions) || (collect(m, elements, &n) && tell_elements(m, elements, n));
}
