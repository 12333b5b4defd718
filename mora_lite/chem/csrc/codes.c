/* From a molecule to its codes, in an order of its own: codes.py. */
#include "molecule.h"

#include <string.h>

enum { ORDER_ROUNDS = 6 };

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

/* Bonds by the places of their atoms, the smaller one first. */
static void order_bonds(Molecule *m, const uint64_t *place_of_atom) {
    uint64_t keys[MAX_BONDS], place[MAX_BONDS];
    uint8_t codes[MAX_BONDS];
    memcpy(codes, m->bond_codes, (size_t)m->n_bonds);
    for (int i = 0; i < m->n_bonds; i++) {
        uint64_t a = place_of_atom[m->bonds[i].ends[0]], b = place_of_atom[m->bonds[i].ends[1]];
        keys[i] = a < b ? a << 16 | b : b << 16 | a;
    }
    rank(keys, m->n_bonds, place);
    for (int i = 0; i < m->n_bonds; i++) {
        m->bond_ends[place[i]][0] = (uint16_t)(keys[i] >> 16);
        m->bond_ends[place[i]][1] = (uint16_t)keys[i];
        m->bond_codes[place[i]] = codes[i];
    }
}

void own_order(Molecule *m) {
    uint64_t hashes[2][MAX_ATOMS], keys[2 * MAX_BONDS], bonds[MAX_BONDS];
    for (int i = 0; i < m->n_bonds; i++) bonds[i] = m->bond_codes[i];
    bond_keys(m, bonds, keys);
    for (int i = 0; i < m->n_atoms; i++) hashes[0][i] = atom_key(m->atom_codes[i]);
    mix_all(hashes[0], m->n_atoms);
    for (int round = 0; round < ORDER_ROUNDS; round++) refine(m, keys, hashes[round & 1], hashes[~round & 1]);
    uint64_t place[MAX_ATOMS];
    rank(hashes[ORDER_ROUNDS & 1], m->n_atoms, place);
    uint8_t codes[MAX_ATOMS][N_CODES];
    memcpy(codes, m->atom_codes, sizeof(codes[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_atoms; i++) memcpy(m->atom_codes[place[i]], codes[i], N_CODES);
    order_bonds(m, place);
}

static bool is_space(uint8_t c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }

static bool is_blank(uint8_t c) { return c == ' ' || c == '\t'; }

/* What RDKit does to a dummy atom in a ring is not known here. */
static bool has_ring_dummy(const Molecule *m) {
    for (int i = 0; has_element(m, 0) && i < m->n_atoms; i++)
        if (!m->atoms[i].element && m->ring_count[i]) return true;
    return false;
}

static bool is_salt_metal(int element) {
    switch (element) {
    case 3: case 11: case 12: case 19: case 20: case 37: case 38: case 55: case 56: return true;
    default: return false;
    }
}

/* Metals of salts that are drawn with a bond are split off by RDKit (standardize.py). */
static bool has_bonded_salt_metal(const Molecule *m) {
    for (int i = 0; i < m->n_atoms; i++)
        if (is_salt_metal(m->atoms[i].element) && degree(m, i)) return true;
    return false;
}

static bool has_charge_or_dot(const uint8_t *text, int length) {
    for (int i = 0; i < length; i++)
        if (text[i] == '+' || text[i] == '-' || text[i] == '.') return true;
    return false;
}

bool read_molecule(Molecule *m, const uint8_t *text, int length, int standardize) {
    while (length && is_space(text[length - 1])) length--;
    while (length && is_space(*text)) text++, length--;
    if (!length || length > MAX_TEXT) return false;
    int end = 0, next;
    while (end < length && !is_blank(text[end])) end++;
    for (next = end; next < length && is_blank(text[next]);) next++;
    if (!parse_smiles(m, text, end)) return false;
    if (next < length && !only_groups(text + next, length - next, m->n_atoms)) return false;
    length = end;
    if (!merge_hydrogens(m) || !m->n_atoms || !find_rings(m) || has_ring_dummy(m) || !sanitize(m)) return false;
    find_double_bond_marks(m);
    if (standardize == STANDARDIZE_PARENT && has_bonded_salt_metal(m)) return false;
    if (standardize == STANDARDIZE_PARENT && has_charge_or_dot(text, length) && !take_parent(m)) return false;
    make_codes(m);
    make_fingerprint(m);
    if (!stereo_codes(m)) return false;
    own_order(m);
    return true;
}
