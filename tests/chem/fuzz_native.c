/* Feeds the native reader mutated SMILES, to be built with sanitizers (`make fuzz`), or times it.

    fuzz_native CORPUS SECONDS SEED     CORPUS: a SMILES a line
    fuzz_native CORPUS 0                reads each line once and prints the time
With clang's libFuzzer: -DLIBFUZZER -fsanitize=fuzzer. What is answered must hold together, or the program stops.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "molecule.h"

static Molecule molecule;

static void expect(bool holds, const char *what, const uint8_t *text, size_t length) {
    if (holds) return;
    fprintf(stderr, "%s: %.*s\n", what, (int)length, (const char *)text);
    abort();
}

static bool read_and_check(const uint8_t *text, size_t length, int standardize) {
    static const int MOST[N_CODES] = {118, 9, 7, 5, 6, 1, 2, 2, 7, 3};
    uint8_t *copy = malloc(length ? length : 1); /* of its own size, so that reading past the end shows */
    memcpy(copy, text, length);
    bool certain = read_molecule(&molecule, copy, (int)length, standardize);
    free(copy);
    if (!certain) return false;
    expect(molecule.n_atoms > 0 && (size_t)molecule.n_atoms <= length, "atoms", text, length);
    expect((size_t)molecule.n_bonds <= length, "bonds", text, length);
    for (int i = 0; i < molecule.n_atoms; i++)
        for (int c = 0; c < N_CODES; c++) expect(molecule.atom_codes[i][c] <= MOST[c], "atom code", text, length);
    for (int i = 0; i < molecule.n_bonds; i++) {
        const uint16_t *ends = molecule.bond_ends[i];
        expect(ends[0] < ends[1] && ends[1] < molecule.n_atoms, "ends", text, length);
        expect(molecule.bond_codes[i] < 64, "bond code", text, length);
    }
    return true;
}

#ifdef LIBFUZZER
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    elements_init();
    refinement_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size) read_and_check(data + 1, size - 1, data[0] & 1);
    return 0;
}
#else
enum { MAX_LINES = 200000, MAX_LINE = 1200 };

static char *lines[MAX_LINES];
static size_t lengths[MAX_LINES];
static int n_lines;
static uint64_t state;

static uint32_t dice(uint32_t n) {
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static void load(const char *name) {
    char line[MAX_LINE];
    FILE *file = fopen(name, "r");
    if (!file) exit(2);
    while (n_lines < MAX_LINES && fgets(line, sizeof line, file)) {
        size_t length = strcspn(line, "\r\n");
        lines[n_lines] = malloc(length + 1);
        memcpy(lines[n_lines], line, length);
        lengths[n_lines++] = length;
    }
    fclose(file);
}

/* A line with up to eight edits: a byte changed, left out or put in, a piece moved, a piece of another line. */
static size_t mutate(uint8_t *text) {
    static const char TOKENS[] = "CNOPSFIBrclnops()[]=#-+.:/\\@H%0123456789*$~";
    int which = (int)dice((uint32_t)n_lines);
    size_t length = lengths[which];
    memcpy(text, lines[which], length);
    for (uint32_t edits = dice(8); edits; edits--) {
        size_t at = length ? dice((uint32_t)length) : 0;
        uint8_t byte = dice(10) ? (uint8_t)TOKENS[dice(sizeof TOKENS - 1)] : (uint8_t)dice(256);
        switch (dice(4)) {
        case 0:
            if (length) text[at] = byte;
            break;
        case 1:
            if (length) memmove(text + at, text + at + 1, --length - at);
            break;
        case 2:
            if (length < MAX_LINE - 1) memmove(text + at + 1, text + at, length++ - at), text[at] = byte;
            break;
        default: {
            int other = (int)dice((uint32_t)n_lines);
            size_t piece = lengths[other] ? dice((uint32_t)lengths[other]) : 0;
            if (length + piece >= MAX_LINE) break;
            memmove(text + at + piece, text + at, length - at);
            memcpy(text + at, lines[other], piece);
            length += piece;
        }
        }
    }
    return length;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    elements_init();
    refinement_init();
    load(argv[1]);
    double seconds = atof(argv[2]);
    state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    clock_t start = clock(), slowest = 0;
    long n = 0, n_certain = 0;
    uint8_t text[MAX_LINE];
    if (seconds == 0) {
        for (; n < n_lines; n++) n_certain += read_molecule(&molecule, (uint8_t *)lines[n], (int)lengths[n], 1);
    }
    while (seconds > 0 && (double)(clock() - start) / CLOCKS_PER_SEC < seconds) {
        size_t length = mutate(text);
        clock_t before = clock();
        n_certain += read_and_check(text, length, n++ & 1);
        if (clock() - before > slowest) slowest = clock() - before;
    }
    double used = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("%ld texts, %ld certain, %.2f s, %.0f a second, the slowest %.3f ms\n", n, n_certain, used, n / used,
           1e3 * (double)slowest / CLOCKS_PER_SEC);
    return 0;
}
#endif
