"""Peak memory of `mora-lite screen` at two sizes of library: it should not grow with the library.

    python benchmarks/screen_memory.py LIBRARY.smi --rows 200000 2000000 --workers 2 --tasks logS

The libraries are the lines of LIBRARY repeated.
Resident memory of the parent and of all its workers is sampled while the command runs; pages that processes share are
counted in each. Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import psutil

SAMPLE_SECONDS = 0.2
MIB = 1 << 20


def repeat_rows(source: Path, target: Path, n_rows: int) -> None:
    """Write `n_rows` lines: those of `source`, again and again."""
    with source.open("rb") as file:
        lines = [line.rstrip(b"\r\n") + b"\n" for line in file if line.strip()]
    with target.open("wb") as file:
        file.writelines(islice(chain.from_iterable(repeat(lines)), n_rows))


def resident(process: psutil.Process) -> int:
    """Bytes; 0 of one that has ended."""
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def measure(command: list[str]) -> dict[str, Any]:
    """Peaks of the parent, of the largest worker and of all together, in MiB. Exits if the command fails."""
    peaks = {"parent_mib": 0.0, "worker_mib": 0.0, "all_mib": 0.0}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                workers = [resident(child) for child in parent.children(recursive=True)]
            except psutil.Error:
                workers = []
            own = resident(parent)
            for name, size in zip(peaks, (own, max(workers, default=0), own + sum(workers)), strict=True):
                peaks[name] = max(peaks[name], size / MIB)
            time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            log.seek(0)
            sys.exit(f"ended with {process.returncode}: {log.read().decode(errors='replace')}")
    return {name: round(peak, 1) for name, peak in peaks.items()} | {"seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="a list of SMILES")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--tasks", default="logS")
    parser.add_argument("--top", type=int, default=100)
    given = parser.parse_args()
    found = []
    print(f"{'rows':>12}  {'parent':>8}  {'worker':>8}  {'all':>8} MiB  {'seconds':>8}", flush=True)
    for n_rows in given.rows:
        with tempfile.TemporaryDirectory(prefix="screen-memory-") as place:
            library = Path(place) / "library.smi"
            repeat_rows(given.library, library, n_rows)
            options = ["--workers", given.workers, "--pack", given.pack, "--tasks", given.tasks, "--top", given.top]
            command = [sys.executable, "-m", "mora_lite.cli", "screen", library, "-o", f"{place}/run", *options]
            row = measure([str(word) for word in command])
        found.append({"rows": n_rows, **row})
        print(
            f"{n_rows:>12,}  {row['parent_mib']:8,.0f}  {row['worker_mib']:8,.0f}  {row['all_mib']:8,.0f}      "
            f"{row['seconds']:8,.0f}",
            flush=True,
        )
    print(json.dumps({"workers": given.workers, "pack": given.pack, "tasks": given.tasks, "sizes": found}))


if __name__ == "__main__":
    main()
