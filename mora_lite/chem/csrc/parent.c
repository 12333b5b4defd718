/* The parent: RDKit's LargestFragmentChooser and Uncharger, then its sanitising once more (standardize.py). */
#include "molecule.h"

#include <string.h>

enum { N_COUNTED = 6 };

static const uint8_t COUNTED[N_COUNTED] = {6, 7, 8, 9, 16, 17};

/* Atoms of these elements in the counter-ions and solvents of standardize.py. */
static const uint8_t COMPANIONS[][N_COUNTED] = {
    {1, 0, 0, 0, 0, 2}, {1, 0, 0, 0, 0, 3}, {1, 0, 1}, {1, 0, 2}, {1, 0, 3}, {1, 0, 3, 0, 1}, {1, 0, 3, 3, 1},
    {1, 0, 4, 0, 1}, {1, 1}, {1, 1, 0, 0, 1}, {2, 0, 1}, {2, 0, 1, 0, 1}, {2, 0, 2}, {2, 0, 2, 3}, {2, 0, 3},
    {2, 0, 3, 0, 1}, {2, 0, 4}, {2, 0, 4, 0, 1}, {2, 0, 6, 0, 2}, {2, 1}, {2, 1, 1}, {2, 1, 4, 6, 2}, {2, 2},
    {3, 0, 1}, {3, 0, 2}, {3, 0, 3}, {3, 0, 4}, {3, 1, 1}, {4, 0, 1}, {4, 0, 2}, {4, 0, 4}, {4, 0, 5}, {4, 0, 6},
    {4, 1}, {4, 1, 2}, {4, 1, 3}, {5, 0, 4}, {5, 1}, {5, 1, 1}, {6}, {6, 0, 3, 0, 1}, {6, 0, 4}, {6, 0, 7}, {6, 0, 8},
    {6, 1}, {6, 1, 1}, {6, 1, 3}, {6, 1, 3, 0, 1}, {6, 2, 2}, {6, 3, 7}, {6, 4, 2}, {7}, {7, 0, 2}, {7, 0, 3, 0, 1},
    {7, 0, 8}, {7, 1, 5}, {8, 0, 2}, {8, 0, 3}, {8, 1}, {9, 1, 3}, {10, 0, 3, 0, 1}, {10, 0, 4}, {10, 0, 4, 0, 1},
    {10, 0, 6, 0, 2}, {11, 0, 3}, {12, 0, 2}, {12, 0, 4, 0, 1}, {12, 0, 12}, {12, 1}, {16, 0, 2}, {16, 1}, {16, 2},
    {18, 0, 2}, {23, 0, 6},
};

typedef struct {
    bool organic;
    uint16_t counts[N_COUNTED];
    int n_atoms; /* hydrogens count */
    long weight; /* ten times RDKit's: 100 for each unit of charge in a nucleus, 1 a hydrogen, -0.1 a charge */
} Fragment;

static int label_fragments(const Molecule *m, uint16_t *label) {
    uint16_t stack[MAX_ATOMS];
    bool seen[MAX_ATOMS] = {false};
    int n_fragments = 0;
    for (int root = 0; root < m->n_atoms; root++) {
        if (seen[root]) continue;
        int n = 0;
        stack[n++] = (uint16_t)root;
        seen[root] = true;
        while (n) {
            int atom = stack[--n];
            label[atom] = (uint16_t)n_fragments;
            for (int k = m->first[atom]; k < m->first[atom + 1]; k++)
                if (!seen[m->near_atom[k]]) {
                    seen[m->near_atom[k]] = true;
                    stack[n++] = m->near_atom[k];
                }
        }
        n_fragments++;
    }
    return n_fragments;
}

/* 1: a is the parent rather than b; -1: b is; 0: RDKit would compare their SMILES. */
static int compare(const Fragment *a, const Fragment *b) {
    if (a->organic != b->organic) return a->organic ? 1 : -1;
    if (a->n_atoms != b->n_atoms) return a->n_atoms > b->n_atoms ? 1 : -1;
    return (a->weight > b->weight) - (a->weight < b->weight);
}

/* Whether a fragment may be one of those that give way to others. */
static bool may_be_companion(const Fragment *fragment) {
    for (unsigned i = 0; i < sizeof COMPANIONS / sizeof COMPANIONS[0]; i++) {
        bool same = true;
        for (int k = 0; k < N_COUNTED; k++) same &= COMPANIONS[i][k] == fragment->counts[k];
        if (same) return true;
    }
    return false;
}

static bool same_atom(const Molecule *m, int i, int j) {
    const Atom *a = &m->atoms[i], *b = &m->atoms[j];
    return a->element == b->element && a->charge == b->charge && a->explicit_h == b->explicit_h &&
           a->no_implicit == b->no_implicit && a->aromatic == b->aromatic && degree(m, i) == degree(m, j) &&
           a->radicals == b->radicals && (a->centre < 0) == (b->centre < 0);
}

/* Whether two atoms have the same mark. twin: the number that each atom of the first fragment has in the second. */
static bool same_centre(const Molecule *m, int atom, const int16_t *twin) {
    if (m->atoms[atom].centre < 0) return true;
    const Centre *a = &m->centres[m->atoms[atom].centre], *b = &m->centres[m->atoms[twin[atom]].centre];
    bool same = a->n == b->n && a->odd == b->odd;
    for (int i = 0; same && i < a->n; i++)
        same = b->around[i] == (a->around[i] == HYDROGEN ? HYDROGEN : twin[a->around[i]]);
    return same;
}

static bool same_bonds(const Molecule *m, int atom, const int16_t *twin) {
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        int other = m->first[twin[atom]] + k - m->first[atom];
        const Bond *a = &m->bonds[m->near_bond[k]], *b = &m->bonds[m->near_bond[other]];
        if (m->near_atom[other] != twin[m->near_atom[k]] || a->type != b->type || a->stereo != b->stereo) return false;
        for (int e = 0; a->stereo && e < 2; e++)
            if (b->ends[e] != twin[a->ends[e]] || b->leading[e] != twin[a->leading[e]]) return false;
    }
    return true;
}

/* Whether two fragments are written alike, atom by atom. */
static bool are_same(const Molecule *m, const uint16_t *label, int first, int second) {
    int16_t twin[MAX_ATOMS];
    int next = 0;
    for (int i = 0; i < m->n_atoms; i++) {
        if (label[i] != first) continue;
        while (next < m->n_atoms && label[next] != second) next++;
        if (next == m->n_atoms || !same_atom(m, i, next)) return false;
        twin[i] = (int16_t)next++;
    }
    for (int i = 0; i < m->n_atoms; i++)
        if (label[i] == first && !(same_bonds(m, i, twin) && same_centre(m, i, twin))) return false;
    return true;
}

static bool take_largest(Molecule *m) {
    uint16_t label[MAX_ATOMS];
    Fragment fragments[MAX_ATOMS];
    bool keep[MAX_ATOMS];
    int n = label_fragments(m, label), best = 0;
    memset(fragments, 0, sizeof(fragments[0]) * (size_t)n);
    for (int i = 0; i < m->n_atoms; i++) {
        Fragment *fragment = &fragments[label[i]];
        int n_hydrogens = hydrogens(&m->atoms[i]);
        fragment->organic |= m->atoms[i].element == 6;
        for (int k = 0; k < N_COUNTED; k++) fragment->counts[k] += m->atoms[i].element == COUNTED[k];
        fragment->n_atoms += 1 + n_hydrogens;
        fragment->weight += 1000L * m->atoms[i].element + 10L * n_hydrogens - m->atoms[i].charge;
    }
    for (int i = 1; i < n; i++)
        if (compare(&fragments[i], &fragments[best]) > 0) best = i;
    bool may_give_way = may_be_companion(&fragments[best]);
    for (int i = 0; i < n; i++) {
        bool rival = !compare(&fragments[i], &fragments[best]) || (may_give_way && fragments[i].organic);
        if (i != best && rival && !are_same(m, label, i, best)) return false;
    }
    for (int i = 0; i < m->n_atoms; i++) keep[i] = label[i] == best;
    keep_atoms(m, keep);
    return find_rings(m) && sanitize(m);
}

/* Elements to the left of carbon, as RDKit has them: their charges go with a hydride, those of others with a proton. */
static bool is_early(int element) {
    static const struct { uint8_t first, last; } RUNS[] = {{3, 5},   {11, 13}, {19, 22}, {30, 32}, {37, 41},  {48, 51},
                                                           {55, 61}, {72, 73}, {80, 83}, {87, 93}, {104, 118}};
    for (unsigned i = 0; i < sizeof RUNS / sizeof RUNS[0]; i++)
        if (element >= RUNS[i].first && element <= RUNS[i].last) return true;
    return false;
}

static int n_near_charged(const Molecule *m, int atom, int least, int most) {
    int n = 0;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++) {
        int charge = m->atoms[m->near_atom[k]].charge;
        n += charge >= least && charge <= most;
    }
    return n;
}

static bool is_chalcogen(const Atom *atom) { return !atom->aromatic && (atom->element == 8 || atom->element == 16); }

/* What makes `near` an acid whose anion is `atom`. */
static bool is_acid_at(const Molecule *m, int atom, int near) {
    const Atom *middle = &m->atoms[near];
    bool oxo = false, other = false, other_oxygen = false;
    if (middle->aromatic) return false;
    for (int k = m->first[near]; k < m->first[near + 1]; k++) {
        const Atom *end = &m->atoms[m->near_atom[k]];
        int type = m->bonds[m->near_bond[k]].type;
        if (!is_chalcogen(end)) continue;
        oxo |= type == DOUBLE;
        if (m->near_atom[k] == atom || type != SINGLE || end->charge != -1) continue;
        other = true;
        other_oxygen |= end->element == 8;
    }
    switch (middle->element) {
    case 6: case 16: return !middle->charge && oxo;
    case 7: case 15: return middle->charge == 1 && oxo && other;
    case 17: case 35: case 53:
        return middle->charge >= 1 && middle->charge <= 3 && other_oxygen && m->atoms[atom].element == 8;
    default: return false;
    }
}

/* An aromatic ring of four nitrogens and a carbon. */
static bool is_tetrazolate(const Molecule *m, int atom) {
    if (m->atoms[atom].element != 7 || !m->atoms[atom].aromatic) return false;
    for (int r = 0; r < m->n_rings; r++) {
        int n_nitrogens = 0, n_carbons = 0;
        bool here = false;
        if (m->ring_first[r + 1] - m->ring_first[r] != 5) continue;
        for (int k = m->ring_first[r]; k < m->ring_first[r + 1]; k++) {
            const Atom *member = &m->atoms[m->ring_atoms[k]];
            here |= m->ring_atoms[k] == atom;
            n_nitrogens += member->aromatic && member->element == 7;
            n_carbons += member->aromatic && member->element == 6;
        }
        if (here && n_nitrogens == 4 && n_carbons == 1) return true;
    }
    return false;
}

static bool is_acid(const Molecule *m, int atom) {
    if (m->atoms[atom].charge != -1) return false;
    if (is_tetrazolate(m, atom)) return true;
    if (!is_chalcogen(&m->atoms[atom])) return false;
    for (int k = m->first[atom]; k < m->first[atom + 1]; k++)
        if (m->bonds[m->near_bond[k]].type == SINGLE && is_acid_at(m, atom, m->near_atom[k])) return true;
    return false;
}

static bool remove_charge(Molecule *m, int number, int charge, int n_hydrogens) {
    Atom *atom = &m->atoms[number];
    int n = hydrogens(atom) + n_hydrogens;
    if (n < 0 || n > 8) return false;
    atom->explicit_h = (uint8_t)n;
    atom->no_implicit = m->brackets = true;
    atom->charge = (int8_t)(atom->charge - charge);
    return update_valences(m, number, false);
}

/* Acids but for those whose charge one beside them balances. False if RDKit would choose among these by its ranks. */
static bool choose_acids(const Molecule *m, bool ranked, bool *is_acid_anion, bool *chosen) {
    int balanced[MAX_ATOMS] = {0};
    for (int i = 0; i < m->n_atoms; i++) {
        chosen[i] = is_acid_anion[i] = is_acid(m, i);
        for (int k = m->first[i]; chosen[i] && k < m->first[i + 1]; k++) {
            int near = m->near_atom[k];
            if (m->atoms[near].charge <= 0) continue;
            if (balanced[near] < m->atoms[near].charge) {
                if (ranked) return false;
                balanced[near]++;
                chosen[i] = false;
            }
            break;
        }
    }
    return true;
}

/* Anions that lose their charge: as many as there are above the charge of cations that stay, acids last. False if RDKit
   would choose some of them by its ranks. n_fixed: that charge. */
static bool choose_anions(const Molecule *m, int n_fixed, bool *chosen) {
    bool is_acid_anion[MAX_ATOMS], possible[MAX_ATOMS];
    int n = 0, n_acids = 0, n_others = 0;
    if (!choose_acids(m, n_fixed > 0, is_acid_anion, chosen)) return false;
    for (int i = 0; i < m->n_atoms; i++) {
        bool other = !is_acid_anion[i] && m->atoms[i].charge == -1 && !n_near_charged(m, i, 1, 4);
        possible[i] = chosen[i] || (other && (!is_early(m->atoms[i].element) || hydrogens(&m->atoms[i])));
        n += chosen[i] || other;
        n_acids += chosen[i];
        n_others += other && possible[i];
    }
    int surplus = n - n_fixed; /* where it is negative RDKit takes all that it can */
    bool all = surplus < 0 || surplus >= n_others + n_acids;
    if (!all && surplus && surplus != n_others) return false;
    for (int i = 0; i < m->n_atoms; i++) chosen[i] = possible[i] && (all || (surplus && !is_acid_anion[i]));
    return true;
}

/* Whether RDKit refuses the molecule for the valence of an atom that lost its charge, whatever its clean-up does. */
static bool is_refused(const Molecule *m, int number) {
    const Atom *atom = &m->atoms[number];
    const Element *element = &ELEMENTS[atom->element];
    int most = element->valences[element->n_valences - 1], valence = atom->explicit_valence;
    bool is_halogen = atom->element == 17 || atom->element == 35 || atom->element == 53;
    if (most < 0 || valence <= most || atom->charge) return false;
    if (is_halogen || ((atom->element == 7 || atom->element == 15) && valence == 5)) return false;
    for (int k = m->first[number]; k < m->first[number + 1]; k++)
        if (may_be_metal(m->atoms[m->near_atom[k]].element)) return false;
    return true;
}

/* Remove charges. refused: whether RDKit refuses what comes out, and takes what was before for the parent. */
static bool uncharge(Molecule *m, bool *refused) {
    bool cation[MAX_ATOMS], chosen[MAX_ATOMS];
    int n_fixed = 0, net = 0;
    for (int i = 0; i < m->n_atoms; i++) {
        const Atom *atom = &m->atoms[i];
        int n_anions = n_near_charged(m, i, -1, -1);
        bool positive = atom->charge >= 1 && atom->charge <= 4;
        cation[i] = positive && hydrogens(atom) && n_anions != 1;
        if (positive && !hydrogens(atom) && !n_anions) n_fixed += atom->charge;
    }
    if (!choose_anions(m, n_fixed, chosen)) return false;
    for (int i = 0; i < m->n_atoms; i++) {
        if (!chosen[i]) continue;
        if (m->atoms[i].radicals || m->atoms[i].element <= 1) return false;
        if (!remove_charge(m, i, -1, is_early(m->atoms[i].element) ? -1 : 1)) return false;
    }
    for (int i = 0; i < m->n_atoms; i++) net += m->atoms[i].charge;
    for (int i = 0; i < m->n_atoms && net > 0; i++)
        while (cation[i] && m->atoms[i].charge > 0 && net > 0) {
            bool adds = m->atoms[i].element == 6 || is_early(m->atoms[i].element);
            if (m->atoms[i].radicals || m->atoms[i].element <= 1) return false;
            if (!adds && !hydrogens(&m->atoms[i])) break;
            if (!remove_charge(m, i, 1, adds ? 1 : -1)) return false;
            net--;
        }
    *refused = false;
    for (int i = 0; i < m->n_atoms; i++) *refused |= (chosen[i] || cation[i]) && is_refused(m, i);
    return true;
}

bool take_parent(Molecule *m) {
    if (m->n_fragments > 1 && !take_largest(m)) return false;
    bool any = false, refused;
    for (int i = 0; i < m->n_atoms; i++) any |= m->atoms[i].charge != 0;
    if (!any) return true;
    Atom before[MAX_ATOMS];
    memcpy(before, m->atoms, sizeof(before[0]) * (size_t)m->n_atoms);
    if (!uncharge(m, &refused)) return false;
    if (!refused) return sanitize(m);
    memcpy(m->atoms, before, sizeof(before[0]) * (size_t)m->n_atoms);
    return true;
}
