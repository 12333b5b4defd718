"""A text pack that the page can ask: what it answers, its base model where that is here, and the process that answers.

Numbers are not to wait for texts, which take seconds, so these are made in a process of their own. It loads the model
at the first question; nothing is ever fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, MoraLiteError, did_you_mean
from ..hub.bases import find_base_of_pack, how_to_get, resolve_base
from ..machine.workers import usable_cores
from ..packs.installed import find_text_pack
from ..packs.manifest import TEXT_PACK
from ..status import OK
from ..text.tasks import DIRECTIONS, PRODUCT, PackQuestions, read_sides, text_task
from .limits import Limits
from .process import SideProcess
from .worker import ModelThread

if TYPE_CHECKING:
    from ..text.pack import TextGenerator

MAX_ANSWERS = 5
MAX_SPELLINGS = 8
MAX_DRAWN = 8  # molecules of one side of a reaction
THREADS = min(2, max(1, usable_cores() // 2))  # more gain nothing with a small model; pages need a core too
MEMORY = {"smollm2-135m": "about 0.9 GB"}  # of the process with a base in 16 bits, measured


class TextQuestion(NamedTuple):
    """task: as `mora-lite generate --task` has it. text: SMILES of the molecules, or a reaction.

    question: in words, for a pack that takes one. spellings: other orders of the question that vote. base: path of the
    base model.
    """

    task: str
    text: str
    question: str
    top: int
    spellings: int
    base: str


@dataclass(frozen=True)
class TextSource:
    """A text pack on disk, unchecked but for its manifest. base: path of its base model, if it was given."""

    path: Path
    manifest: Mapping[str, Any]
    base: Path | None = None
    device: str = "auto"
    dtype: str = "auto"

    @classmethod
    def of(cls, pack: str, base: str | None, device: str, dtype: str) -> TextSource:
        """pack: its name, its directory or `hf:owner/name`. Raises `PackError` or `CheckpointError`."""
        path = find_text_pack(pack)
        chosen = None if base is None else resolve_base(base).resolve()
        return cls(path.resolve(), TEXT_PACK.read(path), chosen, device, dtype)

    @property
    def questions(self) -> PackQuestions:
        """What it can be asked."""
        return PackQuestions.of(self.manifest)

    @property
    def _needed(self) -> tuple[str, str]:
        """Name and SHA-256 of the base model."""
        base = self.manifest["base"]
        return base["name"], base["sha256"]

    def find_base(self) -> Path | None:
        """The base model, where it is here."""
        return self.base or find_base_of_pack(*self._needed)

    def missing(self) -> str:
        """One line that says what is missing and what to do; empty if nothing is."""
        if find_spec("torch") is None:
            return "text needs torch, which is not installed: pip install torch"
        if self.find_base() is not None:
            return ""
        name, command = self._needed[0], how_to_get(*self._needed)
        advice = f"type there: {command}" if command else "start mora-lite serve with its path as --base"
        return f"the base model {name} is not on the computer that serves this page; {advice}"

    def question(self, task: str, text: str, words: str, top: int, spellings: int = 0) -> TextQuestion:
        """What is asked about a text. Raises `InputError` for what cannot be asked."""
        known = self.questions
        if task not in known.tasks:
            raise InputError(f"task: got {task[:80]!r}; {did_you_mean(task, known.tasks)}")
        if words.strip() and not known.wants_words:
            raise InputError(f"question: the pack {self.path.name} takes no question in words")
        if known.needs_words and not words.strip():
            raise InputError(f"question: the pack {self.path.name} has to be asked in words")
        if spellings and not known.of_reactions:
            raise InputError(f"spellings: got {spellings}, expected 0: what {self.path.name} answers is no molecule")
        if missing := self.missing():
            raise InputError(missing)
        sides = read_sides(task if task in DIRECTIONS else None, text)
        if f"{{{PRODUCT}}}" in known.by_direction.get(task, "") and not sides.product:
            raise InputError(f"smiles: got no reaction, expected reactants>>product to find {task} for")
        return TextQuestion(task, text, words.strip(), top, spellings, str(self.find_base()))

    def describe(self) -> dict[str, Any]:
        """For the page."""
        base = str(self.manifest["base"]["name"])
        known = self.questions
        return {
            "pack": self.path.name,
            "tasks": [{"name": task, "question": known.by_direction.get(task, "")} for task in known.tasks],
            "wants_words": known.wants_words,
            "asked": list(known.in_words),
            "base": base,
            "memory": MEMORY.get(base, ""),
            "missing": self.missing(),
            "max_answers": MAX_ANSWERS,
            "max_spellings": MAX_SPELLINGS if known.of_reactions else 0,
        }


class TextAnswers:
    """The text pack of a server, its queue and its process. It starts when something is asked.

    on_load: gets a line when the model is loaded.
    """

    def __init__(self, source: TextSource, limits: Limits, on_load: Callable[[str], None] = lambda line: None):
        self.source, self._on_load, self._mib = source, on_load, 0
        self._kept_seconds, self._touched = limits.kept_seconds, time.monotonic()
        self._process = SideProcess(TextWork, (source, limits.text_seconds), limits.text_seconds)
        self._thread = ModelThread(lambda: self._process, limits.text_waiting, name="text", sets_threads=False)
        self._thread.start()

    def ask(self, question: TextQuestion) -> Future[dict[str, Any]]:
        """The answers. Raises `BusyError` when too many questions wait."""

        def answer(process: SideProcess) -> dict[str, Any]:
            self._touched = time.monotonic()
            try:
                return self._note(process.run([question]))
            except MoraLiteError as error:  # whoever asks need not know where things lie on this computer
                words = str(error)
                for path in (self.source.path, Path(question.base)):
                    words = words.replace(str(path), path.name)
                raise type(error)(words) from None

        return self._thread.ask(answer)

    def describe(self) -> dict[str, Any]:
        """For the page. mib: memory of the process after its last answer; 0 before the first."""
        return {**self.source.describe(), "mib": self._mib}

    def draw_sides(self, texts: Sequence[str], draw: Callable[[Sequence[str]], list[str | None]]) -> list[list[Any]]:
        """Of each set of molecules, SMILES joined by dots, its molecules with their drawings; the rest as one text."""
        sides = []
        for text in texts:
            parts = text.split(".") if text else []
            shown, rest = parts[:MAX_DRAWN], ".".join(parts[MAX_DRAWN:])
            sides.append([*shown, *filter(None, [rest])])
        drawings = iter(draw([part for side in sides for part in side]))
        return [[{"smiles": part, "svg": next(drawings)} for part in side] for side in sides]

    def sweep(self) -> None:
        """Give the memory back when nobody has asked anything in a long time."""
        if self._mib and time.monotonic() - self._touched > self._kept_seconds:
            self._thread.ask(self._unload)

    def _unload(self, process: SideProcess) -> None:
        process.reset()
        self._mib = 0

    def close(self) -> None:
        """End the process, also in the middle of an answer."""
        self._process.close()
        self._thread.stop()

    def _note(self, row: dict[str, Any]) -> dict[str, Any]:
        mib = row.pop("mib", 0)
        if mib and not self._mib:
            self._on_load(f"text: loaded {self.source.path.name}, {mib:,} MiB")
        self._mib = mib or self._mib
        return row


class TextWork:
    """The work of the process: one question at a time."""

    def __init__(self, source: TextSource, seconds: float):
        self._source, self._seconds = source, seconds
        self._generator: TextGenerator | None = None

    def __call__(self, job: list[TextQuestion], marked: Mapping[int, str], at: Callable[[int], None]) -> dict[str, Any]:
        (question,) = job
        if marked:
            why = f"no answer within {self._seconds:,.0f} seconds; ask for fewer answers, or smaller molecules"
            status = next(iter(marked.values()))
            return _row(status, why if status == "timeout" else "this question ended the process that answers")
        generator = self._load(Path(question.base))
        at(0)
        started = time.perf_counter()
        row = self._answer(question, generator)
        at(-1)
        return row | {"seconds": round(time.perf_counter() - started, 2), "mib": _mib()}

    def _load(self, base: Path) -> TextGenerator:
        if self._generator is None:
            import torch

            from ..text.pack import load_text

            torch.set_num_threads(THREADS)
            source = self._source
            self._generator = load_text(source.path, base, device=source.device, dtype=source.dtype)
        return self._generator

    def _answer(self, asked: TextQuestion, generator: TextGenerator) -> dict[str, Any]:
        words, top, spellings = asked.question or None, asked.top, asked.spellings
        (row,) = generator.generate(asked.text, task=asked.task, question=words, top=top, spellings=spellings)
        answers = [
            {
                "text": answer,
                "probability": float(f"{row.probabilities[i]:.6g}"),
                **{name: values[i] for name, values in row.checks.items()},
            }
            for i, answer in enumerate(row.answers)
        ]
        known = self._source.questions
        of_molecules = text_task(known.direction(asked.task) or known.task).of_molecules
        return _row(row.status, row.error, row.source, row.question, answers, of_molecules, row.agreement)


def _row(
    status: str,
    error: str,
    source: str = "",
    question: str = "",
    answers: list[dict[str, Any]] | None = None,
    of_molecules: bool = True,
    agreement: float | None = None,
) -> dict[str, Any]:
    return {
        "status": status,
        "error": error,
        "source": source,
        "question": question,
        "of_molecules": of_molecules,
        "answers": (answers or []) if status == OK else [],
        "agreement": agreement,
    }


def _mib() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss) >> 20
