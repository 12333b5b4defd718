"""`mora-lite train-text`: tables of texts in, a text pack out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_text_tasks
from .messages import keeping, print_note, say
from .options import Device, Force, path_as_pack, split_names
from .progress import show_work


def train_text(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE...", help="Tables of questions and answers: files that predict reads."),
    ],
    *,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="What to answer: forward, retro, reagents, describe or ask; or some of the first three, with "
            "their shares of training, like forward=1,retro=3.",
            autocompletion=complete_text_tasks,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the new text pack.")],
    minutes: Annotated[float, typer.Option(metavar="M", help="Training time.")] = 10,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="A column that says train, valid or test; or several, A,B, of which a table has one.",
            show_default="by product or molecule",
        ),
    ] = None,
    test: Annotated[
        list[Path] | None,
        typer.Option(metavar="TABLE", help="A table whose rows are the test; may be given several times."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="PACK", help="Start from the weights of this text pack.", show_default="none")
    ] = None,
    adapter: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="mora; static (LoRA of equal rank), static-large (of equal size), prompt (static with "
            "soft tokens made of the graph).",
        ),
    ] = "mora",
    target_modules: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Modules of a layer to adapt, out of q,k,v,o (attention) and ffn (the feed-forward block).",
        ),
    ] = "ffn",
    layers: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Adapted layers, counted from 0, like 0,5 or 20-29.", show_default="all"),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, metavar="R", help="Rank of the adapter.")] = 64,
    copies: Annotated[int, typer.Option(min=1, metavar="N", help="Orders in which a row's SMILES are written.")] = 6,
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="Base model: a name known to pull, a path, or owner/name.")
    ] = "smollm2-135m",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and the copies of a row.")] = 0,
    test_rows: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Test rows to answer in the end, 0 for none; with several tasks, of each and of each table.",
            show_default="all",
        ),
    ] = None,
    bits: Annotated[int, typer.Option(metavar="N", help="Bits of a weight in the pack: 16, 8 or 4.")] = 16,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Train a pack that answers in text: an adapter without its base model.

    The tables need the columns reactants (and reagents) and product; for the
    task reagents, reactants and reagents; for describe, smiles and description;
    for ask, smiles, question and answer. Several tasks, joined by commas, make
    one pack, and generate --task chooses among them.

    Started again with the same settings, training continues from its last
    checkpoint, which is kept in OUTPUT.run. The pack is written before the
    test rows are answered; --test-rows limits these. The base must have been pulled
    before.

    \b
    Examples:
    mora-lite train-text reactions.csv.gz --task forward --minutes 25 -o forward
    mora-lite train-text captions.csv --task describe --split part -o described
    mora-lite train-text train.csv more.csv --task forward=1,retro=3 --test test.csv -o both
    """
    from .tables import print_text_metrics

    kept = (
        f"the last checkpoint of training is kept in {output}.run; once {output} is written, only its test is missing"
    )
    with keeping(kept, output), show_work("reading tables") as show:
        from ..text import pipeline

        pack = pipeline.train_text(
            task,
            tables,
            output,
            minutes=minutes,
            split=split,
            adapter=adapter,
            rank=rank,
            target_modules=split_names(target_modules) or (),
            layers=() if layers is None else _layers(layers),
            copies=copies,
            base=base,
            seed=seed,
            device=device,
            test_rows=test_rows,
            tests=test or (),
            start=start,
            bits=bits,
            force=force,
            on_note=print_note,
            on_progress=lambda progress: show.text_training(progress, 60 * minutes),
        )
    if metrics := pack.manifest["provenance"]["test"]:
        print_text_metrics(f"{task}, test rows", metrics)
    say(f"{output}: the pack; next: mora-lite generate FILE --pack {shlex.quote(path_as_pack(output))}")


def _layers(text: str) -> tuple[int, ...]:
    """`0,5` or `20-29`, or both, as numbers."""
    from ..errors import InputError

    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise InputError(f"--layers: got {text!r}; expected numbers and ranges of them, like 0,5 or 20-29")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)
