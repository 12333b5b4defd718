"""MoRA beside static adapters in text: exact matches after as many training tokens, over several seeds.

    python benchmarks/text_adapters.py retro.npz --base BASE --out retro.jsonl --steps 600 --tokens 6144
    python benchmarks/text_adapters.py retro.npz --base BASE --out retro.jsonl --table

`reactions.py prepare` makes the data. Seed by seed every variant of `--variants` is trained for `--steps` batches, and
answers the same random `--rows` test rows greedily: the variants of `reactions.py`, and `mora-shuffled`, which is mora
over the base with the numbers of each of its matrices shuffled. Each run is a line of JSON in `--out`, and a call that
was stopped goes on where it was; with `--until SECONDS` it begins no run that would not end in time. `--table` prints
the means, and how many more exact matches mora makes than each other variant, with a 95 % interval by bootstrap over
test rows and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reactions import machine
from variants import ShuffledSource

from mora_lite.chem.smiles import canonical
from mora_lite.hub.bases import resolve_base
from mora_lite.lm.base import NF4Source, open_nf4
from mora_lite.machine.device import choose_device
from mora_lite.quant.formats import open_checkpoint
from mora_lite.text.answerer import Answerer
from mora_lite.text.evaluation import answer_rows
from mora_lite.text.loop import TextTrainConfig
from mora_lite.text.pipeline import start_run
from mora_lite.text.sequences import TokenizedPairs, load_tokenized_pairs

SHUFFLED = "mora-shuffled"
VARIANTS = ("mora", "static-large", "static", "prompt", SHUFFLED)
DRAWS = 10_000  # of the bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="of reactions.py prepare")
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=6144, help="of a batch")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rows", type=int, default=1000, help="of the test")
    parser.add_argument("--until", type=float, default=math.inf, metavar="SECONDS")
    parser.add_argument("--commit", help="for the record, where there is no git")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--table", action="store_true", help="print what is in --out; train nothing")
    args = parser.parse_args()
    if args.table:
        print("\n".join(table(read(args.out))))
        return
    begun, longest = time.perf_counter(), 0.0
    data = load_tokenized_pairs(args.data)
    done = {(record["seed"], record["variant"]) for record in read(args.out)}
    for seed in range(args.seeds):
        for variant in args.variants.split(","):
            started = time.perf_counter()
            if (seed, variant) in done or started - begun + longest > args.until:
                continue
            record = train(args, data, seed, variant)
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            shutil.rmtree(run_folder(args.out, seed, variant))
            longest = max(longest, time.perf_counter() - started)
            print(json.dumps({name: record[name] for name in ("seed", "variant", "exact", "seconds")}), flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_folder(out: Path, seed: int, variant: str) -> Path:
    """Where a run's checkpoint is until its line is in `out`."""
    return out.with_suffix(".run") / f"{variant}-{seed}"


def train(args: argparse.Namespace, data: TokenizedPairs, seed: int, variant: str) -> dict[str, Any]:
    """One run. `right` has a digit for each test row, in the order of `rows`."""
    device, base = choose_device(args.device), resolve_base(args.base)
    shuffled = variant == SHUFFLED
    source = NF4Source(ShuffledSource(open_checkpoint(base), seed)) if shuffled else open_nf4(base)  # type: ignore[arg-type]
    settings = TextTrainConfig(steps=args.steps, tokens=args.tokens, seed=seed)
    kind = "mora" if shuffled else variant
    run, prompt = start_run(data, source, settings, run_folder(args.out, seed, variant), device, kind, rank=args.rank)
    run.train()
    rows = np.random.default_rng(0).permutation(np.flatnonzero(data.part == 2))[: args.rows]
    answers = answer_rows(Answerer(run.load_ema_weights(), source.tokenizer(), prompt), data, rows)
    right = [canonical(row[0]) == data.answers[i] for row, i in zip(answers, rows, strict=True)]
    return {
        "seed": seed,
        "variant": variant,
        "exact": round(sum(right) / len(right), 4),
        "steps": run.step,
        "tokens": args.tokens,
        "rank": run.model.sizes.rank,
        "trained": sum(p.numel() for p in run.model.trained().values()),
        "seconds": round(run.state.seconds, 1),
        "rows": rows.tolist(),
        "right": "".join(str(int(r)) for r in right),
        "machine": machine(device, args.commit),
    }


def table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown. Only seeds that mora and the other variant both have are compared."""
    by_variant: dict[str, dict[int, np.ndarray]] = {}
    for record in records:
        right = np.array([int(digit) for digit in record["right"]])
        by_variant.setdefault(record["variant"], {})[record["seed"]] = right
    lines = ["| variant | exact, by seed | mean | more exact matches by mora |", "|---|---|---|---|"]
    for variant, by_seed in by_variant.items():
        shares = {seed: float(right.mean()) for seed, right in sorted(by_seed.items())}
        common = sorted(by_seed.keys() & by_variant.get("mora", {}).keys())
        more = ""
        if variant != "mora" and common:
            gain, low, high = relative_gain(*(np.stack([by_variant[v][s] for s in common]) for v in ("mora", variant)))
            more = f"{gain:+.1%} ({low:+.1%} to {high:+.1%})"
        cells = ", ".join(f"{share:.3f}" for share in shares.values())
        lines.append(f"| {variant} | {cells} | {np.mean(list(shares.values())):.3f} | {more} |")
    return lines


def relative_gain(mine: np.ndarray, other: np.ndarray, draws: int = DRAWS) -> tuple[float, float, float]:
    """`mean(mine) / mean(other) - 1` and its 95 % interval: seeds and test rows are drawn anew, the same for both.

    mine, other: 0 or 1, `[seeds, rows]`.
    """
    rng = np.random.default_rng(0)
    n_seeds, n_rows = mine.shape
    gains = []
    for _ in range(draws):
        weight = np.outer(
            np.bincount(rng.integers(n_seeds, size=n_seeds), minlength=n_seeds),
            np.bincount(rng.integers(n_rows, size=n_rows), minlength=n_rows),
        )
        gains.append((weight * mine).sum() / max((weight * other).sum(), 1) - 1)
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(mine.mean() / max(other.mean(), 1 / other.size) - 1), float(low), float(high)


if __name__ == "__main__":
    main()
