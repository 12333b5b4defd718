"""Molecules read and laid out by RDKit in a process beside the server, which a molecule may hang or end.

What the native reader is certain of is read here; only the rest, drawings and mol blocks go to that process.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..chem.drawing import draw
from ..chem.featurizer import Featurizer
from ..tables.library import Window
from ..tables.parsed import ParsedWindow, parse_by_rdkit, read_certain
from ..tables.sdf import mol_block
from .process import SideProcess

KEPT_DRAWINGS = 4096  # of 3 kB each
Make = Callable[[], str | None]  # a partial function of a module, for another process


class RdkitWork:
    """The work of that process: a window to parse, or what to make of one molecule."""

    def __init__(self, featurizer: Featurizer):
        self.featurizer = featurizer

    def __call__(self, job: Window | Make, marked: Mapping[int, str], at: Callable[[int], None]) -> Any:
        if isinstance(job, Window):
            return parse_by_rdkit(job, self.featurizer, marked, at)
        at(0)
        made = None if marked else job()
        at(-1)
        return made


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
        self._process.run(partial(draw, "C"))

    def parse(self, window: Window) -> ParsedWindow:
        """As `parse_window`; a molecule that hangs or ends the process becomes a row with a status."""
        if not self.featurizer.is_native:
            return self._process.run(window)
        certain = read_certain(window, self.featurizer)
        rest = certain.rest
        return certain.with_rest(None if rest is None else self._process.run(rest))

    def draw(self, smiles: Sequence[str], seconds: float = math.inf) -> list[str | None]:
        """A drawing as `chem.drawing.draw` makes it for each text; None where there is none.

        Others have their turn after each. seconds: after the first one in which further ones are begun.
        """
        with self._lock:
            missing = [text for text in dict.fromkeys(smiles) if text not in self._drawings]
        drawn: dict[str, str | None] = {}
        end = math.inf
        for text in missing:
            if time.monotonic() >= end:
                break
            drawn[text] = self._process.run(partial(draw, text))
            end = min(end, time.monotonic() + seconds)
        with self._lock:
            found = [drawn[text] if text in drawn else self._drawings.get(text) for text in smiles]
            self._drawings.update(drawn)
            while len(self._drawings) > KEPT_DRAWINGS:
                self._drawings.popitem(last=False)
        return found

    def mol_block(self, name: str, text: str) -> str:
        """As `tables.sdf.mol_block` makes it; without atoms where that takes too long."""
        if not text or "\n" in text:  # nothing to lay out
            return mol_block(name, text)
        return self._process.run(partial(mol_block, name, text)) or mol_block(name, "")

    def close(self) -> None:
        """End the process."""
        self._process.close()
