"""Files of predictions on the boards of TDC: one of each run, a line for each row that is asked."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tdc_data import BoardRows

from mora_lite.machine.files import replacing_path
from mora_lite.scoring.tasks import on_scale

HEADER = ["board", "seed", "variant", "part", "row", "prediction"]
Lines = list[tuple[str, int, str, str, int, float]]


def lines_of(
    rows: BoardRows, held: np.ndarray, good: np.ndarray, predicted: np.ndarray, run: tuple[int, str, str]
) -> Lines:
    """Lines of a file of predictions. held: rows of the board's file; predicted: of those at the positions `good`.

    The others cannot be read: they get the mean of the training values.
    """
    seed, variant, part = run
    train = rows.values[~rows.test & ~np.isin(np.arange(len(rows.values)), held)]
    mean = train.mean()
    if rows.board.scale == "odds":
        filled = np.full(len(held), np.log(mean / (1 - mean)))
    else:
        filled = np.full(len(held), on_scale(train, rows.board.scale).mean())
    filled[good] = predicted
    return [(rows.board.name, seed, variant, part, int(r), float(p)) for r, p in zip(held, filled, strict=True)]


def write_lines(path: Path, lines: Lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows((*line[:-1], f"{line[-1]:.6g}") for line in lines)


def run_file(options: argparse.Namespace, names: Sequence[str], seed: int) -> Path:
    """The file of a run's predictions."""
    return options.out / f"{options.name}_{'+'.join(names)}_{options.part.replace('/', 'of')}_{seed}.csv"
