"""Tables out of the lines that `adapters.py` and `chemprop_sets.py` wrote: mean over seeds with a 95 % interval.

    python benchmarks/summary.py RESULTS.jsonl CHEMPROP.jsonl

The interval of a mean is that of Student's t over the seeds: it says what another seed would change, not what another
split would. The change against another model is made seed by seed, then averaged; positive is better.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from sets import SETS

# Student's t, 97.5 %, for 1 .. 9 degrees of freedom
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def interval(values: list[float]) -> str:
    """`mean ± half width`."""
    if len(values) < 2:
        return f"{values[0]:.4g} (1 seed)"
    half = T[len(values) - 2] * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.4g} ± {half:.2g}"


def main() -> None:
    results: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for path in sys.argv[1:]:
        for line in Path(path).read_text().splitlines():
            row = json.loads(line)
            model = row["model"] + (" (random start)" if row.get("start") == "random" else "")
            results[row["set"]][model][row["seed"]] = row["value"]
    for name, models in results.items():
        labelled = SETS[name]
        sign = 1 if labelled.smaller_is_better else -1
        print(f"\n## {name}: {labelled.metric}, {'smaller' if sign > 0 else 'larger'} is better\n")
        others = [m for m in ("chemprop", "encoder", "static") if m in models]
        print("| model | mean ± 95 % | " + " | ".join(f"against {m}" for m in others) + " | seeds |")
        print("|---" * (3 + len(others)) + "|")
        for model, by_seed in models.items():
            cells = [interval(list(by_seed.values()))]
            for other in others:
                common = sorted(by_seed.keys() & models[other].keys())
                changes = [sign * (1 - by_seed[s] / models[other][s]) * 100 for s in common]
                cells.append("" if other == model or not common else interval(changes) + " %")
            print(f"| {model} | " + " | ".join(cells) + f" | {len(by_seed)} |")


if __name__ == "__main__":
    main()
