"""Which library computes: torch for packs, ONNX Runtime for exported folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
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


def load_model(pack: str, *, engine: str, provider: str, device: str, dtype: str, **options: Any) -> Predictor:
    """Load a pack, or an exported folder. options: `tasks` and `confidence`, which both engines have.

    Raises `InputError` for an unknown engine, or for an option of the other engine.
    """
    from ..errors import InputError
    from ..export.folder import is_exported

    if engine not in ENGINES:
        raise InputError(f"--engine: got {engine!r}, expected {', '.join(ENGINES)}")
    exported = is_exported(pack)
    if engine == "torch" or (engine == "auto" and not exported):
        if provider != "auto":
            raise InputError(f"--provider {provider} is for --engine onnx; with torch use --device")
        import mora_lite

        return mora_lite.load(pack, device=device, dtype=dtype, **options)
    for name, value in (("device", device), ("dtype", dtype)):
        if value not in ("auto", os.environ.get("MORA_LITE_DEVICE") if name == "device" else ""):
            raise InputError(f"--{name} {value} is for packs on torch; an exported folder has --provider instead")
    from ..export.runtime import load

    return load(pack, provider=provider, **options)
