"""How long a run of few molecules takes, and where the time goes.

    python benchmarks/start.py [--rows 20] [--repeats 5] [--device auto] [--other SITE]

Whole processes of `predict` and `screen`, in turn: seconds by the clock and of all processors, the shortest and the
median. Then the steps of loading and of two batches, in a process of its own for each repeat; the shortest counts.
`--other` names a folder with another version, made by `pip install --no-deps --target SITE CHECKOUT`: it is measured in
turn with this one. Prints tables in Markdown, and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SMILES = ("CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "OCC1OC(O)C(O)C1O")
STEPS = """
import json, sys, time
device, smiles, found, started = sys.argv[1], json.loads(sys.argv[2]), {}, time.perf_counter()
def step(name):
    global started
    now = time.perf_counter()
    found[name], started = now - started, time.perf_counter()
import torch
step("import torch")
import mora_lite.model as m
step("import mora_lite")
where = m.choose_device(device)
dtype = m.choose_dtype("auto", where)
torch.zeros(1, device=where)
step("device")
pack = m.open_pack("admet")
step("check the pack")
chosen = m.choose_tasks(pack.tasks, None)
scorer = pack.load_scorer(dtype, "resident").to(where)
step("weights")
domain = pack.load_domain()
calibrator = m.Calibrator.of(pack.load_calibration(), domain, chosen, 0.9)
step("calibration and domain")
engine = m.choose_engine(scorer, dtype, False)
step("engine")
model = m.Model(pack, engine, scorer, pack.tasks, dtype, calibrator)
for turn in ("first", "second", "third"):
    model.score(smiles)
    found |= {f"{turn} batch: {stage}": seconds for stage, seconds in model.seconds.items()}
    model.seconds.clear()
    step(f"{turn} batch")
print(json.dumps(found))
"""


def timed(command: Sequence[str], site: str | None) -> tuple[float, float, str]:
    """Seconds by the clock and of all processors of a process and its children, and what it printed."""
    path = {"PYTHONPATH": site} if site else {}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | path)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--other", help="a folder with another version")
    args = parser.parse_args()
    sites = {"this": None} | ({"other": args.other} if args.other else {})
    smiles = [SMILES[i % len(SMILES)] for i in range(args.rows)]
    whole: dict[str, list[tuple[float, float]]] = {}
    steps: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        library, out = Path(folder, "library.smi"), str(Path(folder, "out"))
        library.write_text("".join(f"{text}\n" for text in smiles))
        run = [sys.executable, "-m", "mora_lite.cli"]
        options = ["--force", "--device", args.device]
        commands = {
            "predict": [*run, "predict", str(library), "-o", f"{out}.csv", *options],
            "screen": [*run, "screen", str(library), "-o", out, *options, "--tasks", "logS,BBB"],
        }
        for turn in range(args.repeats + 1):
            for name, command in commands.items():
                for version, site in sites.items():
                    wall, processors, _ = timed(command, site)
                    if turn:  # the first brings files into memory
                        whole.setdefault(f"{name}, {version}", []).append((wall, processors))
            for version, site in sites.items():
                output = timed([sys.executable, "-c", STEPS, args.device, json.dumps(smiles)], site)[2]
                if turn:
                    steps.setdefault(version, []).append(json.loads(output.splitlines()[-1]))
    print("| | seconds, least | median | of processors, least | median |\n|---|---|---|---|---|")
    for name, times in whole.items():
        columns = [sorted(column) for column in zip(*times, strict=True)]
        print(f"| {name} | " + " | ".join(f"{c[0]:.2f} | {statistics.median(c):.2f}" for c in columns) + " |")
    names = list(dict.fromkeys(name for runs in steps.values() for name in runs[0]))
    least = {version: {n: min(run.get(n, 0.0) for run in runs) for n in names} for version, runs in steps.items()}
    print("\n| step, ms | " + " | ".join(least) + " |\n|---" * 1 + "|---" * len(least) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(f"{1e3 * of[name]:.0f}" for of in least.values()) + " |")
    print(json.dumps({"whole": whole, "steps": least}))


if __name__ == "__main__":
    main()
