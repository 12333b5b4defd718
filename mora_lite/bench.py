"""Where the time of scoring goes, and how far each stage is from what the hardware allows.

The floor of a stage is the time of its multiplications at the rate of a large matrix product of the same type; on a GPU
it is at least the time to read its weights once for each batch at the rate of a large copy. (A CPU keeps weights of
this size in its cache.) Both rates are measured in the same run. Reading, parsing and writing are measured as the
program does them: native reading by threads, RDKit for what is left, a Parquet file.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from .chem.graph import Graphs, concatenate
from .errors import InputError
from .fast.captured import CapturedScorer
from .machine.files import temporary_folder
from .machine.prefetch import map_ahead
from .machine.workers import usable_cores
from .model import Model
from .scoring.parallel import WINDOW_ROWS
from .scoring.scores import Scores
from .scoring.stream import AnswerColumns
from .tables.formats import TableFormat
from .tables.library import Library, TypedSmiles, Window
from .tables.parsed import ParsedWindow, parse_window
from .tables.writers import TableWriter

READ, PARSE, WRITE = "read", "parse", "write"
MOVING = ("copies", "sorting")  # of graphs to a GPU, and of their bonds there
LEARNT = ("encoder", "hypernetwork", "decoder")  # stages with weights
COUNTED = 256  # molecules that operations are counted with
_PRODUCT = 2048  # rows and columns of the product that the arithmetic rate is measured with
_COPY_BYTES = 256 << 20
_SECONDS = 0.5  # for each rate


@dataclass(frozen=True)
class Stage:
    """One stage of scoring.

    us, floor_us: microseconds a molecule, and the least that the hardware allows (see the module); 0 where not known.
    gflop: billions of operations a molecule.
    """

    name: str
    us: float
    gflop: float = 0.0
    floor_us: float = 0.0


@dataclass(frozen=True)
class Bench:
    """What `measure` returns, for `n` molecules.

    stages: in the order of the work; reading, parsing and writing are each in threads of their own in front of a GPU.
    mol_per_s: one stage after the other. parsed_mol_per_s: without reading and parsing. scoring_us: microseconds a
        molecule of the stages between parsing and writing, and of what is between them.
    tflop_per_s, gb_per_s: the rates that the floors are computed from; the second is 0 on a CPU.
    threads: that parse.
    """

    stages: list[Stage]
    n: int
    mol_per_s: float
    parsed_mol_per_s: float
    scoring_us: float
    tflop_per_s: float
    gb_per_s: float
    threads: int

    @property
    def beside(self) -> tuple[str, float]:
        """The longest of reading, parsing, scoring and writing, and the molecules a second when they overlap."""
        parts = {stage.name: stage.us for stage in self.stages if stage.name in (READ, PARSE, WRITE)}
        parts["scoring"] = self.scoring_us
        longest = max(parts, key=parts.__getitem__)
        return longest, 1e6 / parts[longest]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of a table: each stage with its share of the time and its time as a multiple of its floor."""
        total = sum(stage.us for stage in self.stages)
        return [
            {
                "stage": stage.name,
                "us/molecule": stage.us,
                "share %": 100 * stage.us / total,
                "MFLOP": 1e3 * stage.gflop if stage.gflop else None,
                "floor us": stage.floor_us or None,
                "times floor": stage.us / stage.floor_us if stage.floor_us else None,
            }
            for stage in self.stages
        ]


def measure(
    model: Model, library: Library | TypedSmiles, n_rows: int, batch_size: int | None = None, threads: int | None = None
) -> Bench:
    """Read, parse, score and write the first `n_rows` of a library, once to warm up and once more to measure.

    threads: that parse, by default one for each core. Raises `InputError` when no row can be scored.
    """
    threads = threads or usable_cores()
    for _ in range(2):
        clock = [time.perf_counter()]
        windows = _read(library, n_rows)
        clock.append(time.perf_counter())
        parsed = list(map_ahead(partial(parse_window, featurizer=model.featurizer), windows, threads))
        clock.append(time.perf_counter())
        graphs = concatenate([window.graphs for window in parsed])
        if not len(graphs):
            n = sum(map(len, parsed))
            raise InputError(f"{', '.join(library.files)}: no molecule among the first {n:,} rows can be scored")
        model.seconds.clear()
        scores = [model.score_parsed(window, batch_size) for window in parsed]
        clock.append(time.perf_counter())
        seconds = dict(model.seconds)
        _write(model, parsed, scores)
        clock.append(time.perf_counter())
    seconds[READ], seconds[PARSE], scoring, seconds[WRITE] = np.diff(clock).tolist()
    n, size = len(graphs), model.fit_batch_size(batch_size)
    moving: tuple[str, ...] = ("graphs",)  # filling batches
    if isinstance(model.engine, CapturedScorer):
        part = graphs.select(np.arange(min(n, size)))
        on_device = {name: each * n / len(part) for name, each in model.engine.stage_seconds(part).items()}
        # What is not work of the device: filling its batches, copies there and back.
        seconds |= on_device | {"copies": max(0.0, seconds["device"] - sum(on_device.values()))}
        moving = MOVING
    flops, weights = count_operations(model, graphs, min(size, COUNTED)), weight_bytes(model)
    on_gpu = model.device.type == "cuda"
    rate, bandwidth = product_rate(model), copy_rate(model) if on_gpu else 0.0
    stages = []
    for name in (READ, PARSE, *moving, *LEARNT, "similarity", WRITE):
        reading = weights.get(name, 0) / min(size, n) / bandwidth if on_gpu else 0.0
        floor = max(flops.get(name, 0) / rate, reading) * 1e6
        stages.append(Stage(name, seconds.get(name, 0.0) / n * 1e6, flops.get(name, 0) / 1e9, floor))
    whole, after = n / (clock[-1] - clock[0]), n / (scoring + seconds[WRITE])
    return Bench(stages, n, whole, after, scoring / n * 1e6, rate / 1e12, bandwidth / 1e9, threads)


def _read(library: Library | TypedSmiles, n_rows: int) -> list[Window]:
    """The first rows, in windows."""
    windows, left = [], n_rows
    for window in library.windows(min(n_rows, WINDOW_ROWS)):
        windows.append(Window(window.first_row, window.records[:left]))
        left -= len(window.records)
        if left <= 0:
            break
    return windows


def _write(model: Model, parsed: Sequence[ParsedWindow], scores: Sequence[Scores]) -> None:
    """Write what `predict` writes of rows in Parquet, to a file that does not stay."""
    answers = AnswerColumns(TableFormat("parquet"))
    kinds = answers.kinds(model)
    columns = ["smiles", *kinds, "status", "error"]
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
        path = Path(folder, "scores.parquet")
        with TableWriter(path, columns, kinds=[None, *kinds.values(), None, None], form=answers.form) as writer:
            for window, found in zip(parsed, scores, strict=True):
                writer.write([[smiles] for smiles in window.smiles], answers(model.tasks, window, found).added)


def count_operations(model: Model, graphs: Graphs, batch_size: int) -> dict[str, float]:
    """Stage -> floating-point operations of its matrix products for one of a batch of medium-sized molecules."""
    order = np.argsort(graphs.n_atoms, kind="stable")
    middle = max(0, (len(order) - batch_size) // 2)
    batch = graphs.select(order[middle : middle + batch_size])
    counters: dict[str, FlopCounterMode] = {}
    packed = {torch.ops.mkldnn._linear_pointwise: _packed_flops} if torch.backends.mkldnn.is_available() else {}

    def counted(stage: str) -> FlopCounterMode:
        return counters.setdefault(stage, FlopCounterMode(display=False, custom_mapping=packed))

    # With gradients, although nobody needs them: the counter hooks into the modules' gradient functions.
    model.engine.run(model.engine.batch(batch), counted)
    return {name: counter.get_total_flops() / len(batch) for name, counter in counters.items()}


def _packed_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * int(np.prod(x)) * weight[0]


def weight_bytes(model: Model) -> dict[str, float]:
    """Stage -> bytes of its weights in the model's number type."""
    scorer, width = model.scorer, torch.empty((), dtype=model.dtype).element_size()
    parts = zip(LEARNT, (scorer.encoder, scorer.hypernet, scorer.upper), strict=True)
    return {name: float(width * sum(p.numel() for p in part.parameters())) for name, part in parts}


def product_rate(model: Model) -> float:
    """Operations per second of a large matrix product in the model's number type."""
    x = torch.randn(_PRODUCT, _PRODUCT, device=model.device).to(model.dtype)
    return 2 * _PRODUCT**3 / _seconds_of(lambda: x @ x, model.device)


def copy_rate(model: Model) -> float:
    """Bytes per second that a large copy reads; what it writes is not counted."""
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=model.device)
    target = torch.empty_like(source)
    return _COPY_BYTES / _seconds_of(lambda: target.copy_(source), model.device)


def _seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call: the shortest of as many as fit into `_SECONDS`."""
    work()
    shortest, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - begun)
    return shortest
