"""Where molecules are scored: by worker processes that parse and score, or on devices that workers prepare rows for.

Windows of rows go in, results come out, in order and in constant memory; `finish` says what a result is. A molecule
that hangs or kills its process becomes a row with a status (`machine.workers`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..chem.featurizer import Featurizer
from ..machine.prefetch import read_ahead
from ..machine.workers import WorkerPool, default_workers
from ..tables.library import Window
from ..tables.prepared import Prepared, WindowPreparer, from_arrow, from_ipc, prepare
from .predictor import Predictor
from .tasks import Task

if TYPE_CHECKING:
    from .training_molecules import TrainingMolecules

WindowJob = Window | bytes  # texts, or rows of a prepared library by `to_ipc`
Finish = Callable[[Predictor, Prepared], Any]
CPU = "cpu"


@dataclass(frozen=True)
class ModelSource:
    """What is known of a model before it is loaded, and how it is loaded in any process.

    load: picklable; `load(device=..., threads=...)` with one of `devices`, and threads of the CPU, None for all.
    address: of the pack, as it was asked for. name: its own. tasks: those that are asked for.
    calibrated: whether there are intervals and a domain.
    devices: `cpu` for worker processes, or names of devices that score in this one. machine: their names for people.
    has_training: whether there are training molecules. load_training: they, of `tasks`; raises `PackError` without.
    settings: all that values depend on, in plain types for a manifest.
    """

    load: Callable[..., Predictor]
    address: str
    name: str
    tasks: tuple[Task, ...]
    featurizer: Featurizer
    calibrated: bool
    devices: tuple[str, ...]
    machine: str
    load_training: Callable[[], TrainingMolecules]
    has_training: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


class WindowWork:
    """The work of a process that scores: a window in, what `finish` makes of it out."""

    def __init__(self, model: Predictor, finish: Finish):
        self.model, self.finish = model, finish

    def __call__(self, job: WindowJob, marked: Mapping[int, str], at: Callable[[int], None]) -> Any:
        if isinstance(job, bytes):
            prepared = from_arrow(from_ipc(job))
        else:
            prepared = prepare(job, self.model.featurizer, marked, at)
        return self.finish(self.model, prepared)


def make_work(load: Callable[..., Predictor], finish: Finish) -> WindowWork:
    """Load a worker process's model, on one thread, so that workers do not wait for each other."""
    return WindowWork(load(device=CPU, threads=1), finish)


@contextmanager
def scoring(
    source: ModelSource,
    finish: Finish,
    *,
    workers: int | None = None,
    time_limit: float = 30.0,
    prepared: bool = False,
) -> Iterator[Callable[[Iterator[Any]], Iterator[Any]]]:
    """A function from jobs to results, in the same order, while the block runs.

    finish: picklable. workers: processes, by default one for each core. time_limit: seconds for parsing one molecule.
    prepared: whether jobs are rows of a prepared library.
    """
    n = workers or default_workers()
    if source.devices == (CPU,):
        with WorkerPool[Any, Any](n, make_work, (source.load, finish), time_limit) as pool:
            yield pool.results
        return
    models = [source.load(device=device) for device in source.devices]
    with WorkerPool[Window, bytes](n, WindowPreparer, (source.featurizer,), time_limit) as preparers:
        yield lambda jobs: score_on(models, read_ahead(jobs) if prepared else preparers.results(jobs), finish)


def score_on(models: Sequence[Predictor], windows: Iterable[bytes], finish: Finish) -> Generator[Any, None, None]:
    """Score prepared windows in this process, each by whichever model is free; results come in order."""
    free: SimpleQueue[Predictor] = SimpleQueue()
    for model in models:
        free.put(model)

    def score(job: bytes) -> Any:
        model = free.get()
        try:
            return WindowWork(model, finish)(job, {}, lambda item: None)
        finally:
            free.put(model)

    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(len(models)) as threads:
        for window in windows:
            waiting.append(threads.submit(score, window))
            if len(waiting) > 2 * len(models):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
