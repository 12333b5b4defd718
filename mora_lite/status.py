"""What became of each row: the words in the column `status`, and rows counted by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

OK = "ok"
EMPTY = "empty"
UNPARSABLE = "unparsable"
TOO_LARGE = "too_large"
MALFORMED = "malformed"  # the record has too many cells
NOT_FINITE = "not_finite"  # the model's value is infinite or not a number
NOT_FINITE_REASON = "the model's value is not a finite number"
TIMEOUT, CRASHED = "timeout", "crashed"
INVALID = "no_molecule"  # none of the answers is a molecule that RDKit reads
TOO_LONG = "too_long"  # the question does not fit into what the model takes
NO_QUESTION = "no_question"  # the row's own question is blank


@dataclass
class StatusCounts:
    """counts: rows by status.

    first: by status, the first row (counted from 1, header not counted) and its error.
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
        """Add rows that follow those counted before."""
        first_row = self.n_rows + 1
        self.counts.update(status)
        for i, word in enumerate(status):
            if word != OK:
                self.first.setdefault(word, (first_row + i, error[i]))

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
    """seconds: that the rows took."""

    seconds: float = 0.0

    @property
    def mol_per_s(self) -> float:
        return self.n_rows / self.seconds if self.seconds > 0 else 0.0

    def lines(self, where: str, load_seconds: float) -> list[str]:
        """The summary for people: one line, and one more for each reason of failure."""
        return [
            f"{where}: {self.n_rows:,} rows, {self.n_ok:,} ok, "
            f"{self.seconds:.1f} s ({self.mol_per_s:,.0f} molecules/s), {load_seconds:.1f} s to load",
            *self.failures(),
        ]
