"""A table of molecules in, the same table with answers in text out.

The output has every column of the input, in order, then the answer's columns, `status` and `error`. An answer that
should be molecules is read by RDKit and written as canonical SMILES; what RDKit refuses is no answer. A row that cannot
be answered is a row with a status.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rdkit import Chem

from ..chem.graph import Graphs
from ..chem.molecules import parse_smiles
from ..chem.smiles import canonical
from ..errors import InputError
from ..status import INVALID, MALFORMED, NO_QUESTION, OK, TOO_LONG, RunSummary
from ..tables.formats import add_columns
from ..tables.table import Row, Table
from ..tables.writers import TableWriter
from .answerer import Answerer
from .pairs import format_question
from .tasks import ASK

CHUNK_BATCHES = 4  # read at a time: questions of one length share a batch, and progress is reported after it
MAX_SAMPLES = 4  # for each answer of a row, until there are enough that differ


@dataclass(frozen=True)
class GenerationConfig:
    """How the rows of a table are answered.

    column: of the answer; further answers go into `column_2`, `column_3`, ... molecules: whether answers are.
    top: answers of a row. beams: width of the search; 1 is greedy. max_new_tokens: of an answer.
    temperature, top_p: above 0 answers are sampled; `seed` and the row's question decide them.
    question: one for all rows, or the number from 0 of the column with a question for each row; None for none.
    """

    column: str
    molecules: bool
    top: int = 1
    beams: int = 1
    max_new_tokens: int = 256
    batch_size: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    question: str | int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1):
            raise InputError(
                f"temperature and top-p: got {self.temperature} and {self.top_p}; expected 0 or more, and a share"
            )
        if self.temperature > 0 and self.beams > 1:
            raise InputError(f"beams: got {self.beams} with a temperature; expected one of the two")
        if self.temperature == 0 and not 1 <= self.top <= self.beams:
            raise InputError(f"top: got {self.top} with {self.beams} beams; expected 1 to the number of beams")

    @property
    def columns(self) -> list[str]:
        return [self.column, *(f"{self.column}_{i}" for i in range(2, self.top + 1))]


def question_of_table(table: Table, task: str, question: str | None) -> tuple[str | int | None, list[str]]:
    """`GenerationConfig.question` for a table, and notes for the user.

    question: one for all rows, or None. Raises `InputError` where the task needs a question and there is none, or takes
    none and there is one.
    """
    matches = [i for i, name in enumerate(table.columns) if name.strip().lower() == "question"]
    if task != ASK:
        if question is not None:
            raise InputError(f"question: the pack is for {task} and takes none; leave --question out")
        return None, []
    if question is not None and question.strip():
        unused = [table.columns[i] for i in matches[:1]]
        return question, [f"the column {name} is not used: --question asks every row the same" for name in unused]
    if question is not None or not matches:
        raise InputError("question: none is given; say what to ask with --question, or in a column named question")
    return matches[0], []


def answer_columns(columns: Sequence[str], config: GenerationConfig) -> list[str]:
    """Header of the output: the input's columns as they are, then ours under names that are not taken."""
    return add_columns(columns, [*config.columns, "status", "error"])


def answer_table(
    table: Table,
    writer: TableWriter,
    answerer: Answerer,
    config: GenerationConfig,
    on_progress: Callable[[int], None] = lambda n_rows: None,
) -> RunSummary:
    """Answer every row of `table` into `writer`, one record for each row, in order.

    The writer must have been opened with `answer_columns`.
    """
    summary, started = RunSummary(), time.perf_counter()
    for rows in table.chunks(CHUNK_BATCHES * config.batch_size):
        answered = list(_answer_rows(rows, table.smiles_index, answerer, config))
        writer.write(
            [
                [*row.cells, *texts, *[""] * (config.top - len(texts)), status, error]
                for row, (texts, status, error) in zip(rows, answered, strict=True)
            ]
        )
        summary.count([status for _, status, _ in answered], [error for _, _, error in answered])
        on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


Answered = tuple[list[str], str, str]  # answers, status, error


def _answer_rows(rows: Sequence[Row], smiles: int, answerer: Answerer, config: GenerationConfig) -> Iterator[Answered]:
    parsed = [parse_smiles("" if row.fault else row.cells[smiles]) for row in rows]
    questions = [_question_of(row, config.question) for row in rows]
    texts = [
        format_question(Chem.MolToSmiles(p.mol), question) if p.mol is not None else ""
        for p, question in zip(parsed, questions, strict=True)
    ]
    ids = answerer.ids(texts)
    limit = answerer.max_question_tokens(config.max_new_tokens)
    faults: list[tuple[str, str]] = []
    for row, p, question, tokens in zip(rows, parsed, questions, ids, strict=True):
        if row.fault:
            faults.append((MALFORMED, row.fault))
        elif p.status != OK:
            faults.append((p.status, p.reason))
        elif config.question is not None and not question:
            faults.append((NO_QUESTION, "the question is blank"))
        elif len(tokens) > limit:
            faults.append((TOO_LONG, f"{len(tokens):,} tokens, more than {limit:,}"))
        else:
            faults.append((OK, ""))
    good = [i for i, (status, _) in enumerate(faults) if status == OK]
    outcomes: dict[int, Answered] = {}
    if good:
        ask = _sample if config.temperature > 0 else _search
        graphs = answerer.featurizer.read_smiles([rows[i].cells[smiles] for i in good])
        answered = ask([texts[i] for i in good], [ids[i] for i in good], graphs, answerer, config)
        outcomes = dict(zip(good, answered, strict=True))
    for i, (status, error) in enumerate(faults):
        yield outcomes[i] if status == OK else ([], status, error)


def _question_of(row: Row, question: str | int | None) -> str:
    """The question of a row, '' for none."""
    if isinstance(question, int):
        return "" if row.fault else row.cells[question].strip()
    return question or ""


def _search(
    texts: list[str], ids: list[list[int]], graphs: Graphs, answerer: Answerer, config: GenerationConfig
) -> list[Answered]:
    """The likeliest answers of each question."""
    answers = answerer.answer(
        ids, graphs, beams=config.beams, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size
    )
    return [_chosen([text.text for text in row], config) for row in answers]


def _sample(
    texts: list[str], ids: list[list[int]], graphs: Graphs, answerer: Answerer, config: GenerationConfig
) -> list[Answered]:
    """Sample until each question has `config.top` different answers, or `MAX_SAMPLES` times that number in all."""
    samples: list[list[str]] = [[] for _ in texts]
    for number in range(config.top * MAX_SAMPLES):
        rows = [i for i, row in enumerate(samples) if len(_different(row, config)) < config.top]
        if not rows:
            break
        answers = answerer.answer(
            [ids[i] for i in rows],
            graphs.select(rows),
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            temperature=config.temperature,
            top_p=config.top_p,
            seeds=[row_seed(config.seed, number, texts[i]) for i in rows],
        )
        for i, (text,) in zip(rows, answers, strict=True):
            samples[i].append(text.text)
    return [_chosen(row, config) for row in samples]


def row_seed(seed: int, number: int, text: str) -> int:
    """The seed of sample `number` of the question `text`, 0 to 2^63 - 1: the same in every table."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {text}".encode()).digest()[:8], "big") >> 1


def _different(texts: list[str], config: GenerationConfig) -> list[str]:
    """Those that are valid, each once; molecules as canonical SMILES."""
    if not config.molecules:
        return list(dict.fromkeys(texts))
    return list(dict.fromkeys(smiles for text in texts if (smiles := canonical(text)) is not None))


def _chosen(texts: list[str], config: GenerationConfig) -> Answered:
    """The first valid answers, each once."""
    different = _different(texts, config)
    if not different:
        return [], INVALID, f"RDKit cannot read the answer {texts[0][:60]!r}"
    return different[: config.top], OK, ""
