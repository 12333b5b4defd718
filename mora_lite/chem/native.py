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
from .graph import ARRAYS, ATOM_FIELDS, Graphs, concatenate
from .molecules import STANDARDIZE, parse_smiles

VERSION = 2  # of the graph codes
_NUMBER = {name: number for number, name in enumerate(reversed(STANDARDIZE))}  # none: 0, parent: 1
_CHAINS = r"""
C CCO CC(C)(C)C#N C1CC1 C%12CCCCC%12 C1CCCCC1C2CCCCC2 [CH3][CH2][OH] [13CH3:7]O [2H]OC BrCCCl FC(I)B(O)O [Na+].[Cl-]
[NH4+] [He] [Fe] [CH3] [CH2] [O][O] [N]=O
"""
_CLEAN_UP = r"""
CN(=O)=O C[N+](=O)[O-] CN=N#N O=Cl(=O)(=O)O C=P(=O)C c1ccn(=O)cc1 CP(C)(C)=O CS(=O)(=O)N
"""
_AROMATICITY = r"""
c1ccccc1 C1=CC=CC=C1 c1ccc2ccccc2c1 c1ccc2cc3ccccc3cc2c1 c1ccc2c(c1)ccc1ccccc12 c1ccc(cc1)-c1ccccc1 c1ccccc1c1ccccc1
c1cc[nH]c1 c1ccoc1 c1ccsc1 c1cc[se]c1 c1cnc[nH]1 Cn1cnc2c1c(=O)n(C)c(=O)n2C O=c1cc[nH]cc1 O=C1C=CC(=O)C=C1
O=c1cccccc1 c1ccc2cccc2cc1 C1=CC=CC=CC=C1 [cH-]1cccc1 c1cc[o+]cc1 C1=C[CH+]C=CC=C1 c1ccc2c(c1)[nH]c1ccccc12
c1cc2ccc3cccc4ccc(c1)c2c34 c1ccc2c(c1)c1ccccc1c1ccccc21 C1=CC=CN=CC=CO1 C1=CC=COC=CC=C1 N1C=CC=CC=CC=C1
C1=CC2=CC=CC2=C1 S1C=CSC=C1 c1ccc2nsnc2c1 c1cc2cc3ccc(cc4ccc(cc5ccc(cc1n2)[nH]5)n4)[nH]3 C1=CC=C2C(=C1)C=CC=C2
O=C1NC(=O)c2ccccc12 c1ccc2[nH]cnc2c1 B1C=CC=C1 c1ccpcc1 C1=C=CC=CC=1 N1=CC=NC=C1
"""
_CONJUGATION = r"""
CC(=O)N C=CC=C C=CO CSC=C CP(C)C=C CC#CC=O CC(=O)N=S(C)(C)=O CC=C=CC NC(N)=N C[Si](C)(C)C=C F[P-](F)(F)(F)(F)F
FS(F)(F)(F)(F)F C[Hg]C Cl[Pt](Cl)(N)N
"""
_RINGS = r"""
C1CC2CCC1C2 C1CC2CCC1CC2 C1C2CC3CC1CC(C2)C3 C12C3C4C1C5C2C3C45 C1CC11CC1 C1CC2CCC1CC2C3CCCCC3 C1CCC2(CC1)OCCO2
C1C2CC1C2 C1CCCCCCCCCCC1 c1cc2ccc1CCc1ccc(cc1)CC2
"""
_CONFIGURATIONS = r"""
C[C@H](N)C(=O)O C[C@@H](N)C(=O)O N[C@](C)(F)Cl [C@H](F)(Cl)Br C[C@]1(F)CCCO1 F/C=C/F F/C=C\F C(/F)=C/F C/C=C/C=C\C
F/C=C1/CCCC(C)C1 C[S@](=O)CC C[S@+]1CCC(C)C1 C[C@H]1CC[C@@H](C)CC1 C[C@H](O)[C@@H](O)[C@H](C)O C[C@@H]1CC[C@H](C)CC1
C[N@]1CC1 C/C=C1\CCC(C)C1 C1CCC/C=C/CCC1 [H][C@](F)(Cl)Br C[C@H]1C[C@@H]2CC[C@H]1C2 N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O
"""
_PARENTS = r"""
CC(=O)[O-].[Na+] C[NH2+]C.[Cl-] [NH3+]CC(=O)[O-] C[N+](C)(C)CC(=O)[O-] O=S(=O)([O-])c1ccccc1.[K+]
CC(=O)O.OC(=O)CCCCC c1cc[nH+]cc1 [O-]c1ccccc1 CC(C)[NH-] C[S-] c1nnn[n-]1 O=[N+]([O-])[O-].[NH4+] CCO.CCO
OC(=O)C(=O)[O-].[Li+] C[P+](C)(C)C.[Br-] [CH2-]C O=C([O-])c1ccccc1[NH3+]
"""

# Molecules that between them need all of RDKit's rules that the reader imitates, and all of this package's.
PROBES = tuple(f"{_CHAINS} {_CLEAN_UP} {_AROMATICITY} {_CONJUGATION} {_RINGS} {_CONFIGURATIONS} {_PARENTS}".split())


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
    return all(np.array_equal(getattr(graphs, name), getattr(expected, name)) for name in ARRAYS) and np.array_equal(
        reading.fingerprints[list(rows)], bits
    )


def _extension() -> Any:
    return extension.load()
