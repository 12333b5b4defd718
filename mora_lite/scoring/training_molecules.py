"""The molecules that a pack was trained on, with their measured values, and those of them nearest to a molecule.

On disk SMILES, values and rows are each one xz stream: for 110,000 molecules of QM9 with eight values 2.2 MB. The
fingerprints are those of the domain, which lies beside. Needs NumPy only.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chem.graph import row_pointer
from ..errors import InputError
from .domain import Domain

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1 << 30  # bytes that a stream may have when it is unpacked; ten million molecules have less
READER_MEMORY = 128 << 20  # bytes that the reader of a stream may take; the writer's preset 9 asks for 65 MiB
COMPARED = 1 << 22  # pairs of molecules that are compared at a time: 16 MiB of similarities
LEAST_QUERIES = 16  # at a time, however many molecules there are: a large domain is unpacked for each block
BLOCK = 64  # similarities of which only the largest is looked at first
PARTS = ("smiles", "values", "rows")


@dataclass(frozen=True, eq=False)
class TrainingMolecules:
    """`N` molecules with a value for at least one of `P` tasks, in the order of the table. Made by `of`.

    smiles: as in the table, but for runs of blanks, which are one blank.
    values: float32 `[N, P]`, measured, in the tasks' units, 0 or 1 for classes; NaN where there is none.
    rows: int64 `[N]`, the row of each in `domain`, where molecules with equal fingerprints and tasks share one.
    """

    smiles: list[str]
    values: np.ndarray
    rows: np.ndarray
    domain: Domain

    def __len__(self) -> int:
        return len(self.smiles)

    @classmethod
    def of(cls, smiles: Sequence[str], values: np.ndarray, packed: np.ndarray) -> TrainingMolecules:
        """Molecules without any value are left out.

        values: float32 `[N, P]`, NaN where there is none. packed: uint8 `[N, 128]`, from `fingerprints`.
        """
        assert values.dtype == np.float32
        domain, rows = Domain.sort(packed, ~np.isnan(values))
        used = np.flatnonzero(rows >= 0)
        return cls([" ".join(smiles[i].split()) for i in used.tolist()], values[used], rows[used], domain)

    def select(self, tasks: Sequence[int]) -> TrainingMolecules:
        """Only these tasks, in this order, and only the molecules that have a value for one of them."""
        if list(tasks) == list(range(self.values.shape[1])):
            return self
        return TrainingMolecules.of(self.smiles, self.values[:, list(tasks)], self.domain.packed[self.rows])

    def nearest(self, packed: np.ndarray, n: int, task: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The `n` most similar molecules of each fingerprint, the most similar first, equal ones in the table's order.

        packed: uint8 `[B, 128]`. task: only molecules with a value for this one. Returns their numbers, int64 `[B, n]`,
        and Tanimoto similarities, float32 `[B, n]`, 0 to 1; -1 and NaN where there are fewer molecules than `n`.
        """
        others = np.zeros(len(self.domain.packed), dtype=bool)  # rows without a value for the task
        if task is not None:
            others[self.rows[np.isnan(self.values[:, task])]] = True
        index = np.full((len(packed), n), -1, np.int64)
        similarity = np.full((len(packed), n), np.nan, np.float32)
        block = max(LEAST_QUERIES, COMPARED // max(1, len(self)))
        for start in range(0, len(packed), block):
            by_row = self.domain.all_similarities(packed[start : start + block])
            for i, of_all in enumerate(by_row, start):
                of_rows = of_all if task is None else np.where(others, np.float32(-1), of_all)
                found = self._at(_near(of_rows, n))
                found = found[of_rows[self.rows[found]] >= 0]
                values = of_rows[self.rows[found]]
                top = _top(values, n)
                index[i, : len(top)], similarity[i, : len(top)] = found[top], values[top]
        return index, similarity

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray]:
        """The molecules in the order of their rows, and where those of each row begin; int64."""
        counts = np.bincount(self.rows, minlength=len(self.domain.packed))
        return np.argsort(self.rows, kind="stable"), row_pointer(counts)

    def _at(self, rows: np.ndarray) -> np.ndarray:
        """The molecules of these rows of the domain, in the table's order; int64."""
        molecules, starts = self._by_row
        counts = starts[rows + 1] - starts[rows]
        place = np.arange(counts.sum()) + np.repeat(starts[rows] - (np.cumsum(counts) - counts), counts)
        return np.sort(molecules[place])

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a safetensors file.

        smiles: uint8, the xz stream of the SMILES in UTF-8, each followed by a line feed.
        values: uint8, of the values as float32 `[P, N]`. rows: uint8, of the rows as int32 `[N]`. Both little-endian.
        bytes: int64 `[3]`, lengths of the three when unpacked.

        Raises `InputError` when a part has more bytes than `from_tensors` would unpack.
        """
        import torch

        parts = {
            "smiles": "".join(f"{smiles}\n" for smiles in self.smiles).encode("utf-8", "surrogateescape"),
            "values": self.values.T.astype("<f4").tobytes(),
            "rows": self.rows.astype("<i4").tobytes(),
        }
        if max(map(len, parts.values())) > LARGEST:
            raise InputError(f"{len(self):,} training molecules are too many to keep in a pack; use --without-data")
        packed = {name: np.frombuffer(lzma.compress(data, preset=9), np.uint8) for name, data in parts.items()}
        tensors = {name: torch.from_numpy(data.copy()) for name, data in packed.items()}
        return tensors | {"bytes": torch.tensor([len(parts[name]) for name in PARTS])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any], domain: Domain) -> TrainingMolecules:
        """The inverse of `tensors`, from tensors or NumPy arrays. domain: of the same pack.

        No part is unpacked beyond the length that `bytes` gives it, and none beyond `LARGEST`. Raises `ValueError`,
        `TypeError` or `KeyError` for what is damaged or does not fit the domain.
        """
        lengths = np.asarray(tensors["bytes"]).astype(np.int64).ravel().tolist()
        parts = {name: _unpack(tensors[name], length) for name, length in zip(PARTS, lengths, strict=True)}
        smiles = parts["smiles"].decode("utf-8", "surrogateescape").split("\n")[:-1]
        rows = np.frombuffer(parts["rows"], "<i4").astype(np.int64)
        values = np.frombuffer(parts["values"], "<f4").reshape(domain.patterns.shape[1], len(smiles)).T
        if len(rows) != len(smiles) or not ((rows >= 0) & (rows < len(domain.packed))).all():
            raise ValueError("training molecules and domain do not fit each other")
        return cls(smiles, values.astype(np.float32), rows, domain)


def _near(similarity: np.ndarray, n: int) -> np.ndarray:
    """Positions of all that may be among the `n` largest, in ascending order; int64.

    The n-th largest of the maxima of blocks is at most the n-th largest of all.
    """
    maxima = np.maximum.reduceat(similarity, np.arange(0, len(similarity), BLOCK)) if len(similarity) else similarity
    if n >= len(maxima):
        return np.arange(len(similarity))
    return np.flatnonzero(similarity >= np.partition(maxima, len(maxima) - n)[len(maxima) - n])


def _top(similarity: np.ndarray, n: int) -> np.ndarray:
    """Positions of the `n` largest, or of all if there are fewer, the largest first and equal ones in their order."""
    if n < len(similarity):
        bound = np.partition(similarity, len(similarity) - n)[len(similarity) - n]
        above = np.flatnonzero(similarity > bound)
        # Without the rest of those at the bound, which may be nearly all molecules.
        top = np.concatenate([above, np.flatnonzero(similarity == bound)[: n - len(above)]])
    else:
        top = np.arange(len(similarity))
    return top[np.argsort(-similarity[top], kind="stable")]


def _unpack(packed: Any, length: int) -> bytes:
    """The content of an xz stream that has `length` bytes. Raises `ValueError` when it has not."""
    if not 0 <= length <= LARGEST:
        raise ValueError(f"a part of {length:,} bytes")
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=READER_MEMORY)
    try:
        content = reader.decompress(np.asarray(packed, np.uint8).tobytes(), max_length=length + 1)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from None
    if len(content) != length or not reader.eof:
        raise ValueError("a part that is longer or shorter than it should be")
    return content
