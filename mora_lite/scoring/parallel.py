"""Where molecules are scored: by worker processes that parse and score, or on devices that threads parse rows for; few
molecules in this process, for loading the model in others would take longer.

Windows of rows go in, results come out, in order and in constant memory; `Output` says what a result is. A molecule
that hangs RDKit or kills its process becomes a row with a status (`machine.workers`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chem.featurizer import Featurizer
from ..context.extras import extra_columns
from ..machine.prefetch import map_ahead, read_ahead
from ..machine.process import torch_threads_kept
from ..machine.workers import WorkerPool, default_workers
from ..tables.library import Window
from ..tables.parsed import CertainRows, Describe, ParsedWindow, RdkitParser, parse_window, read_certain
from .predictor import Predictor
from .scores import Scores, percentile_columns
from .tasks import Task

if TYPE_CHECKING:
    from .training_molecules import TrainingMolecules

CPU = "cpu"
CPU_WINDOW_ROWS = 512  # a processor core takes seconds for as many, which are lost when a run is stopped
WINDOW_ROWS = 4096  # one batch of a GPU
SMALL_ROWS = 4096  # up to so many are scored in this process


@dataclass(frozen=True, kw_only=True)
class Output(ABC):
    """What is made of the scores of a window; picklable.

    batch_size: molecules at a time, None for what suits the device. n_neighbours: training molecules to name beside
    each molecule. extras, percentiles: whether there are these columns, as in `Predictor.score`.
    """

    batch_size: int | None = None
    n_neighbours: int = 0
    extras: bool = False
    percentiles: bool = False

    @abstractmethod
    def __call__(self, tasks: Sequence[Task], parsed: ParsedWindow, scores: Scores) -> Any:
        """The result. Called in the process that scores, perhaps by several threads at once."""

    def of(self, model: Predictor, parsed: ParsedWindow) -> Any:
        """Score a window, and make the result."""
        return self(model.tasks, parsed, self.scores(model, parsed))

    def scores(self, model: Predictor, parsed: ParsedWindow) -> Scores:
        return model.score_parsed(parsed, self.batch_size, self.n_neighbours, self.percentiles)

    @property
    def describe(self) -> Describe | None:
        """For whoever parses the rows."""
        return extra_columns if self.extras else None

    def beside(self, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        """`Scores.beside` of no molecule."""
        names = percentile_columns(tasks) if self.percentiles else []
        return {name: np.empty(0, np.float32) for name in names} | (extra_columns([]) if self.extras else {})


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

    @cached_property
    def training(self) -> TrainingMolecules:
        """As `load_training`."""
        return self.load_training()

    @property
    def window_rows(self) -> int:
        """Rows to score at a time."""
        return CPU_WINDOW_ROWS if self.devices == (CPU,) else WINDOW_ROWS


def make_scorer(load: Callable[..., Predictor], output: Output) -> Callable[..., Any]:
    """The work of a process that scores: a window in, what `output` makes of it out.

    Its model has one thread, so that workers do not wait for each other.
    """
    model = load(device=CPU, threads=1)

    def score(window: Window, marked: Mapping[int, str], at: Callable[[int], None]) -> Any:
        return output.of(model, parse_window(window, model.featurizer, marked, at, output.describe))

    return score


@contextmanager
def scoring(
    source: ModelSource, output: Output, *, workers: int | None = None, time_limit: float = 30.0
) -> Iterator[Callable[[Iterator[Window]], Iterator[Any]]]:
    """A function from windows to results, in the same order, while the block runs.

    workers: processes, by default one for each core, and none for up to `SMALL_ROWS`; in front of a device as many
    threads, which leave some rows to processes. time_limit: seconds for parsing one molecule.
    """
    n = workers or default_workers()
    if source.devices == (CPU,):
        with WorkerPool[Window, Any](n, make_scorer, (source.load, output), time_limit) as pool, torch_threads_kept():

            def few_or_many(windows: Iterator[Window]) -> Iterator[Any]:
                head = [] if workers else list(islice(windows, SMALL_ROWS // source.window_rows + 1))
                if head and len(head) * source.window_rows <= SMALL_ROWS:
                    # On one thread, as workers are: with more, sums are rounded otherwise.
                    return score_here(source.load(device=CPU, threads=1), head, output, time_limit)
                return pool.results(chain(head, windows))

            yield few_or_many
        return
    models = [source.load(device=device) for device in source.devices]
    with ExitStack() as stack:

        def results(windows: Iterator[Window]) -> Iterator[Any]:
            # The writer is the caller's thread. Before it the others end, and with them the processes.
            parsed = parse_ahead(windows, source.featurizer, output.describe, n, time_limit)
            found = read_ahead(score_on(models, parsed, output))
            stack.callback(found.close)
            return found

        yield results


def parse_ahead(
    windows: Iterator[Window], featurizer: Featurizer, describe: Describe | None, n: int, time_limit: float
) -> Generator[ParsedWindow, None, None]:
    """Parse windows natively in `n` threads, and what is left in `n` processes, which start when something is left.

    describe: as for `parse_by_rdkit`; with it all rows are RDKit's. time_limit: seconds for parsing one molecule there.
    """
    with WorkerPool[Window, ParsedWindow](n, RdkitParser, (featurizer, describe), time_limit) as pool:
        if not featurizer.is_native or describe is not None:
            yield from pool.results(windows)
            return
        begun: deque[CertainRows] = deque()

        def rests() -> Generator[Window | None, None, None]:
            for certain in map_ahead(partial(read_certain, featurizer=featurizer), read_ahead(windows), n):
                begun.append(certain)
                yield certain.rest

        with closing(rests()) as jobs:
            for rest in pool.results(jobs):
                yield begun.popleft().with_rest(rest)


def score_here(
    model: Predictor, windows: Iterable[Window], output: Output, time_limit: float
) -> Generator[Any, None, None]:
    """Score in this process. Rows at which RDKit may hang or die are read in another, if there are such."""
    with closing(parse_ahead(iter(windows), model.featurizer, output.describe, 1, time_limit)) as parsed:
        for rows in parsed:
            yield output.of(model, rows)


def score_on(models: Sequence[Predictor], windows: Iterator[ParsedWindow], output: Output) -> Iterator[Any]:
    """Score parsed windows in this process, each by whichever model is free; results come in order."""
    free: SimpleQueue[Predictor] = SimpleQueue()
    for model in models:
        free.put(model)
    tasks = models[0].tasks

    def score(parsed: ParsedWindow) -> Any:
        model = free.get()
        try:
            scores = output.scores(model, parsed)
        finally:
            free.put(model)
        return output(tasks, parsed, scores)  # while the model has the next window

    return map_ahead(score, windows, 2 * len(models))
