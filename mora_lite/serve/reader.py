"""Molecules read and drawn by RDKit in a process beside the server, which a molecule may hang or end.

What the native reader is certain of is read here; only the rest, and drawings, go to that process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..chem.featurizer import Featurizer
from ..tables.library import Window
from ..tables.parsed import ParsedWindow, parse_by_rdkit, read_certain
from .process import SideProcess

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
        self.featurizer = featurizer
        self._process = SideProcess(RdkitWork, (featurizer,), seconds)
        self._lock = threading.Lock()
        self._drawings: OrderedDict[str, str | None] = OrderedDict()

    def warm_up(self) -> None:
        """Start the process now, so that nobody waits for it later."""
        self._process.run(["C"])

    def parse(self, window: Window) -> ParsedWindow:
        """As `parse_window`; a molecule that hangs or ends the process becomes a row with a status."""
        if not self.featurizer.is_native:
            return self._process.run(window)
        certain = read_certain(window, self.featurizer)
        rest = certain.rest
        return certain.with_rest(None if rest is None else self._process.run(rest))

    def draw(self, smiles: Sequence[str]) -> list[str | None]:
        """A drawing as `chem.drawing.draw` makes it for each text; None where there is none."""
        with self._lock:
            missing = [text for text in dict.fromkeys(smiles) if text not in self._drawings]
        drawn = dict(zip(missing, self._process.run(missing), strict=True)) if missing else {}
        with self._lock:
            found = [drawn[text] if text in drawn else self._drawings.get(text) for text in smiles]
            self._drawings.update(drawn)
            while len(self._drawings) > KEPT_DRAWINGS:
                self._drawings.popitem(last=False)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.close()
