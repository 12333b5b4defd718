"""Options that several commands share, with one wording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

Tasks = Annotated[
    str | None,
    typer.Option("--tasks", "-t", metavar="A,B", help="Tasks of the pack, separated by commas.", show_default="all"),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:0; auto takes CUDA when there is one.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Molecules at a time. Results do not depend on it.",
        show_default="fitted to the device",
    ),
]
Dtype = Annotated[
    str, typer.Option(metavar="TYPE", help="auto, float32, bfloat16 or float16; float32 is exact and slower.")
]
Confidence = Annotated[
    float, typer.Option(metavar="P", help="Share of true values that the intervals X_lo to X_hi are to hold.")
]


def split_names(text: str | None) -> list[str] | None:
    """`a, b` -> `["a", "b"]`; None, or nothing but commas, -> None, which stands for all."""
    names = [name.strip() for name in (text or "").split(",")]
    return [name for name in names if name] or None


def refuse(options: Mapping[str, object], why: str) -> None:
    """Raises `InputError` when one of the options was given, that is, is not None."""
    from ..errors import InputError

    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name}: {why}")
