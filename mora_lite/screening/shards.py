"""Screening: a library of any size in, a directory of scored shards out, in constant memory.

Rows are taken in windows; worker processes turn windows into rows of results, in order; so many windows make a shard.
What a shard holds depends on its rows and the settings alone, not on workers, restarts or what came before it.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from ..chem.molecules import parse_molecule
from ..errors import InputError, OutputError, error_text
from ..machine.files import digest_file, replacing
from ..status import NOT_FINITE, NOT_FINITE_REASON, OK
from ..tables.library import Window
from ..tables.prepared import Prepared, from_arrow, from_texts, prepare, to_arrow
from .run_directory import RESUME_HINT, RunDirectory

if TYPE_CHECKING:
    from ..model import Model
    from ..scoring.tasks import Task
    from ..tables.prepared_files import PreparedLibrary

Job = Window | bytes

WINDOW_ROWS = 2048  # small enough that the last windows of a short library keep all workers busy
SHARD_WINDOWS = 32


@dataclass(frozen=True)
class Scored:
    """Rows of results. data: an Arrow stream, or lines of CSV without the header. counts: rows by status. first: by
    status the number of the first row and its error.
    """

    n_rows: int
    counts: dict[str, int]
    first: dict[str, tuple[int, str]]
    data: bytes


def result_schema(tasks: Sequence[Task], calibrated: bool) -> pa.Schema:
    """Columns of the shards."""
    fields: list[tuple[str, pa.DataType]] = [("row", pa.int64()), ("name", pa.string()), ("smiles", pa.string())]
    for task in tasks:
        fields.append((task.column, pa.float32()))
        if calibrated and not task.is_class:
            fields += [(f"{task.name}_lo", pa.float32()), (f"{task.name}_hi", pa.float32())]
    if calibrated:
        fields += [("similarity", pa.float32()), ("in_domain", pa.bool_()), ("outside", pa.string())]
    return pa.schema([*fields, ("status", pa.string()), ("error", pa.string())])


def score_window(model: Model, prepared: Prepared) -> pa.RecordBatch:
    """One row of results for each row of the window; values are null where status is not ok."""
    scores = model.judge(model.score_graphs(prepared.graphs), prepared.bits if model.trust is not None else None)
    schema = result_schema(model.tasks, model.trust is not None)
    found = scores.columns(model.tasks)
    columns = {name: pa.array(column, schema.field(name).type) for name, column in found.items()}
    status, error = prepared.texts.column("status"), prepared.texts.column("error")
    finite, ok = np.isfinite(scores.values).all(axis=1), prepared.ok_rows
    if not finite.all():
        words, reasons = prepared.column("status"), prepared.column("error")
        for i in ok[~finite].tolist():
            words[i], reasons[i] = NOT_FINITE, NOT_FINITE_REASON
        status, error = from_texts(words), from_texts(reasons)
    if len(ok) < len(prepared) or not finite.all():
        source = np.full(len(prepared), -1)
        source[ok[finite]] = np.flatnonzero(finite)
        take = pa.array(source, mask=source < 0)
        columns = {name: column.take(take) for name, column in columns.items()}
    rows = np.arange(prepared.first_row, prepared.first_row + len(prepared), dtype=np.int64)
    names, smiles = prepared.texts.column("name"), prepared.texts.column("smiles")
    arrays = [pa.array(rows), names, smiles, *(columns[name] for name in schema.names[3:-2]), status, error]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def packed(batch: pa.RecordBatch, form: str) -> Scored:
    """The rows as bytes that another process can append to a shard of the form `parquet` or `csv`."""
    status = batch.column("status")
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(status).to_pylist()}
    first: dict[str, tuple[int, str]] = {}
    for word in counts:
        if word != OK:
            i = pc.index(status, word).as_py()
            reason = batch.column("error")[i].cast(pa.binary()).as_py()
            first[word] = batch.column("row")[i].as_py(), reason.decode("utf-8", "replace")
    if form == "csv":
        sink = io.BytesIO()
        csv.write_csv(batch, sink, csv.WriteOptions(include_header=False, quoting_style="needed"))
        data = sink.getvalue()
    else:
        data = to_stream(batch)
    return Scored(len(batch), counts, first, data)


class WindowScorer:
    """What a worker process does with a window: parse, featurise, score, pack."""

    def __init__(self, model: Model, form: str):
        self.model, self.form = model, form

    def __call__(self, job: Job, marked: Mapping[int, str], at: Callable[[int], None]) -> Scored:
        return packed(score_window(self.model, as_prepared(job, marked, at)), self.form)


class WindowPreparer:
    """What a worker process does where another device scores: parse and featurise."""

    def __call__(self, job: Job, marked: Mapping[int, str], at: Callable[[int], None]) -> bytes:
        return to_stream(to_arrow(as_prepared(job, marked, at)))


def as_prepared(job: Job, marked: Mapping[int, str], at: Callable[[int], None]) -> Prepared:
    """job: a `Window` of texts, or rows of a prepared library as an Arrow stream."""
    return from_arrow(from_stream(job)) if isinstance(job, bytes) else prepare(job, parse_molecule, marked, at)


def to_stream(batch: pa.RecordBatch) -> bytes:
    """For another process."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def from_stream(data: bytes) -> pa.RecordBatch:
    """The inverse of `to_stream`."""
    with pa.ipc.open_stream(data) as stream:
        return stream.read_next_batch()


def make_scorer(pack: str, tasks: list[str] | None, dtype: str, confidence: float, form: str) -> WindowScorer:
    """In a worker process: its own model with one thread, so that workers do not wait for each other."""
    import torch

    from ..model import load

    torch.set_num_threads(1)
    return WindowScorer(load(pack, device="cpu", dtype=dtype, tasks=tasks, confidence=confidence), form)


def make_preparer() -> WindowPreparer:
    """In a worker process."""
    return WindowPreparer()


def score_on(models: Sequence[Model], windows: Iterable[bytes], form: str) -> Iterator[Scored]:
    """Windows of `WindowPreparer`, scored in this process by whichever model is free, in order."""
    free: SimpleQueue[Model] = SimpleQueue()
    for model in models:
        free.put(model)

    def score(job: bytes) -> Scored:
        model = free.get()
        try:
            return WindowScorer(model, form)(job, {}, lambda item: None)
        finally:
            free.put(model)

    waiting: deque[Future[Scored]] = deque()
    with ThreadPoolExecutor(len(models)) as threads:
        for window in windows:
            waiting.append(threads.submit(score, window))
            if len(waiting) > 2 * len(models):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass
class ScreenProgress:
    """rows: scored in this session. skipped: rows of shards that were finished before, or are another run's. seconds:
    since the start.
    """

    rows: int = 0
    skipped: int = 0
    seconds: float = 0.0


def screen(
    run: RunDirectory,
    windows: Iterable[Window | pa.RecordBatch | range],
    score: Callable[[Iterator[Job]], Iterator[Scored]],
    schema: pa.Schema,
    *,
    part: tuple[int, int] = (0, 1),
    digest: bool = False,
    on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
) -> ScreenProgress:
    """Score the windows whose shards are not finished, and write those shards.

    windows: of `sources.Library` or `unfinished_windows`, all of `WINDOW_ROWS` rows but the last. score: jobs ->
    results in order. part: which shards are this run's: `number % part[1] == part[0]`. digest: keep and compare a
    SHA-256 of each shard's rows, for input that cannot be read beforehand; only a `Library` has such. Raises
    `InputError` when a finished shard's rows are others now.
    """
    if not digest and run.rows is not None and run.rows == sum(entry["rows"] for entry in run.shards.values()):
        return ScreenProgress(skipped=run.rows)  # all is there; reading the library again would tell nothing new
    progress, started = ScreenProgress(), time.perf_counter()
    jobs = _Jobs(run, windows, part, digest, progress)

    def count(n_rows: int) -> None:
        progress.rows += n_rows
        progress.seconds = time.perf_counter() - started
        on_progress(progress)

    # A key is asked for when its result is there, so the job is in `sent` by then.
    for number, results in groupby(score(iter(jobs)), lambda result: jobs.sent.popleft()):
        entry = write_shard(run.file(number), results, schema, run.settings["format"], count)
        run.add(number, entry | ({"rows_sha256": jobs.digests[number]} if digest else {}))
    if part[1] == 1:
        run.set_rows(progress.rows + progress.skipped)
    progress.seconds = time.perf_counter() - started
    return progress


def unfinished_windows(
    library: PreparedLibrary, run: RunDirectory, part: tuple[int, int], n_rows: int
) -> Iterator[pa.RecordBatch | range]:
    """The windows of a prepared library for `screen`; those that it will not score are not read, only as long."""
    shard_rows = SHARD_WINDOWS * n_rows
    for number, first_row in enumerate(range(0, library.n_rows, shard_rows)):
        if number in run.shards or number % part[1] != part[0]:
            last_row = min(first_row + shard_rows, library.n_rows)
            for row in range(first_row, last_row, n_rows):
                yield range(row, min(row + n_rows, last_row))
        else:
            yield from islice(library.batches(n_rows, first_row), SHARD_WINDOWS)


class _Jobs:
    """The windows to score. sent: the shard of each that has no result yet. digests: SHA-256 of the rows of each shard
    that was read.
    """

    def __init__(
        self, run: RunDirectory, windows: Iterable[Any], part: tuple[int, int], digest: bool, progress: ScreenProgress
    ):
        self.run, self.windows, self.part, self.digest, self.progress = run, windows, part, digest, progress
        self.sent: deque[int] = deque()
        self.digests: dict[int, str] = {}

    def __iter__(self) -> Iterator[Any]:
        finished = set(self.run.shards)
        for number, shard in groupby(enumerate(self.windows), lambda window: window[0] // SHARD_WINDOWS):
            sha256 = hashlib.sha256()
            for _, window in shard:
                if self.digest:
                    for record in window.records:
                        sha256.update(repr(tuple(record)).encode())
                    self.digests[number] = sha256.hexdigest()
                if number in finished or number % self.part[1] != self.part[0]:
                    self.progress.skipped += len(window.records) if isinstance(window, Window) else len(window)
                else:
                    self.sent.append(number)
                    yield window if isinstance(window, Window) else to_stream(window)
            if self.digest and number in finished:
                self._compare(number)
        if self.digest:
            for number in sorted(finished - self.digests.keys()):
                self._compare(number)

    def _compare(self, number: int) -> None:
        """Of a finished shard, whose rows may have ended in other ways too when this is called."""
        if self.run.shards[number].get("rows_sha256") != self.digests.get(number):
            raise InputError(
                f"the rows of {self.run.file(number).name} are not those that it was made of: give the same input, or "
                "--force to start again"
            )


def write_shard(
    file: Path, results: Iterable[Scored], schema: pa.Schema, form: str, on_rows: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Write the windows' results one after the other; returns what the manifest says of the shard.

    on_rows: called with the number of rows of each window.
    """
    counts: Counter[str] = Counter()
    first: dict[str, tuple[int, str]] = {}
    with replacing(file, RESUME_HINT) as stream, _writer(stream, schema, form) as write:
        for scored in results:
            write(scored.data)
            counts.update(scored.counts)
            first = {**scored.first, **first}
            on_rows(scored.n_rows)
    return {
        "rows": counts.total(),
        "counts": dict(sorted(counts.items())),
        "first": dict(sorted(first.items())),
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": digest_file(file),
    }


@contextmanager
def _writer(stream: IO[bytes], schema: pa.Schema, form: str) -> Iterator[Callable[[bytes], Any]]:
    """Appends the data of `Scored` to a shard."""
    if form == "csv":
        csv.write_csv(schema.empty_table(), stream, csv.WriteOptions(quoting_style="needed"))
        yield stream.write
        return
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        yield lambda data: writer.write_batch(from_stream(data))


def read_shards(run: RunDirectory, schema: pa.Schema) -> Iterator[pa.Table]:
    """The finished shards in order. Raises `OutputError` when one cannot be read."""
    for file in run.finished():
        try:
            yield _read_csv(file, schema) if file.suffix == ".csv" else parquet.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{file} cannot be read: {error_text(error)}; --resume makes it again") from None


def _read_csv(file: Path, schema: pa.Schema) -> pa.Table:
    return csv.read_csv(
        file,
        # In one block, for a name may be longer than a usual one.
        csv.ReadOptions(block_size=min(max(file.stat().st_size, 1 << 20), (1 << 31) - 1)),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(column_types=schema, strings_can_be_null=False, check_utf8=False),
    )
