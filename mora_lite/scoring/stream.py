"""Files of molecules in, the same rows with predictions out: the stream from reader to model to writer.

The output has every column of the input, unchanged and in order, then those of `Scores.columns`, then `status` and
`error`. Where the input has a column of such a name already, the new one is called `<name> (mora-lite)`, then
`<name> (mora-lite 2)`.

A small table is scored in this process, for loading the model in others would take longer. A larger one is scored as
a screening is (`parallel`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from ..status import OK, RunSummary
from ..tables.formats import TableFormat, add_columns
from ..tables.library import Library, TypedSmiles, Window, regroup
from ..tables.parsed import ParsedWindow
from ..tables.sdf import drawn_text, with_smiles
from ..tables.writers import TableWriter, continued
from .neighbours import Neighbours
from .parallel import SMALL_ROWS, ModelSource, Output, score_here, scoring
from .predictor import Predictor
from .scores import Scores
from .tasks import Task

CHUNK_ROWS = 1024  # of a small table, scored and written at a time


@dataclass(frozen=True)
class Answers:
    """The results of a window of `B` rows.

    status, error: `B` texts. smiles: `B` texts, as in `Prepared`. added: by `TableFormat.encode`.
    outside: task -> number of scored rows that are outside of its domain.
    """

    status: list[str]
    error: list[str]
    smiles: list[str]
    added: list[Any]
    outside: dict[str, int]


@dataclass(frozen=True)
class AnswerColumns(Output):
    """What is written beside the columns of the input, and how.

    form: of the output. short: whether intervals and domain are left out.
    names: of the columns in the output, where they differ from those of the scores.
    """

    form: TableFormat = field(default_factory=lambda: TableFormat("csv"))
    short: bool = False
    names: tuple[str, ...] = ()

    def columns(self, scores: Scores, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        if self.short:
            scores = replace(scores, low=None, high=None, nearest=None, inside=None)
        return scores.columns(tasks)

    def kinds(self, model: Predictor | ModelSource) -> dict[str, Any]:
        """The columns of values: name -> NumPy's type."""
        scores = replace(Scores.empty(len(model.tasks), model.calibrated), beside=self.beside(model.tasks))
        if self.n_neighbours:
            none = np.empty((0, self.n_neighbours), np.int64), np.empty((0, self.n_neighbours), np.float32)
            scores = replace(scores, neighbours=Neighbours([], model.tasks, *none, model.training))
        return {name: column.dtype for name, column in self.columns(scores, model.tasks).items()}

    def __call__(self, tasks: Sequence[Task], parsed: ParsedWindow, scores: Scores) -> Answers:
        ok = np.array([word == OK for word in scores.status], dtype=bool)
        outside: dict[str, int] = {}
        if scores.inside is not None:  # a pack without calibration knows nothing of it
            counts = (~scores.inside & ok[:, None]).sum(axis=0).tolist()
            outside = {task.name: n for task, n in zip(tasks, counts, strict=True) if n}
        columns = self.columns(scores, tasks)
        names = self.names or (*columns, "status", "error")
        added = self.form.encode(names, list(columns.values()), ok, [scores.status, scores.error])
        return Answers(scores.status, scores.error, parsed.smiles, added, outside)


def predict_library(
    library: Library | TypedSmiles,
    target: str,
    answers: AnswerColumns,
    load: Callable[[], Predictor],
    describe: Callable[[], ModelSource],
    *,
    workers: int | None = None,
    time_limit: float = 30.0,
    force: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: Callable[[int, Any], None] = lambda n_rows, library: None,
) -> RunSummary:
    """Score every row of `library`, opened with its cells, into the file `target`, in order, in constant memory.

    load: gives the model for this process. describe: the same model for others, asked when there are many rows.
    workers: these other processes. time_limit: seconds for parsing one molecule.
    on_note: called with each line for the user. on_progress: with the number of rows done, and the library.
    """
    windows, started, n_rows = library.windows(SMALL_ROWS + 1), time.perf_counter(), CHUNK_ROWS
    head = next(windows, None) or Window(1, [])
    answers = replace(answers, form=continued(target, library, head.cells, on_note))
    with ExitStack() as stack:
        model = load() if len(head.records) <= SMALL_ROWS else describe()
        kinds = answers.kinds(model)
        columns = add_columns(library.columns, [*kinds, "status", "error"])
        answers = replace(answers, names=tuple(columns[len(library.columns) :]))
        answer: Answer
        if isinstance(model, Predictor):
            answer = partial(score_here, model, output=answers, time_limit=time_limit)
        else:
            n_rows = model.window_rows
            answer = stack.enter_context(scoring(model, answers, workers=workers, time_limit=time_limit))
        summary = RunSummary(load_seconds=time.perf_counter() - started)
        for note in model.featurizer.notes:
            on_note(note)
        types = [*library.types, *kinds.values(), None, None]
        writer = TableWriter(target, columns, kinds=types, form=answers.form, force=force, molecules=True)
        stack.enter_context(writer)
        started = time.perf_counter()
        answered = stack.enter_context(closing(_answered(regroup(chain([head], windows), n_rows), answer)))
        for window, found in answered:
            _write(writer, library, window, found)
            summary.count(found.status, found.error)
            summary.outside.update(found.outside)
            on_progress(summary.n_rows, library)
        summary.seconds = time.perf_counter() - started
    return summary


Answer = Callable[[Iterator[Window]], Iterable[Answers]]


def _answered(windows: Iterable[Window], answer: Answer) -> Generator[tuple[Window, Answers], None, None]:
    """Each window with its results. Its cells stay in this process."""
    sent: deque[Window] = deque()

    def jobs() -> Iterator[Window]:
        for window in windows:
            sent.append(window)
            yield Window(window.first_row, window.records)

    for found in answer(jobs()):
        yield sent.popleft(), found


def _write(writer: TableWriter, library: Library | TypedSmiles, window: Window, found: Answers) -> None:
    cells = with_smiles(window.cells, library.smiles_index, window.records, found.smiles, found.status)
    drawn = [(one.name, drawn_text(one.text, status)) for one, status in zip(window.records, found.status, strict=True)]
    writer.write(cells, found.added, drawn)
