"""Rows made to break the parser, through worker processes with a time limit: statuses, and the slowest rows.

    python benchmarks/fuzz_screen.py --rows 10000 --workers 1 --seed 0

The rows are those of `tests/support/fuzz_rows.py`. Prints a table and, as the last line, JSON; the exit code is 1 when
a row is missing, crashed or took longer than the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.molecules import Parsed
from mora_lite.machine.workers import WorkerPool
from mora_lite.status import CRASHED, TIMEOUT
from mora_lite.tables.library import Window
from mora_lite.tables.parsed import parse_by_rdkit

TESTS = Path(__file__).resolve().parents[1] / "tests" / "support"
WINDOW_ROWS = 256


def make_timed() -> Any:
    """Work that returns the statuses of a window, and the seconds that each text took, of those that were tried."""

    def work(job: Window, marked: Mapping[int, str], at: Callable[[int], None]) -> tuple[list[str], list[float]]:
        seconds: list[float] = []

        class Timed(Featurizer):
            def parse_molecule(self, text: str) -> Parsed:
                started = time.perf_counter()
                parsed = super().parse_molecule(text)
                seconds.append(time.perf_counter() - started)
                return parsed

        status = parse_by_rdkit(job, Timed(), marked, at).status
        for i in sorted(marked):
            seconds.insert(i, float("nan"))
        return status, seconds

    return work


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    from fuzz_rows import fuzz_rows

    rows = fuzz_rows(given.rows, given.seed)
    windows = [Window(i + 1, rows[i : i + WINDOW_ROWS]) for i in range(0, len(rows), WINDOW_ROWS)]
    status: list[str] = []
    seconds: list[float] = []
    started = time.perf_counter()
    with WorkerPool[Window, Any](given.workers, make_timed, (), given.time_limit) as workers:
        for found, took in workers.results(iter(windows)):
            status += found
            seconds += took
    total = time.perf_counter() - started
    counts = dict(Counter(status).most_common())
    for name, n in counts.items():
        print(f"{n:>8,}  {name}")
    slowest = sorted(range(len(seconds)), key=lambda i: -seconds[i] if seconds[i] == seconds[i] else 0)[:5]
    for i in slowest:
        shown = rows[i].text[:40].encode("unicode_escape").decode()
        print(f"{seconds[i]:8.3f} s  row {i + 1:,}, {status[i]}, {len(rows[i].text):,} characters: {shown}")
    figures = {
        "rows": len(status),
        "seconds": round(total, 1),
        "counts": counts,
        "slowest": round(seconds[slowest[0]], 3),
    }
    print(json.dumps(figures))
    return int(len(status) != given.rows or bool({TIMEOUT, CRASHED} & counts.keys()))


if __name__ == "__main__":
    sys.exit(main())
