"""Molecules of a source that training never saw, as a stand-in for a project of one's own.

    python benchmarks/new_source.py train --table boards.csv.gz -o RUNS
    python benchmarks/new_source.py score --table boards.csv.gz --data DIR RUNS

Three endpoints are asked: logD, solubility, and clearance by human microsomes. The table of `make_admet.py --boards`
has each twice, as the column of a TDC board (rows of `train_val`) and as a column of other sources, PharmaBench before
all. `train` leaves the three columns of other sources out and trains one network on all the rest (`multi`), with the
settings of `tdc.py`, and one on each board's column alone (`alone_BOARD`). It writes a CSV file for each run: task,
seed, variant, row of the table, measured value, and prediction (of clearance, its logarithm). Runs whose file is there
already are left out.

`score` compares with the values of the other sources, for molecules that the board's whole file does not hold in any
salt, charge or configuration, test rows included. It prints mean and standard deviation over the seeds of Spearman's
rank correlation and of the mean absolute error, and the same of the seeds' mean prediction.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tdc import MULTITASK, VISITS, fit_many, new_model
from tdc_data import BOARDS, Keys, leaks, read_board
from tdc_table import Union, fit_tasks, float32_scores, read_union

from mora_lite.machine.device import choose_device
from mora_lite.machine.files import replacing_path
from mora_lite.scoring.tasks import on_scale

HEADER = ["task", "seed", "variant", "row", "truth", "prediction"]


@dataclass(frozen=True)
class Asked:
    """board: the column that is trained and answers. visits: of a network on that alone, some 30 for each molecule."""

    board: str
    visits: int


ASKED = {
    "logD": Asked("lipophilicity_astrazeneca", 100_000),
    "logS": Asked("solubility_aqsoldb", 220_000),
    "CLint_HLM": Asked("clearance_microsome_az", 26_000),
}
ALONE = replace(MULTITASK, batch_size=64, ema_decay=0.99, warmup_steps=100)


def with_columns(union: Union, names: Sequence[str]) -> Union:
    columns = [union.columns.index(name) for name in names]
    return replace(union, columns=list(names), data=replace(union.data, targets=union.data.targets[:, columns]))


def train(options: argparse.Namespace) -> None:
    union, device = read_union(options.table), choose_device(options.device)
    networks = [("multi", list(ASKED)), *((f"alone_{asked.board}", [task]) for task, asked in ASKED.items())]
    for seed in options.seeds:
        for name, tasks in networks:
            target = options.out / f"{name}_{seed}.csv"
            if not target.exists():
                write_run(target, union, tasks, (seed, name), device)
                print(target, flush=True)


def write_run(target: Path, union: Union, asked: list[str], run: tuple[int, str], device: torch.device) -> None:
    """Train a network and ask it for the values that the boards' columns lack. run: seed and variant."""
    seed, variant = run
    if variant == "multi":
        names, settings, visits = [name for name in union.columns if name not in ASKED], MULTITASK, VISITS
    else:
        names, settings, visits = [ASKED[asked[0]].board], ALONE, ASKED[asked[0]].visits
    tasks = fit_tasks(with_columns(union, names), np.zeros(len(union.data), dtype=bool))
    model = new_model(len(tasks.names), seed)
    with tempfile.TemporaryDirectory() as folder:
        fit_many(model, tasks, visits, replace(settings, seed=seed), device, Path(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing_path(target) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for task in asked:
            truth, trained = with_columns(union, [task, ASKED[task].board]).data.targets.T
            rows = np.flatnonzero(~np.isnan(truth) & np.isnan(trained))
            scores = float32_scores(model, union.data.graphs.select(rows), device)
            predicted = tasks.learnt(scores)[:, tasks.names.index(ASKED[task].board)]
            table_rows = union.data.rows[rows].tolist()
            writer.writerows(
                (task, *run, row, float(t), float(p))
                for row, t, p in zip(table_rows, truth[rows], predicted, strict=True)
            )


def score(options: argparse.Namespace) -> None:
    """A table in Markdown, a line for each endpoint and variant."""
    found: dict[str, dict[str, dict[int, dict[int, tuple[float, float]]]]] = {
        task: defaultdict(lambda: defaultdict(dict)) for task in ASKED
    }
    for path in sorted(options.folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                cell = found[line["task"]][line["variant"]][int(line["seed"])]
                cell[int(line["row"])] = float(line["truth"]), float(line["prediction"])
    union = read_union(options.table)
    keys = Keys.beside(options.table)
    smiles = dict(zip(union.data.rows.tolist(), union.data.smiles, strict=True))
    print("| endpoint | molecules | variant | seeds | Spearman | MAE | Spearman, together | MAE, together |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for task, by_variant in found.items():
        asked = sorted({row for by_seed in by_variant.values() for cell in by_seed.values() for row in cell})
        known = leaks([smiles[row] for row in asked], read_board(options.data, ASKED[task].board).smiles, keys)
        rows = [row for row, is_known in zip(asked, known, strict=True) if not is_known]
        for variant, by_seed in by_variant.items():
            pairs = np.array([[cell[row] for row in rows] for cell in by_seed.values()])
            truth = on_scale(pairs[0, :, 0], BOARDS[ASKED[task].board].scale)
            ranks, misses = np.array([judged(truth, of_one) for of_one in pairs[:, :, 1]]).T
            rank, miss = judged(truth, pairs[:, :, 1].mean(axis=0))
            print(
                f"| {task} | {len(rows)} | {variant} | {len(pairs)} | {ranks.mean():.3f} ± {ranks.std():.3f} "
                f"| {misses.mean():.3f} ± {misses.std():.3f} | {rank:.3f} | {miss:.3f} |"
            )


def judged(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Spearman's rank correlation and the mean absolute error. Both float64 `[n]`."""
    from scipy.stats import spearmanr

    return float(spearmanr(truth, predicted).statistic), float(np.abs(truth - predicted).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training, scoring = map(commands.add_parser, ("train", "score"))
    for command in (training, scoring):
        command.add_argument("--table", type=Path, required=True)
    training.add_argument("-o", "--out", type=Path, required=True, help="folder of the predictions")
    training.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    training.add_argument("--device", default="cpu")
    scoring.add_argument("--data", type=Path, required=True, help="folder of the boards' .csv.gz files")
    scoring.add_argument("folder", type=Path)
    options = parser.parse_args()
    {"train": train, "score": score}[options.command](options)


if __name__ == "__main__":
    main()
