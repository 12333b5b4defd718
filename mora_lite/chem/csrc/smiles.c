/* Text -> atoms and bonds, in RDKit's order: chain bonds as written, then ring closures by their number and time. */
#include "molecule.h"

#include <string.h>

enum { MAX_CLOSURES = 128, MAX_DEPTH = 200 };
enum token { START, ATOM, BOND, OPEN, CLOSE, DIGIT, DOT };

typedef struct {
    int16_t atom; /* -1: not open */
    uint8_t symbol;
    int8_t slot; /* place in the atom's centre, or -1 */
} OpenClosure;

typedef struct {
    uint16_t number;
    Bond bond;
} Closure;

typedef struct {
    Molecule *m;
    const uint8_t *text;
    int length, at;
    int previous;      /* atom that the next one is bound to, or -1 */
    uint8_t symbol;    /* of the bond to come, 0: none */
    enum token last, before_bond;
    int depth, n_closures, n_open;
    int stack[MAX_DEPTH];
    OpenClosure open[100];
    Closure closures[MAX_CLOSURES];
} Parser;

static int peek(const Parser *p, int ahead) {
    return p->at + ahead < p->length ? p->text[p->at + ahead] : 0;
}

static bool is_digit(int c) { return c >= '0' && c <= '9'; }

/* The next place among the written neighbours of an atom with a mark; -1 without a mark, -2 if there are too many. */
static int add_neighbour(Molecule *m, int atom, int neighbour) {
    if (m->atoms[atom].centre < 0) return -1;
    Centre *centre = &m->centres[m->atoms[atom].centre];
    if (centre->n == 4) return -2;
    centre->around[centre->n] = (int16_t)neighbour;
    return centre->n++;
}

/* Type and direction of a bond out of its symbol. */
static bool set_type(const Molecule *m, Bond *bond, uint8_t symbol, int from) {
    bool both = m->atoms[bond->ends[0]].aromatic && m->atoms[bond->ends[1]].aromatic;
    bond->from = (uint16_t)from;
    switch (symbol) {
    case 0: bond->type = both ? AROMATIC : SINGLE; break;
    case '/': bond->direction = 1; bond->type = both ? AROMATIC : SINGLE; break;
    case '\\': bond->direction = -1; bond->type = both ? AROMATIC : SINGLE; break;
    case '-': bond->type = SINGLE; break;
    case '=': bond->type = DOUBLE; break;
    case '#': bond->type = TRIPLE; break;
    case ':':
        if (!both) return false;
        bond->type = AROMATIC;
        break;
    default: return false;
    }
    bond->aromatic = bond->type == AROMATIC;
    return true;
}

static bool append_bond(Molecule *m, const Bond *bond) {
    if (m->n_bonds == MAX_BONDS) return false;
    if (bond->direction) m->directions = true;
    m->bonds[m->n_bonds++] = *bond;
    return true;
}

/* A new atom, bound to the previous one. `mark` is 0, '@' or 'C' (clockwise). */
static bool add_atom(Parser *p, int element, bool aromatic, bool bracket, int n_hydrogens, int charge, char mark) {
    Molecule *m = p->m;
    if (m->n_atoms == MAX_ATOMS) return false;
    int number = m->n_atoms++;
    Atom *atom = &m->atoms[number];
    memset(atom, 0, sizeof *atom);
    atom->element = (uint8_t)element;
    atom->charge = (int8_t)charge;
    atom->explicit_h = (uint8_t)n_hydrogens;
    atom->no_implicit = bracket;
    atom->aromatic = aromatic;
    atom->centre = -1;
    if (mark) {
        if (m->n_centres == MAX_CENTRES) return false;
        Centre *centre = &m->centres[m->n_centres];
        memset(centre, 0, sizeof *centre);
        centre->atom = (uint16_t)number;
        centre->odd = mark == '@';
        atom->centre = (int16_t)m->n_centres++;
    }
    if (p->previous >= 0) {
        Bond bond = {.ends = {(uint16_t)p->previous, (uint16_t)number}};
        if (!set_type(m, &bond, p->symbol, p->previous) || !append_bond(m, &bond)) return false;
        if (add_neighbour(m, p->previous, number) < -1 || add_neighbour(m, number, p->previous) < -1) return false;
    }
    for (int i = 0; i < n_hydrogens; i++)
        if (add_neighbour(m, number, HYDROGEN) < -1) return false;
    p->previous = number;
    p->symbol = 0;
    p->last = ATOM;
    return true;
}

/* An atom without brackets. */
static bool plain_atom(Parser *p) {
    int c = p->text[p->at++], next = peek(p, 0);
    int element;
    if (c == 'C' && next == 'l') {
        element = 17, p->at++;
    } else if (c == 'B' && next == 'r') {
        element = 35, p->at++;
    } else if (strchr("BCNOPSFI", c)) {
        element = element_of((char)c, 0);
    } else {
        return strchr("bcnops", c) && add_atom(p, element_of((char)(c - 32), 0), true, false, 0, 0, 0);
    }
    return add_atom(p, element, false, false, 0, 0, 0);
}

/* Pass over a number of up to three digits, as RDKit reads them: without zeros in front. */
static bool skip_number(Parser *p) {
    int start = p->at;
    while (is_digit(peek(p, 0))) p->at++;
    int n = p->at - start;
    return n <= 3 && (n < 2 || p->text[start] != '0');
}

/* The symbol of an atom in brackets: its element, or 0. */
static int bracket_symbol(Parser *p, bool *aromatic) {
    int c = peek(p, 0), next = peek(p, 1);
    *aromatic = c >= 'a' && c <= 'z';
    if (*aromatic) {
        p->at += 2;
        if (c == 's' && next == 'e') return 34;
        if (c == 't' && next == 'e') return 52;
        if (c == 'a' && next == 's') return 33;
        p->at -= 1;
        return strchr("bcnops", c) && next != 'i' ? element_of((char)(c - 32), 0) : 0;
    }
    int element = next >= 'a' && next <= 'z' ? element_of((char)c, (char)next) : 0;
    p->at += element ? 2 : 1;
    return element ? element : element_of((char)c, 0);
}

/* Charge of an atom in brackets: `+`, `++` or `+2`. False for what is not certain. */
static bool bracket_charge(Parser *p, int *charge) {
    *charge = 0;
    int c = peek(p, 0);
    if (c != '+' && c != '-') return true;
    int sign = c == '+' ? 1 : -1;
    p->at++;
    if (is_digit(peek(p, 0))) {
        *charge = sign * (peek(p, 0) - '0');
        p->at++;
        return *charge != 0 && !is_digit(peek(p, 0));
    }
    *charge = sign;
    if (peek(p, 0) == c) *charge += sign, p->at++;
    return peek(p, 0) != '+' && peek(p, 0) != '-' && !is_digit(peek(p, 0));
}

static bool bracket_atom(Parser *p) {
    p->at++;
    if (!skip_number(p)) return false; /* isotopes are forgotten */
    bool aromatic;
    int element = bracket_symbol(p, &aromatic);
    if (!element) return false;
    char mark = 0;
    if (peek(p, 0) == '@') {
        mark = '@', p->at++;
        if (peek(p, 0) == '@') mark = 'C', p->at++;
    }
    int n_hydrogens = 0, charge;
    if (peek(p, 0) == 'H') {
        p->at++;
        n_hydrogens = 1;
        if (is_digit(peek(p, 0))) n_hydrogens = peek(p, 0) - '0', p->at++;
        if (n_hydrogens > 4 || (element == 1)) return false;
    }
    if (!bracket_charge(p, &charge)) return false;
    if (peek(p, 0) == ':') { /* so are atom maps */
        p->at++;
        if (!is_digit(peek(p, 0)) || !skip_number(p)) return false;
    }
    if (peek(p, 0) != ']') return false;
    p->at++;
    return add_atom(p, element, aromatic, true, n_hydrogens, charge, mark);
}

static bool close_ring(Parser *p, OpenClosure *open, int number) {
    Molecule *m = p->m;
    int a = open->atom, b = p->previous;
    uint8_t symbol = open->symbol ? open->symbol : p->symbol;
    if (a == b || p->n_closures == MAX_CLOSURES) return false;
    if (open->symbol && p->symbol && open->symbol != p->symbol) return false;
    if (open->symbol && p->symbol && (symbol == '/' || symbol == '\\')) return false;
    Closure *closure = &p->closures[p->n_closures++];
    memset(closure, 0, sizeof *closure);
    closure->number = (uint16_t)number;
    closure->bond.ends[0] = (uint16_t)a, closure->bond.ends[1] = (uint16_t)b;
    if (!set_type(m, &closure->bond, symbol, open->symbol ? a : b)) return false;
    if (open->slot >= 0) m->centres[m->atoms[a].centre].around[open->slot] = (int16_t)b;
    if (m->atoms[b].centre >= 0) m->centres[m->atoms[b].centre].n_closures++;
    if (add_neighbour(m, b, a) < -1) return false;
    open->atom = -1;
    p->n_open--;
    return true;
}

static bool closure_digit(Parser *p) {
    enum token before = p->last == BOND ? p->before_bond : p->last;
    if (before != ATOM && before != DIGIT) return false;
    int number = peek(p, 0) - '0';
    if (peek(p, 0) == '%') {
        if (!is_digit(peek(p, 1)) || peek(p, 1) == '0' || !is_digit(peek(p, 2))) return false;
        number = (peek(p, 1) - '0') * 10 + peek(p, 2) - '0';
        p->at += 2;
    }
    p->at++;
    OpenClosure *open = &p->open[number];
    if (open->atom >= 0) {
        if (!close_ring(p, open, number)) return false;
    } else {
        Molecule *m = p->m;
        int slot = add_neighbour(m, p->previous, p->previous); /* filled when the ring is closed */
        if (slot < -1) return false;
        if (slot >= 0) m->centres[m->atoms[p->previous].centre].n_closures++;
        p->n_open++;
        *open = (OpenClosure){(int16_t)p->previous, p->symbol, (int8_t)slot};
    }
    p->symbol = 0;
    p->last = DIGIT;
    return true;
}

static bool after_atom(const Parser *p) { return p->last == ATOM || p->last == DIGIT || p->last == CLOSE; }

static bool token(Parser *p) {
    int c = p->text[p->at];
    if (c == '[') return bracket_atom(p);
    if (is_digit(c) || c == '%') return closure_digit(p);
    switch (c) {
    case '(':
        if (!after_atom(p) || p->depth == MAX_DEPTH) return false;
        p->stack[p->depth++] = p->previous;
        p->last = OPEN;
        break;
    case ')':
        if (!after_atom(p) || !p->depth) return false;
        p->previous = p->stack[--p->depth];
        p->last = CLOSE;
        break;
    case '.':
        if (!after_atom(p) || p->depth) return false;
        p->previous = -1;
        p->last = DOT;
        break;
    case '-': case '=': case '#': case ':': case '/': case '\\':
        if (!after_atom(p) && p->last != OPEN) return false;
        p->symbol = (uint8_t)c;
        p->before_bond = p->last;
        p->last = BOND;
        break;
    default: return c && plain_atom(p);
    }
    p->at++;
    return true;
}

static bool add_closures(Parser *p) {
    for (int i = 1; i < p->n_closures; i++) { /* stable, by number */
        Closure closure = p->closures[i];
        int j = i;
        for (; j > 0 && p->closures[j - 1].number > closure.number; j--) p->closures[j] = p->closures[j - 1];
        p->closures[j] = closure;
    }
    for (int i = 0; i < p->n_closures; i++)
        if (!append_bond(p->m, &p->closures[i].bond)) return false;
    return true;
}

/* What RDKit's reader does to a mark of three neighbours with one ring closure and nothing in the fourth place. */
static void invert_marks(Molecule *m) {
    for (int i = 0; i < m->n_centres; i++) {
        Centre *centre = &m->centres[i];
        int atom = centre->atom;
        if (degree(m, atom) != 3 || m->atoms[atom].explicit_h == 1 || centre->n_closures != 1) continue;
        bool single = true;
        for (int k = m->first[atom]; k < m->first[atom + 1]; k++) single &= m->bonds[m->near_bond[k]].type == SINGLE;
        if (single) centre->odd = !centre->odd;
    }
}

static bool has_double_bonds(const Molecule *m) { /* two bonds between one pair of atoms */
    for (int a = 0; a < m->n_atoms; a++)
        for (int i = m->first[a]; i < m->first[a + 1]; i++)
            for (int j = i + 1; j < m->first[a + 1]; j++)
                if (m->near_atom[i] == m->near_atom[j]) return true;
    return false;
}

bool parse_smiles(Molecule *m, const uint8_t *text, int length) {
    Parser p;
    p.m = m, p.text = text, p.length = length, p.at = 0, p.previous = -1, p.symbol = 0;
    p.last = START, p.before_bond = START, p.depth = 0, p.n_closures = 0, p.n_open = 0;
    memset(p.open, 0xFF, sizeof p.open); /* all -1 */
    m->n_atoms = m->n_bonds = m->n_centres = 0;
    m->directions = false;
    while (p.at < length)
        if (!token(&p)) return false;
    if (!after_atom(&p) || p.depth || p.n_open || !add_closures(&p)) return false;
    index_bonds(m);
    if (p.n_closures && has_double_bonds(m)) return false;
    invert_marks(m);
    return true;
}

void index_bonds(Molecule *m) {
    memset(m->first, 0, sizeof(m->first[0]) * (size_t)(m->n_atoms + 1));
    for (int i = 0; i < m->n_bonds; i++) m->first[m->bonds[i].ends[0]]++, m->first[m->bonds[i].ends[1]]++;
    int sum = 0;
    for (int i = 0; i <= m->n_atoms; i++) {
        int count = i < m->n_atoms ? m->first[i] : 0;
        m->first[i] = (uint16_t)sum;
        sum += count;
    }
    uint16_t next[MAX_ATOMS];
    memcpy(next, m->first, sizeof(next[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_bonds; i++)
        for (int end = 0; end < 2; end++) {
            int place = next[m->bonds[i].ends[end]]++;
            m->near_bond[place] = (uint16_t)i;
            m->near_atom[place] = m->bonds[i].ends[1 - end];
        }
}
