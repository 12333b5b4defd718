"""Which library computes: torch for packs, ONNX Runtime for exported folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..scoring.engine import ModelSource
    from ..scoring.predictor import Predictor

ENGINES = ("auto", "torch", "onnx")
Engine = Annotated[
    str,
    typer.Option(
        metavar="auto|torch|onnx", help="torch for a pack, onnx for an exported folder; auto picks the right one."
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="ONNX Runtime provider: auto, cpu, cuda, tensorrt, directml, coreml or openvino."
    ),
]


@dataclass(frozen=True)
class ModelChoice:
    """A model that the command line asks for, to be loaded in this process or in others. Fields: of the options."""

    pack: str
    engine: str = "auto"
    provider: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    tasks: list[str] | None = None
    confidence: float = 0.9

    @property
    def is_onnx(self) -> bool:
        """Raises `InputError` for an unknown engine, or for an option of the other engine."""
        from ..errors import InputError
        from ..export.folder import is_exported

        if self.engine not in ENGINES:
            raise InputError(f"--engine: got {self.engine!r}, expected {', '.join(ENGINES)}")
        if self.engine == "torch" or (self.engine == "auto" and not is_exported(self.pack)):
            if self.provider != "auto":
                raise InputError(f"--provider {self.provider} is for --engine onnx; with torch use --device")
            return False
        for name, value in (("device", self.device), ("dtype", self.dtype)):
            if value not in ("auto", os.environ.get("MORA_LITE_DEVICE") if name == "device" else ""):
                raise InputError(f"--{name} {value} is for packs on torch; an exported folder has --provider instead")
        return True

    def load(self) -> Predictor:
        """Load a pack, or an exported folder, for this process."""
        options: dict[str, Any] = {"tasks": self.tasks, "confidence": self.confidence}
        if self.is_onnx:
            from ..export.runtime import load

            return load(self.pack, provider=self.provider, **options)
        import mora_lite

        return mora_lite.load(self.pack, device=self.device, dtype=self.dtype, **options)

    def source(self) -> ModelSource:
        """The same for several processes or devices."""
        if self.is_onnx:
            from ..export.runtime import onnx_source

            return onnx_source(self.pack, tasks=self.tasks, provider=self.provider, confidence=self.confidence)
        from ..screening.models import torch_source

        return torch_source(
            self.pack, tasks=self.tasks, device=self.device, dtype=self.dtype, confidence=self.confidence
        )
