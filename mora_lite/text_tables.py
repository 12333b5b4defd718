"""A table of molecules in, the same table with answers in text out.

The output has every column of the input, in order, then the answer's columns, `status` and `error`. An answer that is
to be molecules is read by RDKit and written as canonical SMILES; what RDKit refuses is no answer. A row that cannot be
answered is a row with a status.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rdkit import Chem

from .answers import Answerer, Text
from .errors import InputError
from .graph import featurize
from .library import Row, Table, TableWriter
from .molecules import OK, parse_smiles
from .predictions import MALFORMED, Counts, add_columns
from .reactions import canonical

INVALID = "no_molecule"  # none of the answers is a molecule that RDKit reads
TOO_LONG = "too_long"  # the question does not fit into what the model takes
CHUNK_ROWS = 256


@dataclass
class AnswerSummary(Counts):
    """seconds: that the rows took."""

    seconds: float = 0.0

    def lines(self, where: str) -> list[str]:
        """The summary for people."""
        rate = self.n_rows / self.seconds if self.seconds > 0 else 0.0
        return [
            f"{where}: {self.n_rows:,} rows, {self.n_ok:,} ok, {self.seconds:.1f} s ({rate:,.1f} rows/s)",
            *self.failures(),
        ]


@dataclass(frozen=True)
class Wanted:
    """What is asked of each row. column: of the answer; further ones are `column_2`, `column_3`, ... molecules: whether
    answers are. top: answers of a row. beams: width of the search; 1 is greedy. max_new_tokens: of an answer.
    """

    column: str
    molecules: bool
    top: int = 1
    beams: int = 1
    max_new_tokens: int = 256
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.top <= self.beams:
            raise InputError(f"top: got {self.top} with {self.beams} beams; expected 1 to the number of beams")

    @property
    def columns(self) -> list[str]:
        return [self.column, *(f"{self.column}_{i}" for i in range(2, self.top + 1))]


def answer_columns(columns: Sequence[str], wanted: Wanted) -> list[str]:
    """Header of the output: the input's columns as they are, then ours under names that are not taken."""
    return add_columns(columns, [*wanted.columns, "status", "error"])


def answer_table(
    table: Table,
    writer: TableWriter,
    answerer: Answerer,
    wanted: Wanted,
    on_progress: Callable[[int], None] = lambda n_rows: None,
) -> AnswerSummary:
    """Answer every row of `table` into `writer`, one record for each row, in order.

    The writer must have been opened with `answer_columns`.
    """
    summary, started = AnswerSummary(), time.perf_counter()
    for rows in table.chunks(CHUNK_ROWS):
        answered = list(_answer_rows(rows, table.smiles_index, answerer, wanted))
        writer.write(
            [*row.cells, *texts, *[""] * (wanted.top - len(texts)), status, error]
            for row, (texts, status, error) in zip(rows, answered, strict=True)
        )
        summary.count([status for _, status, _ in answered], [error for _, _, error in answered])
        on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


Answered = tuple[list[str], str, str]  # answers, status, error


def _answer_rows(rows: Sequence[Row], smiles: int, answerer: Answerer, wanted: Wanted) -> Iterator[Answered]:
    parsed = [parse_smiles("" if row.fault else row.cells[smiles]) for row in rows]
    ids = answerer.ids([Chem.MolToSmiles(p.mol) if p.mol is not None else "" for p in parsed])
    limit = answerer.max_tokens - wanted.max_new_tokens - len(answerer.before) - len(answerer.between)
    good = [i for i, p in enumerate(parsed) if p.status == OK and len(ids[i]) <= limit and not rows[i].fault]
    found: dict[int, list[Text]] = {}
    if good:
        texts = answerer.answer(
            [ids[i] for i in good],
            featurize([parsed[i].mol for i in good]),
            beams=wanted.beams,
            max_new_tokens=wanted.max_new_tokens,
            batch_size=wanted.batch_size,
        )
        found = dict(zip(good, texts, strict=True))
    for i, (row, p) in enumerate(zip(rows, parsed, strict=True)):
        if row.fault:
            yield [], MALFORMED, row.fault
        elif p.status != OK:
            yield [], p.status, p.reason
        elif i not in found:
            yield [], TOO_LONG, f"{len(ids[i]):,} tokens, more than {limit:,}"
        else:
            yield _chosen([text.text for text in found[i]], wanted)


def _chosen(texts: list[str], wanted: Wanted) -> Answered:
    """The first answers that are what was asked for, each once."""
    if not wanted.molecules:
        return texts[: wanted.top], OK, ""
    read = dict.fromkeys(smiles for text in texts if (smiles := canonical(text)) is not None)
    if not read:
        return [], INVALID, f"RDKit cannot read the answer {texts[0][:60]!r}"
    return list(read)[: wanted.top], OK, ""
