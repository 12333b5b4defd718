"""The words in the column `status`, what they mean, and rows counted by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OK = "ok"
EMPTY = "empty"
UNPARSABLE = "unparsable"
TOO_LARGE = "too_large"
MALFORMED = "malformed"
NOT_FINITE = "not_finite"
TIMEOUT, CRASHED = "timeout", "crashed"
INVALID = "no_molecule"  # none of the answers is a molecule that RDKit reads
TOO_LONG = "too_long"  # the question does not fit into what the model takes
NO_QUESTION = "no_question"  # the row's own question is blank

SHOWN_TASKS = 6  # in the line about their domains
MAX_EXPLAINED = 100  # molecules of `explain`; each is scored some hundred times in parts

# For the column `error`, where nothing more exact is known of a row.
REASONS = {
    EMPTY: "no SMILES in this row",
    UNPARSABLE: "not a valid SMILES",
    TOO_LARGE: "too many atoms",
    MALFORMED: "the record has too many cells",
    NOT_FINITE: "the model's value is not a finite number",
    TIMEOUT: "parsing took longer than the time limit",
    CRASHED: "parsing ended the process that did it",
}


def counted(n: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


@dataclass
class StatusCounts:
    """Rows counted by status.

    counts: status -> number of rows.
    first: status -> the first row with it (counted from 1, without the header) and that row's error.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return sum(self.counts.values())

    @property
    def n_ok(self) -> int:
        return self.counts[OK]

    def count(self, status: Sequence[str], error: Sequence[str]) -> None:
        """Count the next rows."""
        first_row = self.n_rows + 1
        self.counts.update(status)
        for i, word in enumerate(status):
            if word != OK:
                self.first.setdefault(word, (first_row + i, error[i]))

    def add(self, counts: Mapping[str, int], first: Mapping[str, tuple[int, str]]) -> None:
        """Count rows that come after those of before, and were counted elsewhere. first: as the field."""
        self.counts.update(counts)
        self.first = {**first, **self.first}

    def failures(self) -> list[str]:
        """One line for each reason of failure, the most frequent first."""
        lines = []
        width = max((len(f"{n:,}") for status, n in self.counts.items() if status != OK), default=0)
        for status, n in self.counts.most_common():
            if status != OK:
                row, reason = self.first[status]
                lines.append(f"  {n:>{width},} {status}; the first is row {row:,}: {reason}")
        return lines


@dataclass
class RunSummary(StatusCounts):
    """The counts of a run that took `seconds`, loading not included.

    load_seconds: that loading took, where it was measured.
    outside: task -> number of scored rows that are outside of its domain.
    """

    seconds: float = 0.0
    load_seconds: float = 0.0
    outside: Counter[str] = field(default_factory=Counter)

    @property
    def mol_per_s(self) -> float:
        return self.n_rows / self.seconds if self.seconds > 0 else 0.0

    def lines(self, where: str) -> list[str]:
        """The summary for people: one line, and one more for each reason of failure."""
        return [
            f"{where}: {counted(self.n_rows, 'row')}, {self.n_ok:,} ok, "
            f"{self.seconds:.1f} s ({self.mol_per_s:,.0f} molecules/s), {self.load_seconds:.1f} s to load",
            *self.failures(),
            *self._domain(),
        ]

    def _domain(self) -> list[str]:
        """A line about the tasks that rows are outside of the domain of, those with most first; none without any."""
        far = [f"{n:,} of {task}" for task, n in self.outside.most_common()]
        more = f" and of {counted(len(far) - SHOWN_TASKS, 'other task')}" if len(far) > SHOWN_TASKS else ""
        return [f"  outside of the domain: {', '.join(far[:SHOWN_TASKS])}{more}"] if far else []
