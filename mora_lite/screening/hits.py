"""The hits of a screening as a table: the best rows, each molecule once or marked where it comes again, what they were
ranked by, and what the library says of them besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..chem.featurizer import Featurizer
from ..chem.smiles import canonical
from ..tables.formats import rounded
from ..tables.library import Library
from ..tables.parquet import from_texts, to_texts, utf8
from .expression import Expression
from .ranking import rank

SCORE, REPEAT = "score", "repeat_of"
MAX_SIMILARITY = 0.5  # Tanimoto, of two hits of a diverse choice
POOL = 20  # so many times the wanted hits are compared for a diverse choice, and at least
MIN_POOL = 1000
READ_ROWS = 4096  # of the library at a time


class Ranking(NamedTuple):
    """What top.csv holds: the first `n` rows in the order of `by`, of those that meet `where`.

    unique: of rows with the same molecule only the best. diverse: no two hits are more similar than `MAX_SIMILARITY`.
    """

    n: int
    by: Expression
    where: Expression | None
    ascending: bool
    unique: bool = False
    diverse: bool = False

    @property
    def title(self) -> str:
        """In words, for people."""
        order = "lowest" if self.ascending else "highest"
        condition = f", where {self.where.text}" if self.where else ""
        once = ", different molecules" if self.diverse else ", each molecule once" if self.unique else ""
        return f"{order} {self.by.text}{condition}{once}"


def find_hits(shards: Iterable[pa.Table], ranking: Ranking, featurizer: Featurizer) -> pa.Table:
    """The rows that `ranking` asks for, with `rank`, the columns of the shards and after the SMILES two more: `score`,
    the value of `by`, and `repeat_of`, the rank of a better hit with the same molecule, null where there is none.
    """
    n = ranking.n
    size = max(POOL * n, MIN_POOL) if ranking.diverse else n
    key = molecule_key if ranking.unique or ranking.diverse else None
    hits = rank(shards, ranking.by, size, ranking.where, ranking.ascending, key)
    if ranking.diverse:
        chosen = choose_diverse(_smiles_of(hits), n, featurizer)
        hits = hits.take(pa.array(chosen, pa.int64()))
        hits = hits.set_column(0, "rank", pa.array(np.arange(1, len(chosen) + 1)))
    scores = rounded(ranking.by.evaluate(hits)) if hits.num_rows else np.empty(0)
    at = hits.schema.names.index("smiles") + 1
    hits = hits.add_column(at, SCORE, pa.array(scores, pa.float64()))
    return hits.add_column(at + 1, REPEAT, pa.array(_repeats(_smiles_of(hits)), pa.int64()))


def molecule_key(smiles: str) -> str:
    """The same text for every spelling of a molecule."""
    return canonical(smiles) or smiles


def _smiles_of(table: pa.Table) -> list[str]:
    return to_texts(table["smiles"])


def _repeats(smiles: Sequence[str]) -> list[int | None]:
    """Of each molecule the number, from 1, of the first that is the same; None of the first itself."""
    first: dict[str, int] = {}
    numbers = [(i, first.setdefault(molecule_key(text), i)) for i, text in enumerate(smiles, 1)]
    return [earlier if earlier != i else None for i, earlier in numbers]


def choose_diverse(smiles: Sequence[str], n: int, featurizer: Featurizer) -> list[int]:
    """Up to `n` molecules in their order, each no more similar than `MAX_SIMILARITY` to any that was chosen before."""
    if not smiles:
        return []
    featurizer = replace(featurizer, descriptors=())  # fingerprints are all that is needed
    molecules = [featurizer.parse_smiles(text).mol for text in smiles]
    packed = featurizer.fingerprints(featurizer.graphs(molecules), lambda: molecules)
    bits = np.unpackbits(packed, axis=1).astype(np.float32)
    sizes = bits.sum(axis=1)
    chosen: list[int] = []
    for i in range(len(bits)):
        if len(chosen) == n:
            break
        common = bits[chosen] @ bits[i]
        either = sizes[chosen] + sizes[i] - common
        if not (common > MAX_SIMILARITY * either).any():
            chosen.append(i)
    return chosen


def add_library_columns(hits: pa.Table, open_cells: Callable[[], Library]) -> pa.Table:
    """`hits` with the library's own columns before the values, but for SMILES and names, which are there already.

    open_cells: opens the library with its cells; it is read up to the last of the hits. A name that is taken ends in
    `(library)`.
    """
    rows = hits["row"].to_pylist()
    with open_cells() as library:
        columns = [i for i in range(len(library.columns)) if i != library.smiles_index]
        if not columns or not rows:
            return hits
        wanted, cells = set(rows), {}
        for window in library.windows(READ_ROWS):
            for i in range(len(window.records)):
                if window.first_row + i in wanted:
                    cells[window.first_row + i] = window.cells[i]
            if len(cells) == len(wanted):
                break
    at, names = hits.schema.names.index(REPEAT) + 1, list(map(utf8, to_texts(hits["name"])))
    for column in reversed(columns):
        texts = [cells[row][column] if row in cells else "" for row in rows]
        bare = [text.strip() for text in texts]
        if list(map(utf8, bare)) == names:  # which come from shards, where Parquet may not hold all bytes
            hits = hits.set_column(hits.schema.names.index("name"), "name", from_texts(bare))
            continue
        name = utf8(library.columns[column])
        name = f"{name} (library)" if name in hits.schema.names else name
        hits = hits.add_column(at, name, from_texts(texts))
    return hits
