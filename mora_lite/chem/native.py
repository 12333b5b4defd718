"""The native way from SMILES to graphs: a C extension that gives RDKit's codes, or says that it is not certain.

It is there where the package was compiled, and it is used if it agrees with this RDKit on `PROBES`. It needs no Python
objects for molecules and releases the interpreter's lock, so threads suffice. It never calls a text wrong: what it is
not certain of, wrong texts among it, is for RDKit (`molecules`). docs/native.md says what that is.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import rdBase

from . import circular, extension
from .codes import graph_codes
from .graph import ATOM_FIELDS, Graphs, concatenate
from .molecules import STANDARDIZE, parse_smiles
from .probes import PROBES

VERSION = 2  # of the graph codes
_NUMBER = {name: number for number, name in enumerate(reversed(STANDARDIZE))}  # none: 0, parent: 1


@dataclass(frozen=True)
class Reading:
    """Answers to `N` texts.

    certain: bool `[N]`; the other rows are for RDKit, and have neither atoms nor fingerprints here.
    graphs: of all rows. fingerprints: uint8 `[N, 128]`, those of `circular`.
    """

    certain: np.ndarray
    graphs: Graphs
    fingerprints: np.ndarray

    def merged(self, rows: Sequence[int], graphs: Graphs, fingerprints: np.ndarray) -> tuple[Graphs, np.ndarray]:
        """Graphs and fingerprints of the certain rows and of `rows`, which RDKit has read, in the order of rows."""
        certain = np.flatnonzero(self.certain)
        order = np.argsort(np.concatenate([certain, rows]))
        together = concatenate([self.graphs.select(certain), graphs]).select(order)
        return together, np.concatenate([self.fingerprints[certain], fingerprints])[order]


def is_used() -> bool:
    """Whether the extension is compiled and its answers are those of this RDKit."""
    return not note()


@functools.cache
def note() -> str:
    """Why SMILES are read by RDKit alone, for the user; empty where they are not."""
    try:
        _extension()
    except ImportError:
        return "the native reader of SMILES was not compiled on installation: RDKit reads them, which is slower"
    wrong = first_difference(PROBES)
    if wrong is None:
        return ""
    return (
        f"the native reader of SMILES is off, as RDKit {rdBase.rdkitVersion} reads {wrong} in another way than the "
        "RDKit that it was made for"
    )


def read(texts: Sequence[str], standardize: str) -> Reading:
    """Read SMILES. Call it only if `is_used`. standardize: as in `featurizer.Featurizer`."""
    together = "".join(texts)
    data = together.encode("utf-8", "replace")
    if len(data) == len(together):  # every character is one byte
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    else:
        lengths = np.array([len(text.encode("utf-8", "replace")) for text in texts])
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return read_column(data, offsets, standardize)


def read_column(text: bytes, offsets: np.ndarray, standardize: str) -> Reading:
    """Read SMILES that stand one behind the other, as in a string column of Arrow. Call it only if `is_used`.

    text: UTF-8. offsets: integers `[N + 1]`, where each SMILES begins in `text`, and the end of the last.
    """
    answer = _extension().read_smiles(text, offsets.astype(np.int64).tobytes(), _NUMBER[standardize])
    certain, atoms, bonds, endpoints, atom_ptr, bond_ptr, fingerprints = answer
    graphs = Graphs(
        np.frombuffer(atoms, np.uint8).reshape(-1, len(ATOM_FIELDS)),
        np.frombuffer(bonds, np.uint8),
        np.frombuffer(endpoints, np.uint16).reshape(-1, 2),
        np.frombuffer(atom_ptr, np.int64),
        np.frombuffer(bond_ptr, np.int64),
    )
    bits = np.frombuffer(fingerprints, np.uint8).reshape(-1, circular.N_BITS // 8)
    return Reading(np.frombuffer(certain, np.bool_), graphs, bits)


def first_difference(texts: Sequence[str], ways: Sequence[str] = STANDARDIZE) -> str | None:
    """The first of the texts to which the extension has an answer that is not RDKit's; None if there is none.

    RDKit's graphs get their stereo codes and fingerprints in plain Python here: the compiled part is what is tried.
    ways: of standardising, all of them in turn.
    """
    for standardize in ways:
        reading = read(texts, standardize)
        rows = np.flatnonzero(reading.certain).tolist()
        molecules = [parse_smiles(texts[row], version=VERSION, standardize=standardize).mol for row in rows]
        if None in molecules:
            return texts[rows[molecules.index(None)]]
        expected = graph_codes(molecules, VERSION, plain=True)
        bits = circular.fingerprints(expected, plain=True)
        if _are_equal(reading, rows, expected, bits):
            continue
        for number, row in enumerate(rows):
            if not _are_equal(reading, [row], expected.select([number]), bits[[number]]):
                return texts[row]
    return None


def _are_equal(reading: Reading, rows: Sequence[int], expected: Graphs, bits: np.ndarray) -> bool:
    graphs = reading.graphs.select(rows)
    names = ("atoms", "bonds", "bond_endpoints", "atom_ptr", "bond_ptr")
    return all(np.array_equal(getattr(graphs, name), getattr(expected, name)) for name in names) and np.array_equal(
        reading.fingerprints[list(rows)], bits
    )


def _extension() -> Any:
    return extension.load()
