"""Scored shards of a library of any size, in constant memory.

Rows are read in windows; worker processes turn windows into rows of results, in order; so many windows make a shard.
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

from ..errors import InputError, OutputError, error_text
from ..machine.files import digest_file, replacing
from ..scoring.scores import Scores
from ..status import NOT_FINITE, OK, REASONS
from ..tables.library import Window
from ..tables.prepared import Prepared, from_arrow, from_ipc, from_texts, prepare, to_ipc
from .run_directory import RESUME_HINT, RunDirectory

if TYPE_CHECKING:
    from ..model import Model
    from ..scoring.tasks import Task
    from ..tables.prepared_files import PreparedLibrary

WindowJob = Window | bytes  # texts, or rows of a prepared library by `to_ipc`

WINDOW_ROWS = 2048  # small enough that the last windows of a short library keep all workers busy
SHARD_WINDOWS = 32


@dataclass(frozen=True)
class Scored:
    """The results of a window, as another process can append them to a shard.

    counts: status -> number of rows. first: status -> number of the first row with it, and that row's error.
    data: an Arrow stream, or lines of CSV without the header.
    """

    n_rows: int
    counts: dict[str, int]
    first: dict[str, tuple[int, str]]
    data: bytes


def result_schema(tasks: Sequence[Task], calibrated: bool) -> pa.Schema:
    """Columns of the shards."""
    columns = Scores.empty(len(tasks), calibrated).columns(tasks)
    fields = [("row", pa.int64()), ("name", pa.string()), ("smiles", pa.string())]
    for name, column in columns.items():
        fields.append((name, pa.string() if column.dtype == object else pa.from_numpy_dtype(column.dtype)))
    return pa.schema([*fields, ("status", pa.string()), ("error", pa.string())])


def score_window(model: Model, prepared: Prepared) -> pa.RecordBatch:
    """One row of results for each row of the window; values are null where status is not ok."""
    bits = prepared.bits if model.calibrator is not None else None
    scores = model.calibrate(model.score_graphs(prepared.graphs), bits)
    schema = result_schema(model.tasks, bits is not None)
    values = scores.columns(model.tasks)
    columns = {name: pa.array(column, schema.field(name).type) for name, column in values.items()}
    status, error = prepared.texts.column("status"), prepared.texts.column("error")
    finite, ok = np.isfinite(scores.values).all(axis=1), prepared.ok_rows
    if not finite.all():
        words, reasons = prepared.column("status"), prepared.column("error")
        for i in ok[~finite].tolist():
            words[i], reasons[i] = NOT_FINITE, REASONS[NOT_FINITE]
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


def encode_rows(batch: pa.RecordBatch, shard_format: str) -> Scored:
    """Encode rows of results for a shard of the format `parquet` or `csv`."""
    status = batch.column("status")
    counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(status).to_pylist()}
    first: dict[str, tuple[int, str]] = {}
    for word in counts:
        if word != OK:
            i = pc.index(status, word).as_py()
            reason = batch.column("error")[i].cast(pa.binary()).as_py()
            first[word] = batch.column("row")[i].as_py(), reason.decode("utf-8", "replace")
    if shard_format == "csv":
        sink = io.BytesIO()
        csv.write_csv(batch, sink, csv.WriteOptions(include_header=False, quoting_style="needed"))
        data = sink.getvalue()
    else:
        data = to_ipc(batch)
    return Scored(len(batch), counts, first, data)


class WindowScorer:
    """The work of a process that scores: a window in, its encoded results out."""

    def __init__(self, model: Model, shard_format: str):
        self.model, self.shard_format = model, shard_format

    def __call__(self, job: WindowJob, marked: Mapping[int, str], at: Callable[[int], None]) -> Scored:
        if isinstance(job, bytes):
            prepared = from_arrow(from_ipc(job))
        else:
            prepared = prepare(job, self.model.featurizer, marked, at)
        return encode_rows(score_window(self.model, prepared), self.shard_format)


def make_scorer(pack: str, tasks: list[str] | None, dtype: str, confidence: float, shard_format: str) -> WindowScorer:
    """Load a worker process's model, on one thread, so that workers do not wait for each other."""
    import torch

    from ..model import load

    torch.set_num_threads(1)
    return WindowScorer(load(pack, device="cpu", dtype=dtype, tasks=tasks, confidence=confidence), shard_format)


def score_on(models: Sequence[Model], windows: Iterable[bytes], shard_format: str) -> Iterator[Scored]:
    """Score prepared windows in this process, each by whichever model is free; results come in order."""
    free: SimpleQueue[Model] = SimpleQueue()
    for model in models:
        free.put(model)

    def score(job: bytes) -> Scored:
        model = free.get()
        try:
            return WindowScorer(model, shard_format)(job, {}, lambda item: None)
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
    """How far a run is.

    rows: scored in this session. skipped: rows of shards that were finished before, or are another machine's.
    seconds: since the start.
    """

    rows: int = 0
    skipped: int = 0
    seconds: float = 0.0


def score_shards(
    run: RunDirectory,
    windows: Iterable[Window | pa.RecordBatch | range],
    score: Callable[[Iterator[WindowJob]], Iterator[Scored]],
    schema: pa.Schema,
    *,
    part: tuple[int, int] = (0, 1),
    digest: bool = False,
    on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
) -> ScreenProgress:
    """Score the windows whose shards are not finished, and write those shards.

    windows: of a `Library` or `unfinished_windows`, all of `WINDOW_ROWS` rows but the last.
    score: jobs -> results, in the same order.
    part: which shards are this run's: `number % part[1] == part[0]`.
    digest: store and compare a SHA-256 of each shard's rows, for input that cannot be read beforehand; only a
        `Library` has such.

    Raises `InputError` when the rows of a finished shard have changed.
    """
    if not digest and run.rows is not None and run.rows == sum(entry["rows"] for entry in run.shards.values()):
        return ScreenProgress(skipped=run.rows)  # all is there: reading the library again would add nothing
    progress, started = ScreenProgress(), time.perf_counter()
    jobs = _Jobs(run, windows, part, digest, progress)

    def count(n_rows: int) -> None:
        progress.rows += n_rows
        progress.seconds = time.perf_counter() - started
        on_progress(progress)

    # `groupby` asks for a result's key after the result itself, so its job is in `sent` by then.
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
    """The windows of a prepared library for `score_shards`; of those that it skips, only the numbers of their rows."""
    shard_rows = SHARD_WINDOWS * n_rows
    for number, first_row in enumerate(range(0, library.n_rows, shard_rows)):
        if number in run.shards or number % part[1] != part[0]:
            last_row = min(first_row + shard_rows, library.n_rows)
            for row in range(first_row, last_row, n_rows):
                yield range(row, min(row + n_rows, last_row))
        else:
            yield from islice(library.batches(n_rows, first_row), SHARD_WINDOWS)


class _Jobs:
    """Iterates over the windows that remain to be scored.

    sent: the shard of each window that has no result yet. digests: shard -> SHA-256 of its rows, once it was read.
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
                    yield window if isinstance(window, Window) else to_ipc(window)
            if self.digest and number in finished:
                self._compare(number)
        if self.digest:
            for number in sorted(finished - self.digests.keys()):
                self._compare(number)

    def _compare(self, number: int) -> None:
        """Compare the rows of a finished shard with those it was made of; the input may also have ended before them."""
        if self.run.shards[number].get("rows_sha256") != self.digests.get(number):
            raise InputError(
                f"the rows of {self.run.file(number).name} are not those that it was made of: give the same input, or "
                "--force to start again"
            )


def write_shard(
    file: Path,
    results: Iterable[Scored],
    schema: pa.Schema,
    shard_format: str,
    on_rows: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Write the windows' results one after the other; returns the shard's entry for the manifest.

    on_rows: called with the number of rows of each window.
    """
    counts: Counter[str] = Counter()
    first: dict[str, tuple[int, str]] = {}
    with replacing(file, RESUME_HINT) as stream, _open_writer(stream, schema, shard_format) as write:
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
def _open_writer(stream: IO[bytes], schema: pa.Schema, shard_format: str) -> Iterator[Callable[[bytes], Any]]:
    """A function that appends `Scored.data` to a shard."""
    if shard_format == "csv":
        csv.write_csv(schema.empty_table(), stream, csv.WriteOptions(quoting_style="needed"))
        yield stream.write
        return
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        yield lambda data: writer.write_batch(from_ipc(data))


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
        # In one block, because a name may be longer than a usual block.
        csv.ReadOptions(block_size=min(max(file.stat().st_size, 1 << 20), (1 << 31) - 1)),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(column_types=schema, strings_can_be_null=False, check_utf8=False),
    )
