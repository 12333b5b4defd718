"""How the rows of a library reach the actors of a Ray cluster: one reader on the driver's machine, a shard to a block.

The rows are read by `Library`, so they are those of a run without Ray, and what is damaged is told in the same words. A
shard's rows travel as one binary cell, an Arrow stream with a compressed batch for each window: a task of Ray Data is
a shard, and only a window of it is unpacked at a time. Ray Data keeps the reader a few shards ahead of the actors. If
it is lost Ray starts it anew; what it reads is numbered, so shards that are there already are not made twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import pyarrow as pa

from ..errors import MoraLiteError
from ..tables.library import Library, Window, open_library
from ..tables.parquet import from_texts, to_texts
from ..tables.records import Record

END = -1  # in place of a shard's number: what is known when all is read
BLOCK = pa.schema([("shard", pa.int64()), ("rows", pa.large_binary()), ("about", pa.string())])
_TEXTS = pa.schema([(name, pa.large_string()) for name in Record._fields])
_NOTHING = pa.py_buffer(b"")
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True)
class Reading:
    """What the reader must know.

    files: their paths, absolute. columns: the SMILES and the name column that the user named.
    finished: numbers of shards that are not wanted, and `part`, which of the others are.
    """

    files: tuple[str, ...]
    columns: tuple[str | None, str | None]
    window_rows: int
    shard_windows: int
    finished: frozenset[int]
    part: tuple[int, int] = (0, 1)

    def blocks(self) -> Iterator[pa.Table]:
        """A block for each shard that is wanted, then one with the number `END`.

        about: JSON. Of a shard `skipped`, the rows before it that are not wanted, and `bytes_read`, how much of the
        files was read. At the end `skipped`, `rows` in all and `notes` for the user; or the `kind` and text of an
        `error`, because as an exception Ray would try it again.
        """
        try:
            with open_library(self.files, *self.columns) as library:
                yield from self._shards(library)
        except MoraLiteError as error:
            yield _block(END, kind=type(error).__name__, error=str(error))

    def _shards(self, library: Library) -> Iterator[pa.Table]:
        n_notes, rows, skipped = len(library.notes), 0, 0
        batches = library.windows(self.window_rows)
        for number in count():
            windows = islice(batches, self.shard_windows)
            if number in self.finished or number % self.part[1] != self.part[0]:
                n_rows = sum(len(window.records) for window in windows)
                skipped += n_rows
            else:
                packed, n_rows = _packed(windows)
                if n_rows:
                    yield _block(number, packed, skipped=skipped, bytes_read=library.bytes_read)
            if not n_rows:
                break
            rows += n_rows
        yield _block(END, skipped=skipped, rows=rows, notes=library.notes[n_notes:])


def windows_of(rows: pa.Scalar, first_row: int) -> Iterator[Window]:
    """The windows of a shard, out of the cell `rows`. first_row: the number of its first, from 1."""
    with pa.ipc.open_stream(rows.as_buffer()) as stream:
        for batch in stream:
            yield Window(first_row, list(map(Record, *map(to_texts, batch.columns))))
            first_row += len(batch)


def datasource(reading: Reading) -> Any:
    """The library as Ray Data reads it: `ray.data.read_datasource(datasource(reading))`."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class MoleculeLibrary(Datasource):
        supports_distributed_reads = False  # the files are on the driver's machine, and no other need see them

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **options: Any) -> list[Any]:
            unknown: Any = BlockMetadata(None, None, None, None)
            return [ReadTask(reading.blocks, unknown)]

    return MoleculeLibrary()


def _packed(windows: Iterable[Window]) -> tuple[pa.Buffer, int]:
    """The rows of a shard as `windows_of` reads them, and their number."""
    sink, n_rows = pa.BufferOutputStream(), 0
    with pa.ipc.new_stream(sink, _TEXTS, options=_COMPRESSED) as stream:
        for window in windows:
            stream.write_batch(_texts(window.records))
            n_rows += len(window.records)
    return sink.getvalue(), n_rows


def _texts(records: list[Record]) -> pa.RecordBatch:
    columns = zip(*records, strict=True)
    return pa.RecordBatch.from_arrays([from_texts(column, large=True) for column in columns], schema=_TEXTS)


def _block(number: int, packed: pa.Buffer = _NOTHING, **about: Any) -> pa.Table:
    offsets = pa.array([0, len(packed)], pa.int64()).buffers()[1]
    cell = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, packed])  # without a copy
    return pa.Table.from_arrays([pa.array([number]), cell, pa.array([json.dumps(about)])], schema=BLOCK)
