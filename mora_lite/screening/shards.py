"""Scored shards of a library of any size, in constant memory.

Rows are read in windows; worker processes turn windows into rows of results, in order; so many windows make a shard.
What a shard holds depends on its rows and the settings alone, not on workers, restarts or what came before it.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from ..errors import InputError, OutputError, error_text
from ..machine.files import file_entry, replacing
from ..machine.journal import Entry, Journal
from ..scoring.parallel import Output
from ..scoring.scores import Scores
from ..status import OK, StatusCounts
from ..tables.formats import column_texts, csv_lines, rounded
from ..tables.library import Window
from ..tables.parquet import from_texts, to_texts, valid_texts
from ..tables.parsed import ParsedWindow
from .run_directory import RESUME_HINT, RunDirectory

if TYPE_CHECKING:
    from ..scoring.tasks import Task

SHARD_ROWS = 65536
OPTIONAL_COLUMNS = ("extras", "percentiles")  # which of them a run has is in its manifest
COMMIT_SECONDS = 5.0  # the longest that finished windows of a shard wait until they are kept


@dataclass(frozen=True)
class Scored:
    """The results of a window, as another process can append them to a shard.

    counts: status -> number of rows. first: status -> number of the first row with it, and that row's error.
    data: an Arrow stream, or lines of CSV without the header.
    rows_sha256: of the rows that it was made of, where the input can be read only once.
    """

    counts: dict[str, int]
    first: dict[str, tuple[int, str]]
    data: bytes
    rows_sha256: str = ""

    @property
    def n_rows(self) -> int:
        return sum(self.counts.values())

    def entry(self) -> Entry:
        """For the journal of a shard.

        A shard has tens of thousands of rows, and its bytes may not depend on when a run was stopped, so what is
        finished of it is kept window by window.
        """
        header = asdict(self)
        return Entry(header, header.pop("data"))

    @classmethod
    def of(cls, entry: Entry) -> Scored:
        """The inverse of `entry`."""
        header = entry.header
        counts = {str(status): int(n) for status, n in header["counts"].items()}
        first = {status: (int(row), str(reason)) for status, (row, reason) in header["first"].items()}
        return cls(counts, first, entry.data, str(header["rows_sha256"]))


def result_schema(
    tasks: Sequence[Task], calibrated: bool, beside: Mapping[str, np.ndarray] = MappingProxyType({})
) -> pa.Schema:
    """Columns of the shards. beside: those of `Scores.beside`."""
    columns = replace(Scores.empty(len(tasks), calibrated), beside=beside).columns(tasks)
    fields = [("row", pa.int64()), ("name", pa.string()), ("smiles", pa.string())]
    for name, column in columns.items():
        fields.append((name, pa.string() if column.dtype == object else pa.from_numpy_dtype(column.dtype)))
    return pa.schema([*fields, ("status", pa.string()), ("error", pa.string())])


def result_rows(tasks: Sequence[Task], parsed: ParsedWindow, scores: Scores) -> pa.RecordBatch:
    """One row of results for each row of the window; values are null where status is not ok."""
    schema = result_schema(tasks, scores.inside is not None, scores.beside)
    are_all_ok = scores.status.count(OK) == len(scores.status)
    mask = None if are_all_ok else np.array([word != OK for word in scores.status], bool)
    rows = np.arange(parsed.first_row, parsed.first_row + len(parsed), dtype=np.int64)
    arrays = [pa.array(rows), from_texts(parsed.names), from_texts(parsed.smiles)]
    for name, column in scores.columns(tasks).items():
        arrays.append(pa.array(rounded(column), schema.field(name).type, mask=mask))
    arrays += [from_texts(scores.status), from_texts(scores.error)]
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
    data = csv_text(batch, header=False) if shard_format == "csv" else to_ipc(valid_texts(batch))
    return Scored(counts, first, data)


def to_ipc(batch: pa.RecordBatch) -> bytes:
    """A batch as an Arrow stream, for another process."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def from_ipc(data: bytes) -> pa.RecordBatch:
    """The inverse of `to_ipc`."""
    with pa.ipc.open_stream(data) as stream:
        return stream.read_next_batch()


def csv_text(rows: pa.RecordBatch | pa.Table, header: bool = True) -> bytes:
    """Rows as CSV, as `predict` writes it: null is blank, a number has six digits, quotes only where they must be."""
    lines = csv_lines([rows.schema.names]) if header else []
    lines += csv_lines(zip(*map(_cell_texts, rows.columns), strict=True))
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _cell_texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
        ok = column.is_valid().to_numpy(zero_copy_only=False)
        filled = column.fill_null(0 if pa.types.is_floating(column.type) else False)
        return column_texts(filled.to_numpy(zero_copy_only=False), ok)
    if pa.types.is_string(column.type):
        return to_texts(column)
    return ["" if cell is None else str(cell) for cell in column.to_pylist()]


@dataclass(frozen=True)
class ShardRows(Output):
    """What is made of a window, for a shard of the format `parquet` or `csv`."""

    shard_format: str

    @classmethod
    def of_run(cls, settings: Mapping[str, Any]) -> ShardRows:
        """As the manifest of a run says."""
        return cls(settings["format"], **{name: settings.get(name, False) for name in OPTIONAL_COLUMNS})

    def __call__(self, tasks: Sequence[Task], parsed: ParsedWindow, scores: Scores) -> Scored:
        return encode_rows(result_rows(tasks, parsed, scores), self.shard_format)


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
    windows: Iterable[Window],
    score: Callable[[Iterator[Window]], Iterator[Scored]],
    schema: pa.Schema,
    *,
    part: tuple[int, int] = (0, 1),
    digest: bool = False,
    on_progress: Callable[[ScreenProgress], None] = lambda progress: None,
) -> ScreenProgress:
    """Score the windows whose shards are not finished, and write those shards.

    windows: of a `Library`, all of the same number of rows but the last.
    score: windows -> results, in the same order.
    part: which shards are this run's: `number % part[1] == part[0]`.
    digest: store and compare a SHA-256 of each shard's rows, for input that cannot be read beforehand.

    Raises `InputError` when the rows of a finished shard have changed.
    """
    if not digest and run.is_whole:
        return ScreenProgress(skipped=run.rows or 0)  # reading the library again would add nothing
    progress, started = ScreenProgress(), time.perf_counter()
    jobs = _Jobs(run, windows, part, digest, progress)

    def results() -> Iterator[tuple[int, Scored]]:
        for scored in score(iter(jobs)):
            sent = jobs.sent.popleft()
            yield sent.shard, replace(scored, rows_sha256=sent.rows_sha256) if digest else scored
            progress.rows += scored.n_rows
            progress.seconds = time.perf_counter() - started
            on_progress(progress)

    def finish(number: int, of_shard: Iterable[Scored]) -> None:
        journal = jobs.journals.pop(number)
        entry = write_shard(run.file(number), of_shard, schema, run.settings["format"], journal)
        run.add(number, entry | ({"rows_sha256": jobs.digests[number]} if digest else {}))
        journal.remove()

    for number, group in groupby(results(), lambda pair: pair[0]):
        finish(number, (scored for _, scored in group))
    for number in sorted(jobs.journals):  # of which all windows were kept
        finish(number, ())
    if part[1] == 1:
        run.set_rows(progress.rows + progress.skipped)
    progress.seconds = time.perf_counter() - started
    return progress


class _Sent(NamedTuple):
    """A window that has no result yet."""

    shard: int
    rows_sha256: str


class _Jobs:
    """Iterates over the windows that remain to be scored.

    sent: those that have no result yet. digests: shard -> SHA-256 of its rows, once it was read.
    journals: of the shards that are being made.
    """

    def __init__(
        self,
        run: RunDirectory,
        windows: Iterable[Window],
        part: tuple[int, int],
        digest: bool,
        progress: ScreenProgress,
    ):
        self.run, self.windows, self.part, self.digest, self.progress = run, windows, part, digest, progress
        self.sent: deque[_Sent] = deque()
        self.digests: dict[int, str] = {}
        self.journals: dict[int, Journal[Scored]] = {}

    def __iter__(self) -> Iterator[Any]:
        finished, n_windows = set(self.run.shards), self.run.settings["shard_windows"]
        for number, shard in groupby(enumerate(self.windows), lambda window: window[0] // n_windows):
            done = number in finished or number % self.part[1] != self.part[0]
            kept = [] if done else self._open_journal(number)
            sha256 = hashlib.sha256()
            for i, (_, window) in enumerate(shard):
                rows_sha256 = _digest_rows(window, sha256) if self.digest else ""
                self.digests[number] = sha256.hexdigest()
                if not done and i >= len(kept):
                    self.sent.append(_Sent(number, rows_sha256))
                    yield window
                    continue
                self.progress.skipped += len(window.records)
                if not done and kept[i].rows_sha256 != rows_sha256:
                    self._refuse(number)
            if self.digest and number in finished:
                self._compare(number)
        if self.digest:
            for number in sorted(finished - self.digests.keys()):
                self._compare(number)

    def _open_journal(self, number: int) -> list[Scored]:
        self.journals[number] = Journal(self.run.journal(number), Scored.of).read()
        return self.journals[number].kept

    def _compare(self, number: int) -> None:
        """Compare the rows of a finished shard with those it was made of; the input may also have ended before them."""
        if self.run.shards[number].get("rows_sha256") != self.digests.get(number):
            self._refuse(number)

    def _refuse(self, number: int) -> None:
        raise InputError(
            f"the rows of {self.run.file(number).name} are not those that it was made of: give the same input, or "
            "--force to start again"
        )


def _digest_rows(window: Window, whole: Any) -> str:
    """SHA-256 of a window's rows, which are also added to that of the shard."""
    here = hashlib.sha256()
    for record in window.records:
        text = repr(tuple(record)).encode()
        here.update(text)
        whole.update(text)
    return here.hexdigest()


def write_shard(
    file: Path,
    results: Iterable[Scored],
    schema: pa.Schema,
    shard_format: str,
    journal: Journal[Scored],
) -> dict[str, Any]:
    """Write the windows' results one after the other; returns the shard's entry for the manifest.

    journal: its windows come first. It gets all others every few seconds, and at least when writing is stopped.
    """
    counts = StatusCounts()
    with (
        replacing(file, RESUME_HINT) as stream,
        _open_writer(stream, schema, shard_format) as write,
        closing(_kept_and_new(results, journal)) as windows,
    ):
        for scored in windows:
            write(scored.data)
            counts.add(scored.counts, scored.first)
    return {
        "rows": counts.n_rows,
        "counts": dict(sorted(counts.counts.items())),
        "first": dict(sorted(counts.first.items())),
        "file": file.name,
        **file_entry(file),
    }


def _kept_and_new(results: Iterable[Scored], journal: Journal[Scored]) -> Generator[Scored, None, None]:
    """The windows of the journal, then those of `results`, which go into it."""
    waiting: list[Scored] = []
    committed = time.monotonic()
    yield from journal.kept
    try:
        for scored in results:
            waiting.append(scored)
            if time.monotonic() - committed > COMMIT_SECONDS:
                journal.append([scored.entry() for scored in waiting])
                waiting, committed = [], time.monotonic()
            yield scored
    except BaseException:
        with suppress(OutputError):  # the disk is full, perhaps, and the first error is the one to report
            journal.append([scored.entry() for scored in waiting])
        raise
    finally:
        journal.close()


@contextmanager
def _open_writer(stream: IO[bytes], schema: pa.Schema, shard_format: str) -> Iterator[Callable[[bytes], Any]]:
    """A function that appends `Scored.data` to a shard."""
    if shard_format == "csv":
        stream.write(csv_text(schema.empty_table()))
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
