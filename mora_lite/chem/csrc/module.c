/* The extension `_native`: many SMILES a call, without the interpreter's lock. */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "molecule.h"

/* Where the answers of a call go: as many atoms and bonds as a text may have, since each takes a character. */
typedef struct {
    const uint8_t *text;
    const int64_t *offsets;
    Py_ssize_t n;
    int standardize;
    uint8_t *certain, *atoms, *bonds, *ends, *fingerprints;
    int64_t *atom_ptr, *bond_ptr;
} Job;

static void read_all(Job *job, Molecule *m) {
    int64_t n_atoms = 0, n_bonds = 0;
    job->atom_ptr[0] = job->bond_ptr[0] = 0;
    for (Py_ssize_t i = 0; i < job->n; i++) {
        int64_t start = job->offsets[i], length = job->offsets[i + 1] - start;
        bool certain = length <= MAX_TEXT && read_molecule(m, job->text + start, (int)length, job->standardize);
        job->certain[i] = certain;
        if (certain) {
            memcpy(job->atoms + n_atoms * N_CODES, m->atom_codes, (size_t)m->n_atoms * N_CODES);
            memcpy(job->bonds + n_bonds, m->bond_codes, (size_t)m->n_bonds);
            memcpy(job->ends + n_bonds * 4, m->bond_ends, (size_t)m->n_bonds * 4);
            memcpy(job->fingerprints + i * FINGERPRINT_BYTES, m->fingerprint, FINGERPRINT_BYTES);
            n_atoms += m->n_atoms;
            n_bonds += m->n_bonds;
        } else {
            memset(job->fingerprints + i * FINGERPRINT_BYTES, 0, FINGERPRINT_BYTES);
        }
        job->atom_ptr[i + 1] = n_atoms;
        job->bond_ptr[i + 1] = n_bonds;
    }
}

static bool are_offsets(const int64_t *offsets, Py_ssize_t n, Py_ssize_t length) {
    if (offsets[0] < 0 || offsets[n] > length) return false;
    for (Py_ssize_t i = 0; i < n; i++)
        if (offsets[i] > offsets[i + 1]) return false;
    return true;
}

static PyObject *answer(Job *job, PyObject **arrays) {
    static const int WIDTH[] = {0, N_CODES, 1, 4};
    int64_t rows[] = {0, job->atom_ptr[job->n], job->bond_ptr[job->n], job->bond_ptr[job->n]};
    for (int i = 1; i < 4; i++)
        if (PyByteArray_Resize(arrays[i], (Py_ssize_t)(rows[i] * WIDTH[i])) < 0) return NULL;
    return PyTuple_Pack(7, arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[5], arrays[6]);
}

static PyObject *read_smiles(PyObject *self, PyObject *args) {
    (void)self;
    const char *text, *offset_bytes;
    Py_ssize_t length, offsets_length;
    Job job;
    if (!PyArg_ParseTuple(args, "y#y#i", &text, &length, &offset_bytes, &offsets_length, &job.standardize)) return NULL;
    if (offsets_length < 8 || offsets_length % 8) {
        PyErr_SetString(PyExc_ValueError, "offsets: expected int64 [N + 1]");
        return NULL;
    }
    job.n = offsets_length / 8 - 1;
    int64_t *offsets = malloc((size_t)offsets_length); /* a copy, as bytes need not be aligned */
    Molecule *m = malloc(sizeof *m);
    PyObject *arrays[7] = {NULL}, *result = NULL;
    if (!offsets || !m) {
        PyErr_NoMemory();
        goto end;
    }
    memcpy(offsets, offset_bytes, (size_t)offsets_length);
    if (!are_offsets(offsets, job.n, length)) {
        PyErr_SetString(PyExc_ValueError, "offsets: they must ascend, from 0 to at most the length of the text");
        goto end;
    }
    Py_ssize_t used = (Py_ssize_t)(offsets[job.n] - offsets[0]);
    const Py_ssize_t sizes[7] = {job.n, used * N_CODES, used, used * 4, (job.n + 1) * 8, (job.n + 1) * 8,
                                 job.n * FINGERPRINT_BYTES};
    for (int i = 0; i < 7; i++)
        if (!(arrays[i] = PyByteArray_FromStringAndSize(NULL, sizes[i]))) goto end;
    job.text = (const uint8_t *)text, job.offsets = offsets;
    job.certain = (uint8_t *)PyByteArray_AsString(arrays[0]);
    job.atoms = (uint8_t *)PyByteArray_AsString(arrays[1]);
    job.bonds = (uint8_t *)PyByteArray_AsString(arrays[2]);
    job.ends = (uint8_t *)PyByteArray_AsString(arrays[3]);
    job.atom_ptr = (int64_t *)(void *)PyByteArray_AsString(arrays[4]);
    job.bond_ptr = (int64_t *)(void *)PyByteArray_AsString(arrays[5]);
    job.fingerprints = (uint8_t *)PyByteArray_AsString(arrays[6]);
    Py_BEGIN_ALLOW_THREADS
    read_all(&job, m);
    Py_END_ALLOW_THREADS
    result = answer(&job, arrays);
end:
    for (int i = 0; i < 7; i++) Py_XDECREF(arrays[i]);
    free(offsets);
    free(m);
    return result;
}

/* Graphs that RDKit made, as the arrays of `Graphs`, and their stereo elements. */
typedef struct {
    Py_ssize_t n;
    const uint8_t *atoms, *bonds, *ends, *atom_ptr, *bond_ptr; /* their bytes, which need not be aligned */
    const uint8_t *element_ptr, *owner, *flags, *groups;
    uint8_t *done, *new_atoms, *new_bonds, *new_ends, *fingerprints;
} Given;

static int64_t int64_at(const uint8_t *bytes, Py_ssize_t i) {
    int64_t value;
    memcpy(&value, bytes + 8 * i, 8);
    return value;
}

/* The atoms and bonds of one graph; false if they are too many, if an atom is of no element, or a bond leads elsewhere. */
static bool take_graph(const Given *g, Py_ssize_t i, Molecule *m) {
    int64_t atom = int64_at(g->atom_ptr, i), bond = int64_at(g->bond_ptr, i);
    int64_t n_atoms = int64_at(g->atom_ptr, i + 1) - atom, n_bonds = int64_at(g->bond_ptr, i + 1) - bond;
    if (n_atoms > MAX_ATOMS || n_bonds > MAX_BONDS) return false;
    m->n_atoms = (int)n_atoms, m->n_bonds = (int)n_bonds;
    memcpy(m->atom_codes, g->atoms + atom * N_CODES, (size_t)n_atoms * N_CODES);
    memcpy(m->bond_codes, g->bonds + bond, (size_t)n_bonds);
    for (int k = 0; k < n_atoms; k++)
        if (m->atom_codes[k][ELEMENT] >= N_ELEMENTS) return false;
    for (int k = 0; k < n_bonds; k++) {
        memcpy(m->bonds[k].ends, g->ends + (bond + k) * 4, 4);
        if (m->bonds[k].ends[0] >= n_atoms || m->bonds[k].ends[1] >= n_atoms) return false;
    }
    index_bonds(m);
    return true;
}

/* The stereo elements of one graph. */
static bool take_elements(const Given *g, Py_ssize_t i, const Molecule *m, StereoElement *elements, int *n) {
    int64_t first = int64_at(g->element_ptr, i), count = int64_at(g->element_ptr, i + 1) - first;
    if (count > MAX_ELEMENTS) return false;
    *n = (int)count;
    for (int k = 0; k < *n; k++) {
        StereoElement *element = &elements[k];
        int64_t owner = int64_at(g->owner, (Py_ssize_t)(first + k));
        element->is_bond = g->flags[first + k] & 1;
        element->odd = g->flags[first + k] >> 1 & 1;
        element->alone = false;
        if (owner < 0 || owner >= (element->is_bond ? m->n_bonds : m->n_atoms)) return false;
        element->owner = (int)owner;
        memcpy(element->groups, g->groups + (first + k) * 16, 16);
        for (int e = 0; e < 8; e++)
            if (element->groups[e / 4][e % 4] >= m->n_atoms) return false;
    }
    return true;
}

static void finish_all(const Given *g, Molecule *m) {
    for (Py_ssize_t i = 0; i < g->n; i++) {
        StereoElement elements[MAX_ELEMENTS];
        int n = 0;
        int64_t atom = int64_at(g->atom_ptr, i), bond = int64_at(g->bond_ptr, i);
        g->done[i] = take_graph(g, i, m) && take_elements(g, i, m, elements, &n) && tell_elements(m, elements, n);
        if (!g->done[i]) continue;
        own_order(m);
        memcpy(g->new_atoms + atom * N_CODES, m->atom_codes, (size_t)m->n_atoms * N_CODES);
        memcpy(g->new_bonds + bond, m->bond_codes, (size_t)m->n_bonds);
        memcpy(g->new_ends + bond * 4, m->bond_ends, (size_t)m->n_bonds * 4);
    }
}

static void count_all(const Given *g, Molecule *m) {
    for (Py_ssize_t i = 0; i < g->n; i++) {
        g->done[i] = take_graph(g, i, m);
        if (!g->done[i]) continue;
        make_fingerprint(m);
        memcpy(g->fingerprints + i * FINGERPRINT_BYTES, m->fingerprint, FINGERPRINT_BYTES);
    }
}

/* Whether rows `[0, n]` of a pointer ascend from 0 to `total`. */
static bool is_pointer(const uint8_t *bytes, Py_ssize_t n, Py_ssize_t total) {
    if (int64_at(bytes, 0) || int64_at(bytes, n) != total) return false;
    for (Py_ssize_t i = 0; i < n; i++)
        if (int64_at(bytes, i) > int64_at(bytes, i + 1)) return false;
    return true;
}

/* Output arrays, and `work` on all graphs without the lock. sizes: of the arrays in bytes. */
static PyObject *work_on(Given *g, void (*work)(const Given *, Molecule *), const Py_ssize_t *sizes, int n_arrays,
                         uint8_t **const *places) {
    PyObject *arrays[4] = {NULL}, *result = NULL;
    Molecule *m = malloc(sizeof *m);
    bool ready = m != NULL;
    if (!m) PyErr_NoMemory();
    for (int i = 0; ready && i < n_arrays; i++) {
        ready = (arrays[i] = PyByteArray_FromStringAndSize(NULL, sizes[i])) != NULL;
        if (ready) *places[i] = (uint8_t *)PyByteArray_AsString(arrays[i]);
    }
    if (ready) {
        Py_BEGIN_ALLOW_THREADS
        work(g, m);
        Py_END_ALLOW_THREADS
        result = PyTuple_New(n_arrays);
        for (int i = 0; result && i < n_arrays; i++) {
            PyTuple_SetItem(result, i, arrays[i]);
            arrays[i] = NULL;
        }
    }
    for (int i = 0; i < n_arrays; i++) Py_XDECREF(arrays[i]);
    free(m);
    return result;
}

static bool is_consistent(const Given *g, const Py_ssize_t *lengths) {
    bool same = lengths[0] % N_CODES == 0 && lengths[2] == 4 * lengths[1] && lengths[3] >= 8 && lengths[3] % 8 == 0 &&
                lengths[4] == lengths[3];
    if (!same || !is_pointer(g->atom_ptr, g->n, lengths[0] / N_CODES) || !is_pointer(g->bond_ptr, g->n, lengths[1])) {
        PyErr_SetString(PyExc_ValueError, "graphs: the arrays of Graphs do not fit one another");
        return false;
    }
    return true;
}

static PyObject *finish_graphs(PyObject *self, PyObject *args) {
    (void)self;
    Given g;
    Py_ssize_t l[9];
    if (!PyArg_ParseTuple(args, "y#y#y#y#y#y#y#y#y#", &g.atoms, &l[0], &g.bonds, &l[1], &g.ends, &l[2], &g.atom_ptr,
                          &l[3], &g.bond_ptr, &l[4], &g.element_ptr, &l[5], &g.owner, &l[6], &g.flags, &l[7], &g.groups,
                          &l[8]))
        return NULL;
    g.n = l[3] / 8 - 1;
    if (!is_consistent(&g, l)) return NULL;
    if (l[5] != l[3] || l[6] != 8 * l[7] || l[8] != 16 * l[7] || !is_pointer(g.element_ptr, g.n, l[7])) {
        PyErr_SetString(PyExc_ValueError, "elements: their arrays do not fit one another");
        return NULL;
    }
    const Py_ssize_t sizes[] = {g.n, l[0], l[1], l[2]};
    uint8_t **const places[] = {&g.done, &g.new_atoms, &g.new_bonds, &g.new_ends};
    return work_on(&g, finish_all, sizes, 4, places);
}

static PyObject *fingerprint_graphs(PyObject *self, PyObject *args) {
    (void)self;
    Given g;
    Py_ssize_t l[5];
    if (!PyArg_ParseTuple(args, "y#y#y#y#y#", &g.atoms, &l[0], &g.bonds, &l[1], &g.ends, &l[2], &g.atom_ptr, &l[3],
                          &g.bond_ptr, &l[4]))
        return NULL;
    g.n = l[3] / 8 - 1;
    if (!is_consistent(&g, l)) return NULL;
    const Py_ssize_t sizes[] = {g.n, g.n * FINGERPRINT_BYTES};
    uint8_t **const places[] = {&g.done, &g.fingerprints};
    return work_on(&g, count_all, sizes, 2, places);
}

static PyMethodDef METHODS[] = {
    {"read_smiles", read_smiles, METH_VARARGS, "Texts, int64 offsets, standardize -> certain and the arrays of Graphs."},
    {"finish_graphs", finish_graphs, METH_VARARGS,
     "Arrays of Graphs and of stereo elements -> done, atoms, bonds, endpoints with stereo codes, in their own order."},
    {"fingerprint_graphs", fingerprint_graphs, METH_VARARGS, "Arrays of Graphs -> done, fingerprints."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    elements_init();
    refinement_init();
    return PyModule_Create(&MODULE);
}
