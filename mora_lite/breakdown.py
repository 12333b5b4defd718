"""Where a model is good and where not: its test figures by scaffold, by similarity to training, by domain.

`figures` is what is asked of a group of molecules: it takes their row numbers (int64 `[n]`, never empty) and returns
named figures, such as those of `metrics.value_metrics`. If these have an `n` of their own (molecules whose value is
known), it stands in the row in place of the number of molecules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .metrics import bin_numbers
from .splits import scaffold_of

GroupFigures = Callable[[np.ndarray], Mapping[str, Any]]

SEEN, NOT_SEEN, NO_RING = "seen in training", "not seen in training", "no ring"
INSIDE, OUTSIDE = "inside", "outside"
LEAST_OF_SCAFFOLD = 5  # molecules; figures of fewer say nothing
SIMILARITY_EDGES = (0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def scaffolds(smiles: Sequence[str]) -> list[str]:
    """Bemis-Murcko scaffold of each molecule, as SMILES without stereo marks; '' for a molecule without rings.

    smiles: must be readable. It is the scaffold that splits by scaffold go by.
    """
    return [scaffold_of(text) for text in smiles]


def by_scaffold(
    figures: GroupFigures, scaffolds: Sequence[str], train_scaffolds: set[str], largest: int = 10
) -> list[dict[str, Any]]:
    """Rows `scaffold`, `n`, figures: molecules whose scaffold was seen in training, the others, then some scaffolds.

    scaffolds: `[N]`, as `scaffolds` gives them. These some are the `largest` most frequent ones that have at least 5
    molecules; '' is called `no ring`. A group without molecules has n = 0 and no figures.
    """
    seen = np.array([scaffold in train_scaffolds for scaffold in scaffolds], dtype=bool)
    rows = [_row({"scaffold": SEEN}, seen, figures), _row({"scaffold": NOT_SEEN}, ~seen, figures)]
    of = np.array(scaffolds, dtype=object)
    single: list[dict[str, Any]] = []
    for scaffold, count in Counter(scaffolds).most_common():
        if count < LEAST_OF_SCAFFOLD or len(single) >= largest:
            break
        row = _row({"scaffold": scaffold or NO_RING}, of == scaffold, figures)
        if row["n"] >= LEAST_OF_SCAFFOLD:  # known values may be fewer than molecules
            single.append(row)
    return rows + single


def by_similarity(
    figures: GroupFigures, similarity: np.ndarray, edges: Sequence[float] = SIMILARITY_EDGES
) -> list[dict[str, Any]]:
    """Rows `from`, `to`, `n` and figures, for each bin of similarity that has molecules.

    similarity: float `[N]`, 0 to 1, to the nearest training molecule; molecules with NaN are in no row. An edge belongs
    to the bin above it, the last edge to the last bin.
    """
    at = bin_numbers(similarity, edges)
    rows = [_row({"from": float(a), "to": float(b)}, at == i, figures) for i, (a, b) in enumerate(pairwise(edges))]
    return [row for row in rows if row["n"] > 0]


def by_domain(figures: GroupFigures, in_domain: np.ndarray) -> list[dict[str, Any]]:
    """Two rows `domain` (`inside`, `outside`), `n` and figures, the last only where n > 0. in_domain: bool `[N]`."""
    return [_row({"domain": INSIDE}, in_domain, figures), _row({"domain": OUTSIDE}, ~in_domain, figures)]


def _row(label: dict[str, Any], chosen: np.ndarray, figures: GroupFigures) -> dict[str, Any]:
    rows = np.flatnonzero(chosen)
    return {**label, "n": len(rows), **(figures(rows) if len(rows) else {})}
