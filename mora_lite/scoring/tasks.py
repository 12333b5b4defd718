"""A task: one number that one prompt asks of every molecule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..errors import PackError, did_you_mean

KINDS = ("value", "class")  # a number with a unit; the probability of a yes
SCALES = ("linear", "log", "logit")
# Columns of tables beside those of the tasks: of predictions, neighbours and evaluations.
OWN_COLUMNS = ("row", "smiles", "split", "similarity", "in_domain", "outside", "status", "error", "neighbour")
NEIGHBOUR = "neighbour_"  # how the columns of the nearest training molecules begin
OWN_ENDINGS = ("_lo", "_hi", "_true", "_percentile")  # of what stands beside a task
LEAST_PERCENT = 0.3  # nearer to 0 or 100 % a measurement says nothing; their log-odds would be infinite


def on_scale(values: np.ndarray, scale: str) -> np.ndarray:
    """Values in their unit, float of any shape -> on one of `SCALES`. What is not above 0 has no logarithm: NaN."""
    if scale == "logit":
        share = np.clip(values, LEAST_PERCENT, 100 - LEAST_PERCENT) / 100
        return np.log(share / (1 - share))
    if scale == "log":
        return np.log10(np.where(values > 0, values, np.nan))
    return values


def in_unit(values: np.ndarray, scale: str) -> np.ndarray:
    """The inverse of `on_scale`, in the type of `values`; 0 and infinity for infinite logarithms."""
    with np.errstate(over="ignore"):
        if scale == "logit":
            return 100 / (1 + np.exp(-values))
        if scale == "log":
            return np.power(values.dtype.type(10), values)
    return values


def header(name: str, unit: str) -> str:
    """`homo [Ha]`, or the bare name when there is no unit."""
    return f"{name} [{unit}]" if unit else name


def clashing_name(tasks: Iterable[tuple[str, str]]) -> str | None:
    """The first of these names, each with its unit, that is that of another column too; one would replace the other."""
    columns = {name: {name, header(name, unit)} for name, unit in tasks}
    beside = (name + ending for name in columns for ending in OWN_ENDINGS)
    taken = Counter([*OWN_COLUMNS, *beside, *chain(*columns.values())])
    return next(
        (name for name, own in columns.items() if any(taken[n] > 1 or n.startswith(NEIGHBOUR) for n in own)), None
    )


@dataclass(frozen=True)
class Task:
    """One question that a pack answers. The model itself works in z-scores.

    scale: what a value is learnt on: `linear`, as it is; `log`, its logarithm to base 10; `logit`, the log-odds of a
    percentage, taken as at least 0.3 and at most 99.7.
    mean, deviation: of the training targets on that scale. For a class the mean is the log-odds of the training
    positives and the deviation is 1, so that the same arithmetic gives log-odds.
    """

    name: str
    unit: str
    prompt: str
    mean: float
    deviation: float
    kind: str = "value"
    description: str = ""
    scale: str = "linear"

    def __post_init__(self) -> None:
        if not self.name or self.kind not in KINDS or not self.deviation > 0:
            raise PackError(
                f"task {self.name!r}: got kind {self.kind!r} and deviation {self.deviation}, expected a kind of "
                f"{', '.join(KINDS)} and a deviation above 0"
            )
        if self.scale not in SCALES or (self.is_class and self.scale != "linear"):
            raise PackError(f"task {self.name!r}: got scale {self.scale!r}, expected {', '.join(SCALES)} of a value")

    @property
    def is_class(self) -> bool:
        return self.kind == "class"

    @property
    def is_log(self) -> bool:
        return self.scale == "log"

    def on_scale(self, values: np.ndarray) -> np.ndarray:
        """Values in `unit`, float of any shape -> on the task's scale."""
        return on_scale(values, self.scale)

    def in_unit(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `on_scale`, in the type of `values`; 0 and infinity for infinite logarithms."""
        return in_unit(values, self.scale)

    def open_ends(self, low: np.ndarray, high: np.ndarray) -> None:
        """Let ends of intervals go to 0 and 100 % where they reach what stands for these; in place.

        A measured 100 % is learnt as 99.7 %, so an interval that holds the one holds the other.
        low, high: float `[B]`, on the task's scale.
        """
        if self.scale == "logit":
            least, most = self.on_scale(np.array([0, 100], low.dtype))
            low[low <= least], high[high >= most] = -np.inf, np.inf

    @property
    def column(self) -> str:
        """Header in tables: `homo [Ha]`, or the bare name when there is no unit."""
        return header(self.name, self.unit)

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def choose_tasks(known: tuple[Task, ...], names: str | Sequence[str] | None) -> list[int]:
    """Positions of the tasks `names`, in that order; None means all. A text is split at its commas.

    A name may be in another case, where that leaves no doubt. Raises `PackError` for an unknown name, for no name, and
    for a task whose column another would replace.
    """
    chosen = _positions(known, names)
    if name := clashing_name((known[i].name, known[i].unit) for i in chosen):
        raise PackError(f"task {name!r}: got a name that another column has, which would hide it; choose other tasks")
    return chosen


def _positions(known: tuple[Task, ...], names: str | Sequence[str] | None) -> list[int]:
    """See `choose_tasks`."""
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()] or None
    if names is None:
        return list(range(len(known)))
    names = list(names) if isinstance(names, Iterable) else [names]
    if not names or not all(isinstance(name, str) for name in names):
        raise PackError(
            f"tasks: got {names!r}, expected names of tasks, as a list or as one text with commas; None for all"
        )
    at = {task.name: i for i, task in enumerate(known)}
    found = [_find_name(name, at) for name in _with_commas(names, at)]
    return [at[name] for name in dict.fromkeys(found)]


def _with_commas(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """The names, where pieces that a text was split into are put together to those that have commas themselves."""
    whole = {tuple(piece.strip() for piece in name.casefold().split(",")): name for name in known if "," in name}
    longest_first, found, left = sorted(whole, key=len, reverse=True), list[str](), list(names)
    while left:
        folded = tuple(name.casefold() for name in left)
        pieces = next((pieces for pieces in longest_first if folded[: len(pieces)] == pieces), folded[:1])
        found.append(whole.get(pieces, left[0]))
        del left[: len(pieces)]
    return found


def _find_name(name: str, known: Iterable[str]) -> str:
    folded = [other for other in known if other.casefold() == name.casefold()]
    if name in folded or len(folded) == 1:
        return name if name in folded else folded[0]
    raise PackError(f"unknown task {name!r}: {did_you_mean(name, folded or known)}")
