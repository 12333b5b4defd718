"""How much one server does for those who ask: sizes, counts and times. Beyond each stands an error that says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    upload_bytes: of one file. rows: of one file. unpacked_bytes: of a workbook, which is packed.
    molecules: that `predict` answers at once. characters: of one SMILES that is typed.
    waiting: requests and tables that wait for the model. upload_seconds: until a request has arrived whole.
    header_seconds: until its head has. answer_seconds: until a question is answered. table_seconds: of work on a table.
    molecule_seconds: of RDKit for one molecule. connections: open at a time.
    downloads: files that wait to be written.
    text_characters: of a question to the text pack. text_waiting: such questions that wait. text_seconds: of work on
    one.
    kept_bytes, kept_seconds: results that are kept; the oldest go first, and each so long after it was last asked for.
    """

    upload_bytes: int = 50 << 20
    rows: int = 100_000
    unpacked_bytes: int = 400 << 20
    molecules: int = 1_000
    characters: int = 20_000
    waiting: int = 200
    upload_seconds: float = 120.0
    header_seconds: float = 15.0
    answer_seconds: float = 300.0
    table_seconds: float = 7_200.0
    molecule_seconds: float = 10.0
    connections: int = 500
    downloads: int = 20
    text_characters: int = 4_000
    text_waiting: int = 20
    text_seconds: float = 120.0
    kept_bytes: int = 2 << 30
    kept_seconds: float = 3_600.0
