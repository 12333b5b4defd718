"""`mora-lite evaluate-text`: how well a text pack answers rows whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_text_packs
from .messages import print_note
from .options import DataSplit, Device, Dtype, Limit, SplitOption, TextPackBase, TextPackTask
from .progress import show_work


def evaluate_text(
    pack: Annotated[
        str,
        typer.Argument(
            metavar="PACK",
            help="A text pack: reactions, a directory, or hf:owner/name.",
            autocompletion=complete_text_packs,
        ),
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Table with the columns that train-text reads.")],
    *,
    task: TextPackTask = None,
    split: SplitOption = DataSplit.TEST,
    limit: Limit = None,
    beams: Annotated[int, typer.Option(min=1, metavar="N", help="Width of the search; 1 is greedy.")] = 1,
    base: TextPackBase = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print how well a text pack answers: the share of exact answers, and how near the others come.

    \b
    Examples:
    mora-lite evaluate-text ./forward reactions.csv --beams 5 --limit 200
    mora-lite evaluate-text reactions uspto50k.csv --task retro --split all --limit 100
    """
    from .tables import print_text_metrics

    with show_work(f"loading {pack}"):
        from ..text.evaluation import evaluate_text
        from ..text.pack import open_text_pack

        opened = open_text_pack(pack)
        metrics = evaluate_text(
            opened,
            data,
            task=task,
            split=split.value,
            limit=limit,
            beams=beams,
            base=base,
            device=device,
            dtype=dtype,
            on_note=print_note,
        )
    if as_json:
        import json

        typer.echo(json.dumps({"figures": metrics}, indent=2))
    else:
        print_text_metrics(f"{task or opened.task}, {split.value} rows", metrics)
