"""From text to graph codes and fingerprints: one molecule, one graph, however it was spelled.

Packs record the `Featurizer` that they were made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rdkit import Chem

from ..errors import PackError
from . import circular, descriptors, morgan, native
from .codes import graph_codes
from .graph import Graphs
from .molecules import STANDARDIZE, Parsed, is_mol_block, parse_molblock, parse_smiles

VERSIONS = (1, 2)


@dataclass(frozen=True)
class Featurizer:
    """How molecules become numbers.

    version: of the graph codes. 2: hydrogen isotopes are hydrogens, other isotopes and atom maps are ignored, stereo
        codes are those of `stereo`, fingerprints those of `circular` (docs/method.md). 1, of packs from before: RDKit's
        stereo tags, whose sense depends on the order of atoms in the text, and RDKit's Morgan fingerprints.
    standardize: `parent` takes the largest organic fragment, neutralised, in place of the molecule; `none` takes it as
        it is drawn. Version 1 knows `none` only.
    descriptors: RDKit's names of those that `Graphs.descriptors` has (`descriptors.describe`); empty for no such array.

    Raises `PackError` for what this version of the program does not know.
    """

    version: int = 2
    standardize: str = "parent"
    descriptors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise PackError(f"graph codes of version {self.version}: this program knows {VERSIONS}; update mora-lite")
        known = STANDARDIZE if self.version >= 2 else ("none",)
        if self.standardize not in known:
            raise PackError(f"standardize: got {self.standardize!r}, expected {' or '.join(known)}")
        if self.descriptors:
            descriptors.check(self.descriptors)

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Featurizer:
        """That of a manifest's entry `featurizer`; version 1 where there is none.

        Raises `PackError` for one that this version of the program does not know, and `KeyError` or `TypeError` for
        one that is damaged.
        """
        entry = manifest.get("featurizer")
        if entry is None:
            return cls(1, "none")
        featurizer = cls(entry["version"], entry["standardize"], tuple(entry.get("descriptors", ())))
        if entry != featurizer.as_dict():
            raise PackError(f"featurizer: got {entry}, expected {featurizer.as_dict()}; update mora-lite")
        return featurizer

    def __str__(self) -> str:
        described = f", {len(self.descriptors)} descriptors" if self.descriptors else ""
        return f"graph codes {self.version}, standardize {self.standardize}{described}"

    @property
    def notes(self) -> list[str]:
        """What the user of a pack with it should know, a line each."""
        if self.descriptors:
            return ["this pack has trees, whose descriptors cost some milliseconds a molecule (docs/train.md)"]
        if self.version >= 2:
            return [note] if (note := native.note()) else []
        return [
            "this pack reads molecules by graph codes of version 1: a chiral molecule in several spellings may get "
            "several answers; a pack trained now does not have that"
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON, with the fingerprint that goes with them."""
        name = circular.NAME if self.version >= 2 else morgan.NAME
        fingerprint = {"name": name, "radius": circular.RADIUS, "bits": circular.N_BITS}
        entry = {"version": self.version, "standardize": self.standardize, "fingerprint": fingerprint}
        return entry | ({"descriptors": list(self.descriptors)} if self.descriptors else {})

    def parse_smiles(self, text: str) -> Parsed:
        """Read one SMILES."""
        return parse_smiles(text, version=self.version, standardize=self.standardize)

    def parse_molecule(self, text: str) -> Parsed:
        """Read a SMILES or a mol block."""
        if is_mol_block(text):
            return parse_molblock(text, version=self.version, standardize=self.standardize)
        return self.parse_smiles(text)

    @property
    def is_native(self) -> bool:
        """Whether `read_natively` works: the C extension is compiled, agrees with this RDKit and knows this version.

        For descriptors RDKit's molecules are needed.
        """
        return not self.descriptors and self.version == native.VERSION and native.is_used()

    def read_natively(self, texts: Sequence[str]) -> native.Reading:
        """Read SMILES without RDKit. Rows that are not certain are for RDKit."""
        return native.read(texts, self.standardize)

    def read_smiles(self, smiles: Sequence[str]) -> Graphs:
        """Codes of SMILES that are known to be readable."""
        if not self.is_native:
            return self.graphs([self.parse_smiles(text).mol for text in smiles])
        reading = self.read_natively(smiles)
        left = np.flatnonzero(~reading.certain).tolist()
        if not left:
            return reading.graphs
        others = self.graphs([self.parse_smiles(smiles[row]).mol for row in left])
        return reading.merged(left, others, reading.fingerprints[left])[0]

    def graphs(self, molecules: Sequence[Chem.Mol]) -> Graphs:
        """Codes of molecules that this featurizer has read; none may be without atoms."""
        graphs = graph_codes(molecules, self.version)
        if not self.descriptors:
            return graphs
        return replace(graphs, descriptors=descriptors.describe(molecules, self.descriptors))

    def fingerprints(self, graphs: Graphs, molecules: Callable[[], Sequence[Chem.Mol]]) -> np.ndarray:
        """Packed bits, uint8 `[B, 128]`. molecules: those of `graphs`, for version 1, which needs them."""
        return circular.fingerprints(graphs) if self.version >= 2 else morgan.fingerprints(molecules())
