"""Rows of a library prepared for scoring: each molecule's graph and fingerprint, and the same rows in Arrow.

The Arrow table, which `prepared_files` keeps in Parquet, has every row in order, also those that failed:

| column | |
|---|---|
| row | int64, from 1 |
| name, smiles, status, error | text; bytes that are not UTF-8 are kept as they came |
| atoms | list of 10 bytes, one of `ATOM_FIELDS` each; empty where status is not ok, like all that follow |
| bonds | list of uint8 |
| ends | list of 4 bytes, two uint16, low byte first |
| fingerprint | 128 bytes |
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rdkit import Chem

from ..chem import circular
from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, Graphs
from ..chem.molecules import Parsed, split_smiles
from ..chem.native import Reading
from ..errors import error_text
from ..machine.workers import BETWEEN
from ..status import MALFORMED, OK, REASONS, UNPARSABLE
from .library import Window
from .parquet import from_texts, to_texts
from .records import Record

SHOWN_CHARACTERS = 200  # of a text that failed
TEXTS = ("name", "smiles", "status", "error")
_CERTAIN = Parsed(None, OK, "")  # of a row whose graph the native reader has made
_N_BYTES = circular.N_BITS // 8  # as many as morgan's
_ATOM = pa.binary(len(ATOM_FIELDS))
_ENDS = pa.binary(4)
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "row": pa.int64(),
            "name": pa.string(),
            "smiles": pa.string(),
            "status": pa.string(),
            "error": pa.string(),
            "atoms": pa.list_(pa.field("element", _ATOM, nullable=False)),
            "bonds": pa.list_(pa.field("element", pa.uint8(), nullable=False)),
            "ends": pa.list_(pa.field("element", _ENDS, nullable=False)),
            "fingerprint": pa.binary(_N_BYTES),
        }.items()
    ]
)


@dataclass(frozen=True)
class Prepared:
    """`B` rows of a library that follow each other, `N` of them ok.

    first_row: number of the first, from 1.
    texts: the columns name, smiles, status and error, in Arrow because most rows pass through unread. `smiles` is as
        given, with an extension but without a name after it; for a mol block RDKit's canonical SMILES; for a row that
        failed the beginning of its text.
    graphs: of the rows that are ok, in order.
    bits: uint8 `[N, 128]`, their fingerprints.
    """

    first_row: int
    texts: pa.RecordBatch
    graphs: Graphs
    bits: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def column(self, name: str) -> list[str]:
        """One of `texts` as a list."""
        return to_texts(self.texts.column(name))

    @property
    def ok_rows(self) -> np.ndarray:
        """int64 `[N]`: which of the rows are ok, counted from 0."""
        return np.flatnonzero(_is_ok(self.texts.column("status")))


def prepare(
    window: Window,
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
    marked: Mapping[int, str] = MappingProxyType({}),
    at: Callable[[int], None] = lambda row: None,
) -> Prepared:
    """Parse and featurise a window's rows; whatever is wrong with a molecule becomes its status.

    The native reader takes what it is certain of, RDKit the others.

    marked: row, counted from 0, -> status, for rows that must not be tried; with `BETWEEN` in it rows are featurised
        one by one. From the `WorkerPool`, as is `at`.
    at: called with each row before it is parsed, and with -1 after the last.
    """
    records = window.records
    native: Reading | None = None
    if featurizer.is_native and not marked:
        native = featurizer.read_natively([r.text if not r.fault else "" for r in records])
    certain = native.certain.tolist() if native else [False] * len(records)
    read = []
    for i, record in enumerate(records):
        if certain[i]:
            read.append((_CERTAIN, record.text.strip()))
            continue
        at(i)
        read.append(_failed(record.text, marked[i], REASONS[marked[i]]) if i in marked else _read(record, featurizer))
    at(-1)
    by_rdkit = [i for i, (parsed, _) in enumerate(read) if parsed.mol is not None]
    if BETWEEN in marked:
        for i in by_rdkit:  # one of them ends the process: which?
            at(i)
            with suppress(Exception):
                _featurize(featurizer, [read[i][0].mol])
        at(-1)
    try:
        graphs, bits = _featurize(featurizer, [read[i][0].mol for i in by_rdkit])
    except Exception:  # of one molecule, by RDKit, which has no base class for what it raises
        for i in by_rdkit:
            try:
                _featurize(featurizer, [read[i][0].mol])
            except Exception as error:
                read[i] = _failed(records[i].text, UNPARSABLE, error_text(error))
        by_rdkit = [i for i in by_rdkit if read[i][0].mol is not None]
        graphs, bits = _featurize(featurizer, [read[i][0].mol for i in by_rdkit])
    if native:
        graphs, bits = native.merged(by_rdkit, graphs, bits)
    texts = (
        [record.name for record in records],
        [smiles for _, smiles in read],
        [parsed.status for parsed, _ in read],
        [parsed.reason for parsed, _ in read],
    )
    return Prepared(
        window.first_row, pa.RecordBatch.from_arrays([from_texts(t) for t in texts], names=TEXTS), graphs, bits
    )


def _featurize(featurizer: Featurizer, molecules: Sequence[Chem.Mol]) -> tuple[Graphs, np.ndarray]:
    graphs = featurizer.graphs(molecules)
    return graphs, featurizer.fingerprints(graphs, lambda: molecules)


def _read(record: Record, featurizer: Featurizer) -> tuple[Parsed, str]:
    """Parse a record; returns the molecule and the SMILES to show."""
    if record.fault:
        return _failed(record.text, MALFORMED, record.fault)
    parsed = featurizer.parse_molecule(record.text)
    if parsed.status != OK:
        return _failed(record.text, parsed.status, parsed.reason)
    if "\n" not in record.text:
        smiles, extension, _ = split_smiles(record.text)
        return parsed, f"{smiles} {extension}" if extension else smiles
    try:
        return parsed, Chem.MolToSmiles(parsed.drawn)
    except Exception as error:  # see `prepare`
        return _failed(record.text, UNPARSABLE, error_text(error))


def _failed(text: str, status: str, reason: str) -> tuple[Parsed, str]:
    shown = text[:SHOWN_CHARACTERS].replace("\r", " ").replace("\n", " ").strip()
    words = " ".join(reason.split()).encode("utf-8", "replace").decode()  # may quote bytes that are not UTF-8
    return Parsed(None, status, words), shown


def to_arrow(prepared: Prepared) -> pa.RecordBatch:
    """As rows of `SCHEMA`."""
    n_rows, ok, graphs = len(prepared), prepared.ok_rows, prepared.graphs
    assert len(ok) == len(graphs) == len(prepared.bits)
    bits = np.zeros((n_rows, _N_BYTES), np.uint8)
    bits[ok] = prepared.bits
    columns = [
        pa.array(np.arange(prepared.first_row, prepared.first_row + n_rows, dtype=np.int64)),
        *prepared.texts.columns,
        _lists("atoms", _from_bytes(graphs.atoms, _ATOM), graphs.atom_ptr, ok, n_rows),
        _lists("bonds", pa.array(graphs.bonds, pa.uint8()), graphs.bond_ptr, ok, n_rows),
        _lists("ends", _from_bytes(graphs.bond_endpoints.astype("<u2"), _ENDS), graphs.bond_ptr, ok, n_rows),
        _from_bytes(bits, pa.binary(_N_BYTES)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def from_arrow(batch: pa.RecordBatch) -> Prepared:
    """The inverse of `to_arrow`; the graphs are views of the batch where nothing must be converted."""
    ok = _is_ok(batch.column("status"))
    atoms, bonds, ends = (batch.column(name) for name in ("atoms", "bonds", "ends"))
    graphs = Graphs(
        _to_bytes(atoms.flatten()),
        bonds.flatten().to_numpy(),
        _to_bytes(ends.flatten()).view("<u2").astype(np.uint16, copy=False),
        _pointer(atoms, ok),
        _pointer(bonds, ok),
    )
    bits = _to_bytes(batch.column("fingerprint"))
    first_row = batch.column("row")[0].as_py() if len(batch) else 1
    return Prepared(first_row, batch.select(TEXTS), graphs, bits if ok.all() else bits[ok])


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


class WindowPreparer:
    """The work of a process that prepares: a window in, its prepared rows as an Arrow stream out."""

    def __init__(self, featurizer: Featurizer):
        self.featurizer = featurizer

    def __call__(self, window: Window, marked: Mapping[int, str], at: Callable[[int], None]) -> bytes:
        return to_ipc(to_arrow(prepare(window, self.featurizer, marked, at)))


def _is_ok(status: pa.Array) -> np.ndarray:
    """bool `[B]`."""
    return pc.equal(status, OK).to_numpy(zero_copy_only=False)


def _lists(name: str, items: pa.Array, ptr: np.ndarray, ok: np.ndarray, n_rows: int) -> pa.Array:
    """A list of items for each row, empty for a row that is not ok."""
    offsets = np.zeros(n_rows + 1, np.int32)
    offsets[ok + 1] = np.diff(ptr)
    np.cumsum(offsets, out=offsets)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=SCHEMA.field(name).type)


def _pointer(lists: pa.Array, ok: np.ndarray) -> np.ndarray:
    """Where the items of each ok row begin, and the end of the last: int64 `[N+1]`. The other rows have no items."""
    offsets = lists.offsets.to_numpy()
    return (np.append(offsets[:-1][ok], offsets[-1]) - offsets[0]).astype(np.int64)


def _from_bytes(rows: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])


def _to_bytes(column: pa.Array) -> np.ndarray:
    """uint8 `[rows, width]`."""
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
