"""Prepared libraries on disk: Parquet files of `prepared` rows, some 83 bytes for a drug-like molecule.

Parsing and featurising take some 200 microseconds of a processor core for each molecule; reading them back takes two.
Atoms repeat so much from molecule to molecule that Parquet's dictionary leaves half a byte of an atom's ten.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rdkit

from .. import __version__
from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS
from ..errors import InputError, OutputError, PackError, error_text
from ..machine.files import replacing
from ..machine.workers import WorkerPool, default_workers
from ..status import RunSummary
from .library import Library, Window, expand_paths, open_library
from .parquet import PREPARED_KEY, READ_BYTES, is_parquet, parquet_errors
from .prepared import SCHEMA, Prepared, WindowPreparer, from_arrow, from_ipc, to_arrow
from .source import STDIO
from .writers import claim_output

FORMAT = 1
WINDOW_ROWS = 8192  # of one row group
# Columns worth a dictionary; in the others nearly every value is different.
_REPETITIVE = ["status", "error", "atoms.list.element", "bonds.list.element", "ends.list.element"]


def _metadata() -> dict[str, Any]:
    """What the numbers in a file mean; a file that differs in this cannot be scored."""
    return {
        "format": FORMAT,
        "atom_fields": [list(field) for field in ATOM_FIELDS.items()],  # in order
        "bond_fields": [list(field) for field in BOND_FIELDS.items()],
    }


class PreparedWriter:
    """Writes a prepared library; use it in a `with` block, at whose good end the file appears, complete.

    path: of the file. files, featurizer: what the library was read from, and how; noted in it. Raises `OutputError` as
    `claim_output` does, and when the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        files: Sequence[str] = (),
        *,
        featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
        force: bool = False,
    ):
        if str(path) == STDIO:
            raise OutputError("a prepared library cannot go to standard output: name a file with -o")
        self.name = str(path)
        for file in (None, *files):
            target = claim_output(path, source=file, force=force)
        if target.exists() and not target.is_file():
            raise OutputError(f"{path} is no regular file: choose another output")
        metadata = _metadata() | {
            "featurizer": featurizer.as_dict(),
            "rdkit": rdkit.__version__,
            "mora_lite": __version__,
            "files": list(files),
        }
        with ExitStack() as files_open:
            self._writer = files_open.enter_context(
                pq.ParquetWriter(
                    files_open.enter_context(replacing(target)),
                    SCHEMA.with_metadata({PREPARED_KEY: json.dumps(metadata)}),
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

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)


def prepare_library(
    paths: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
    smiles_column: str | None = None,
    name_column: str | None = None,
    workers: int | None = None,
    time_limit: float = 30.0,
    force: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: Callable[[int, Library], None] = lambda n_rows, library: None,
) -> RunSummary:
    """Make the graphs and fingerprints of a library once, to be scored often, in constant memory.

    paths, smiles_column, name_column: of the library, as for `open_library`.
    output: the Parquet file to write, one row for each row of the library, in order.
    featurizer: of the packs that are to score it.
    workers: processes, by default one for each core. They are spawned, so a script must call this under
        `if __name__ == "__main__":`.
    time_limit: seconds for parsing one molecule.
    on_note: called with each line that the user should see.
    on_progress: called with the number of rows done and the library, whose `bytes_read` says how far that is.
    """
    with open_library(paths, smiles_column, name_column) as library:
        for note in library.notes:
            on_note(note)
        n_notes = len(library.notes)
        with (
            PreparedWriter(output, library.files, featurizer=featurizer, force=force) as writer,
            WorkerPool[Window, bytes](workers or default_workers(), WindowPreparer, (featurizer,), time_limit) as pool,
        ):
            windows = (from_arrow(from_ipc(data)) for data in pool.results(library.windows(WINDOW_ROWS)))
            summary = write_prepared(windows, writer, lambda n_rows: on_progress(n_rows, library))
        for note in library.notes[n_notes:]:  # what only shows when all is read
            on_note(note)
        return summary


def write_prepared(
    windows: Iterable[Prepared], writer: PreparedWriter, on_progress: Callable[[int], None] = lambda n_rows: None
) -> RunSummary:
    """Write windows one after the other; `on_progress` is called with the number of rows done."""
    summary = RunSummary()
    started = time.perf_counter()
    for prepared in windows:
        writer.write(prepared)
        summary.count(prepared.column("status"), prepared.column("error"))
        on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


class PreparedLibrary:
    """Prepared files as one library, with the attributes and the windows of a `Library`.

    files: their names. n_rows, bytes_total: of all files together. notes: lines for the user.
    featurizer: how its molecules were read; of all files the same.
    rows_read: for `bytes_read`.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]):
        """paths: files and patterns. Raises `InputError` when one is not prepared, or not for this version."""
        self.files = expand_paths(paths)
        self.notes: list[str] = []
        self.featurizer = Featurizer()
        self.n_rows = self.bytes_total = self.rows_read = 0
        self._counts: list[int] = []  # rows of each file
        self._opened: tuple[str, Any] | None = None  # the file opened last and its metadata
        for path in self.files:
            if path != STDIO and not os.path.exists(path):
                raise InputError(f"no such file: {path}")
            if not is_prepared(path):
                raise InputError(f"{path} is not a prepared library: prepare it, or give no prepared ones with it")
            with parquet_errors(path), pq.ParquetFile(path) as file:
                self._add_featurizer(path, _check_metadata(path, file))
                self._counts.append(file.metadata.num_rows)
                self.n_rows += file.metadata.num_rows
                self.bytes_total += os.path.getsize(path)

    def _add_featurizer(self, path: str, featurizer: Featurizer) -> None:
        self.featurizer = featurizer if not self._counts else self.featurizer
        if featurizer != self.featurizer:
            raise InputError(
                f"{path} and {self.files[0]} were prepared for different packs; prepare them in one way, see --pack"
            )

    @property
    def bytes_read(self) -> int:
        """How much of all files was read, estimated from the rows."""
        return self.bytes_total * self.rows_read // max(self.n_rows, 1)

    def read_elsewhere(self, n_bytes: int) -> None:
        """As of `Library`."""
        self.rows_read = -(-n_bytes * self.n_rows // max(self.bytes_total, 1))

    def windows(self, n_rows: int) -> Iterator[Prepared]:
        """The rows of all files in order, numbered through, `n_rows` at a time; only the last may be fewer."""
        return map(from_arrow, self.batches(n_rows))

    def batches(self, n_rows: int, start_row: int = 0) -> Iterator[pa.RecordBatch]:
        """The same as Arrow batches. start_row: rows to skip; their files and row groups are not read."""
        self.rows_read, first_row = start_row, start_row + 1
        pending: list[pa.RecordBatch] = []  # fewer than n_rows rows
        for piece in self._pieces(n_rows, start_row):
            batch, missing = piece, n_rows - sum(map(len, pending))
            while len(batch) >= missing:
                yield _concatenate([*pending, batch.slice(0, missing)], first_row)
                first_row += n_rows
                pending, batch, missing = [], batch.slice(missing), n_rows
            pending += [batch] if len(batch) else []
        if pending:
            yield _concatenate(pending, first_row)

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
        # The metadata of a large file take long to read, and shard after shard is read from one file.
        metadata = self._opened[1] if self._opened is not None and self._opened[0] == path else None
        file = pq.ParquetFile(path, metadata=metadata, buffer_size=READ_BYTES, page_checksum_verification=True)
        self._opened = path, file.metadata
        return file

    def _rows_since(self, before: int) -> int:
        return self.rows_read - before

    def __enter__(self) -> PreparedLibrary:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between windows; here because `Library` has it."""


AnyLibrary = Library | PreparedLibrary


def open_any_library(
    paths: str | Path | Sequence[str | Path], smiles_column: str | None = None, name_column: str | None = None
) -> AnyLibrary:
    """Open a library of texts, or a prepared one. Raises `InputError`, also when the files are of both kinds."""
    files = expand_paths(paths)
    prepared = [path for path in files if path != STDIO and os.path.isfile(path) and is_prepared(path)]
    if prepared and len(prepared) < len(files):
        other = next(path for path in files if path not in prepared)
        raise InputError(f"{prepared[0]} is a prepared library and {other} is not: screen the two kinds apart")
    return PreparedLibrary(files) if prepared else open_library(files, smiles_column, name_column)


def is_prepared(path: str | Path) -> bool:
    """Whether the file is a prepared library, of whatever version."""
    if not is_parquet(str(path)):
        return False
    with parquet_errors(str(path)):
        return PREPARED_KEY in (pq.read_schema(path).metadata or {})


def _check_metadata(path: str, file: pq.ParquetFile) -> Featurizer:
    metadata: dict[str, Any] = {}
    try:
        metadata = json.loads(file.schema_arrow.metadata[PREPARED_KEY])
        wrong = [name for name, value in _metadata().items() if metadata.get(name) != value]
    except (ValueError, AttributeError):
        wrong = ["description"]
    if not wrong and not file.schema_arrow.equals(SCHEMA):
        wrong = ["columns"]
    if wrong:
        words = ", ".join(name.replace("_", " ") for name in wrong)
        raise InputError(f"{path} was prepared by another version of mora-lite: {words} differ; prepare it again")
    try:
        return Featurizer.of(metadata)
    except (PackError, KeyError, TypeError) as error:
        raise InputError(f"{path} was prepared by another version of mora-lite ({error}); prepare it again") from None


def _groups_after(metadata: Any, n_rows: int) -> tuple[list[int], int]:
    """The row groups from the one with row `n_rows` (from 0) on, and how many of that one's rows come before it."""
    first = 0
    while first < metadata.num_row_groups and n_rows >= metadata.row_group(first).num_rows:
        n_rows -= metadata.row_group(first).num_rows
        first += 1
    return list(range(first, metadata.num_row_groups)), n_rows


def _concatenate(batches: Sequence[pa.RecordBatch], first_row: int) -> pa.RecordBatch:
    """One batch, its rows numbered from `first_row`."""
    one = batches[0] if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    rows = pa.array(np.arange(first_row, first_row + len(one), dtype=np.int64))
    return pa.RecordBatch.from_arrays([rows, *one.columns[1:]], schema=SCHEMA)
