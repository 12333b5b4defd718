"""Rows of a library as a scorer takes them: each molecule's graph and fingerprint, and what is wrong with the others.

The native reader takes what it is certain of (`read_certain`), RDKit the rest (`parse_by_rdkit`), which may be done
elsewhere: RDKit hangs or dies at some texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from rdkit import Chem

from ..chem import native
from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs
from ..chem.molecules import Parsed, split_smiles
from ..errors import error_text
from ..machine.workers import BETWEEN
from ..status import MALFORMED, OK, REASONS, UNPARSABLE
from .library import Window
from .records import Record

SHOWN_CHARACTERS = 200  # of a text that failed

# Columns by name, of molecules that were read, or None for those that were not: `context.extras.extra_columns`.
Describe = Callable[[Sequence[Chem.Mol | None]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class ParsedWindow:
    """`B` rows of a library that follow each other, `N` of them ok.

    first_row: number of the first, from 1.
    names, smiles, status, error: `B` texts. `smiles` is as given, with an extension but without a name after it; for a
        mol block RDKit's canonical SMILES; for a row that failed the beginning of its text.
    graphs: of the rows that are ok, in order.
    bits: uint8 `[N, 128]`, their fingerprints.
    beside: further columns `[B]` by name, where they were asked for.
    """

    first_row: int
    names: list[str]
    smiles: list[str]
    status: list[str]
    error: list[str]
    graphs: Graphs
    bits: np.ndarray
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.status)

    @property
    def ok_rows(self) -> np.ndarray:
        """int64 `[N]`: which of the rows are ok, counted from 0."""
        if len(self.graphs) == len(self.status):
            return np.arange(len(self.status))
        return np.array([i for i, word in enumerate(self.status) if word == OK], np.int64)


@dataclass(frozen=True)
class CertainRows:
    """What the native reader has read of a window. left: the rows that are for RDKit, counted from 0."""

    window: Window
    reading: native.Reading
    left: list[int]

    @property
    def rest(self) -> Window | None:
        """The rows that are left, which need not follow each other; None when there are none."""
        records = self.window.records
        return Window(self.window.first_row, [records[i] for i in self.left]) if self.left else None

    def with_rest(self, rest: ParsedWindow | None) -> ParsedWindow:
        """The whole window. rest: `self.rest` parsed."""
        records, reading = self.window.records, self.reading
        graphs, bits = reading.graphs, reading.fingerprints
        names, smiles = [record.name for record in records], [record.text.strip() for record in records]
        status, error = [OK] * len(records), [""] * len(records)
        if rest is not None:
            for column, found in ((smiles, rest.smiles), (status, rest.status), (error, rest.error)):
                for i, text in zip(self.left, found, strict=True):
                    column[i] = text
            graphs, bits = reading.merged(np.array(self.left)[rest.ok_rows].tolist(), rest.graphs, rest.bits)
        return ParsedWindow(self.window.first_row, names, smiles, status, error, graphs, bits)


def read_certain(window: Window, featurizer: Featurizer) -> CertainRows:
    """Read natively. Call it only if `featurizer.is_native`; the interpreter's lock is free while it works."""
    records = window.records
    texts = [record.text for record in records]
    if any(record.fault for record in records):
        texts = ["" if record.fault else record.text for record in records]
    reading = featurizer.read_natively(texts)
    return CertainRows(window, reading, np.flatnonzero(~reading.certain).tolist())


def parse_window(
    window: Window,
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
    marked: Mapping[int, str] = MappingProxyType({}),
    at: Callable[[int], None] = lambda row: None,
    describe: Describe | None = None,
) -> ParsedWindow:
    """Parse and featurise a window's rows; whatever is wrong with a molecule becomes its status.

    marked, at, describe: as for `parse_by_rdkit`, the first two from the `WorkerPool`. With marks, and where molecules
    are described, all rows are RDKit's.
    """
    if not featurizer.is_native or marked or describe is not None:
        return parse_by_rdkit(window, featurizer, marked, at, describe)
    certain = read_certain(window, featurizer)
    rest = certain.rest
    left = [*certain.left, -1]  # -1 stays what it is
    return certain.with_rest(None if rest is None else parse_by_rdkit(rest, featurizer, at=lambda i: at(left[i])))


def parse_by_rdkit(
    window: Window,
    featurizer: Featurizer,
    marked: Mapping[int, str] = MappingProxyType({}),
    at: Callable[[int], None] = lambda row: None,
    describe: Describe | None = None,
) -> ParsedWindow:
    """`parse_window` without the native reader.

    marked: row, counted from 0, -> status, for rows that must not be tried; with `BETWEEN` in it rows are featurised
        one by one.
    at: called with each row before it is parsed, and with -1 after the last.
    describe: makes `ParsedWindow.beside`. It is called for one molecule at a time, as RDKit may hang there too.
    """
    records = window.records
    read = []
    described = [] if describe is None else [describe([])]  # so that a window without rows has the columns
    for i, record in enumerate(records):
        at(i)
        read.append(_failed(record.text, marked[i], REASONS[marked[i]]) if i in marked else _read(record, featurizer))
        if describe is not None:
            described.append(describe([read[i][0].mol]))
    at(-1)
    ok = [i for i, (parsed, _) in enumerate(read) if parsed.mol is not None]
    if BETWEEN in marked:
        for i in ok:  # one of them ends the process: which?
            at(i)
            with suppress(Exception):
                _featurize(featurizer, [read[i][0].mol])
        at(-1)
    try:
        graphs, bits = _featurize(featurizer, [read[i][0].mol for i in ok])
    except Exception:  # of one molecule, by RDKit, which has no base class for what it raises
        for i in ok:
            try:
                _featurize(featurizer, [read[i][0].mol])
            except Exception as error:
                read[i] = _failed(records[i].text, UNPARSABLE, error_text(error))
                if describe is not None:
                    described[i + 1] = describe([None])
        graphs, bits = _featurize(featurizer, [parsed.mol for parsed, _ in read if parsed.mol is not None])
    names, smiles = [record.name for record in records], [text for _, text in read]
    status, reasons = [parsed.status for parsed, _ in read], [parsed.reason for parsed, _ in read]
    return ParsedWindow(window.first_row, names, smiles, status, reasons, graphs, bits, _stacked(described))


class RdkitParser:
    """The work of a process that parses by RDKit: a window in, its parsed rows out."""

    def __init__(self, featurizer: Featurizer, describe: Describe | None = None):
        self.featurizer, self.describe = featurizer, describe

    def __call__(self, window: Window, marked: Mapping[int, str], at: Callable[[int], None]) -> ParsedWindow:
        return parse_by_rdkit(window, self.featurizer, marked, at, self.describe)


def _stacked(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


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
    except Exception as error:  # see `parse_by_rdkit`
        return _failed(record.text, UNPARSABLE, error_text(error))


def _failed(text: str, status: str, reason: str) -> tuple[Parsed, str]:
    shown = text[:SHOWN_CHARACTERS].replace("\r", " ").replace("\n", " ").strip()
    words = " ".join(reason.split()).encode("utf-8", "replace").decode()  # may quote bytes that are not UTF-8
    return Parsed(None, status, words), shown
