"""A reader and parsers of molecules that tests send to other processes, where they hang or die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_lite.chem.featurizer import Featurizer
from mora_lite.screening.models import LoadPack
from mora_lite.screening.ray_reader import Reading

HANGS, CRASHES = "CCN", "CCO"


@dataclass(frozen=True)
class WaitingReading(Reading):
    """Goes on after the third block when the file `go` is there, and begins one in `begun` each time it is started."""

    go: str = ""
    begun: str = ""

    def blocks(self) -> Iterator[Any]:
        Path(self.begun, str(os.getpid())).touch()
        for i, block in enumerate(super().blocks()):
            while i == 3 and not Path(self.go).exists():
                time.sleep(0.05)
            yield block


def parse_badly(text: str) -> None:
    """Hang at one molecule, and end the process at another."""
    if text == HANGS:
        time.sleep(3600)
    if text == CRASHES:
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class FragileFeaturizer(Featurizer):
    """As if RDKit did so; the native reader leaves it all to RDKit."""

    is_native = False

    def parse_molecule(self, text: str) -> Any:
        parse_badly(text)
        return super().parse_molecule(text)


@dataclass(frozen=True)
class FragileLoad(LoadPack):
    """Loads a pack in a process where RDKit does so."""

    def __call__(self, *, device: str, threads: int | None = None) -> Any:
        parse = Featurizer.parse_molecule

        def parse_molecule(featurizer: Featurizer, text: str) -> Any:
            parse_badly(text)
            return parse(featurizer, text)

        Featurizer.parse_molecule, Featurizer.is_native = parse_molecule, False  # type: ignore[assignment, method-assign]
        return super().__call__(device=device, threads=threads)
