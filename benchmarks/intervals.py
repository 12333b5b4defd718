"""Share of true values inside the 90 % intervals, by similarity to the training molecules: before, now, and crepes.

    python benchmarks/intervals.py --cache CACHE qm9=QM9.csv.gz admet=ADMET.csv.gz

Each table is the one that the pack was made from. All methods see the predictions of the same pack and are fitted on
the same validation molecules; none sees a test molecule. A task counts when it has 300 test molecules. `before` is the
scale that packs had earlier, `exp(b * (1 - similarity))`; `now` is `Intervals.fit`, with 2,000 training molecules for
its floor, and the row `training` is on other training molecules. crepes gets the similarity in two ways: `normalised`
estimates the difficulty from the 25 nearest of one half of the validation molecules and calibrates on the other half,
`Mondrian` calibrates in each of the bins shown. Values and similarities are kept in CACHE, a folder, so only the first
run takes minutes. It needs `pip install ".[test]"`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mora_lite
from mora_lite.scoring.conformal import TRAINING_ROWS, Intervals
from mora_lite.training.dataset import Dataset
from mora_lite.training.evaluate import parts_of, read_training_table

CONFIDENCE = 0.9
BINS = ("below 0.5", "0.5 to 0.7", "0.7 to 0.85", "0.85 to 1", "exactly 1")
EDGES = (0.5, 0.7, 0.85, 1.0)
METHODS = ("before", "now", "crepes, normalised", "crepes, Mondrian")
BAND = (0.86, 0.94)
MIN_TEST = 300
TRAIN_ROWS = TRAINING_ROWS + 5000


class Rows(NamedTuple):
    """Molecules with a known value of one task: error float64 `[n]`, prediction - truth; similarity float64 `[n]`."""

    error: np.ndarray
    similarity: np.ndarray


HalfWidth = Callable[[np.ndarray], np.ndarray]  # similarity float64 `[n]` -> half the width of the interval


def before(valid: Rows) -> HalfWidth:
    """The least-squares slope of log |error| over the distance, clipped to 0 .. 4, and the quantile of the scores."""
    error, distance = np.abs(valid.error), 1 - valid.similarity
    log = np.log(np.maximum(error, 1e-3 * np.median(error)))
    centred = distance - distance.mean()
    b = float(np.clip(centred @ log / (centred @ centred), 0, 4))
    intervals = Intervals.of_growth(b, np.sort(error / np.exp(b * distance)).astype(np.float32))
    return lambda similarity: intervals.half_width(similarity, CONFIDENCE)


def now(valid: Rows, training: Rows) -> HalfWidth:
    intervals = Intervals.fit(valid.error, np.zeros(len(valid.error)), valid.similarity, training.error)
    return lambda similarity: intervals.half_width(similarity, CONFIDENCE)


def crepes_normalised(valid: Rows) -> HalfWidth:
    from crepes import ConformalRegressor
    from crepes.extras import DifficultyEstimator

    first = np.random.default_rng(0).permutation(len(valid.error)) % 2 == 0
    difficulty = DifficultyEstimator()
    difficulty.fit(X=valid.similarity[first, None], residuals=valid.error[first], k=25)
    regressor = ConformalRegressor()
    regressor.fit(valid.error[~first], sigmas=difficulty.apply(valid.similarity[~first, None]))

    def half_width(similarity: np.ndarray) -> np.ndarray:
        sigmas = difficulty.apply(similarity[:, None])
        return regressor.predict_int(np.zeros(len(similarity)), sigmas=sigmas, confidence=CONFIDENCE)[:, 1]

    return half_width


def crepes_mondrian(valid: Rows) -> HalfWidth:
    from crepes import ConformalRegressor

    regressor = ConformalRegressor()
    regressor.fit(valid.error, bins=np.digitize(valid.similarity, EDGES))

    def half_width(similarity: np.ndarray) -> np.ndarray:
        bins = np.digitize(similarity, EDGES)
        return regressor.predict_int(np.zeros(len(similarity)), bins=bins, confidence=CONFIDENCE)[:, 1]

    return half_width


def measure(pack: str, table: Path, cache: Path) -> dict[str, np.ndarray]:
    """Errors and similarities of the pack's tasks of values: `names`, and `PART_error`, `PART_similarity` `[n, P]`."""
    stored = cache / f"{pack}.npz"
    if stored.is_file():
        return dict(np.load(stored))
    names = [task.name for task in mora_lite.load(pack, device="cpu").tasks if not task.is_class]
    model = mora_lite.load(pack, dtype="float32", tasks=names)
    assert model.calibrator is not None
    parts = parts_of(
        read_training_table(table, model.pack, model.tasks, "test"), model.pack.provenance, model.pack.name, table
    )
    arrays = {"names": np.array(names)}
    for name, part in parts.items():
        known = _some(part, TRAIN_ROWS if name == "train" else len(part))
        arrays[f"{name}_error"] = model.score_graphs(known.graphs) - known.targets
        bits = known.fingerprints()
        arrays[f"{name}_similarity"] = model.calibrator.domain.similarity(bits, model.device)
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(stored, **arrays)
    return arrays


def _some(part: Dataset, limit: int) -> Dataset:
    """Molecules with a known value, in random order, `limit` at most."""
    known = np.flatnonzero(~np.isnan(part.targets).all(1))
    return part.at(np.random.default_rng(0).permutation(known)[:limit])


def rows_of(arrays: dict[str, np.ndarray], part: str, task: int) -> Rows:
    error = arrays[f"{part}_error"][:, task].astype(np.float64)
    known = ~np.isnan(error)
    return Rows(error[known], arrays[f"{part}_similarity"][known, task].astype(np.float64))


def print_task(name: str, valid: Rows, test: Rows, train: Rows) -> np.ndarray:
    """Print the table of one task; for each bin and method whether it is within `BAND`: bool `[bins, methods]`."""
    floor, training = (Rows(*(x[part] for x in train)) for part in (slice(TRAINING_ROWS), slice(TRAINING_ROWS, None)))
    methods = [before(valid), now(valid, floor), crepes_normalised(valid), crepes_mondrian(valid)]
    in_bin = np.digitize(test.similarity, EDGES)
    groups = [(words, Rows(*(x[in_bin == i] for x in test))) for i, words in enumerate(BINS)]
    print(f"\n### {name}\n")
    print("| similarity | n | MAE | " + " | ".join(METHODS) + " |\n" + "|---" * 7 + "|")
    within = []
    for words, rows in [*groups, ("all test molecules", test), ("training", training)]:
        if not len(rows.error):
            continue
        halves = [method(rows.similarity) for method in methods]
        inside = [float(np.mean(np.abs(rows.error) <= half)) for half in halves]
        cells = [words, str(len(rows.error)), f"{np.abs(rows.error).mean():.3g}"]
        cells += [f"{100 * share:.1f} %, {2 * half.mean():.3g}" for share, half in zip(inside, halves, strict=True)]
        print("| " + " | ".join(cells) + " |")
        if words in BINS:
            within.append([BAND[0] <= share <= BAND[1] for share in inside])
    return np.array(within)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="PACK=TABLE")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the values and similarities")
    options = parser.parse_args()
    within = []
    for pack, _, table in (text.partition("=") for text in options.tables):
        arrays = measure(pack, Path(table), options.cache)
        for i, name in enumerate(arrays["names"].tolist()):
            valid, test, train = (rows_of(arrays, part, i) for part in ("valid", "test", "train"))
            if len(test.error) >= MIN_TEST:
                within.append(print_task(f"{Path(pack).name}, {name}", valid, test, train))
    every = np.concatenate(within)
    counts = "; ".join(f"{words}: {n}" for words, n in zip(METHODS, every.sum(0), strict=True))
    print(f"\nOf {len(every)} bins, within {100 * BAND[0]:.0f} to {100 * BAND[1]:.0f} %: {counts}.")


if __name__ == "__main__":
    main()
