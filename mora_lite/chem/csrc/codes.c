/* From a molecule to its codes, in an order of its own, and to its fingerprint: codes.py, refinement.py, circular.py. */
#include "molecule.h"

#include <string.h>

enum { ORDER_ROUNDS = 6, RADIUS = 2, MAX_LEVEL = 32, MAX_SLOTS = 4096 };
enum { ELEMENT, CHARGE, DEGREE, HYDROGENS, HYBRIDISATION, IS_AROMATIC, CHIRALITY, RADICALS, RING_SIZE, RING_COUNT };

static uint8_t least(int a, int b) { return (uint8_t)(a < b ? a : b); }

void make_codes(Molecule *m) {
    for (int i = 0; i < m->n_atoms; i++) {
        const Atom *atom = &m->atoms[i];
        uint8_t *codes = m->atom_codes[i];
        int charge = atom->charge + 4;
        codes[ELEMENT] = atom->element;
        codes[CHARGE] = (uint8_t)(charge >= 0 && charge <= 8 ? charge : 9);
        codes[DEGREE] = least(degree(m, i), 7);
        codes[HYDROGENS] = least(hydrogens(atom), 5);
        codes[HYBRIDISATION] = atom->hybridisation;
        codes[IS_AROMATIC] = atom->aromatic;
        codes[CHIRALITY] = 0;
        codes[RADICALS] = least(atom->radicals, 2);
        codes[RING_SIZE] = m->ring_size[i] ? least(m->ring_size[i] - 2, 7) : 0;
        codes[RING_COUNT] = least(m->ring_count[i], 3);
    }
    for (int i = 0; i < m->n_bonds; i++) {
        const Bond *bond = &m->bonds[i];
        m->bond_codes[i] = (uint8_t)(((bond->type * 2 + bond->conjugated) * 2 + bond->in_ring) * 4);
    }
}

/* One round of refinement for all atoms. keys: of the bonds, already mixed. */
void refine(const Molecule *m, const uint64_t *keys, const uint64_t *hashes, uint64_t *refined) {
    for (int i = 0; i < m->n_atoms; i++) {
        uint64_t sum = 0;
        for (int k = m->first[i]; k < m->first[i + 1]; k++)
            sum += mix(hashes[m->near_atom[k]] + keys[m->near_bond[k]]);
        refined[i] = mix(hashes[i] * 3 + sum);
    }
}

uint64_t atom_key(const Molecule *m, int atom) {
    uint64_t key = 0;
    for (int c = 0; c < N_CODES; c++) key = key * BASE + m->atom_codes[atom][c];
    return key;
}

/* Atoms by their hashes, those that are alike as they were written: buckets by the first bits, then insertion. */
static void sort_by_hash(int n, const uint64_t *hashes, uint16_t *order) {
    enum { BITS = 6 };
    uint16_t start[(1 << BITS) + 1] = {0};
    for (int i = 0; i < n; i++) start[(hashes[i] >> (64 - BITS)) + 1]++;
    for (int b = 0; b < 1 << BITS; b++) start[b + 1] = (uint16_t)(start[b + 1] + start[b]);
    for (int i = 0; i < n; i++) order[start[hashes[i] >> (64 - BITS)]++] = (uint16_t)i;
    for (int i = 1; i < n; i++) {
        uint16_t atom = order[i];
        uint64_t hash = hashes[atom];
        int j = i;
        for (; j > 0 && hashes[order[j - 1]] > hash; j--) order[j] = order[j - 1];
        order[j] = atom;
    }
}

/* Bonds by the places of their atoms: in order of the first by counting, then of the second by insertion. */
static void order_bonds(Molecule *m, const uint16_t *place) {
    uint16_t start[MAX_ATOMS + 1], filled[MAX_ATOMS], ends[MAX_BONDS][2];
    uint8_t codes[MAX_BONDS];
    memset(start, 0, sizeof(start[0]) * (size_t)(m->n_atoms + 1));
    memcpy(codes, m->bond_codes, (size_t)m->n_bonds);
    for (int i = 0; i < m->n_bonds; i++) {
        uint16_t a = place[m->bonds[i].ends[0]], b = place[m->bonds[i].ends[1]];
        ends[i][0] = a < b ? a : b, ends[i][1] = a < b ? b : a;
        start[ends[i][0] + 1]++;
    }
    for (int a = 0; a < m->n_atoms; a++) {
        start[a + 1] = (uint16_t)(start[a + 1] + start[a]);
        filled[a] = start[a];
    }
    for (int i = 0; i < m->n_bonds; i++) {
        int j = filled[ends[i][0]]++; /* no pair of atoms has two bonds, so the order of i does not matter */
        for (; j > start[ends[i][0]] && m->bond_ends[j - 1][1] > ends[i][1]; j--) {
            memcpy(m->bond_ends[j], m->bond_ends[j - 1], sizeof m->bond_ends[j]);
            m->bond_codes[j] = m->bond_codes[j - 1];
        }
        memcpy(m->bond_ends[j], ends[i], sizeof m->bond_ends[j]);
        m->bond_codes[j] = codes[i];
    }
}

void own_order(Molecule *m) {
    uint64_t hashes[2][MAX_ATOMS], keys[MAX_BONDS];
    for (int i = 0; i < m->n_bonds; i++) keys[i] = mix(m->bond_codes[i] + BOND_KEY);
    for (int i = 0; i < m->n_atoms; i++) hashes[0][i] = mix(atom_key(m, i));
    for (int round = 0; round < ORDER_ROUNDS; round++) refine(m, keys, hashes[round & 1], hashes[~round & 1]);
    uint16_t order[MAX_ATOMS], place[MAX_ATOMS];
    sort_by_hash(m->n_atoms, hashes[ORDER_ROUNDS & 1], order);
    uint8_t codes[MAX_ATOMS][N_CODES];
    memcpy(codes, m->atom_codes, sizeof(codes[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_atoms; i++) {
        place[order[i]] = (uint16_t)i;
        memcpy(m->atom_codes[i], codes[order[i]], N_CODES);
    }
    order_bonds(m, place);
}

typedef struct {
    uint64_t part;
    uint16_t times;
} Slot;

static void set_bit(uint8_t *bits, uint64_t part, unsigned level) {
    unsigned at = (unsigned)(mix(part + level) % (FINGERPRINT_BYTES * 8));
    bits[at >> 3] = (uint8_t)(bits[at >> 3] | 0x80 >> (at & 7));
}

/* Count a part of the molecule; the bit of a level is set when the count reaches it: 1, 2, 4 .. 32. */
static void count_part(Slot *slots, unsigned n_slots, uint8_t *bits, uint64_t part) {
    unsigned at = (unsigned)part & (n_slots - 1);
    while (slots[at].times && slots[at].part != part) at = (at + 1) & (n_slots - 1);
    slots[at].part = part;
    int times = ++slots[at].times;
    if (times > MAX_LEVEL || times & (times - 1)) return;
    unsigned level = 0;
    while (times >> level > 1) level++;
    set_bit(bits, part, level);
}

static void count_elements(const Molecule *m, uint8_t *bits) {
    int times[N_ELEMENTS] = {0};
    for (int i = 0; i <= m->n_atoms; i++) { /* the last round is for hydrogen */
        int element = i < m->n_atoms ? m->atom_codes[i][ELEMENT] : 1;
        int before = times[element], more = 0;
        if (i < m->n_atoms)
            more = 1;
        else
            for (int k = 0; k < m->n_atoms; k++) more += m->atom_codes[k][HYDROGENS];
        times[element] += more;
        for (unsigned level = 0; level < 6; level++)
            if (before < 1 << level && times[element] >= 1 << level) set_bit(bits, mix((uint64_t)element), level);
    }
}

/* Before `own_order`, as it reads the bonds in the order of the text. */
void make_fingerprint(Molecule *m) {
    uint64_t hashes[2][MAX_ATOMS], keys[MAX_BONDS];
    Slot slots[MAX_SLOTS];
    unsigned n_slots = 64;
    while (n_slots < 10 * (unsigned)m->n_atoms) n_slots *= 2; /* three parts an atom, 400 atoms at most */
    static const int FIELDS[] = {ELEMENT, CHARGE, DEGREE, HYDROGENS, IS_AROMATIC};
    memset(slots, 0, sizeof(slots[0]) * n_slots);
    memset(m->fingerprint, 0, FINGERPRINT_BYTES);
    for (int i = 0; i < m->n_bonds; i++) keys[i] = mix(m->bond_codes[i] / 16 + BOND_KEY);
    for (int i = 0; i < m->n_atoms; i++) {
        uint64_t key = 0;
        for (int c = 0; c < 5; c++) key = key * BASE + m->atom_codes[i][FIELDS[c]];
        hashes[0][i] = mix(key * BASE + (m->atom_codes[i][RING_SIZE] > 0));
        count_part(slots, n_slots, m->fingerprint, hashes[0][i]);
    }
    for (int round = 0; round < RADIUS; round++) {
        refine(m, keys, hashes[round & 1], hashes[~round & 1]);
        for (int i = 0; i < m->n_atoms; i++) count_part(slots, n_slots, m->fingerprint, hashes[~round & 1][i]);
    }
    count_elements(m, m->fingerprint);
}

static bool is_space(uint8_t c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }

static bool has_charge_or_dot(const uint8_t *text, int length) {
    for (int i = 0; i < length; i++)
        if (text[i] == '+' || text[i] == '-' || text[i] == '.') return true;
    return false;
}

bool read_molecule(Molecule *m, const uint8_t *text, int length, int standardize) {
    while (length && is_space(text[length - 1])) length--;
    while (length && is_space(*text)) text++, length--;
    if (!length || length > MAX_TEXT) return false;
    if (!parse_smiles(m, text, length) || !merge_hydrogens(m) || !m->n_atoms) return false;
    if (!find_rings(m) || !sanitize(m)) return false;
    find_double_bond_marks(m);
    if (standardize == STANDARDIZE_PARENT && has_charge_or_dot(text, length) && !take_parent(m)) return false;
    make_codes(m);
    make_fingerprint(m);
    if (!stereo_codes(m)) return false;
    own_order(m);
    return true;
}
