"""Forward and retrosynthesis prediction as text: MoRA beside static adapters, on one base and the same data.

    python benchmarks/reactions.py prepare TABLE.csv.gz ... --task forward --base BASE --data forward.npz
    python benchmarks/reactions.py train --data forward.npz --base BASE --variant mora --seconds 540 --folder run
    python benchmarks/reactions.py train ... --seconds 940 --stop 540 --folder run     # first part of 940 s
    python benchmarks/reactions.py train ... --seconds 940 --stop 400 --folder run     # goes on where that stopped

`prepare` reads the tables, holds out by product, writes each training reaction in several orders, and makes tokens and
graphs: one file. `train` needs that file and the base alone; it trains within `--seconds` of training time (the time of
evaluation is not counted), writes checkpoints into `--folder`, and evaluates on rows that were held out. Variants:

* mora: low-rank factors made from the graph of the molecules, one set for each row;
* static: the same branch with one learned factor for all rows, of the same rank;
* static-large: the same with the rank at which as many numbers are trained as in mora.

Lines of JSON on stdout: the training now and then, at the end one line with all figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

TEMPLATES = {"forward": "Reactants: {}\nProduct: ", "retro": "Product: {}\nReactants: "}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_options = commands.add_parser("prepare")
    prepare_options.add_argument("tables", nargs="+", type=Path)
    prepare_options.add_argument("--task", choices=list(TEMPLATES), default="forward")
    prepare_options.add_argument("--copies", type=int, default=6, help="orders in which a training reaction is written")
    prepare_options.add_argument("--processes", type=int, default=1)
    for options in (prepare_options,):
        options.add_argument("--base", required=True, help="base model: a directory, a .gguf file, or a name")
        options.add_argument("--data", type=Path, required=True, help="the prepared file")
        options.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prepare(args)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def prepare(args: argparse.Namespace) -> None:
    """Tables to one file."""
    from mora_lite.hub import resolve_base
    from mora_lite.quant.checkpoint import open_checkpoint, sha256_of
    from mora_lite.reactions import count_parts, read_reactions
    from mora_lite.sequences import prepare_reactions

    started = time.perf_counter()
    reactions = read_reactions(args.tables, args.task)
    say(kind="read", seconds=round(time.perf_counter() - started, 1), **count_parts(reactions))
    told = [time.perf_counter()]

    def on_progress(done: int) -> None:
        if time.perf_counter() - told[0] > 20:
            told[0] = time.perf_counter()
            print(f"{done:,} of {len(reactions):,}", file=sys.stderr)

    tokenizer = open_checkpoint(resolve_base(args.base)).tokenizer()
    facts = {
        "task": args.task,
        "template": TEMPLATES[args.task],
        "end": tokenizer.eos_token_id,
        "tables": {path.name: sha256_of(path) for path in args.tables},
        "vocabulary": len(tokenizer),
    }
    data = prepare_reactions(
        reactions,
        tokenizer,
        facts,
        copies=args.copies,
        seed=args.seed,
        processes=args.processes,
        on_progress=on_progress,
    )
    data.save(args.data)
    say(kind="prepared", rows=len(data), bytes=args.data.stat().st_size, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
