"""The TDC ADMET group by its protocol: five seeds, official test sets, rank among the published entries.

    python benchmarks/tdc.py single  --data DIR -o RUNS --boards dili herg --seeds 1 2 3 4 5
    python benchmarks/tdc.py train   --data DIR -o RUNS --table boards.csv.gz
    python benchmarks/tdc.py start   --data DIR -o endpoints.safetensors --table boards.csv.gz
    python benchmarks/tdc.py score   --data DIR RUNS --variants mt mt+own
    python benchmarks/tdc.py compare --data DIR RUNS --part 1/5 --reference mt --variants mt+own mt,mt+own

`single` trains on each set alone as `mora-lite train` does by default, on the seed's scaffold split of `train_val`.
`train` trains one network for each group of boards and each seed, on all columns of a table from which every molecule
of the group's test sets is gone, in whatever salt, charge or configuration it is drawn (variant `mt`). A copy of it
goes on with each board's own rows (variant `mt+own`). There is no early stopping, so all of `train_val` is trained and
the seed decides weights, draws and dropout alone. With `--common 600000` the networks of a seed go on from one that has
learnt, in so many draws, without any test molecule of the 22 boards; `--visits 100000` are enough then. With
`--teacher 0.1` a network learns too what trees on descriptors, grown without the group's test molecules, say of all
that are left (variant `mt+taught`; `tdc_teacher.py`).
`start` makes the encoder that `mora-lite train` starts from: one such network, from which every molecule of the test
sets of all 22 boards is gone. Started again, it goes on from its last epoch.
`single` and `train` write one CSV file for each run: board, seed, variant, part, row of the board's file, and the
prediction on the scale of learning (log-odds, logarithm, logit or value). Runs whose file is there already are left
out.

`score` averages the runs of a variant, then the variants that are named, and prints a table. Value and standard
deviation are over the seeds. The interval is of the mean over the seeds, from 1,000 bootstrap samples of the test rows.
`--runs 5` deals the seeds to five runs in turn, seeds 1, 6 and 11 to the first, and a run's answer is the mean over its
networks; `--runs 1` makes one answer of all. `--networks 5` prints what runs of five networks can be expected to have:
the mean over 60 random choices of five of the seeds. `--salts only` takes the rows whose SMILES has several molecules,
`none` the others.

`coverage` prints how many true values are in the 90 % intervals of `single`.

`--part valid` predicts the seed's validation molecules instead of the test set, and `--part 2/5` the second of five
scaffold folds of `train_val`; the test molecules are left out of training there too. `score --part cv` takes all folds
together. Settings are chosen on these parts, never on the test sets: `compare` prints the mean change of the error
against a variant, each board with the same weight. Variants with a comma between are averaged.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from tdc_data import BOARDS, SMALL, BoardRows, Keys, leaks, read_board
from tdc_runs import Lines, lines_of, run_file, write_lines
from tdc_scores import ENDS, print_changes, print_coverage, print_scores
from tdc_table import Tasks, Union, board_graphs, fit_tasks, float32_scores, read_union
from tdc_teacher import TAUGHT, describe, taught, tree_answers

from mora_lite.adapter.encoder import EncoderBaseline
from mora_lite.chem.descriptors import names as descriptor_names
from mora_lite.chem.featurizer import Featurizer
from mora_lite.machine.device import choose_device
from mora_lite.machine.files import write_tensors
from mora_lite.model import load
from mora_lite.scoring.tasks import on_scale
from mora_lite.scoring.trees import Trees
from mora_lite.training.evaluate import baseline_values
from mora_lite.training.loop import TrainConfig, TrainProgress, fit
from mora_lite.training.pipeline import train as train_pack
from mora_lite.training.pretrain import SHIPPED, load_encoder, save_encoder, seen_by_start
from mora_lite.training.recipe import Recipe

SEEDS = (1, 2, 3, 4, 5)
# The test sets of a group are left out together. At most 15 % of a board's training molecules are in those of the other
# boards of its group; leaving out all 22 would take up to 71 %.
GROUPS = (
    "lipophilicity_astrazeneca,solubility_aqsoldb,cyp2d6_veith,ld50_zhu",
    "cyp3a4_veith,half_life_obach,clearance_microsome_az,herg,ames",
    "vdss_lombardo,cyp2c9_veith,cyp3a4_substrate_carbonmangels,clearance_hepatocyte_az",
    "hia_hou,pgp_broccatelli,bbb_martins,ppbr_az",
    "caco2_wang,cyp2c9_substrate_carbonmangels,dili",
    "bioavailability_ma,cyp2d6_substrate_carbonmangels",
)
VISITS, OWN_STEPS = 600_000, 200
MULTITASK = TrainConfig(
    epochs=1,  # as many as make the visits
    batch_size=256,
    peak_lr=1e-3,
    encoder_lr_scale=0.5,
    weight_decay=0.01,
    ema_decay=0.998,
    warmup_steps=200,
    keep_start=False,
    dropout=0.1,
    huber=1.0,
    balanced=True,
)
OWN = replace(
    MULTITASK, batch_size=64, peak_lr=3e-4, encoder_lr_scale=1.0, ema_decay=0.98, warmup_steps=20, balanced=False
)


# Many boards at once


def train_groups(options: argparse.Namespace) -> None:
    missing = []
    for seed in options.seeds:
        for group in options.groups:
            names = group.split(",")
            target = run_file(options, names, seed)
            if target.exists():
                print(f"{target} is there already")
            else:
                missing.append((target, [read_board(options.data, name) for name in names], seed))
    if not missing:
        return
    union, keys = read_union(options.table), Keys.beside(options.table)
    for target, boards, seed in missing:
        write_lines(target, group_run(union, keys, boards, seed, options))
        print(target, flush=True)


def group_run(union: Union, keys: Keys, boards: Sequence[BoardRows], seed: int, options: argparse.Namespace) -> Lines:
    """One network for the boards of a group, and what comes of it on each board's own rows."""
    device = choose_device(options.device)
    held = [rows.held_out(options.part, seed) for rows in boards]
    tasks = unseen_tasks(union, keys, boards, held)
    if options.teacher:
        tasks = taught_by_trees(tasks, union, [rows.board.name for rows in boards], seed, options)
    model = new_model(len(tasks.names), seed)
    if options.common:
        go_on_from(model, tasks.names, *common_network(union, keys, seed, options))
    with tempfile.TemporaryDirectory() as folder:
        fit_many(model, tasks, options.visits, replace(MULTITASK, seed=seed), device, Path(folder))
    lines: Lines = []
    for rows, at in zip(boards, held, strict=True):
        column = tasks.names.index(rows.board.name)
        graphs, good = board_graphs([rows.smiles[i] for i in at])
        variants = {options.name: (model, column)}
        if options.teacher:
            variants[f"{options.name}+taught"] = model, tasks.names.index(f"{TAUGHT}{rows.board.name}")
        if options.own_steps:
            variants[f"{options.name}+own"] = own(model, tasks, column, options.own_steps, seed, device), column
        for variant, (one, answer) in variants.items():
            predicted = tasks.learnt(float32_scores(one, graphs, device))[:, answer]
            lines += lines_of(rows, at, good, predicted, (seed, variant, options.part))
    return lines


def common_network(
    union: Union, keys: Keys, seed: int, options: argparse.Namespace
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights and tasks of the network that those of all groups go on from; kept beside the predictions."""
    path = run_file(options, ["common"], seed).with_suffix(".safetensors")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tasks, device = unseen_of_all(union, keys, seed, options), choose_device(options.device)
        model = new_model(len(tasks.names), seed)
        fit_many(model, tasks, options.common, replace(MULTITASK, seed=seed), device, path.with_suffix(".run"))
        write_tensors(path, model.state_dict(), {"tasks": json.dumps(tasks.names)})
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["tasks"])  # noqa: SIM118


def go_on_from(
    model: EncoderBaseline, tasks: Sequence[str], weights: dict[str, torch.Tensor], known: list[str]
) -> None:
    """Give `model` the weights of a network for the tasks `known`; tasks that are not among them keep their own."""
    state, last = model.state_dict(), f"head.{len(model.head) - 1}."
    shared = [(i, known.index(name)) for i, name in enumerate(tasks) if name in known]
    here, there = (list(places) for places in zip(*shared, strict=True))
    for name, values in weights.items():
        if name.startswith(last):
            state[name][here] = values[there]
        else:
            state[name] = values
    model.load_state_dict(state)


def taught_by_trees(tasks: Tasks, union: Union, boards: Sequence[str], seed: int, options: argparse.Namespace) -> Tasks:
    """The tasks, and what trees of these boards say of their molecules, from which alone the trees learn."""
    path = options.table.with_name(f"{options.table.name}.{union.data.fingerprint[:8]}.npy")
    answers = tree_answers(union, describe(union, path), tasks.data.rows, boards, seed)
    return taught(tasks, answers, boards, options.teacher)


def unseen_tasks(union: Union, keys: Keys, boards: Sequence[BoardRows], held: Sequence[np.ndarray]) -> Tasks:
    """The tasks of the table without the boards' test molecules and without those of the rows `held` of each board."""
    unseen = [b.smiles[i] for b, h in zip(boards, held, strict=True) for i in np.union1d(h, np.flatnonzero(b.test))]
    leave_out = leaks(union.data.smiles, unseen, keys)
    tasks = fit_tasks(union, leave_out)
    print(f"{len(tasks.data)} molecules, {len(tasks.names)} tasks; {leave_out.sum()} molecules left out", flush=True)
    return tasks


def unseen_of_all(union: Union, keys: Keys, seed: int, options: argparse.Namespace) -> Tasks:
    """The tasks without the test molecules of all boards, and without those of the part that is predicted."""
    boards = [read_board(options.data, name) for name in BOARDS]
    return unseen_tasks(union, keys, boards, [rows.held_out(options.part, seed) for rows in boards])


def new_model(n_tasks: int, seed: int) -> EncoderBaseline:
    """The network before training: a molecule's graph -> one score for each task."""
    torch.manual_seed(seed)
    return EncoderBaseline(load_encoder(SHIPPED), n_tasks)


def fit_many(
    model: EncoderBaseline, tasks: Tasks, visits: int, settings: TrainConfig, device: torch.device, run: Path
) -> TrainProgress:
    """Train `model` in place on all tasks for the number of epochs that comes nearest to the visits.

    Kept is the averaged network of the epoch with the least error on 256 of the training molecules; the learning
    rate falls to nothing, so that is the last as a rule.
    """

    def report(at: TrainProgress) -> None:
        if at.epoch_done:
            print(f"step {at.step} of {at.n_steps}, loss {at.loss:.3f}, {at.mol_per_s:.0f} molecules/s", flush=True)

    settings = replace(settings, epochs=max(1, round(visits / len(tasks.data))))
    monitor = tasks.data.at(np.arange(min(256, len(tasks.data))))
    return fit(model, tasks.data, monitor, tasks.stats, settings, run, device, report)


def own(
    model: EncoderBaseline, tasks: Tasks, column: int, n_steps: int, seed: int, device: torch.device
) -> EncoderBaseline:
    """A copy that went on with the molecules of one task, and with this task's values alone, in passes over all."""
    targets = np.full_like(tasks.data.targets, np.nan)
    targets[:, column] = tasks.data.targets[:, column]
    data = replace(tasks.data, targets=targets).at(np.flatnonzero(~np.isnan(targets[:, column])))
    n_drawn = n_steps * OWN.batch_size
    passes = [np.random.default_rng([seed, i]).permutation(len(data)) for i in range(n_drawn // len(data) + 1)]
    drawn, monitor = data.at(np.concatenate(passes)[:n_drawn]), data.at(np.arange(min(64, len(data))))
    one = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        fit(one, drawn, monitor, tasks.stats, replace(OWN, seed=seed), Path(folder), device)
    return one


# The encoder that `mora-lite train` starts from


def train_start(options: argparse.Namespace) -> None:
    """Train an encoder on the columns of the table, without the molecules of all the boards' test sets."""
    union, keys = read_union(options.table), Keys.beside(options.table)
    tasks = unseen_of_all(union.without(options.without), keys, options.seed, options)
    model = new_model(len(tasks.names), options.seed)
    settings, run = replace(MULTITASK, seed=options.seed), options.out.with_name(options.out.name + ".run")
    last = fit_many(model, tasks, options.visits, settings, choose_device(options.device), run)
    metadata = {"molecules": len(tasks.data), "table_sha256": union.data.fingerprint, "tasks": tasks.names}
    metadata |= {"draws": last.n_steps * settings.batch_size, "seed": options.seed}
    save_encoder(model.encoder.cpu(), options.out, metadata, seen=tasks.data.smiles)


# Each board alone


def train_trees(options: argparse.Namespace) -> None:
    """Trees as of `mora-lite train --trees`, without a network; on all rows that a board may train on, or without those
    that validate the network of `single`.
    """
    for name in options.boards:
        missing = [seed for seed in options.seeds if not run_file(options, [name], seed).exists()]
        if not missing:
            continue
        rows = read_board(options.data, name)
        graphs, good = board_graphs(rows.smiles, Featurizer(descriptors=descriptor_names()))
        is_class = rows.board.scale == "odds"
        targets = rows.values if is_class else on_scale(rows.values, rows.board.scale)
        for seed in missing:
            held = rows.held_out(options.part, seed)
            trains = ~rows.test[good] & ~np.isin(good, held)
            if options.train_only:
                trains &= ~np.isin(good, rows.held_out("valid", seed))
            trees = Trees.grow(graphs.descriptors[trains], targets[good][trains, None], [is_class], seed)
            scores = trees.scores(graphs.descriptors[np.isin(good, held)])[:, 0].astype(np.float64)
            run = seed, options.name, options.part
            lines = lines_of(rows, held, np.flatnonzero(np.isin(held, good)), scores, run)
            write_lines(run_file(options, [name], seed), lines)
            print(f"{name}, seed {seed}", flush=True)


def train_single(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        for name in options.boards:
            target = run_file(options, [name], seed)
            if not target.exists():
                write_lines(target, single_run(read_board(options.data, name), seed, options))
                print(target, flush=True)


def single_run(rows: BoardRows, seed: int, options: argparse.Namespace) -> Lines:
    """`mora-lite train` with its defaults; the pack's predictions, those of its encoder alone, and for a value the ends
    of its 90 % intervals.

    The values of the test rows are blank in the table, so that a molecule in both parts has that of training alone.
    """
    held = rows.held_out(options.part, seed)
    marks = np.full(len(rows.smiles), "train", dtype=object)
    marks[rows.held_out("valid", seed)] = "valid"
    marks[np.union1d(held, np.flatnonzero(rows.test))] = "test"
    start = options.start or Recipe.start
    seen = seen_by_start(start, [rows.smiles[i] for i in held])
    if seen.mean() > 0.05:  # one in 3,000 counts by chance
        raise SystemExit(f"{start}: has seen values of {seen.sum()} of the {len(held)} molecules that it is asked")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.csv")
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["smiles", rows.board.name, "split"])
            for smiles, value, mark in zip(rows.smiles, rows.values, marks, strict=True):
                writer.writerow([smiles, "" if mark == "test" else repr(float(value)), mark])
        target = [rows.board.name]
        to, device = Path(folder, "pack"), options.device
        settings = {"split": "split", "seed": seed, "start": options.start, "trees": options.trees, "device": device}
        pack = train_pack(table, to, targets=target, **settings)
        model = load(pack.path, device=options.device)
        graphs, good = board_graphs([rows.smiles[i] for i in held], model.featurizer)
        task = model.tasks[0]
        learnt = {
            options.name: model.score_graphs(graphs)[:, 0],
            f"{options.name} encoder": baseline_values(model, model.pack.load_baseline(), graphs)[:, 0],
        }
        learnt = {variant: scores.astype(np.float64) for variant, scores in learnt.items()}
        if not task.is_class:
            learnt = {variant: task.in_unit(values) for variant, values in learnt.items()}
            scores = model.predict([rows.smiles[held[i]] for i in good]).scores
            learnt |= {f"{options.name} {end}": getattr(scores, end)[:, 0] for end in ENDS}
            learnt = {variant: on_scale(values, rows.board.scale) for variant, values in learnt.items()}
    lines: Lines = []
    for variant, values in learnt.items():
        lines += lines_of(rows, held, good, values, (seed, variant, options.part))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    names = ("single", "trees", "start", "train", "score", "compare", "coverage")
    single, trees, start, group, score, compare, coverage = map(commands.add_parser, names)
    for command in (single, trees, start, group):
        command.add_argument("-o", "--out", type=Path, required=True, help="folder of predictions, or the encoder")
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
    for command in (single, trees, start, group, score, compare, coverage):
        command.add_argument("--data", type=Path, required=True, help="folder of the boards' .csv.gz files")
        command.add_argument("--part", default="test", help="test, valid, K/N, and cv for all folds")
    for command, name in ((single, "single"), (trees, "trees")):
        command.add_argument("--boards", nargs="+", choices=BOARDS, default=list(SMALL))
        command.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
        command.add_argument("--name", default=name, help="of the variant")
    single.add_argument("--trees", action="store_true", help="as of `mora-lite train`; give another --name too")
    trees.add_argument("--train-only", action="store_true", help="without the rows that validate; give another --name")
    single.add_argument("--start", help="of the encoder, as of `mora-lite train`")
    group.add_argument("--table", type=Path, required=True)
    group.add_argument("--groups", nargs="+", default=GROUPS, help="boards with commas between; all boards by default")
    group.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    group.add_argument("--visits", type=int, default=VISITS, help="molecules that training sees, repeats counted")
    group.add_argument("--own-steps", type=int, default=OWN_STEPS)
    group.add_argument("--common", type=int, default=0, help="visits of a network that all groups go on from; 0: none")
    group.add_argument("--teacher", type=float, default=0, help="weight of what trees say in the loss; 0 for no trees")
    group.add_argument("--name", default="mt", help="of the variant")
    start.add_argument("--table", type=Path, required=True)
    start.add_argument("--seed", type=int, default=0)
    start.add_argument("--visits", type=int, default=VISITS, help="molecules that training sees, repeats counted")
    start.add_argument("--without", nargs="+", default=[], metavar="COLUMN", help="columns that are left out")
    for command in (score, compare, coverage):
        command.add_argument("folders", nargs="+", type=Path)
        command.add_argument("--variants", nargs="+", required=True)
    runs = score.add_mutually_exclusive_group()
    runs.add_argument("--runs", type=int, default=0, help="average the seeds to so many answers; one each if left out")
    runs.add_argument("--networks", type=int, help="what runs of so many of the seeds can be expected to score")
    score.add_argument("--salts", choices=["only", "none"], help="rows drawn as several molecules, or the others")
    compare.add_argument("--reference", required=True, help="variant, or variants with commas between")
    options = parser.parse_args()
    if options.command in ("single", "trees", "start", "train"):
        torch.set_num_threads(options.threads)
    actions = {"single": train_single, "trees": train_trees, "start": train_start, "train": train_groups}
    actions |= {"score": print_scores, "compare": print_changes, "coverage": print_coverage}
    actions[options.command](options)


if __name__ == "__main__":
    main()
