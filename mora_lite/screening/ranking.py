"""The best rows of a table too large for memory: exact, in one pass over its shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..status import OK
from .expression import Expression


def rank(
    shards: Iterable[pa.Table],
    by: Expression,
    n: int,
    where: Expression | None = None,
    ascending: bool = False,
    key: Callable[[str], str] | None = None,
) -> pa.Table:
    """The `n` rows with the highest `by` (the lowest, if `ascending`), best first; equal ones by `row`.

    Only rows count whose `status` is `ok`, that meet `where`, and whose `by` is finite. The result has a column `rank`,
    int64 from 1, then those of the shards; it does not depend on how rows are split into shards. One shard and `n` rows
    are in memory at a time.

    shards: one at least, which may be empty. by: a number. where: a condition.
    key: of rows whose `smiles` it gives the same text only the best counts; None takes all.
    """
    best: pa.Table | None = None
    best_scores, best_rows = np.empty(0), np.empty(0, np.int64)
    for shard in shards:
        scores, rows = _scores(shard, by, where, ascending), shard["row"].to_numpy()
        if len(best_scores) == n:
            scores = np.where(scores <= best_scores[-1], scores, np.nan)  # the others have no chance
        chosen = _lowest(scores, rows, n) if key is None else _lowest_of_each(scores, rows, n, shard, key)
        best_here = shard.take(pa.array(chosen))
        both = best_here if best is None else pa.concat_tables([best, best_here])
        both_scores = np.concatenate([best_scores, scores[chosen]])
        both_rows = np.concatenate([best_rows, rows[chosen]])
        order = (
            _lowest(both_scores, both_rows, n) if key is None else _lowest_of_each(both_scores, both_rows, n, both, key)
        )
        # `take` copies, so nothing keeps the shards in memory.
        best, best_scores, best_rows = both.take(pa.array(order)), both_scores[order], both_rows[order]
    assert best is not None, "no shard"
    ranks = pa.array(np.arange(1, best.num_rows + 1), pa.int64())
    return best.combine_chunks().add_column(0, "rank", ranks)


def _scores(shard: pa.Table, by: Expression, where: Expression | None, ascending: bool) -> np.ndarray:
    """The order of the shard's rows: float64 `[B]`, the lower the better; NaN for rows that do not count."""
    counts = np.asarray(pc.equal(shard["status"], OK))
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
    scores: np.ndarray, rows: np.ndarray, n: int, table: pa.Table, key: Callable[[str], str]
) -> np.ndarray:
    """As `_lowest`, of rows with the same key only the first."""
    size = 2 * n
    while True:
        indices = _lowest(scores, rows, size)
        smiles = table["smiles"].take(pa.array(indices)).to_pylist()
        first: dict[str, int] = {}
        for index, text in zip(indices.tolist(), smiles, strict=True):
            first.setdefault(key(text), index)
        if len(first) >= n or len(indices) < size:
            return np.array(list(first.values())[:n], dtype=np.int64)
        size *= 4
