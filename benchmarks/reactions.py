"""Reactions, forwards and backwards, and descriptions as text: MoRA beside static adapters, on one base and data.

    python benchmarks/reactions.py prepare TABLE.csv.gz ... --task forward --base BASE --data forward.npz
    python benchmarks/reactions.py train --data forward.npz --base BASE --variant mora --seconds 540 --folder run
    python benchmarks/reactions.py train ... --steps 800 --tokens 2048                # for a busy machine, or a CPU

`prepare` reads the tables, holds out by product, writes each training reaction in several orders, and makes tokens and
graphs: one file. `train` needs that file and the base alone; it trains within `--seconds` of training time (the time of
evaluation is not counted) or for `--steps`, writes checkpoints into `--folder`, from which a run that was stopped goes
on, and evaluates on rows that were held out. Variants:

* mora: low-rank factors made from the graph of the molecules, one set for each row;
* static: the same branch with one learned factor for all rows, of the same rank;
* static-large: the same with the rank at which as many numbers are trained as in mora;
* prompt: as static, with soft tokens made from the graph before the text.

`--target-modules q,k,v,o,ffn` puts branches beside the projections of attention too.

Lines of JSON on stdout: the training now and then, at the end one line with all figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any


def main() -> None:
    from mora_lite.text.pipeline import VARIANTS
    from mora_lite.text.tasks import TEXT_TASKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_options = commands.add_parser("prepare")
    prepare_options.add_argument("tables", nargs="+", type=Path)
    prepare_options.add_argument("--task", choices=TEXT_TASKS, default="forward")
    prepare_options.add_argument("--copies", type=int, default=6, help="orders in which a training reaction is written")
    prepare_options.add_argument("--split-column", help="of train, valid, test; by product if not given")
    prepare_options.add_argument("--processes", type=int, default=1)
    train_options = commands.add_parser("train")
    train_options.add_argument("--variant", choices=VARIANTS, default="mora")
    train_options.add_argument("--seconds", type=float, default=540, help="budget of training, laid under the schedule")
    train_options.add_argument("--steps", type=int, default=0, help="budget in steps, in the place of --seconds")
    train_options.add_argument("--folder", type=Path, required=True, help="for the checkpoint, continued if there")
    train_options.add_argument("--rank", type=int, default=64)
    train_options.add_argument("--target-modules", default="ffn", help="that get a branch: some of q,k,v,o,ffn")
    train_options.add_argument("--tokens", type=int, default=12_288, help="of a batch")
    train_options.add_argument("--lr", type=float, default=1e-3)
    train_options.add_argument("--test-rows", type=int, default=0, help="0: all that are held out for the test")
    train_options.add_argument("--beams", type=int, default=1)
    train_options.add_argument("--answers", type=Path, help="write the test rows with their answers as CSV")
    train_options.add_argument("--commit", help="for the record, where there is no git")
    train_options.add_argument("--device", default="auto")
    for options in (prepare_options, train_options):
        options.add_argument("--base", required=True, help="base model: a directory, a .gguf file, or a name")
        options.add_argument("--data", type=Path, required=True, help="the prepared file")
        options.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args)
    else:
        train(args)


def print_json(**entries: Any) -> None:
    print(json.dumps(entries), flush=True)


def prepare(args: argparse.Namespace) -> None:
    """Tables to one file."""
    from mora_lite.hub.bases import resolve_base
    from mora_lite.quant.formats import open_checkpoint
    from mora_lite.text.pairs import read_pairs
    from mora_lite.text.pipeline import text_metadata
    from mora_lite.text.sequences import tokenize_pairs
    from mora_lite.training.splits import PARTS

    started = time.perf_counter()
    pairs = read_pairs([args.task], args.tables, args.split_column)
    counts = {part: sum(pair.part == part for pair in pairs) for part in PARTS}
    print_json(kind="read", seconds=round(time.perf_counter() - started, 1), **counts)
    reported = time.perf_counter()

    def on_progress(done: int) -> None:
        nonlocal reported
        if time.perf_counter() - reported > 20:
            reported = time.perf_counter()
            print(f"{done:,} of {len(pairs):,}", file=sys.stderr)

    tokenizer = open_checkpoint(resolve_base(args.base)).tokenizer()
    metadata = text_metadata([args.task], args.tables, tokenizer, args.split_column)
    data = tokenize_pairs(
        pairs,
        tokenizer,
        metadata,
        copies=args.copies,
        seed=args.seed,
        processes=args.processes,
        on_progress=on_progress,
    )
    data.save(args.data)
    print_json(kind="prepared", rows=len(data), bytes=args.data.stat().st_size, seconds=time.perf_counter() - started)


def train(args: argparse.Namespace) -> None:
    """Train one variant, or go on with it; evaluate on the test rows."""
    import numpy as np

    from mora_lite.hub.bases import resolve_base
    from mora_lite.lm.base import open_nf4
    from mora_lite.machine.device import choose_device
    from mora_lite.text.answerer import Answerer
    from mora_lite.text.loop import TextTrainConfig
    from mora_lite.text.pipeline import start_run
    from mora_lite.text.sequences import load_tokenized_pairs

    begun = time.perf_counter()
    device = choose_device(args.device)
    data, source = load_tokenized_pairs(args.data), open_nf4(resolve_base(args.base))
    seconds = 0.0 if args.steps else args.seconds
    settings = TextTrainConfig(seconds=seconds, steps=args.steps, tokens=args.tokens, peak_lr=args.lr, seed=args.seed)
    sizes = {"rank": args.rank, "target_modules": args.target_modules.split(",")}
    run, prompt = start_run(data, source, settings, args.folder, device, args.variant, **sizes)
    tokenizer = source.tokenizer()
    described = describe(args, run, data)
    print_json(kind="start", step=run.step, load_seconds=round(time.perf_counter() - begun, 1), **described)

    def on_progress(progress: Any) -> None:
        print_json(kind="train", **{k: round(v, 4) for k, v in asdict(progress).items()}, gib=peak_gib(device))

    test = np.flatnonzero(data.part == 2)[: args.test_rows or None]
    run.train(on_progress=on_progress)
    if not len(test):
        return
    metrics, answers = evaluate(Answerer(run.load_ema_weights(), tokenizer, prompt), data, test, args.beams)
    print_json(
        kind="result",
        **described,
        seconds=round(run.state.seconds, 1),
        budget=f"{args.steps} steps" if args.steps else f"{args.seconds:g} s",
        tokens=args.tokens,
        finished=run.done >= 1,
        steps=run.step,
        seed=args.seed,
        beams=args.beams,
        **metrics,
        gib=peak_gib(device),
        base_sha256=source.source_sha256,
        data={k: v for k, v in data.metadata.items() if k != "answers"},
        machine=machine(device, args.commit),
        command=" ".join(sys.argv),
    )
    if args.answers:
        write_answers(args.answers, data, test, answers, tokenizer)


def describe(args: argparse.Namespace, run: Any, data: Any) -> dict[str, Any]:
    """What is trained on what: in the first and the last line."""
    batches = run.batches
    return {
        "variant": args.variant,
        "task": data.metadata["task"],
        "rank": run.model.sizes.rank,
        "target_modules": run.model.sizes.target_modules,
        "trained": sum(p.numel() for p in run.model.trained().values()),
        "train_rows": len(batches.rows),
        "left_out": batches.n_skipped,
        "mean_tokens": round(float(batches.lengths[data.first[batches.rows]].mean()), 1),
    }


def evaluate(answerer: Any, data: Any, rows: Any, beams: int) -> tuple[dict[str, Any], list[list[str]]]:
    """Metrics of the likeliest answers to held-out rows, the share of exact ones for each table, and all answers."""
    from mora_lite.text.evaluation import answer_metrics, answer_rows

    started = time.perf_counter()
    answers = answer_rows(answerer, data, rows, beams)
    seconds = time.perf_counter() - started
    return {**answer_metrics(data, rows, answers, beams), "answer_seconds": round(seconds, 1)}, answers


def write_answers(path: Path, data: Any, rows: Any, answers: list[list[str]], tokenizer: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "target", "origin", *(f"answer_{i + 1}" for i in range(len(answers[0])))])
        for row, texts in zip(rows, answers, strict=True):
            source = tokenizer.decode(data.question(data.first[row]))
            writer.writerow([source, data.answers[row], data.metadata["origins"][data.origin[row]], *texts])


def peak_gib(device: Any) -> float:
    """Most memory of the GPU so far; 0 on a CPU."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else 0.0


def machine(device: Any, commit: str | None) -> dict[str, str]:
    import rdkit
    import torch

    from mora_lite import __version__
    from mora_lite.machine.device import describe_processor

    if commit is None:
        run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        commit = run.stdout.strip()
    return {
        "device": describe_processor(device),
        "torch": torch.__version__,
        "rdkit": rdkit.__version__,
        "mora_lite": __version__,
        "commit": commit,
        "date": date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
