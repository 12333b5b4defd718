"""Molecules in, answers in text out: of a list, or of a table, beside its columns.

The output of a table has every column of the input, in order, then the answers, their probabilities, what could be
checked of them (`checks`), `status` and `error`. An answer that should be molecules is read by RDKit and written as
canonical SMILES; what RDKit refuses is no answer. A row that cannot be answered is a row with a status.

A table that is complete takes minutes to hours. Rows that are answered are kept in a journal beside it until then, so
that a run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..chem.graph import Graphs
from ..chem.molecules import parse_smiles
from ..chem.smiles import write
from ..errors import InputError, check_range
from ..machine.journal import KeptResults, results_beside
from ..status import INVALID, MALFORMED, NO_QUESTION, OK, TOO_LONG, UNPARSABLE, RunSummary
from ..tables.formats import Encoded, TableFormat, add_columns
from ..tables.library import Library, TypedSmiles, Window
from ..tables.records import Record
from ..tables.source import STDIO
from ..tables.writers import TableWriter, continued
from .answerer import LONG_ANSWER, Answerer, Text, row_seed
from .checks import Given, agreement, elect, in_other_orders, is_balanced, round_trips, valid_answers
from .pairs import FEATURIZER, format_question
from .tasks import TEXT_TASKS, PackQuestions, Question, SideColumns, Sides, direction_of, text_task

CHUNK_BATCHES = 4  # read at a time: questions of one length share a batch, and progress is reported after it
MAX_BEAMS = 100  # memory and time of a search grow with them; samples are taken one after the other
MAX_SAMPLES = 4  # for each answer of a row, until there are enough that differ
BALANCED, ROUND_TRIP, AGREEMENT = "balanced", "round_trip", "agreement"


@dataclass(frozen=True)
class GenerationConfig:
    """How the rows of a table are answered.

    column: of the answer; further answers go into `column_2`, `column_3`, ... molecules: whether answers are.
    top: answers of a row. beams: width of the search; 1 is greedy, 0 what `width` says. max_new_tokens: of an answer.
    temperature, top_p: above 0 answers are sampled; `seed` and the row's question decide them.
    question: about each row; None for none. direction: which way of a reaction all rows are about, None where their
    questions say it. sides: where those of a reaction stand. questions: those that the pack has learnt, by direction;
    empty for a pack with one task.
    spellings: other orders of each question that are asked too, and vote. short: leave probabilities and checks out.
    """

    column: str
    molecules: bool
    top: int = 1
    beams: int = 0
    max_new_tokens: int = LONG_ANSWER
    batch_size: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    question: Question | None = None
    direction: str | None = None
    sides: SideColumns = field(default_factory=SideColumns)
    questions: Mapping[str, str] = field(default_factory=dict)
    spellings: int = 0
    short: bool = False

    def __post_init__(self) -> None:
        for name, least in (("top", 1), ("beams", 0), ("max_new_tokens", 1), ("batch_size", 1), ("spellings", 0)):
            check_range(name, getattr(self, name), least)
        if not (self.temperature >= 0 and 0 < self.top_p <= 1):
            raise InputError(
                f"temperature and top-p: got {self.temperature} and {self.top_p}; expected 0 or more, and a share"
            )
        if self.temperature > 0 and self.beams > 1:
            raise InputError(f"beams: got {self.beams} with a temperature; expected one of the two")
        beams = self.width(None)
        if self.temperature == 0 and self.top > beams:
            raise InputError(f"top: got {self.top} with {beams} beams; expected 1 to the number of beams")
        if self.temperature == 0 and beams > MAX_BEAMS:
            raise InputError(
                f"beams: got {beams}, expected 1 to {MAX_BEAMS}; for more answers sample them with --temperature"
            )
        if self.spellings and not (self.molecules or self.questions):
            raise InputError("spellings: the pack's answers are no molecules, which alone can be compared")

    @classmethod
    def of(
        cls,
        known: PackQuestions,
        columns: Sequence[str] = ("smiles",),
        smiles_index: int | None = 0,
        *,
        task: str | None = None,
        question: str | None = None,
        **settings: Any,
    ) -> tuple[GenerationConfig, list[str]]:
        """For a pack that can be asked `known`, and notes for the user.

        columns: of the table. smiles_index: of its SMILES column, beside which the sides of reactions may have columns;
        None where they have none. task, question: what the user wants, None for what the pack asks by itself.
        settings: the other fields. Raises `InputError` for what cannot be asked.
        """
        asked, direction, notes = known.choose(columns, question, known.direction(task))
        sides = SideColumns() if smiles_index is None else SideColumns(columns, smiles_index, direction)
        kind = text_task(direction or known.task)
        settings |= {"question": asked, "direction": direction, "sides": sides, "questions": known.by_direction}
        return cls(kind.column, kind.of_molecules, **settings), [*notes, *sides.notes]

    def width(self, direction: str | None) -> int:
        """Of the search for answers to a question of that direction."""
        return self.beams or max(self.top, TEXT_TASKS[direction].beams if direction else 1)

    def of_molecules(self, direction: str | None) -> bool:
        """Whether answers to a question of that direction are molecules."""
        return self.molecules or direction is not None

    def check_room(self, answerer: Answerer) -> None:
        """Raise `InputError` where an answer may be so long that no question has room beside it."""
        if answerer.max_question_tokens(self.max_new_tokens) < 1:
            raise InputError(
                f"max-tokens: got {self.max_new_tokens}, but the base reads {answerer.max_tokens} tokens, question and "
                "answer together"
            )

    @property
    def per_answer(self) -> list[str]:
        """Names of the columns that each answer has."""
        directions = {self.direction} if self.direction else set(self.questions)
        checks = [BALANCED] * bool(directions & {"forward", "retro"})
        checks += [ROUND_TRIP] * ("retro" in directions and "forward" in self.questions)
        return [self.column] if self.short else [self.column, "probability", *checks]

    @property
    def columns(self) -> dict[str, Any]:
        """All that is added to the columns of the input but status and error: name -> NumPy's type."""
        kinds = {self.column: np.dtype(object), "probability": np.dtype(np.float32)}
        numbers = ["", *(f"_{i}" for i in range(2, self.top + 1))]
        columns = {f"{name}{n}": kinds.get(name, np.dtype(bool)) for name in self.per_answer for n in numbers}
        return columns | ({AGREEMENT: np.dtype(np.float32)} if self.spellings else {})


@dataclass
class Answered:
    """What became of a row.

    status, error: `ok`, or why there is no answer. source: canonical SMILES of the molecules in question, empty without
    any. question: about them, in words. direction: of the reaction, None for others.
    answers: the likeliest first, texts or canonical SMILES. probabilities: of each.
    checks: name -> one for each answer. agreement: share of the question's other orders that get the first one.
    """

    status: str = OK
    error: str = ""
    source: str = ""
    question: str = ""
    direction: str | None = None
    answers: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    checks: dict[str, list[bool]] = field(default_factory=dict)
    agreement: float | None = None

    def values(self, config: GenerationConfig) -> list[Any]:
        """One for each of `GenerationConfig.columns`, None where there is none."""
        known: dict[str, Sequence[Any]] = {config.column: self.answers, "probability": self.probabilities}
        known |= self.checks
        none = [None] * config.top
        of_each = chain.from_iterable([*known.get(name, ()), *none][: config.top] for name in config.per_answer)
        return [*of_each, self.agreement] if config.spellings else list(of_each)


def answer_table(
    table: Library | TypedSmiles,
    target: str,
    answerer: Answerer,
    config: GenerationConfig,
    *,
    force: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
    on_progress: Callable[[int], None] = lambda n_rows: None,
    on_rows: Callable[[Sequence[Answered]], None] = lambda rows: None,
) -> RunSummary:
    """Answer every row of `table`, opened with its cells, into the file `target`, in order.

    The columns of the output are those of the input, then ours under names that are not taken.
    on_note: called with each line for the user. on_rows: gets what became of each row. Rows that a stopped run has
    answered for the same `target` in the same way are not asked again.
    Raises `InputError` where an answer may be so long that no question has room beside it.
    """
    config.check_room(answerer)
    summary, started = RunSummary(), time.perf_counter()
    windows = table.windows(CHUNK_BATCHES * config.batch_size)
    head = next(windows, None) or Window(1, [])
    form, kinds = continued(target, table, head.cells, on_note), config.columns
    columns = add_columns(table.columns, [*kinds, "status", "error"])
    types = [*table.types, *kinds.values(), None, None]
    # All that answers depend on but the rows.
    origin = json.dumps([__version__, answerer.origin, asdict(config)], default=vars)
    beside = None if target == STDIO else Path(target)
    with results_beside(beside) as kept, TableWriter(target, columns, kinds=types, form=form, force=force) as writer:
        for window in chain([head], windows):
            answered = _kept_or_new(window, table, answerer, config, origin, kept)
            rows = zip(window.cells, window.records, answered, strict=True)
            cells = [_shown_cells(*row, table.smiles_index) for row in rows]
            writer.write(cells, _encoded(form, answered, config))
            summary.count([done.status for done in answered], [done.error for done in answered])
            on_rows(answered)
            on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


def _kept_or_new(
    window: Window,
    table: Library | TypedSmiles,
    answerer: Answerer,
    config: GenerationConfig,
    origin: str,
    kept: KeptResults,
) -> list[Answered]:
    """`answer_window`, or what it gave before for the same rows, by the same `origin`."""
    rows = repr([origin, *map(tuple, window.records), *map(list, window.cells)])
    key = hashlib.sha256(rows.encode("utf-8", "surrogateescape")).hexdigest()
    if (before := kept.get(key)) is not None:
        table.n_kept += len(window.records)
        return [Answered(**row) for row in json.loads(before)]
    answered = answer_window(window, answerer, config)
    kept.add(key, json.dumps(list(map(asdict, answered))).encode())
    return answered


def _encoded(form: TableFormat, rows: Sequence[Answered], config: GenerationConfig) -> Encoded:
    """What is added to the cells of these rows."""
    blank = {"O": "", "f": np.nan, "b": False}
    kinds, cells = config.columns, [row.values(config) for row in rows]
    found = np.array([[value is not None for value in row] for row in cells], bool).reshape(len(rows), len(kinds)).T
    values = []
    for i, kind in enumerate(kinds.values()):
        values.append(np.array([blank[kind.kind] if row[i] is None else row[i] for row in cells], kind))
    return form.encode([*kinds, "status", "error"], values, found, [[r.status for r in rows], [r.error for r in rows]])


def _shown_cells(cells: Sequence[str], record: Record, row: Answered, smiles: int) -> list[str]:
    """A row's cells; a record of an SDF, which has no SMILES, gets those of its molecule."""
    drawn = "\n" in record.text
    return [row.source if drawn and i == smiles and not cell else cell for i, cell in enumerate(cells)]


def answer_window(window: Window, answerer: Answerer, config: GenerationConfig) -> list[Answered]:
    """Read, ask and check consecutive rows, whose cells are known."""
    rows = [_read(*row, config) for row in zip(window.records, window.cells, strict=True)]
    ids = answerer.ids([format_question(row.source, row.question) if row.source else "" for row in rows])
    limit = answerer.max_question_tokens(config.max_new_tokens)
    for row, tokens in zip(rows, ids, strict=True):
        if row.status == OK and len(tokens) > limit:
            row.status = TOO_LONG
            row.error = f"{len(tokens)} tokens, more than the {limit} that leave room for an answer"
    good = [i for i, row in enumerate(rows) if row.status == OK]
    if good:
        asked = [rows[i] for i in good]
        graphs = answerer.featurizer.read_smiles([row.source for row in asked])
        method = _sample if config.temperature > 0 else _search
        found = method(asked, [ids[i] for i in good], graphs, answerer, config)
        for row, texts, others in zip(asked, found, _others(asked, answerer, config), strict=True):
            _choose(row, texts, others, config)
        _check([row for row in asked if row.status == OK], answerer, config)
    return rows


def _read(record: Record, cells: Sequence[str], config: GenerationConfig) -> Answered:
    """A row before it is answered."""
    if record.fault:
        return Answered(MALFORMED, record.fault)
    text, asked, direction, product = record.text, config.question, config.direction, ""
    drawn = "\n" in text  # a record of an SDF
    if direction is None and asked is not None:
        direction, product = direction_of(asked.of_row(cells), config.questions)
        if direction is not None:  # in the pack's own words, with the product in canonical SMILES
            asked = Question(config.questions[direction], (), True)
    try:
        sides = Sides(text) if drawn else config.sides.read(direction, text, cells)
    except InputError as error:
        return Answered(UNPARSABLE, str(error))
    parsed = FEATURIZER.parse_molecule(text) if drawn else parse_smiles(sides.smiles)
    if parsed.mol is None:
        return Answered(parsed.status, parsed.reason)
    row = Answered(source=write(parsed.mol), direction=direction)
    if asked is not None:
        product = product or sides.product
        row.question = asked.of_row(cells, product)
        if not row.question:
            lacks = "no question in this row, or a blank cell that belongs to it"
            if direction is not None:
                lacks = "no product that RDKit reads, in a column product or in a reaction reactants>>product"
                lacks = f"RDKit cannot read the product {product[:60]!r}" if product else lacks
            row.status, row.error = NO_QUESTION, lacks
    return row


def _search(
    asked: list[Answered], ids: list[list[int]], graphs: Graphs, answerer: Answerer, config: GenerationConfig
) -> list[list[Text]]:
    """The likeliest answers of each question."""
    found: list[list[Text]] = [[] for _ in asked]
    widths = np.array([config.width(row.direction) for row in asked])
    for beams in np.unique(widths).tolist():
        rows = np.flatnonzero(widths == beams)
        questions, limit = [ids[i] for i in rows], config.max_new_tokens
        answers = answerer.answer(
            questions, graphs.select(rows), beams=beams, max_new_tokens=limit, batch_size=config.batch_size
        )
        for i, texts in zip(rows, answers, strict=True):
            found[i] = texts
    return found


def _sample(
    asked: list[Answered], ids: list[list[int]], graphs: Graphs, answerer: Answerer, config: GenerationConfig
) -> list[list[Text]]:
    """Sample until each question has `config.top` different answers, or `MAX_SAMPLES` times that number in all."""
    questions = [format_question(row.source, row.question) for row in asked]
    samples: list[list[Text]] = [[] for _ in questions]
    for number in range(config.top * MAX_SAMPLES):
        drawn = zip(samples, asked, strict=True)
        n_valid = [len(valid_answers(texts, config.of_molecules(row.direction))) for texts, row in drawn]
        rows = [i for i, n in enumerate(n_valid) if n < config.top]
        if not rows:
            break
        answers = answerer.answer(
            [ids[i] for i in rows],
            graphs.select(rows),
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            temperature=config.temperature,
            top_p=config.top_p,
            seeds=[row_seed(config.seed, number, questions[i]) for i in rows],
        )
        for i, (text,) in zip(rows, answers, strict=True):
            samples[i] += [text] if text not in samples[i] else []  # drawn again
    return samples


def _others(rows: Sequence[Answered], answerer: Answerer, config: GenerationConfig) -> list[list[Given]]:
    """What the other orders of each row's question get; nothing where none are asked."""
    others: list[list[Given]] = [[] for _ in rows]
    if not config.spellings:
        return others
    asked = [i for i, row in enumerate(rows) if config.of_molecules(row.direction)]
    sources, questions = [rows[i].source for i in asked], [rows[i].question for i in asked]
    found = in_other_orders(answerer, sources, questions, config.spellings, config.max_new_tokens, config.batch_size)
    for i, of_row in zip(asked, found, strict=True):
        others[i] = of_row
    return others


def _choose(row: Answered, texts: Sequence[Text], others: Sequence[Given], config: GenerationConfig) -> None:
    """Enter the valid answers that were drawn first, or are the likeliest by all orders of the question."""
    found = valid_answers(texts, config.of_molecules(row.direction))
    found = elect(dict(islice(found.items(), config.top)), ()) if config.temperature > 0 else elect(found, others)
    found = dict(islice(found.items(), config.top))
    row.answers, row.probabilities = list(found), list(found.values())
    too_long = f"cut off after {config.max_new_tokens} tokens: more are read with a larger --max-tokens"
    if not found:
        row.status = INVALID
        row.error = f"RDKit cannot read the answer {texts[0].text[:60]!r}" if texts[0].ended else too_long
    elif not any(text.ended for text in texts):  # in words
        row.error = too_long
    if found and others:
        row.agreement = agreement(row.answers[0], others)


def _check(rows: Sequence[Answered], answerer: Answerer, config: GenerationConfig) -> None:
    """Enter what can be checked of rows that have answers."""
    if config.short:
        return
    for row in rows:
        if row.direction == "forward":
            row.checks[BALANCED] = [is_balanced(row.source, answer) for answer in row.answers]
        elif row.direction == "retro":
            row.checks[BALANCED] = [is_balanced(answer, row.source) for answer in row.answers]
    retro = [row for row in rows if row.direction == "retro"]
    if retro and "forward" in config.questions:
        reactants, products = zip(*((answer, row.source) for row in retro for answer in row.answers), strict=True)
        limits = config.max_new_tokens, config.batch_size
        back = iter(round_trips(answerer, reactants, products, config.questions["forward"], *limits))
        for row in retro:
            row.checks[ROUND_TRIP] = [next(back) for _ in row.answers]
