"""`mora-lite screen` with the time of a GPU simulated: whether any stage in front of it is longer than its own.

    python benchmarks/pipeline.py LIBRARY [--rows 1000000] [--device-us 2] [--calls 1] [--threads 2] [--repeats 3]

The device sleeps `--device-us` microseconds a molecule, as long as a GPU scores (`mora-lite bench` there says how long
that is), and needs no processor core meanwhile. `--calls` parts that: each time torch is called for a batch it gives
the interpreter's lock away and has to wait for it again. All else is the program: reader, threads that parse, worker
processes for what is left to RDKit, writer of Parquet. First each stage by itself, on windows that are in memory
already, then the whole, in turn `--repeats` times; the shortest time counts. Prints a table in Markdown, and a line of
JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.machine.prefetch import map_ahead
from mora_lite.machine.process import collect_rarely
from mora_lite.machine.workers import usable_cores
from mora_lite.scoring.parallel import WINDOW_ROWS, ModelSource
from mora_lite.scoring.predictor import Predictor
from mora_lite.scoring.scores import Scores
from mora_lite.scoring.tasks import Task
from mora_lite.screening.campaign import screen_library
from mora_lite.screening.shards import ShardRows, from_ipc, result_schema
from mora_lite.status import OK
from mora_lite.tables.library import Window, open_library
from mora_lite.tables.parsed import ParsedWindow, parse_window


def tasks_of(n: int) -> tuple[Task, ...]:
    return tuple(Task(f"task{i}", "", "", 0.0, 1.0) for i in range(n))


class SimulatedDevice(Predictor):
    """Values, intervals and similarities that take `us` microseconds a molecule in all `calls`, and no processor."""

    def __init__(self, n_tasks: int, us: float, calls: int = 1):
        super().__init__(tasks_of(n_tasks), Featurizer(), None)
        self.us, self.calls = us, calls

    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        for _ in range(self.calls):
            time.sleep(len(graphs) * self.us / 1e6 / self.calls)
        values = graphs.n_atoms[:, None] * np.linspace(0.1, 1, len(self.tasks))
        return values.astype(np.float32)

    def calibrate(self, values: np.ndarray, bits: np.ndarray | None) -> Scores:
        near, status, error = np.full_like(values, 0.5), [OK] * len(values), [""] * len(values)
        return Scores(values, status, error, values - 1, values + 1, near, values > 1)

    def load_training(self) -> Any:
        raise AssertionError("nobody asks for neighbours")


def source(n_tasks: int, us: float, calls: int) -> ModelSource:
    def load(*, device: str) -> SimulatedDevice:
        return SimulatedDevice(n_tasks, us, calls)

    def no_training() -> Any:
        raise AssertionError("nobody asks for neighbours")

    tasks = tasks_of(n_tasks)
    settings = dict.fromkeys(("mora_lite", "torch", "rdkit", "pack", "pack_sha256", "device", "dtype"), "simulated")
    settings |= {"tasks": [task.name for task in tasks], "confidence": 0.9}
    name, devices = "simulated", ("simulated",)
    return ModelSource(load, name, name, tasks, Featurizer(), True, devices, name, no_training, settings=settings)


def read(path: str, n_rows: int) -> list[Window]:
    windows = []
    with open_library([path]) as library:
        for window in library.windows(WINDOW_ROWS):
            windows.append(window)
            if window.first_row + len(window.records) > n_rows:
                break
    return windows


def parse(windows: Sequence[Window], threads: int) -> list[ParsedWindow]:
    return list(map_ahead(partial(parse_window, featurizer=Featurizer()), windows, threads))


def write(parsed: Sequence[ParsedWindow], scores: Sequence[Scores], n_tasks: int, path: Path) -> None:
    output, tasks = ShardRows("parquet"), tasks_of(n_tasks)
    with parquet.ParquetWriter(path, result_schema(tasks, calibrated=True)) as writer:
        for window, found in zip(parsed, scores, strict=True):
            writer.write_batch(from_ipc(output(tasks, window, found).data))


def screen(path: str, model: ModelSource, threads: int, out: Path) -> float:
    """Seconds of scoring, without start, ranking and report."""
    summary = screen_library(path, out, source=lambda: model, workers=threads, force=True)
    return summary.progress.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", help="SMILES, as for screen")
    parser.add_argument("--rows", type=int, default=1_000_000, help="at most")
    parser.add_argument("--device-us", type=float, default=2.0)
    parser.add_argument("--calls", type=int, default=1, help="of the device for a batch")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="that parse, and processes for the rest")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    collect_rarely()  # as the program does
    with tempfile.TemporaryDirectory() as folder:
        windows = read(args.library, args.rows)
        n_rows = sum(len(window.records) for window in windows)
        library = str(Path(folder, "library.smi"))
        with open(library, "w", encoding="utf-8") as file:
            file.writelines(f"{record.text} {record.name}\n" for window in windows for record in window.records)
        parsed = parse(windows, args.threads)
        model = SimulatedDevice(args.tasks, 0)
        scores = [model.score_parsed(window) for window in parsed]
        stages: dict[str, Callable[[], object]] = {
            "read": lambda: read(library, n_rows),
            "parse, 1 thread": lambda: parse(windows, 1),
            f"parse, {args.threads} threads": lambda: parse(windows, args.threads),
            "write": lambda: write(parsed, scores, args.tasks, Path(folder, "scores.parquet")),
        }
        seconds: dict[str, float] = {}
        for _ in range(args.repeats):
            for name, run in stages.items():
                started = time.perf_counter()
                run()
                seconds[name] = min(seconds.get(name, np.inf), time.perf_counter() - started)
            device = source(args.tasks, args.device_us, args.calls)
            whole = screen(library, device, args.threads, Path(folder, "run"))
            seconds["whole"] = min(seconds.get("whole", np.inf), whole)
        seconds["device, simulated"] = n_rows * args.device_us / 1e6
    print("| stage | us a row | rows/s | share of the device's time |\n|---|---|---|---|")
    for name, each in seconds.items():
        us = each / n_rows * 1e6
        print(f"| {name} | {us:.2f} | {1e6 / us:,.0f} | {us / args.device_us:.2f} |")
    print(json.dumps({"rows": n_rows, "tasks": args.tasks, "threads": args.threads, "seconds": seconds}))


if __name__ == "__main__":
    main()
