"""SMILES -> CSV, end to end: the library and the command line on the same rows.

    python benchmarks/predict_speed.py LIBRARY.csv.gz --tasks homo,lumo,gap --rows 20000 --repeats 3

Prints a table for people and, as the last line, JSON for scripts. The whole process is what a user waits for:
start, imports, loading the pack, all rows, the file on disk. "After loading" leaves start and loading out.
Nothing is run beforehand to warm up; the table shows medians and the JSON line every repeat. With
`--chemprop` the same rows go through `chemprop predict` of a model of your own, if chemprop is installed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

PACKAGES = (
    "mora-lite",
    "torch",
    "torch-geometric",
    "rdkit",
    "numpy",
    "transformers",
    "bitsandbytes",
    "chemprop",
)


def take_rows(library: Path, target: Path, n_rows: int) -> int:
    """Write the first `n_rows` rows of the library, all columns, as plain CSV; returns their number."""
    from mora_lite.tables.library import open_library

    with open_library(library, cells=True) as table, target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = list(table.columns)
        columns[table.smiles_index] = "smiles"
        writer.writerow(columns)
        count = 0
        for row in islice((row for window in table.windows(4096) for row in window.cells), n_rows):
            writer.writerow(row)
            count += 1
    return count


def run_process(command: list[str]) -> tuple[float, float | None]:
    """Seconds of a whole process, and its peak memory in MiB where the system tells it. Exits if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            code = process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        else:
            code, peak = process.wait(), None
        seconds = time.perf_counter() - started
        if code:
            log.seek(0)
            sys.exit(f"{shlex.join(command)} ended with {code}:\n{log.read().decode(errors='replace')}")
    return seconds, peak


def time_processes(command: list[str], repeats: int) -> dict[str, Any]:
    """Whole processes, one after the other."""
    runs = [run_process(command) for _ in range(repeats)]
    peaks = [peak for _, peak in runs if peak is not None]
    return {
        "seconds": [round(seconds, 3) for seconds, _ in runs],
        "peak_rss_mib": round(max(peaks)) if peaks else None,
    }


def time_library(table_path: Path, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Load once, then predict the table `repeats` times in this process; shares are of all repeats."""
    from mora_lite.scoring import stream
    from mora_lite.tables.library import open_library

    started = time.perf_counter()
    import mora_lite

    model = mora_lite.load(args.pack, device=args.device, dtype=args.dtype, tasks=args.tasks)
    load_seconds = time.perf_counter() - started
    runs = []
    for i in range(args.repeats):
        started = time.perf_counter()
        with open_library(table_path, cells=True) as library:
            stream.SMALL_ROWS = sys.maxsize  # all in this process
            answers, target = stream.AnswerColumns(), str(work / f"library-{i}.csv")
            summary = stream.predict_library(library, target, answers, lambda: model, NotImplemented)
        runs.append(time.perf_counter() - started)
    stages = {name: seconds / sum(runs) for name, seconds in model.seconds.items()}
    stages["read and write"] = 1 - sum(stages.values())
    return {
        "load_seconds": round(load_seconds, 3),
        "seconds": [round(seconds, 3) for seconds in runs],
        "shares": {name: round(share, 4) for name, share in stages.items()},
        "ok": summary.n_ok,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def time_chemprop(table_path: Path, work: Path, args: argparse.Namespace) -> dict[str, Any] | str:
    """The same rows through `chemprop predict`, or why not."""
    program = shutil.which("chemprop")
    if program is None:
        return "chemprop is not on PATH: left out"
    if args.chemprop_model is None:
        return "no --chemprop-model was given: chemprop left out"
    command = [program, "predict", "--test-path", str(table_path), "--smiles-columns", "smiles"]
    command += ["--model-paths", str(args.chemprop_model), "--preds-path", str(work / "chemprop.csv")]
    return {"command": "chemprop predict", **time_processes(command, args.repeats)}


def describe_run() -> dict[str, Any]:
    """Machine, versions, commit, date and command."""
    import torch

    from mora_lite.machine.device import choose_device, cpu_flags, cpu_name, describe_processor

    root = Path(__file__).resolve().parents[1]
    git = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "flags": sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
            "device": describe_processor(choose_device("auto")),
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        },
        "versions": versions,
        "commit": git.stdout.strip(),
        "date": date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/predict_speed.py", *sys.argv[1:]]),
    }


def print_table(report: dict[str, Any]) -> None:
    """The medians, for people."""
    n, library, cli = report["rows"], report["library"], report["command_line"]
    seconds, whole = statistics.median(library["seconds"]), statistics.median(cli["seconds"])
    rows = [
        ("rows, of these scored", f"{n:,}, {library['ok']:,}"),
        ("device, number type", f"{library['device']}, {library['dtype']}"),
        ("loading, imports included", f"{library['load_seconds']:.2f} s"),
        ("library, after loading", f"{seconds:.2f} s, {n / seconds:,.0f} rows/s"),
        ("command line, whole process", f"{whole:.2f} s, {n / whole:,.0f} rows/s"),
        ("command line, peak memory", f"{cli['peak_rss_mib']} MiB"),
    ]
    rows += [(f"  share of {name}", f"{share:.1%}") for name, share in library["shares"].items()]
    peer = report["chemprop"]
    if isinstance(peer, dict):
        whole = statistics.median(peer["seconds"])
        rows.append(("chemprop, whole process", f"{whole:.2f} s, {n / whole:,.0f} rows/s"))
    elif peer:
        rows.append(("note", peer))
    for label, value in rows:
        print(f"{label:<28} {value}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time SMILES -> CSV through library and command line.")
    parser.add_argument("library", type=Path, help="CSV with SMILES, plain or .gz")
    parser.add_argument("--pack", default="qm9")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=None, help="all when left out")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--chemprop", action="store_true", help="time `chemprop predict` on the same rows")
    parser.add_argument("--chemprop-model", type=Path, help="a trained chemprop model")
    args = parser.parse_args()
    if args.rows < 1 or args.repeats < 1:
        parser.error("--rows and --repeats must be 1 or more")
    return args


def main() -> None:
    args = read_arguments()
    with tempfile.TemporaryDirectory(prefix="mora-lite-bench-") as folder:
        work, table = Path(folder), Path(folder) / "table.csv"
        n_rows = take_rows(args.library, table, args.rows)
        command = [sys.executable, "-m", "mora_lite.cli", "predict", str(table), "-o", str(work / "cli.csv")]
        command += ["--force", "--pack", args.pack, "--device", args.device, "--dtype", args.dtype]
        command += ["--tasks", ",".join(args.tasks)] if args.tasks else []
        # Other processes first: on Linux a child's peak memory starts at what its parent holds.
        cli = time_processes(command, args.repeats)
        peer = time_chemprop(table, work, args) if args.chemprop else ""
        library = time_library(table, work, args)
    report = {"rows": n_rows, "library": library, "command_line": cli, "chemprop": peer, **describe_run()}
    print_table(report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
