"""The model that somebody asks for: a pack, which torch scores, or an exported folder, which ONNX Runtime scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..hub.packs import local_path
from ..packs.manifest import EXPORT

if TYPE_CHECKING:
    from ..scoring.parallel import ModelSource
    from ..scoring.predictor import Predictor

ENGINES = ("auto", "torch", "onnx")
# By its name, as torch or ONNX Runtime may be missing, and `export` stands above this room.
ONNX = "mora_lite.export.runtime"


@dataclass(frozen=True)
class ModelChoice:
    """A model to load in this process, or in others.

    pack: its name, its directory, `hf:owner/name`, or an exported folder. engine: torch for a pack, onnx for an
    exported folder; auto takes the one that fits. provider: of ONNX Runtime. device, dtype: of torch.
    tasks, confidence: as for `mora_lite.load`.
    """

    pack: str
    engine: str = "auto"
    provider: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    tasks: str | Sequence[str] | None = None
    confidence: float = 0.9

    @property
    def is_onnx(self) -> bool:
        """Raises `InputError` for an unknown engine, or for an option of the other engine."""
        if self.engine not in ENGINES:
            raise InputError(f"--engine: got {self.engine!r}, expected {', '.join(ENGINES)}")
        if self.engine == "torch" or (self.engine == "auto" and not _is_exported(self.pack)):
            if self.provider != "auto":
                raise InputError(f"--provider {self.provider} is for --engine onnx; with torch use --device")
            return False
        for name, value in (("device", self.device), ("dtype", self.dtype)):
            if value not in ("auto", os.environ.get("MORA_LITE_DEVICE") if name == "device" else ""):
                raise InputError(f"--{name} {value} is for packs on torch; an exported folder has --provider instead")
        return True

    def load(self) -> Predictor:
        """The model, in this process."""
        options: dict[str, Any] = {"tasks": self.tasks, "confidence": self.confidence}
        if self.is_onnx:
            return import_module(ONNX).load(self.pack, provider=self.provider, **options)
        from .. import load  # as everybody has it

        return load(self.pack, device=self.device, dtype=self.dtype, **options)

    def source(self) -> ModelSource:
        """The same for several processes or devices; nothing is loaded."""
        options: dict[str, Any] = {"tasks": self.tasks, "confidence": self.confidence}
        if self.is_onnx:
            return import_module(ONNX).onnx_source(self.pack, provider=self.provider, **options)
        from .models import torch_source

        return torch_source(self.pack, device=self.device, dtype=self.dtype, **options)


def _is_exported(path: str) -> bool:
    """Whether this is a folder that `mora-lite export` wrote, on disk or in a repository of the hub."""
    return (Path(local_path(path)) / EXPORT.manifest).is_file()
