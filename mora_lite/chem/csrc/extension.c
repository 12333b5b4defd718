/* The extension `|...|` after a SMILES. Only groups of configurations are read: they change no code. */
#include "molecule.h"

enum { MAX_GROUPS = 32 };

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* A number of up to three digits, without zeros in front; -1 for anything else. */
static int number_at(const uint8_t *text, int length, int *at) {
    int start = *at, number = 0;
    while (*at < length && is_digit(text[*at]) && *at - start < 4) number = number * 10 + text[(*at)++] - '0';
    int n = *at - start;
    return n == 0 || n > 3 || (n > 1 && text[start] == '0') ? -1 : number;
}

/* What stands before a group's colon: `a`, `o1` or `&1`, as a number; -1 for anything else. */
static int group_at(const uint8_t *text, int length, int *at) {
    if (*at == length) return -1;
    uint8_t kind = text[(*at)++];
    if (kind == 'a') return 0;
    int number = kind == 'o' || kind == '&' ? number_at(text, length, at) : -1;
    return number <= 0 ? -1 : 2 * number + (kind == 'o');
}

/* Whether this is an extension that only groups atoms, each a number below `n_atoms`, each once: `|a:1,o1:2,4,&1:5|`. */
bool only_groups(const uint8_t *text, int length, int n_atoms) {
    int groups[MAX_GROUPS], n = 0, at = 1;
    bool grouped[MAX_ATOMS] = {false};
    if (length < 2 || text[0] != '|' || text[length - 1] != '|') return false;
    length--;
    while (at < length) {
        int group = group_at(text, length, &at);
        if (group < 0 || n == MAX_GROUPS || at == length || text[at++] != ':') return false;
        for (int i = 0; i < n; i++)
            if (groups[i] == group) return false;
        groups[n++] = group;
        do {
            int atom = number_at(text, length, &at);
            if (atom < 0 || atom >= n_atoms || grouped[atom]) return false;
            grouped[atom] = true;
            if (at == length) return true;
            if (text[at++] != ',') return false;
        } while (at < length && is_digit(text[at]));
    }
    return false;
}
