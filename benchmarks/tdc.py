"""The TDC ADMET group by its protocol: five seeds, official test sets, rank among the published entries.

    python benchmarks/tdc.py single --data DIR -o RUNS --boards dili herg --seeds 1 2 3 4 5
    python benchmarks/tdc.py train  --data DIR --table boards.csv.gz -o RUNS --group dili,herg --seed 1
    python benchmarks/tdc.py score  --data DIR RUNS --variants mt mt+ft

`single` trains on each set alone as `mora-lite train` does by default, on the seed's scaffold split of `train_val`.
`train` trains one network on all columns of a table, from which every molecule of the group's test sets is gone, in
whatever salt, charge or configuration it is drawn, and then goes on with each board's own rows (variant `mt+ft`).
Both write one CSV file for each run: board, seed, variant, part, row of the board's file, and the prediction on the
scale of learning (log-odds, logarithm, logit or value). Runs whose file is there already are left out.

`score` averages the runs of a variant, then the variants that are named, and prints a table. Value and standard
deviation are over the seeds. The interval is of the mean over the seeds, from 1,000 bootstrap samples of the test rows.

`--part valid` predicts the seed's validation molecules instead of the test set, and `--part 2/5` the second of five
scaffold folds of `train_val`; the test molecules are left out of training there too. `score --part cv` takes all folds
together. Settings are chosen on these parts, never on the test sets.
"""

from __future__ import annotations

import argparse
import copy
import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tdc_data import BOARDS, SMALL, Board, BoardRows, Keys, leaks, on_scale, published, rank, read_board
from tdc_table import Tasks, board_graphs, draw_balanced, fit_tasks, float32_scores, read_union

from mora_lite.adapter.encoder import EncoderBaseline
from mora_lite.machine.device import choose_device
from mora_lite.model import load
from mora_lite.training.evaluate import baseline_values
from mora_lite.training.loop import TrainConfig, TrainProgress, fit
from mora_lite.training.pipeline import train as train_pack
from mora_lite.training.pretrain import SHIPPED, load_encoder
from mora_lite.training.recipe import ENCODER

HEADER = ["board", "seed", "variant", "part", "row", "prediction"]
N_BOOTSTRAP = 1000
CHEMPROP = "Chemprop-RDKit"
# Of the trial: the encoder at 3e-4, the head at 1e-3, then 200 small steps on the board's own rows.
MULTITASK = replace(
    ENCODER, epochs=1, batch_size=128, encoder_lr_scale=0.3, ema_decay=0.998, patience=0, keep_start=False
)
OWN_STEPS = 200
OWN = replace(MULTITASK, batch_size=64, peak_lr=3e-4, encoder_lr_scale=1.0, warmup_steps=20, ema_decay=0.98)
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
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows((*line[:-1], f"{line[-1]:.6g}") for line in lines)
    unfinished.replace(path)


# Many boards at once


def train_group(options: argparse.Namespace) -> None:
    """One network for the boards of a group, and what comes of it on each board's own rows."""
    names = options.group.split(",")
    target = options.out / f"{options.name}_{'+'.join(names)}_{options.part.replace('/', 'of')}_{options.seed}.csv"
    if target.exists():
        return print(f"{target} is there already")
    device = choose_device(options.device)
    union = read_union(options.table)
    boards = [read_board(options.data, name) for name in names]
    held = [rows.held_out(options.part, options.seed) for rows in boards]
    unseen = [b.smiles[i] for b, h in zip(boards, held, strict=True) for i in np.union1d(h, np.flatnonzero(b.test))]
    leave_out = leaks(union.data.smiles, unseen, Keys(options.table.with_name(options.table.name + ".keys.csv")))
    tasks = fit_tasks(union, leave_out, options.recipe)
    print(f"{len(tasks.data)} molecules, {len(tasks.names)} tasks; {leave_out.sum()} molecules left out", flush=True)
    del union
    model = new_model(len(tasks.names), options.seed)
    drawn = draw_balanced(tasks.data.targets, options.visits, options.seed)
    fit_drawn(model, tasks, drawn, replace(MULTITASK, seed=options.seed), device)
    lines: Lines = []
    for rows, at in zip(boards, held, strict=True):
        column = tasks.names.index(rows.board.name)
        graphs, good = board_graphs([rows.smiles[i] for i in at])
        variants = {options.name: model}
        if options.own_steps:
            variants[f"{options.name}+ft"] = fine_tuned(model, tasks, column, options, device)
        for variant, one in variants.items():
            predicted = tasks.learnt(float32_scores(one, graphs, device))[:, column]
            lines += lines_of(rows, at, good, predicted, (options.seed, variant, options.part))
    write_lines(target, lines)
    print(target, flush=True)


def new_model(n_tasks: int, seed: int) -> EncoderBaseline:
    """The network before training: a molecule's graph -> one score for each task."""
    torch.manual_seed(seed)
    return EncoderBaseline(load_encoder(SHIPPED), n_tasks)


def fine_tuned(
    model: EncoderBaseline, tasks: Tasks, column: int, options: argparse.Namespace, device: torch.device
) -> EncoderBaseline:
    """A copy that went on with the molecules of one task, and with this task's values alone."""
    targets = np.full_like(tasks.data.targets, np.nan)
    targets[:, column] = tasks.data.targets[:, column]
    rows = np.flatnonzero(~np.isnan(targets[:, column]))
    drawn = np.random.default_rng(options.seed).choice(rows, size=options.own_steps * OWN.batch_size)
    own = replace(tasks, data=replace(tasks.data, targets=targets))
    one = copy.deepcopy(model)
    fit_drawn(one, own, drawn, replace(OWN, seed=options.seed), device)
    return one


def fit_drawn(
    model: EncoderBaseline, tasks: Tasks, drawn: np.ndarray, settings: TrainConfig, device: torch.device
) -> None:
    """One pass over the drawn molecules, int64 positions; the last weights are kept."""

    def report(at: TrainProgress) -> None:
        if at.step * 10 // at.n_steps > max(tenths):
            tenths.append(at.step * 10 // at.n_steps)
            print(f"step {at.step} of {at.n_steps}, loss {at.loss:.3f}, {at.mol_per_s:.0f} molecules/s", flush=True)

    tenths = [0]

    monitor = tasks.data.at(np.unique(drawn[:256]))
    with tempfile.TemporaryDirectory() as folder:
        fit(model, tasks.data.at(drawn), monitor, tasks.stats, settings, Path(folder), device, report)


# Each board alone


def train_single(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        for name in options.boards:
            target = options.out / f"{options.name}_{name}_{options.part.replace('/', 'of')}_{seed}.csv"
            if not target.exists():
                write_lines(target, single_run(read_board(options.data, name), seed, options))
                print(target, flush=True)


def single_run(rows: BoardRows, seed: int, options: argparse.Namespace) -> Lines:
    """`mora-lite train` with its defaults; the pack's predictions, and those of its encoder alone.

    The values of the test rows are blank in the table, so that a molecule in both parts has that of training alone.
    """
    held = rows.held_out(options.part, seed)
    marks = np.full(len(rows.smiles), "train", dtype=object)
    marks[rows.held_out("valid", seed)] = "valid"
    marks[np.union1d(held, np.flatnonzero(rows.test))] = "test"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.csv")
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["smiles", rows.board.name, "split"])
            for smiles, value, mark in zip(rows.smiles, rows.values, marks, strict=True):
                writer.writerow([smiles, "" if mark == "test" else repr(float(value)), mark])
        target = [rows.board.name]
        pack = train_pack(table, Path(folder, "pack"), targets=target, split="split", seed=seed, device=options.device)
        model = load(pack.path, device=options.device)
        graphs, good = board_graphs([rows.smiles[i] for i in held])
        task = model.tasks[0]
        learnt = {
            options.name: model.score_graphs(graphs)[:, 0],
            f"{options.name} encoder": baseline_values(model, model.pack.load_baseline(), graphs)[:, 0],
        }
    lines: Lines = []
    for variant, scores in learnt.items():
        values = scores.astype(np.float64)
        if not task.is_class:
            values = on_scale(task.in_unit(values), rows.board.scale)
        lines += lines_of(rows, held, good, values, (seed, variant, options.part))
    return lines


# Scores


def read_predictions(folders: Sequence[Path], variants: Sequence[str], part: str) -> dict[str, dict[int, np.ndarray]]:
    """board -> seed -> float64 `[n, 2]`: row of the board's file and prediction, ascending.

    The mean over a variant's runs, then over the variants. A seed that lacks a variant is left out, with a note.
    """
    values: dict[tuple[str, int], dict[int, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for line in _lines(folders):
        if line["variant"] in variants and (line["part"] == part or (part == "cv" and "/" in line["part"])):
            cell = values[line["board"], int(line["seed"])][int(line["row"])]
            cell[line["variant"]].append(float(line["prediction"]))
    means: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for (board, seed), cells in sorted(values.items()):
        if any(len(cell) < len(variants) for cell in cells.values()):
            print(f"{board}, seed {seed}: not all of {', '.join(variants)} are there; left out")
            continue
        rows = sorted(cells.items())
        means[board][seed] = np.array([[r, np.mean([np.mean(runs) for runs in cell.values()])] for r, cell in rows])
    return means


def _lines(folders: Iterable[Path]) -> Iterator[dict[str, str]]:
    for folder in folders:
        for path in sorted(folder.glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file)


def bootstrap(board: Board, truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over seeds. truth: float64 `[n]`; predicted: `[seeds, n]`; rows are drawn."""
    generator = np.random.default_rng(0)
    values = []
    for _ in range(N_BOOTSTRAP):
        rows = generator.integers(len(truth), size=len(truth))
        values.append(np.mean([board.score(truth[rows], one[rows]) for one in predicted]))
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def print_scores(options: argparse.Namespace) -> None:
    """A table in Markdown, a line for each board, and the mean rank."""
    means = read_predictions(options.folders, options.variants, options.part)
    print(f"variants {', '.join(options.variants)}; part {options.part}\n")
    print("| board | metric | seeds | rows | value | 95 % interval | rank | best | Chemprop-RDKit |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    ranks = []
    for name, board in BOARDS.items():
        if name not in means:
            continue
        by_seed = means[name]
        values = read_board(options.data, name).values
        at = next(iter(by_seed.values()))[:, 0].astype(np.int64)
        same = all(np.array_equal(of_one[:, 0], at) for of_one in by_seed.values())  # not so for `valid`
        scores = [board.score(values[m[:, 0].astype(np.int64)], m[:, 1]) for m in by_seed.values()]
        interval = ""
        if same:
            predicted = np.stack([of_one[:, 1] for of_one in by_seed.values()])
            interval = "{:.3f} to {:.3f}".format(*bootstrap(board, values[at], predicted))
        value, entries = float(np.mean(scores)), published(name)
        best = (min if board.smaller_is_better else max)(entries.values())
        place = rank(board, value)
        ranks.append(place)
        arrow = "lower" if board.smaller_is_better else "higher"
        print(
            f"| {name} | {board.metric}, {arrow} is better | {len(scores)} | {len(at)} "
            f"| {value:.3f} ± {np.std(scores):.3f} | {interval} "
            f"| {place} of {len(entries) + 1} | {best:.3f} | {entries[CHEMPROP]:.3f} |",
            flush=True,
        )
    if ranks:
        print(f"\nmean rank over {len(ranks)} boards: {np.mean(ranks):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    single, group, score = (commands.add_parser(name) for name in ("single", "train", "score"))
    for command in (single, group):
        command.add_argument("-o", "--out", type=Path, required=True, help="folder of the predictions")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
    for command in (single, group, score):
        command.add_argument("--data", type=Path, required=True, help="folder of the boards' .csv.gz files")
        command.add_argument("--part", default="test", help="test, valid, K/N, and cv for score")
    single.add_argument("--boards", nargs="+", choices=BOARDS, default=list(SMALL))
    single.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    single.add_argument("--name", default="single", help="of the variant")
    group.add_argument("--table", type=Path, required=True)
    group.add_argument("--recipe", type=Path, help="TOML file with the scales of the columns that are no board")
    group.add_argument("--group", required=True, help="boards, with commas between")
    group.add_argument("--seed", type=int, required=True)
    group.add_argument("--visits", type=int, default=600_000)
    group.add_argument("--own-steps", type=int, default=OWN_STEPS)
    group.add_argument("--name", default="mt", help="of the variant")
    score.add_argument("folders", nargs="+", type=Path)
    score.add_argument("--variants", nargs="+", required=True)
    options = parser.parse_args()
    if options.command != "score":
        torch.set_num_threads(options.threads)
    {"single": train_single, "train": train_group, "score": print_scores}[options.command](options)


if __name__ == "__main__":
    main()
