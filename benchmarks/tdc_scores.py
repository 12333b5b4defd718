"""Scores of the predictions that `tdc.py` writes: value, interval and rank by board, and changes between variants."""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tdc_data import BOARDS, LARGE, Board, published, rank, read_board

from mora_lite.scoring.tasks import on_scale

N_BOOTSTRAP = 1000
N_CHOICES = 60  # of networks, each of which makes a run of its own
CHEMPROP = "Chemprop-RDKit"
ENDS = ("low", "high")  # of intervals, added to the name of a variant


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


def deal(by_seed: Mapping[int, np.ndarray], n_runs: int) -> list[np.ndarray]:
    """The answer of each run: the mean over its seeds, which are dealt to the runs in turn.

    by_seed, and each answer: float64 `[rows, 2]`, as of `read_predictions`.
    """
    seeds = sorted(by_seed)
    return [_mean(by_seed, seeds[run::n_runs]) for run in range(n_runs)]


def choose(by_seed: Mapping[int, np.ndarray], n_networks: int) -> list[np.ndarray]:
    """The answers of `N_CHOICES` runs, each the mean over so many seeds, chosen at random without repeats (as `deal`).

    Their mean score is what a run of so many networks can be expected to have. As they share networks, they differ less
    than runs would.
    """
    generator, seeds = np.random.default_rng(0), sorted(by_seed)
    return [_mean(by_seed, generator.choice(seeds, n_networks, replace=False)) for _ in range(N_CHOICES)]


def _mean(by_seed: Mapping[int, np.ndarray], seeds: Sequence[int]) -> np.ndarray:
    answers = [by_seed[seed] for seed in seeds]
    if len({tuple(of_one[:, 0]) for of_one in answers}) > 1:
        raise SystemExit("the seeds have predicted different rows, which cannot be averaged")
    return np.mean(answers, axis=0)


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
        n_seeds = len(means[name])
        n_networks, n_runs = options.networks, options.runs or n_seeds
        if (needed := n_networks or n_runs) > n_seeds:
            print(f"{name}: fewer than {needed} seeds; left out")
            continue
        answers = choose(means[name], n_networks) if n_networks else deal(means[name], n_runs)
        rows = read_board(options.data, name)
        values, is_salt = rows.values, np.array(["." in text for text in rows.smiles])
        if options.salts:
            wanted = is_salt if options.salts == "only" else ~is_salt
            answers = [of_one[wanted[of_one[:, 0].astype(np.int64)]] for of_one in answers]
        if not all(map(len, answers)):
            continue
        scores = [board.score(values[m[:, 0].astype(np.int64)], m[:, 1]) for m in answers]
        at, interval = answers[0][:, 0].astype(np.int64), ""
        if not n_networks and all(np.array_equal(of_one[:, 0], at) for of_one in answers):  # not so for `valid`
            predicted = np.stack([of_one[:, 1] for of_one in answers])
            interval = "{:.3f} to {:.3f}".format(*bootstrap(board, values[at], predicted))
        value, entries = float(np.mean(scores)), published(name)
        best = (min if board.smaller_is_better else max)(entries.values())
        place = rank(board, value)
        ranks.append(place)
        arrow = "lower" if board.smaller_is_better else "higher"
        seeds, deviation = f"{n_seeds}", f" ± {np.std(scores):.3f}" if n_runs > 1 else ""
        if n_networks:
            seeds, deviation = f"{n_networks} of {n_seeds}", ""
        elif n_runs < n_seeds:
            seeds = f"{n_seeds} in {n_runs} run{'s' if n_runs > 1 else ''}"
        print(
            f"| {name} | {board.metric}, {arrow} is better | {seeds} | {len(at)} | {value:.3f}{deviation} | {interval} "
            f"| {place} of {len(entries) + 1} | {best:.3f} | {entries[CHEMPROP]:.3f} |",
            flush=True,
        )
    if ranks:
        print(f"\nmean rank over {len(ranks)} boards: {np.mean(ranks):.2f}")


def errors(options: argparse.Namespace, variants: str) -> dict[str, float]:
    """board -> mean over the seeds of the error, which is the metric, or 1 minus it where larger is better."""
    found = {}
    for name, by_seed in read_predictions(options.folders, variants.split(","), options.part).items():
        board, values = BOARDS[name], read_board(options.data, name).values
        value = np.mean([board.score(values[m[:, 0].astype(np.int64)], m[:, 1]) for m in by_seed.values()])
        found[name] = float(value if board.smaller_is_better else 1 - value)
    return found


def print_changes(options: argparse.Namespace) -> None:
    """A table in Markdown: the mean over boards of log(error / error of the reference), and its standard error."""
    reference = errors(options, options.reference)
    print(f"change of the error against {options.reference}; part {options.part}\n")
    print("| variants | boards | change | large boards | change |")
    print("| --- | --- | --- | --- | --- |")
    for variants in options.variants:
        changed = {
            name: 100 * np.log(error / reference[name])
            for name, error in errors(options, variants).items()
            if name in reference
        }
        cells = []
        for names in (list(changed), [name for name in changed if name in LARGE]):
            values = [changed[name] for name in names]
            deviation = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
            cells.append(f"{len(values)} | {np.mean(values):+.1f} ± {deviation:.1f} %" if values else "0 |")
        print(f"| {variants} | {cells[0]} | {cells[1]} |", flush=True)


def print_coverage(options: argparse.Namespace) -> None:
    """A table in Markdown: the share of true values inside the intervals, mean over the seeds and over the boards."""
    for variant in options.variants:
        low, high = (read_predictions(options.folders, [f"{variant} {end}"], options.part) for end in ENDS)
        print(f"variant {variant}; part {options.part}\n\n| board | seeds | rows | inside | mean width |")
        print("| --- | --- | --- | --- | --- |")
        shares = []
        for name, by_seed in low.items():
            truth = on_scale(read_board(options.data, name).values, BOARDS[name].scale)
            inside, width = [], []
            for seed, of_one in by_seed.items():
                ends, at = np.stack([of_one[:, 1], high[name][seed][:, 1]]), of_one[:, 0].astype(np.int64)
                inside.append(np.mean((np.nan_to_num(ends[0], nan=-np.inf) <= truth[at]) & (truth[at] <= ends[1])))
                width.append(np.mean(ends[1] - ends[0]))
            shares.append(np.mean(inside))
            print(f"| {name} | {len(inside)} | {len(at)} | {shares[-1]:.3f} | {np.mean(width):.2f} |", flush=True)
        print(f"\nmean over {len(shares)} boards: {np.mean(shares):.3f}\n")
