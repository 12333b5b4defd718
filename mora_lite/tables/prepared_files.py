"""Prepared libraries on disk: Parquet files of `prepared` rows, some 75 bytes for a drug-like molecule.

Parsing and featurising cost some 200 microseconds of a processor core for each molecule; reading them back costs two.
Atoms repeat so much from molecule to molecule that Parquet's own dictionary leaves half a byte of an atom's ten.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rdkit

from .. import __version__
from ..chem import fingerprints, graph
from ..errors import InputError, OutputError, error_text
from ..machine.files import replacing
from ..status import RunSummary
from .library import Library, Window, expand_paths
from .parquet import PREPARED_KEY, READ_BYTES, is_parquet, parquet_errors
from .prepared import SCHEMA, Prepared, from_arrow, prepare, to_arrow
from .table import STDIO, claim_output

FORMAT = 1
WINDOW_ROWS = 8192  # of one row group
# Of the other columns nearly every value is another.
_REPETITIVE = ["status", "error", "atoms.list.element", "bonds.list.element", "ends.list.element"]


def _facts() -> dict[str, Any]:
    """What the numbers in a file mean; a file with others cannot be scored."""
    return {
        "format": FORMAT,
        "atom_fields": [list(field) for field in graph.ATOM_FIELDS.items()],  # in order
        "bond_fields": [list(field) for field in graph.BOND_FIELDS.items()],
        "fingerprint": {"radius": fingerprints.RADIUS, "bits": fingerprints.N_BITS},
    }


class PreparedWriter:
    """Writes a prepared library; use it in a `with` block, at whose good end the file appears, complete.

    path: of the file. files: what the library was read from, to be noted in it. Raises `OutputError` as `claim_output`
    does, and when the disk is full.
    """

    def __init__(self, path: str | Path, files: Sequence[str] = (), *, force: bool = False):
        if str(path) == STDIO:
            raise OutputError("a prepared library cannot go to standard output: name a file with -o")
        self.name = str(path)
        for file in (None, *files):
            target = claim_output(path, source=file, force=force)
        if target.exists() and not target.is_file():
            raise OutputError(f"{path} is no regular file: choose another output")
        facts = _facts() | {"rdkit": rdkit.__version__, "mora_lite": __version__, "files": list(files)}
        with ExitStack() as files_open:
            self._writer = files_open.enter_context(
                pq.ParquetWriter(
                    files_open.enter_context(replacing(target)),
                    SCHEMA.with_metadata({PREPARED_KEY: json.dumps(facts)}),
                    compression="zstd",
                    use_dictionary=_REPETITIVE,
                    write_statistics=["row"],
                    write_page_checksum=True,
                )
            )
            self._files = files_open.pop_all()

    def write(self, prepared: Prepared) -> None:
        """Append rows, as one row group."""
        try:
            self._writer.write_batch(to_arrow(prepared), row_group_size=len(prepared))
        except OSError as error:
            raise OutputError(f"cannot write {self.name}: {error_text(error)}") from None

    def __enter__(self) -> PreparedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)


def prepare_library(
    library: Library,
    writer: PreparedWriter,
    *,
    map: Callable[[Callable[[Window], Prepared], Iterator[Window]], Iterable[Prepared]] = map,
    window_rows: int = WINDOW_ROWS,
    on_progress: Callable[[int], None] = lambda n_rows: None,
) -> RunSummary:
    """Prepare every row of `library` into `writer`, in order, in constant memory.

    map: as Python's, results in order; that of a pool of processes must not read ahead without bounds. `on_progress` is
    called with the number of rows done.
    """
    summary = RunSummary()
    started = time.perf_counter()
    for prepared in map(prepare, library.windows(window_rows)):
        writer.write(prepared)
        summary.count(prepared.column("status"), prepared.column("error"))
        on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


class PreparedLibrary:
    """Prepared files as one library, with the attributes and the windows of `sources.Library`.

    files: their names. n_rows: of all files. notes: lines for the user. bytes_total: size of all files on disk.
    rows_read: for `bytes_read`; who reads elsewhere sets it.
    """

    def __init__(self, paths: Sequence[str | Path]):
        """paths: files and patterns. Raises `InputError` when one is not prepared, or not for this version."""
        self.files = expand_paths(paths)
        self.notes: list[str] = []
        self.n_rows = self.bytes_total = self.rows_read = 0
        self._counts: list[int] = []  # rows of each file
        self._described: tuple[str, Any] | None = None  # the file opened last and its metadata
        for path in self.files:
            if path != STDIO and not os.path.exists(path):
                raise InputError(f"no such file: {path}")
            if not is_prepared(path):
                raise InputError(f"{path} is not a prepared library: prepare it, or give no prepared ones with it")
            with parquet_errors(path), pq.ParquetFile(path) as file:
                _check_facts(path, file)
                self._counts.append(file.metadata.num_rows)
                self.n_rows += file.metadata.num_rows
                self.bytes_total += os.path.getsize(path)

    @property
    def bytes_read(self) -> int:
        """How much of all files was read, told by rows."""
        return self.bytes_total * self.rows_read // max(self.n_rows, 1)

    def windows(self, n_rows: int) -> Iterator[Prepared]:
        """The rows of all files in order, numbered through, `n_rows` at a time; only the last may be fewer."""
        return map(from_arrow, self.batches(n_rows))

    def batches(self, n_rows: int, start_row: int = 0) -> Iterator[pa.RecordBatch]:
        """The same as they lie in Arrow. start_row: how many rows to leave out; files and row groups of which nothing
        is wanted are not read.
        """
        self.rows_read, first_row = start_row, start_row + 1
        held: list[pa.RecordBatch] = []  # fewer than n_rows
        for piece in self._pieces(n_rows, start_row):
            batch, room = piece, n_rows - sum(map(len, held))
            while len(batch) >= room:
                yield _joined([*held, batch.slice(0, room)], first_row)
                first_row += n_rows
                held, batch, room = [], batch.slice(room), n_rows
            held += [batch] if len(batch) else []
        if held:
            yield _joined(held, first_row)

    def _pieces(self, n_rows: int, start_row: int) -> Iterator[pa.RecordBatch]:
        skip = start_row
        for path, count in zip(self.files, self._counts, strict=True):
            if skip >= count:
                skip -= count
                continue
            with parquet_errors(path, partial(self._rows_since, self.rows_read - skip)), self._open(path) as file:
                groups, skip = _groups_after(file.metadata, skip)
                for batch in file.iter_batches(n_rows, row_groups=groups, use_threads=False):
                    piece, skip = batch.slice(skip), max(0, skip - len(batch))
                    self.rows_read += len(piece)
                    yield piece

    def _open(self, path: str) -> pq.ParquetFile:
        """Metadata are kept: those of a large file take long to read, and shard after shard is read of one file."""
        held = self._described[1] if self._described is not None and self._described[0] == path else None
        file = pq.ParquetFile(path, metadata=held, buffer_size=READ_BYTES, page_checksum_verification=True)
        self._described = path, file.metadata
        return file

    def _rows_since(self, before: int) -> int:
        return self.rows_read - before

    def close(self) -> None:
        """Nothing stays open between windows; here for the likeness with `Library`."""

    def __enter__(self) -> PreparedLibrary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_prepared(path: str | Path) -> bool:
    """Whether the file is a prepared library, of whatever version."""
    if not is_parquet(str(path)):
        return False
    with parquet_errors(str(path)):
        return PREPARED_KEY in (pq.read_schema(path).metadata or {})


def _check_facts(path: str, file: pq.ParquetFile) -> None:
    try:
        facts = json.loads(file.schema_arrow.metadata[PREPARED_KEY])
        wrong = [name for name, value in _facts().items() if facts.get(name) != value]
    except (ValueError, AttributeError):
        wrong = ["description"]
    if not wrong and not file.schema_arrow.equals(SCHEMA):
        wrong = ["columns"]
    if wrong:
        words = ", ".join(name.replace("_", " ") for name in wrong)
        raise InputError(f"{path} was prepared by another version of mora-lite: {words} differ; prepare it again")


def _groups_after(metadata: Any, n_rows: int) -> tuple[list[int], int]:
    """The row groups that hold what comes after the first `n_rows` rows, and how many of those they hold too."""
    first = 0
    while first < metadata.num_row_groups and n_rows >= metadata.row_group(first).num_rows:
        n_rows -= metadata.row_group(first).num_rows
        first += 1
    return list(range(first, metadata.num_row_groups)), n_rows


def _joined(batches: Sequence[pa.RecordBatch], first_row: int) -> pa.RecordBatch:
    one = batches[0] if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    rows = pa.array(np.arange(first_row, first_row + len(one), dtype=np.int64))
    return pa.RecordBatch.from_arrays([rows, *one.columns[1:]], schema=SCHEMA)
