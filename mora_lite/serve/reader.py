"""Molecules read and drawn by RDKit in a process beside the server, which a molecule may hang or end.

What the native reader is certain of is read here; only the rest, and drawings, go to that process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from ..chem.featurizer import Featurizer
from ..errors import DeviceError
from ..machine.workers import WorkerDied, WorkerPool
from ..tables.library import Window
from ..tables.parsed import ParsedWindow, parse_by_rdkit, read_certain

KEPT_DRAWINGS = 4096  # of 3 kB each


class RdkitWork:
    """The work of that process: a window to parse, or texts to draw."""

    def __init__(self, featurizer: Featurizer):
        self.featurizer = featurizer

    def __call__(self, job: Window | list[str], marked: Mapping[int, str], at: Callable[[int], None]) -> Any:
        if isinstance(job, Window):
            return parse_by_rdkit(job, self.featurizer, marked, at)
        from ..chem.drawing import draw

        drawings: list[str | None] = []
        for i, smiles in enumerate(job):
            at(i)
            drawings.append(None if i in marked else draw(smiles))
        at(-1)
        return drawings


class SafeReader:
    """Reads and draws molecules. May be used by several threads; close it at the end.

    seconds: limit for one molecule.
    """

    def __init__(self, featurizer: Featurizer, seconds: float):
        self.featurizer, self._seconds = featurizer, seconds
        self._pool = self._new_pool()
        self._lock = threading.Lock()
        self._drawings: OrderedDict[str, str | None] = OrderedDict()

    def warm_up(self) -> None:
        """Start the process now, so that nobody waits for it later."""
        self._run(["C"])

    def parse(self, window: Window) -> ParsedWindow:
        """As `parse_window`; a molecule that hangs or ends the process becomes a row with a status."""
        if not self.featurizer.is_native:
            return self._run(window)
        certain = read_certain(window, self.featurizer)
        rest = certain.rest
        return certain.with_rest(None if rest is None else self._run(rest))

    def draw(self, smiles: Sequence[str]) -> list[str | None]:
        """A drawing as `chem.drawing.draw` makes it for each text; None where there is none."""
        with self._lock:
            missing = [text for text in dict.fromkeys(smiles) if text not in self._drawings]
        drawn = dict(zip(missing, self._run(missing), strict=True)) if missing else {}
        with self._lock:
            found = [drawn[text] if text in drawn else self._drawings.get(text) for text in smiles]
            self._drawings.update(drawn)
            while len(self._drawings) > KEPT_DRAWINGS:
                self._drawings.popitem(last=False)
        return found

    def close(self) -> None:
        """End the process."""
        self._pool.__exit__()

    def _new_pool(self) -> WorkerPool[Any, Any]:
        return WorkerPool[Any, Any](1, RdkitWork, (self.featurizer,), self._seconds)

    def _run(self, job: Window | list[str]) -> Any:
        def jobs() -> Iterator[Any]:
            yield job

        with self._lock:
            for _ in range(2):  # a system short of memory may have ended the process while it had nothing to do
                try:
                    results: Any = self._pool.results(jobs())
                    with closing(results):
                        return next(results)
                except BaseException as error:
                    self._pool.__exit__()  # it is of no use after an error
                    self._pool = self._new_pool()
                    if not isinstance(error, WorkerDied):
                        raise
        raise DeviceError("the process that reads molecules was ended twice; is the server short of memory?")
