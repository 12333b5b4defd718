"""Screening beside chemprop and ADMET-AI: the same molecules, one after the other in one run.

    python benchmarks/screen_speed.py molecules.smi --tasks A,B --one A --chemprop VENV/bin/chemprop \
        --chemprop-model model_0/best.pt --admet-ai VENV/bin/admet_predict

Each program is a process of its own, from start to files on disk, once with few rows and once with all. The rate after
the start is that of the rows in between: (rows - few) / (seconds of all - seconds of few). The peers need environments
of their own; what is not given is left out. `--before` is the program `mora-lite` of another commit, for a comparison
in one run. `--device cuda` screens on the GPUs. Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any


def seconds(command: list[str], log: Path) -> float:
    """Of the whole process. Ends this one when it fails."""
    started = time.perf_counter()
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with code {done.returncode}:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - started


def sides(options: argparse.Namespace, work: Path, n: int) -> dict[str, list[str]]:
    """Name -> command for the first `n` molecules."""
    ours = [sys.executable, "-m", "mora_lite.cli"]
    smi, table, out = work / f"{n}.smi", work / f"{n}.csv", str(work / "out")
    tasks = options.tasks.split(",")
    many, one = ["--tasks", options.tasks], ["--tasks", options.one]
    screen = ["screen", str(smi), "-o", out, "--force", "--top", "10", "--device", options.device]
    commands = {}
    for name, program in {"screen": ours, "screen before": [options.before]}.items():
        if program != [None]:
            commands[f"{name}, {len(tasks)} tasks"] = [*program, *screen, *many]
            commands[f"{name}, 1 task"] = [*program, *screen, *one]
    if options.chemprop:
        command = [options.chemprop, "predict", "-i", str(table), "--model-paths", options.chemprop_model]
        commands["chemprop, 1 task"] = [*command, "--preds-path", str(work / "c.csv"), "--accelerator", "cpu"]
    if options.admet_ai:
        command = [options.admet_ai, "--data_path", str(table), "--save_path", str(work / "a.csv")]
        commands["ADMET-AI, 41 tasks"] = [*command, "--smiles_column", "smiles"]
    return commands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="a SMILES on each line")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=2_000)
    parser.add_argument("--tasks", required=True, help="tasks of admet, separated by commas")
    parser.add_argument("--one", required=True, help="one task of admet")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--before")
    parser.add_argument("--chemprop")
    parser.add_argument("--chemprop-model")
    parser.add_argument("--admet-ai")
    parser.add_argument("--repeats", type=int, default=1, help="of our sides; peers run once")
    options = parser.parse_args()
    lines = options.library.read_text().splitlines()[: options.rows]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for n in (options.few, options.rows):
            (work / f"{n}.smi").write_text("\n".join(lines[:n]) + "\n")
            (work / f"{n}.csv").write_text("\n".join(["smiles", *lines[:n]]) + "\n")
        for name in sides(options, work, options.rows):
            repeats = 1 if name.startswith(("chemprop", "ADMET")) else options.repeats
            taken = {
                n: [seconds(sides(options, work, n)[name], work / "log") for _ in range(repeats)]
                for n in (options.few, options.rows)
            }
            few, all_ = (statistics.median(taken[n]) for n in (options.few, options.rows))
            rate = (options.rows - options.few) / (all_ - few)
            found[name] = {"seconds": taken, "whole": options.rows / all_, "after_start": rate}
            print(
                f"{name:28} {all_:8.1f} s  {options.rows / all_:8,.0f}/s whole  {rate:8,.0f}/s after the start",
                flush=True,
            )
            shutil.rmtree(work / "out", ignore_errors=True)
    facts = {
        "rows": options.rows,
        "few": options.few,
        "sides": found,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: metadata.version(name) for name in ("mora-lite", "torch", "rdkit")},
        "date": date.today().isoformat(),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
