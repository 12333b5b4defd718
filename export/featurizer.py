"""How a molecule becomes the inputs of the exported models, as JSON that any language can follow.

The numbers come from the featurizer's own tables; a test follows nothing but this description, and docs/method.md for
stereo codes, and gets the same codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..chem.codes import _CHIRAL, _HYBRID, _ORDER, _STEREO
from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS, N_BOND_CODES, Graphs
from ..chem.molecules import MAX_ATOMS

EXAMPLE = "C[C@H]([NH3+])c1cccs1.[Cl-]"
_READING = {
    1: "Chem.MolFromSmiles(smiles) with its default sanitisation; hydrogens stay inside their atoms.",
    2: "Chem.MolFromSmiles without sanitisation and without removal of hydrogens; isotopes and atom maps set to 0; "
    "Chem.RemoveHs, which sanitises; Chem.SetBondStereoFromDirections.",
}
_STANDARDIZE = {
    "none": "Salts and mixtures are one molecule.",
    "parent": "Of it the parent is taken: rdMolStandardize.LargestFragmentChooser(preferOrganic=True).choose, "
    "rdMolStandardize.Uncharger().uncharge, Chem.SanitizeMol; where that fails, as before Uncharger.",
}


def describe_featurizer(featurizer: Featurizer) -> dict[str, Any]:
    """Fields of atoms and bonds with the RDKit call each comes from and the code of each answer; and an example."""
    example = model_inputs(featurizer.read_smiles([EXAMPLE]))
    atom_rules, bond_rules = _ATOM_RULES, _BOND_RULES
    if featurizer.version >= 2:
        atom_rules, bond_rules = atom_rules | {"chirality": _OWN_CODE}, bond_rules | {"stereo": _OWN_CODE}
    return {
        "format": 1,
        "toolkit": "RDKit",
        "version": featurizer.version,
        "molecule": f"{_READING[featurizer.version]} {_STANDARDIZE[featurizer.standardize]} The order of atoms is "
        "free: it shows in the last bits of sums only. "
        f"A molecule has 1 to {MAX_ATOMS} atoms.",
        "stereo": "The codes of centres and double bonds of version 2 do not depend on the order of atoms: "
        "'Stereo codes' in docs/method.md says how they are found.",
        "code": "Look the answer of `call` up in `table`; what is not there gets `other`. Enumerations are looked up "
        "by name, booleans as 0 and 1. Calls are methods of Chem.Atom and Chem.Bond. `ring_size` is the size of "
        "the smallest ring of RingInfo.AtomRings() that the atom is in, 0 outside of rings; `ring_count` is the number "
        "of those rings.",
        "atom_fields": [{"name": name, "codes": n, **atom_rules[name]} for name, n in ATOM_FIELDS.items()],
        "bond_fields": [{"name": name, "codes": n, **bond_rules[name]} for name, n in BOND_FIELDS.items()],
        "bond_code": {
            "codes": N_BOND_CODES,
            "rule": "((order * 2 + conjugated) * 2 + ring) * 4 + stereo",
            "factors": {"order": 16, "conjugated": 8, "ring": 4, "stereo": 1},
        },
        "inputs": {
            "atom_codes": "int64 [atoms, 10]: a row for each atom of the batch, molecule after molecule, columns in "
            "the order of atom_fields",
            "edge_index": "int64 [2, edges]: each bond twice, once in each direction; row 0 the atom it comes from, "
            "row 1 the atom it leads to; atoms counted from the first of the batch",
            "bond_codes": "int64 [edges]: the bond code of each column of edge_index",
            "graph_index": "int64 [atoms]: the molecule of each atom, ascending from 0; every molecule has an atom",
            "task_index": "int64 [tasks], of the scorer only: positions in `tasks` of export.json",
        },
        "example": {"smiles": EXAMPLE} | {name: values.tolist() for name, values in example.items()},
    }


def _table(known: dict[Any, int], other: int) -> dict[str, Any]:
    return {"table": {str(getattr(kind, "name", kind)): code for kind, code in known.items()}, "other": other}


def _numbers(known: range, other: int, first: int = 0) -> dict[str, Any]:
    return _table({value: code for code, value in enumerate(known, first)}, other)


_OWN_CODE = {"call": "stereo"} | _numbers(range(3), 0)
_ATOM_RULES: dict[str, dict[str, Any]] = {
    "element": {"call": "GetAtomicNum"} | _numbers(range(119), 0),
    "charge": {"call": "GetFormalCharge"} | _numbers(range(-4, 5), 9),
    "degree": {"call": "GetDegree"} | _numbers(range(7), 7),
    "hydrogens": {"call": "GetTotalNumHs"} | _numbers(range(5), 5),
    "hybridisation": {"call": "GetHybridization"} | _table(_HYBRID, 0),
    "aromatic": {"call": "GetIsAromatic"} | _numbers(range(2), 0),
    "chirality": {"call": "GetChiralTag"} | _table(_CHIRAL, 3),
    "radicals": {"call": "GetNumRadicalElectrons"} | _numbers(range(2), 2),
    "ring_size": {"call": "ring_size"} | _table({0: 0} | {size: size - 2 for size in range(3, 9)}, 7),
    "ring_count": {"call": "ring_count"} | _numbers(range(3), 3),
}
_BOND_RULES: dict[str, dict[str, Any]] = {
    "order": {"call": "GetBondType"} | _table(_ORDER, 4),
    "conjugated": {"call": "GetIsConjugated"} | _numbers(range(2), 0),
    "ring": {"call": "IsInRing"} | _numbers(range(2), 0),
    "stereo": {"call": "GetStereo"} | _table(_STEREO, 3),
}


def model_inputs(graphs: Graphs) -> dict[str, np.ndarray]:
    """The inputs of an exported encoder by name, int64 arrays: all molecules of `graphs` as one batch."""
    arrays = graphs.arrays()
    return {
        "atom_codes": arrays["atoms"],
        "edge_index": np.stack([arrays["source"], arrays["target"]]),
        "bond_codes": arrays["bonds"],
        "graph_index": arrays["graph"],
    }
