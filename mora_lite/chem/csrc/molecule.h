/* SMILES -> graph codes (version 2), equal to what RDKit and `codes.py` give, or UNSURE.

Order of work (`read_molecule`): smiles.c text to atoms and bonds; sanitize.c RDKit's clean-up, valences and hydrogens,
with rings.c, kekule.c, aromaticity.c and conjugation.c; parent.c largest fragment and charges; stereo.c; codes.c.
Every function that returns bool says whether it is certain; false makes the molecule UNSURE, and RDKit reads it.
All memory is one `Molecule`, whose arrays have fixed sizes that are checked where they are filled. There is no
recursion and no allocation, and every search has a limit, so a text cannot take long.
*/
#ifndef MORA_LITE_MOLECULE_H
#define MORA_LITE_MOLECULE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    N_ELEMENTS = 119,
    MAX_TEXT = 1000,    /* characters */
    MAX_ATOMS = 400,    /* as in molecules.py; here hydrogens written as atoms count too */
    MAX_BONDS = 512,
    MAX_RINGS = 512,
    MAX_RING_MEMBERS = 16384, /* atoms of all rings together */
    MAX_CENTRES = 128,
    MAX_ELEMENTS = 192, /* that may have a configuration */
    N_CODES = 10,            /* columns of Graphs.atoms */
    FINGERPRINT_BYTES = 128,
    SINGLE = 0,
    DOUBLE = 1,
    TRIPLE = 2,
    AROMATIC = 3,
    HYDROGEN = -1 /* in place of an atom's number among a centre's neighbours */
};

typedef struct {
    char symbol[3];
    uint8_t outer;
    uint8_t n_valences;
    int8_t valences[4];
} Element;

#ifdef __GNUC__
#pragma GCC visibility push(hidden) /* calls between these files then cost less */
#endif

extern const Element ELEMENTS[N_ELEMENTS];

typedef struct {
    uint8_t element;
    int8_t charge;
    uint8_t explicit_h;
    bool no_implicit; /* hydrogens are those that are written */
    bool aromatic;
    uint8_t radicals;
    uint8_t hybridisation;    /* code of `graph.ATOM_FIELDS` */
    int16_t explicit_valence; /* RDKit's cached values */
    int16_t implicit_valence;
    int16_t centre; /* number of its written configuration, or -1 */
} Atom;

typedef struct {
    uint16_t ends[2];
    uint8_t type;
    bool aromatic;
    bool conjugated;
    bool in_ring;
    int8_t direction; /* of `/` (1) and `\` (-1) seen from the atom `from` */
    uint8_t stereo;   /* 0, 1 trans, 2 cis, of `leading` */
    uint16_t from;
    uint16_t leading[2];
} Bond;

/* A tetrahedral mark: the neighbours as they are written, and whether they are counter-clockwise (`@`). */
typedef struct {
    uint16_t atom;
    uint8_t n;
    uint8_t n_closures;
    bool odd;
    int16_t around[4];
} Centre;

/* What may have a configuration: `stereo.Elements`. */
typedef struct {
    int owner; /* an atom, or a bond */
    bool is_bond, odd, alone;
    int16_t groups[2][4];
} StereoElement;

typedef struct {
    int n_atoms, n_bonds, n_centres, n_fragments;
    int n_chain_bonds; /* bonds before the ring closures, each to a later atom */
    Atom atoms[MAX_ATOMS];
    Bond bonds[MAX_BONDS];
    Centre centres[MAX_CENTRES];
    bool directions; /* some bond has one */
    bool brackets;   /* some atom has them, or has lost a charge */
    uint64_t present[2]; /* bits of the elements in the text: most steps are for few of them */
    /* bonds of each atom, in the order of their numbers */
    uint16_t first[MAX_ATOMS + 1];
    uint16_t near_bond[2 * MAX_BONDS];
    uint16_t near_atom[2 * MAX_BONDS];
    uint64_t sums[MAX_ATOMS]; /* `sum_bonds` */
    /* rings: relevant cycles */
    int n_rings;
    uint16_t ring_first[MAX_RINGS + 1];
    uint16_t ring_atoms[MAX_RING_MEMBERS];
    uint16_t ring_bonds[MAX_RING_MEMBERS];
    uint16_t ring_size[MAX_ATOMS]; /* of the smallest; 0: none */
    uint16_t ring_count[MAX_ATOMS];
    uint16_t block[MAX_BONDS]; /* number of the biconnected component of a ring bond */
    /* what `read_molecule` answers: the atoms in the molecule's own order */
    uint8_t atom_codes[MAX_ATOMS][N_CODES];
    uint8_t bond_codes[MAX_BONDS];
    uint16_t bond_ends[MAX_BONDS][2];
    uint8_t fingerprint[FINGERPRINT_BYTES];
} Molecule;

enum { STANDARDIZE_NONE = 0, STANDARDIZE_PARENT = 1 };
enum { SINGLE_YET = -1, NO_DOUBLE_BOND = -2, NOT_AROMATIC = -3 }; /* in place of a partner */

/* columns of `Graphs.atoms` */
enum { ELEMENT, CHARGE, DEGREE, HYDROGENS, HYBRIDISATION, IS_AROMATIC, CHIRALITY, RADICALS, RING_SIZE, RING_COUNT };

void elements_init(void);
void valence_init(void);
void refinement_init(void);
int element_of(char first, char second);

bool read_molecule(Molecule *m, const uint8_t *text, int length, int standardize);

bool parse_smiles(Molecule *m, const uint8_t *text, int length); /* smiles.c */
bool only_groups(const uint8_t *text, int length, int n_atoms);  /* extension.c */
bool merge_hydrogens(Molecule *m);                               /* hydrogens.c */
void keep_atoms(Molecule *m, const bool *keep);
bool clean_up(Molecule *m);                                      /* cleanup.c */
bool may_be_metal(int element);
bool find_rings(Molecule *m);                                    /* rings.c */
bool relevant_cycles(Molecule *m, const uint16_t *edges, int n_edges); /* cycles.c */
bool add_ring(Molecule *m, const uint16_t *bonds, int n);
bool kekulize(Molecule *m, bool *was_aromatic, int *partner);    /* kekule.c */
bool settle_forms(Molecule *m, const bool *was_aromatic, const int *partner);
bool settle_form(Molecule *m, const bool *was_aromatic, const int *partner, int block); /* kekule_form.c */
bool perceive_aromaticity(Molecule *m);                          /* aromaticity.c */
void conjugate(Molecule *m);                                     /* conjugation.c */
bool sanitize(Molecule *m);                                      /* sanitize.c */
bool take_parent(Molecule *m);                                   /* parent.c */
void index_bonds(Molecule *m);
/* stereo.c: put codes into atom_codes and bond_codes, for the marks of the text or for given elements */
bool stereo_codes(Molecule *m);
bool tell_elements(Molecule *m, const StereoElement *elements, int n);
void find_double_bond_marks(Molecule *m);
void make_codes(Molecule *m);     /* codes.c */
void own_order(Molecule *m);
void make_fingerprint(Molecule *m); /* circular.c */
void bond_keys(const Molecule *m, const uint64_t *codes, uint64_t *keys); /* refinement.c */
void refine(const Molecule *m, const uint64_t *keys, const uint64_t *hashes, uint64_t *refined);
void mix_all(uint64_t *x, int n);
void count_before(const uint64_t *x, int n, uint64_t *n_before);
void rank(const uint64_t *x, int n, uint64_t *place);
uint64_t atom_key(const uint8_t *codes);

/* valence.c */
int explicit_valence(const Molecule *m, int atom);
bool update_valences(Molecule *m, int atom, bool strict);
void sum_bonds(Molecule *m);
void set_order(Molecule *m, int bond, int type);

static inline int default_valence(int element) { return ELEMENTS[element].valences[0]; }

/* Twice what a bond adds to the valence of its atoms. */
static inline int bond_valence2(const Bond *bond) {
    return bond->type == AROMATIC ? 3 : 2 * bond->type + 2;
}

/* What the bonds of an atom add up to, in four parts of 16 bits: added bond by bond, since a loop over the bonds of each
   atom costs more. Needs `sum_bonds`. */
static inline int twice_order(const Molecule *m, int atom) { return (int)(m->sums[atom] & 0xFFFF); }
static inline int n_aromatic(const Molecule *m, int atom) { return (int)(m->sums[atom] >> 16 & 0xFFFF); } /* by type */
static inline int n_multiple(const Molecule *m, int atom) { return (int)(m->sums[atom] >> 32 & 0xFFFF); }
static inline int n_multiple_outside(const Molecule *m, int atom) { return (int)(m->sums[atom] >> 48); } /* of rings */

static inline bool has_element(const Molecule *m, int element) { return m->present[element >> 6] >> (element & 63) & 1; }

static inline int degree(const Molecule *m, int atom) { return m->first[atom + 1] - m->first[atom]; }

static inline int hydrogens(const Atom *atom) {
    return atom->explicit_h + (atom->no_implicit ? 0 : atom->implicit_valence);
}

static inline int total_valence(const Atom *atom) {
    return atom->explicit_valence + (atom->no_implicit ? 0 : atom->implicit_valence);
}

/* Electrons that an atom can give to a pi system; negative if none. */
static inline int electrons(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    int valence = default_valence(atom->element), n_near = degree(m, number) + hydrogens(atom);
    if (valence <= 1 || n_near > 3) return -1;
    int lone = ELEMENTS[atom->element].outer - valence - atom->charge;
    int n = valence - n_near + (lone > 0 ? lone : 0) - atom->radicals;
    return n > 1 && atom->explicit_valence - degree(m, number) > 1 ? 1 : n;
}

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

/* refinement.py */
#define BOND_KEY UINT64_C(0x9E3779B97F4A7C15)
#define BASE UINT64_C(257)

static inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

#endif
