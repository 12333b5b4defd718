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

static PyMethodDef METHODS[] = {
    {"read_smiles", read_smiles, METH_VARARGS, "Texts, int64 offsets, standardize -> certain and the arrays of Graphs."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    elements_init();
    refinement_init();
    return PyModule_Create(&MODULE);
}
