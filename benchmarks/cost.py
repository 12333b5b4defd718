"""What scoring costs against the number of atoms, of tokens in a prompt, of tasks, and of rows; and a chart of it.

    python benchmarks/cost.py --chart docs/benchmarks/cost.svg [--threads 1] [--device cpu] [--repeats 5]

Molecules are made: fragments in a row, of a given number of heavy atoms, with `--seed`. Atoms and tasks are measured
with the pack `admet`, tokens with `qm9`, whose language model has attention over the prompt; the keys and values of a
prompt are cut or repeated to the number of tokens, as their content does not matter for the time. Rows are those of a
whole `mora-lite screen`, of 20 heavy atoms and 3 tasks. Each size is measured `--repeats` times (rows an
eighth of that), all sizes in turn, and the shortest time counts. The exponent is the slope of the logarithm of the time
against that of the size, over all sizes: 1 is linear, below it the time grows more slowly. Prints tables in Markdown,
and a line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import rdkit
import torch

import mora_lite
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.machine.device import describe_processor
from mora_lite.model import Model, choose_engine

FRAGMENTS = {  # SMILES -> heavy atoms; any may follow any
    "C": 1, "O": 1, "CC": 2, "C(C)": 2, "C(=O)N": 3, "C(F)": 2, "c1ccc(cc1)": 6, "c1cnc(cn1)": 6, "N1CCC(CC1)": 6,
    "S(=O)(=O)N": 4, "C1CCC(CC1)": 6, "c1cc(sc1)": 5,
}  # fmt: skip
ATOMS = (10, 20, 40, 80, 160)
TOKENS = (8, 16, 32, 64, 128, 256)
TASKS = (1, 2, 4, 8, 16, 32, 63)
ROWS = (1000, 4000, 16_000, 64_000)
ROW_ATOMS, ROW_TASKS = 20, ("BBB", "hERG_blocker", "logS")
SOME_TASKS = ("HIA", "BBB", "logS", "logD", "Caco2", "hERG_blocker")  # for the number of atoms

SECONDS = 0.1  # of each turn at least, so that what is quick is repeated more often

Times = dict[int, dict[str, float]]  # size -> stage -> microseconds a molecule, or seconds


def make_smiles(n: int, n_atoms: int, random: np.random.Generator) -> list[str]:
    """`n` molecules of `n_atoms` heavy atoms."""
    made = []
    for _ in range(n):
        text, left = "", n_atoms
        while left:
            fits = [fragment for fragment, size in FRAGMENTS.items() if size <= left]
            fragment = fits[random.integers(len(fits))]
            text, left = text + fragment, left - FRAGMENTS[fragment]
        made.append(text)
    return made


def measure(work: Mapping[int, Mapping[str, Callable[[], object]]], n: int, repeats: int) -> Times:
    """The shortest time of each stage of each size, in microseconds for one of `n` molecules."""
    times: Times = {size: dict.fromkeys(stages, math.inf) for size, stages in work.items()}
    for turn in range(repeats + 1):
        for size, stages in work.items():
            for stage, run in stages.items():
                begun = started = time.perf_counter()
                while started - begun < SECONDS:
                    run()
                    ended = time.perf_counter()
                    if turn:  # the first is to warm up
                        times[size][stage] = min(times[size][stage], (ended - started) / n * 1e6)
                    started = ended
    return times


def stages_of(model: Model, smiles: Sequence[str]) -> dict[str, Callable[[], object]]:
    """What is done for molecules: reading them, computing values, and finding what is near."""
    reading = model.featurizer.read_natively(smiles)
    assert reading.certain.all(), "a molecule that is left to RDKit"
    graphs, bits, device = reading.graphs, reading.fingerprints, model.device
    assert model.calibrator is not None
    domain = model.calibrator.domain
    return {
        "read": lambda: model.featurizer.read_natively(smiles),
        "model": lambda: model.score_graphs(graphs),
        "similarity": lambda: domain.similarity(bits, device),
    }


def with_tokens(model: Model, n_tokens: int) -> Model:
    """The same model with prompts of `n_tokens` tokens before the answer."""
    scorer = model.scorer
    prompts = scorer.prompts
    index = torch.arange(n_tokens, device=model.device) % int(prompts.lengths.min())
    scorer.prompts = dataclasses.replace(
        prompts,
        keys=prompts.keys[:, :, index],
        values=prompts.values[:, :, index],
        lengths=torch.full_like(prompts.lengths, n_tokens),
    )
    engine = choose_engine(scorer, model.dtype, exact=False)
    scorer.prompts = prompts
    return Model(model.pack, engine, scorer, model.tasks, model.dtype, model.calibrator)


def screen_seconds(rows: Sequence[int], random: np.random.Generator, device: str, repeats: int) -> Times:
    """Seconds of whole processes."""
    times: Times = {n: {"screen": math.inf} for n in rows}
    with tempfile.TemporaryDirectory() as folder:
        library, out = Path(folder, "library.smi"), Path(folder, "run")
        made = make_smiles(max(rows), ROW_ATOMS, random)
        for _ in range(repeats):
            for n in rows:
                library.write_text("".join(f"{smiles}\n" for smiles in made[:n]))
                command = [sys.executable, "-m", "mora_lite.cli", "screen", str(library), "-o", str(out), "--force"]
                command += ["--tasks", ",".join(ROW_TASKS), "--device", device]
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                times[n]["screen"] = min(times[n]["screen"], time.perf_counter() - started)
    return times


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of log(values) against log(sizes)."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def table(name: str, unit: str, times: Times) -> str:
    """Markdown: a row for each size, and the exponents below."""
    stages = list(next(iter(times.values())))
    columns = [*stages, "together"] if len(stages) > 1 else stages
    rows = {size: [*of.values(), sum(of.values())][: len(columns)] for size, of in times.items()}
    lines = [f"| {name} | " + " | ".join(f"{stage}, {unit}" for stage in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    lines += [f"| {size:,} | " + " | ".join(f"{value:.3g}" for value in values) + " |" for size, values in rows.items()]
    slopes = [exponent(list(rows), [row[i] for row in rows.values()]) for i in range(len(columns))]
    return "\n".join([*lines, "| exponent | " + " | ".join(f"{slope:.2f}" for slope in slopes) + " |"])


COLOURS = {"together": "#222", "read": "#2a7", "model": "#37c", "similarity": "#c63", "screen": "#222"}
WIDTH, HEIGHT, LEFT, TOP, FOOT = 330, 240, 48, 28, 40


def panel(title: str, unit: str, times: Times) -> str:
    """One chart as SVG, both axes logarithmic, with a grey line of exponent 1 through the last point."""
    stages = list(next(iter(times.values())))
    curves = {stage: [of[stage] for of in times.values()] for stage in stages}
    if len(stages) > 1:
        curves["together"] = [sum(of.values()) for of in times.values()]
    sizes, every = list(times), [value for curve in curves.values() for value in curve]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))

    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - 90) * math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])

    def y(value: float) -> float:
        return HEIGHT - FOOT - (HEIGHT - FOOT - TOP) * (math.log10(value) - low) / (high - low)

    top = next(reversed(curves.values()))[-1]
    start = max(sizes[0], sizes[-1] * 10**low / top)
    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{title}</text>']
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - 90}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for size in sizes:
        parts.append(f'<text x="{x(size):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{short(size)}</text>')
    line = f"M{x(start):.1f} {y(top * start / sizes[-1]):.1f}L{x(sizes[-1]):.1f} {y(top):.1f}"
    parts.append(f'<path d="{line}" stroke="#999" stroke-dasharray="4 3"/>')
    above = float(HEIGHT)
    for stage, curve in sorted(curves.items(), key=lambda pair: pair[1][-1]):
        points = [f"{x(size):.1f} {y(value):.1f}" for size, value in zip(sizes, curve, strict=True)]
        slope, colour = exponent(sizes, curve), COLOURS[stage]
        parts.append(f'<path d="M{"L".join(points)}" stroke="{colour}" fill="none" stroke-width="1.5"/>')
        above = at = min(y(curve[-1]) + 4, above - 12)  # the names of curves that end close to each other
        parts.append(f'<text x="{WIDTH - 86}" y="{at:.1f}" fill="{colour}">{stage} {slope:.2f}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}" fill="#666">{unit}</text>')
    return "".join(parts)


def short(size: int) -> str:
    return f"{size // 1000}k" if size >= 1000 else str(size)


def chart(panels: Sequence[str]) -> str:
    """All panels, two in a row, on white."""
    width, height = 2 * WIDTH, HEIGHT * ((len(panels) + 1) // 2)
    placed = [
        f'<g transform="translate({i % 2 * WIDTH} {i // 2 * HEIGHT})">{part}</g>' for i, part in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    back = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return f'{head} font-family="sans-serif" font-size="11">{back}{"".join(placed)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chart", type=Path, help="an SVG file to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of matrix products on a CPU")
    parser.add_argument("--molecules", type=int, default=1024, help="of each size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random = np.random.default_rng(args.seed)
    n, repeats = args.molecules, args.repeats
    few = {size: make_smiles(n, size, random) for size in ATOMS}
    graphs: Graphs = Featurizer().read_smiles(few[20])

    found: dict[str, tuple[str, Times]] = {}

    def keep(name: str, unit: str, times: Times) -> None:
        found[name] = unit, times
        print(table(name, unit, times), end="\n\n", flush=True)

    target = mora_lite.load("admet", device=args.device, tasks=SOME_TASKS)
    keep("atoms", "us", measure({size: stages_of(target, few[size]) for size in ATOMS}, n, repeats))
    names = [task.name for task in mora_lite.load("admet", device="cpu").tasks]
    models = {size: mora_lite.load("admet", device=args.device, tasks=names[:size]) for size in TASKS}
    work = {size: stages_of(model, few[20]) for size, model in models.items()}
    keep("tasks", "us", measure(work, n, repeats))
    qm9 = mora_lite.load("qm9", device=args.device)
    longer = {size: with_tokens(qm9, size) for size in TOKENS}
    runs = {size: {"model": lambda model=model: model.score_graphs(graphs)} for size, model in longer.items()}
    keep("tokens of a prompt", "us", measure(runs, n, repeats))
    if args.rows:
        keep("rows", "s", screen_seconds(args.rows, random, args.device, max(1, repeats // 8)))

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    setting = {
        "device": describe_processor(target.device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rdkit": rdkit.__version__,
        "commit": commit,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "seed": args.seed,
    }
    print(json.dumps(setting | {name: times for name, (_, times) in found.items()}))
    if args.chart:
        units = {"us": "microseconds a molecule", "s": "seconds, whole process"}
        panels = [panel(f"against {name}", units[unit], times) for name, (unit, times) in found.items()]
        args.chart.write_text(chart(panels), encoding="utf-8")


if __name__ == "__main__":
    main()
