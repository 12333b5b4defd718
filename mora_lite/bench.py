"""Where the time of scoring goes, and how far each stage is from what the hardware allows.

The floor of a stage is the time of its multiplications at the rate of a large matrix product of the same type; on a GPU
it is at least the time to read its weights once for each batch at the rate of a large copy. (A CPU keeps weights of
this size in its cache.) Both rates are measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from .chem.graph import Graphs
from .fast.captured import CapturedScorer
from .model import Model
from .tables.library import Window
from .tables.parsed import parse_window
from .tables.records import Record

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

    stages: in the order of the work.
    mol_per_s: of all stages together. parsed_mol_per_s: of all after parsing.
    tflop_per_s, gb_per_s: the rates that the floors are computed from; the second is 0 on a CPU.
    """

    stages: list[Stage]
    n: int
    mol_per_s: float
    parsed_mol_per_s: float
    tflop_per_s: float
    gb_per_s: float

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


def measure(model: Model, smiles: Sequence[str], batch_size: int | None = None) -> Bench:
    """Score `smiles` once to warm up and once more to measure."""
    graphs = parse_window(Window(1, [Record("", text, "") for text in smiles]), model.featurizer).graphs
    model.score(smiles, batch_size)
    model.seconds.clear()
    started = time.perf_counter()
    model.score(smiles, batch_size)
    whole = time.perf_counter() - started
    seconds, n = dict(model.seconds), len(graphs)
    size = model.fit_batch_size(batch_size)
    moving: tuple[str, ...] = ()
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
    for name in ("parse", *moving, *LEARNT, "similarity"):
        reading = weights.get(name, 0) / min(size, n) / bandwidth if on_gpu else 0.0
        floor = max(flops.get(name, 0) / rate, reading) * 1e6
        stages.append(Stage(name, seconds.get(name, 0.0) / n * 1e6, flops.get(name, 0) / 1e9, floor))
    ready = sum(stage.us for stage in stages[1:])
    return Bench(stages, n, n / whole, 1e6 / ready, rate / 1e12, bandwidth / 1e9)


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
