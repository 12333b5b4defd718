/* The reader for WebAssembly: one SMILES a call, and the similarity of its fingerprint to those of a domain.

The host writes a text into `text_place`, calls `read_smiles`, and finds the answer at the other places. The module has
no imports and allocates nothing: what a domain needs, the host puts behind `__heap_base`.
`make reader` compiles it to export/page/reader.wasm. */
#include "molecule.h"

#define EXPORT(name) __attribute__((export_name(#name)))

enum { WORDS = FINGERPRINT_BYTES / 8 };

static Molecule molecule;
static uint8_t text[MAX_TEXT];
static uint64_t fingerprint[WORDS];

EXPORT(start) void start(void) {
    elements_init();
    refinement_init();
}

EXPORT(max_text) int max_text(void) { return MAX_TEXT; }
EXPORT(text_place) uint8_t *text_place(void) { return text; }

/* Whether the answer is certain; the others are for RDKit. */
EXPORT(read_smiles) int read_smiles(int length, int standardize) {
    if (length < 0 || length > MAX_TEXT || !read_molecule(&molecule, text, length, standardize)) return 0;
    __builtin_memcpy(fingerprint, molecule.fingerprint, sizeof fingerprint);
    return 1;
}

EXPORT(n_atoms) int n_atoms(void) { return molecule.n_atoms; }
EXPORT(n_bonds) int n_bonds(void) { return molecule.n_bonds; }
EXPORT(atoms_place) const uint8_t *atoms_place(void) { return molecule.atom_codes[0]; }     /* [n_atoms, 10] */
EXPORT(bonds_place) const uint8_t *bonds_place(void) { return molecule.bond_codes; }        /* [n_bonds] */
EXPORT(ends_place) const uint16_t *ends_place(void) { return molecule.bond_ends[0]; }       /* [n_bonds, 2] */
EXPORT(fingerprint_place) const uint64_t *fingerprint_place(void) { return fingerprint; }

/* Tanimoto similarity of the last molecule to the nearest one with a value, for each task: `Domain.similarity`.

rows: fingerprints, those of one pattern beside each other. counts: of their bits. sizes: rows of each pattern.
patterns: bits of the tasks of each, the first task highest, in whole bytes. nearest: `[n_tasks]`. */
EXPORT(compare) void compare(const uint64_t *rows, const uint16_t *counts, const uint32_t *sizes, int n_patterns,
                             const uint8_t *patterns, int n_tasks, float *nearest) {
    int n_bits = 0, width = (n_tasks + 7) / 8;
    for (int w = 0; w < WORDS; w++) n_bits += __builtin_popcountll(fingerprint[w]);
    for (int i = 0; i < n_tasks; i++) nearest[i] = 0;
    for (int p = 0; p < n_patterns; p++, patterns += width) {
        float top = 0;
        for (uint32_t r = 0; r < sizes[p]; r++, rows += WORDS, counts++) {
            int both = 0;
            for (int w = 0; w < WORDS; w++) both += __builtin_popcountll(fingerprint[w] & rows[w]);
            int either = *counts + n_bits - both;
            float similarity = (float)both / (float)(either > 1 ? either : 1);
            top = similarity > top ? similarity : top;
        }
        for (int i = 0; i < n_tasks; i++)
            if (patterns[i / 8] >> (7 - i % 8) & 1 && top > nearest[i]) nearest[i] = top;
    }
}
