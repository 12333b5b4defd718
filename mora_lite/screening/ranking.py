"""The best rows of a table too large for memory: exact, in one pass over its shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..status import OK
from .expression import CONDITION, NUMBER, Expression

if TYPE_CHECKING:
    import pyarrow


def rank(
    shards: Iterable[pyarrow.Table],
    by: Expression,
    n: int,
    where: Expression | None = None,
    ascending: bool = False,
    key: Callable[[str], str] | None = None,
) -> pyarrow.Table:
    """The `n` rows with the highest `by` (the lowest, if `ascending`), best first; equal ones by `row`.

    Only rows count whose `status` is `ok`, that meet `where`, and whose `by` is finite. The result has a column `rank`,
    int64 from 1, then those of the shards; it does not depend on how rows are split into shards. One shard and `n` rows
    are in memory at a time.

    key: of rows whose `smiles` it gives the same text only the best counts; None takes all.

    Raises `InputError` when `n` is below 1, `by` is not a number, or `where` is not a condition.
    """
    import pyarrow

    if n < 1:
        raise InputError(f"number of rows to keep: got {n}, expected 1 or more")
    by.must_be(NUMBER, "order")
    if where is not None:
        where.must_be(CONDITION, "filter")
    best: pyarrow.Table | None = None
    best_scores, best_rows = np.empty(0), np.empty(0, np.int64)
    for shard in shards:
        scores, rows = _scores(shard, by, where, ascending), shard["row"].to_numpy()
        if len(best_scores) == n:
            scores = np.where(scores <= best_scores[-1], scores, np.nan)  # the others have no chance
        chosen = _lowest(scores, rows, n) if key is None else _lowest_of_each(scores, rows, n, shard, key)
        best_here = shard.take(pyarrow.array(chosen))
        # Shards read from CSV may differ in type: a column without any value has none.
        both = best_here if best is None else pyarrow.concat_tables([best, best_here], promote_options="permissive")
        both_scores = np.concatenate([best_scores, scores[chosen]])
        both_rows = np.concatenate([best_rows, rows[chosen]])
        order = (
            _lowest(both_scores, both_rows, n) if key is None else _lowest_of_each(both_scores, both_rows, n, both, key)
        )
        # `take` copies, so nothing keeps the shards in memory.
        best, best_scores, best_rows = both.take(pyarrow.array(order)), both_scores[order], both_rows[order]
    if best is None:
        return pyarrow.table({"rank": pyarrow.array([], pyarrow.int64())})
    ranks = pyarrow.array(np.arange(1, best.num_rows + 1), pyarrow.int64())
    return best.combine_chunks().add_column(0, "rank", ranks)


def _scores(shard: pyarrow.Table, by: Expression, where: Expression | None, ascending: bool) -> np.ndarray:
    """The order of the shard's rows: float64 `[B]`, the lower the better; NaN for rows that do not count."""
    import pyarrow.compute

    counts = np.asarray(pyarrow.compute.equal(shard["status"].cast(pyarrow.string()), OK).fill_null(False))
    if where is not None:
        counts = counts & where.evaluate(shard)
    scores = by.evaluate(shard)
    scores = scores if ascending else -scores
    return np.where(counts & np.isfinite(scores), scores, np.nan)


def _lowest(scores: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Indices of the lowest scores, in order: int64 `[<= n]`; equal ones by `rows`, NaN left out."""
    indices = np.flatnonzero(~np.isnan(scores))
    if len(indices) > n:
        # All that are as low as the n-th: among equal ones their rows decide.
        worst = np.partition(scores[indices], n - 1)[n - 1]
        indices = indices[scores[indices] <= worst]
    return indices[np.lexsort([rows[indices], scores[indices]])][:n]


def _lowest_of_each(
    scores: np.ndarray, rows: np.ndarray, n: int, table: pyarrow.Table, key: Callable[[str], str]
) -> np.ndarray:
    """As `_lowest`, of rows with the same key only the first."""
    import pyarrow

    size = 2 * n
    while True:
        indices = _lowest(scores, rows, size)
        smiles = table["smiles"].take(pyarrow.array(indices)).to_pylist()
        first: dict[str, int] = {}
        for index, text in zip(indices.tolist(), smiles, strict=True):
            first.setdefault(key(text or ""), index)
        if len(first) >= n or len(indices) < size:
            return np.array(list(first.values())[:n], dtype=np.int64)
        size *= 4
