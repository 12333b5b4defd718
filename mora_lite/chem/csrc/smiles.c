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
    bool both = m->atoms[bond->ends[0]].aromatic & m->atoms[bond->ends[1]].aromatic;
    bond->from = (uint16_t)from;
    bond->type = both ? AROMATIC : SINGLE;
    bond->aromatic = both;
    switch (symbol) {
    case 0: return true;
    case '/': bond->direction = 1; return true;
    case '\\': bond->direction = -1; return true;
    case ':': return both;
    case '-': bond->type = SINGLE; break;
    case '=': bond->type = DOUBLE; break;
    case '#': bond->type = TRIPLE; break;
    default: return false;
    }
    bond->aromatic = false;
    return true;
}

/* A new atom, its fields still to be set; null if there are too many. */
static Atom *new_atom(Molecule *m) {
    if (m->n_atoms == MAX_ATOMS) return NULL;
    Atom *atom = &m->atoms[m->n_atoms++];
    memset(atom, 0, sizeof *atom);
    atom->centre = -1;
    return atom;
}

/* Bind the last atom to the one before. */
static bool bind_atom(Parser *p) {
    Molecule *m = p->m;
    int number = m->n_atoms - 1;
    const Atom *atom = &m->atoms[number];
    m->present[atom->element >> 6] |= UINT64_C(1) << (atom->element & 63);
    if (p->previous >= 0) {
        if (m->n_bonds == MAX_BONDS) return false;
        Bond *bond = &m->bonds[m->n_bonds++];
        memset(bond, 0, sizeof *bond);
        bond->ends[0] = (uint16_t)p->previous, bond->ends[1] = (uint16_t)number;
        if (!set_type(m, bond, p->symbol, p->previous)) return false;
        m->directions |= bond->direction != 0;
        if (add_neighbour(m, p->previous, number) < -1 || add_neighbour(m, number, p->previous) < -1) return false;
    }
    for (int i = 0; atom->centre >= 0 && i < atom->explicit_h; i++)
        if (add_neighbour(m, number, HYDROGEN) < -1) return false;
    p->previous = number;
    p->symbol = 0;
    p->last = ATOM;
    return true;
}

/* Elements that need no brackets; small letters are aromatic. */
static const uint8_t PLAIN[256] = {
    ['B'] = 5, ['C'] = 6, ['N'] = 7, ['O'] = 8,  ['F'] = 9,  ['P'] = 15, ['S'] = 16, ['I'] = 53,
    ['b'] = 5, ['c'] = 6, ['n'] = 7, ['o'] = 8, ['p'] = 15, ['s'] = 16,
};

/* An atom without brackets. */
static bool plain_atom(Parser *p) {
    int c = p->text[p->at++], next = peek(p, 0);
    Atom *atom = new_atom(p->m);
    if (!atom) return false;
    atom->element = PLAIN[c];
    atom->aromatic = c >= 'a';
    if (c == 'C' && next == 'l') atom->element = 17, p->at++;
    if (c == 'B' && next == 'r') atom->element = 35, p->at++;
    return bind_atom(p);
}

/* Pass over a number of up to three digits, as RDKit reads them: without zeros in front. */
static bool skip_number(Parser *p) {
    int start = p->at;
    while (is_digit(peek(p, 0))) p->at++;
    int n = p->at - start;
    return n <= 3 && (n < 2 || p->text[start] != '0');
}

/* The symbol of an atom in brackets: its element, -1 for none. */
static int bracket_symbol(Parser *p, bool *aromatic) {
    int c = peek(p, 0), next = peek(p, 1);
    *aromatic = c >= 'a' && c <= 'z';
    if (*aromatic) {
        p->at += 2;
        if (c == 's' && next == 'e') return 34;
        if (c == 't' && next == 'e') return 52;
        if (c == 'a' && next == 's') return 33;
        p->at -= 1;
        return PLAIN[c] && next != 'i' ? PLAIN[c] : -1;
    }
    if (c == '*') {
        p->at++;
        return 0;
    }
    int element = next >= 'a' && next <= 'z' ? element_of((char)c, (char)next) : 0;
    p->at += element ? 2 : 1;
    if (!element) element = element_of((char)c, 0);
    return element ? element : -1;
}

/* Charge of an atom in brackets: `+`, `++` or `+2`. False for what is not certain. */
static bool bracket_charge(Parser *p, int8_t *charge) {
    *charge = 0;
    int c = peek(p, 0);
    if (c != '+' && c != '-') return true;
    int sign = c == '+' ? 1 : -1;
    p->at++;
    if (is_digit(peek(p, 0))) {
        *charge = (int8_t)(sign * (peek(p, 0) - '0'));
        p->at++;
        return *charge != 0 && !is_digit(peek(p, 0));
    }
    *charge = (int8_t)sign;
    if (peek(p, 0) == c) *charge = (int8_t)(2 * sign), p->at++;
    return peek(p, 0) != '+' && peek(p, 0) != '-' && !is_digit(peek(p, 0));
}

/* The mark of an atom in brackets, `@` or `@@`. */
static bool bracket_mark(Parser *p, Atom *atom) {
    Molecule *m = p->m;
    if (peek(p, 0) != '@') return true;
    if (m->n_centres == MAX_CENTRES) return false;
    bool once = peek(p, 1) != '@';
    p->at += once ? 1 : 2;
    m->centres[m->n_centres] = (Centre){.atom = (uint16_t)(m->n_atoms - 1), .odd = once};
    atom->centre = (int16_t)m->n_centres++;
    return true;
}

static bool bracket_atom(Parser *p) {
    p->at++;
    if (!skip_number(p)) return false; /* isotopes are forgotten */
    Atom *atom = new_atom(p->m);
    if (!atom) return false;
    atom->no_implicit = p->m->brackets = true;
    int element = bracket_symbol(p, &atom->aromatic);
    if (element < 0) return false;
    atom->element = (uint8_t)element;
    if (!bracket_mark(p, atom)) return false;
    if (peek(p, 0) == 'H') {
        p->at++;
        atom->explicit_h = 1;
        if (is_digit(peek(p, 0))) atom->explicit_h = (uint8_t)(peek(p, 0) - '0'), p->at++;
        if (atom->explicit_h > 4 || element <= 1) return false;
    }
    if (!bracket_charge(p, &atom->charge) || (!element && atom->charge)) return false;
    if (peek(p, 0) == ':') { /* so are atom maps */
        p->at++;
        if (!is_digit(peek(p, 0)) || !skip_number(p)) return false;
    }
    if (peek(p, 0) != ']') return false;
    p->at++;
    return bind_atom(p);
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
    if (PLAIN[c] || c == '*') return plain_atom(p);
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
    default: return false;
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
    Molecule *m = p->m;
    m->n_chain_bonds = m->n_bonds;
    if (m->n_bonds + p->n_closures > MAX_BONDS) return false;
    for (int i = 0; i < p->n_closures; i++) {
        m->bonds[m->n_bonds++] = p->closures[i].bond;
        m->directions |= p->closures[i].bond.direction != 0;
    }
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
    for (int i = m->n_chain_bonds; i < m->n_bonds; i++) {
        int a = m->bonds[i].ends[0], n = 0;
        for (int k = m->first[a]; k < m->first[a + 1]; k++) n += m->near_atom[k] == m->bonds[i].ends[1];
        if (n > 1) return true;
    }
    return false;
}

bool parse_smiles(Molecule *m, const uint8_t *text, int length) {
    Parser p;
    p.m = m, p.text = text, p.length = length, p.at = 0, p.previous = -1, p.symbol = 0;
    p.last = START, p.before_bond = START, p.depth = 0, p.n_closures = 0, p.n_open = 0;
    memset(p.open, 0xFF, sizeof p.open); /* all -1 */
    m->n_atoms = m->n_bonds = m->n_centres = 0;
    m->directions = m->brackets = false;
    m->present[0] = m->present[1] = 0;
    while (p.at < length)
        if (!token(&p)) return false;
    if (!after_atom(&p) || p.depth || p.n_open || !add_closures(&p)) return false;
    index_bonds(m);
    if (has_double_bonds(m)) return false;
    invert_marks(m);
    return true;
}

void index_bonds(Molecule *m) {
    memset(m->first, 0, sizeof(m->first[0]) * (size_t)(m->n_atoms + 1));
    for (int i = 0; i < m->n_bonds; i++) m->first[m->bonds[i].ends[0]]++, m->first[m->bonds[i].ends[1]]++;
    int sum = 0;
    for (int i = 0; i < m->n_atoms; i++) {
        int count = m->first[i];
        m->first[i] = (uint16_t)sum;
        sum += count;
    }
    for (int i = m->n_atoms; i <= m->n_atoms + 8 && i <= MAX_ATOMS; i++) m->first[i] = (uint16_t)sum; /* refinement.c */
    for (int k = sum; k < sum + 8 && k < 2 * MAX_BONDS; k++) m->near_atom[k] = 0;
    uint16_t next[MAX_ATOMS];
    memcpy(next, m->first, sizeof(next[0]) * (size_t)m->n_atoms);
    for (int i = 0; i < m->n_bonds; i++)
        for (int end = 0; end < 2; end++) {
            int place = next[m->bonds[i].ends[end]]++;
            m->near_bond[place] = (uint16_t)i;
            m->near_atom[place] = m->bonds[i].ends[1 - end];
        }
}
