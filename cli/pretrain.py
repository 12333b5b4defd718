"""`mora-lite pretrain`: an encoder from molecules without labels."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .messages import keeping, say
from .options import Device, Force
from .progress import show_work


def pretrain(
    tables: Annotated[
        list[Path], typer.Argument(metavar="TABLE...", help="Tables with SMILES, such as an in-house library.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File of the encoder, .safetensors.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the molecules.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1, help="Molecules in a training step.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that compute the descriptors.")] = 1,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Pre-train a graph encoder to predict RDKit's descriptors and fingerprints.

    `mora-lite train --start FILE` starts from it; `--start structures` is one
    that ships and was made like this. Started again with the same settings, it
    continues from its last checkpoint, which is kept in OUTPUT.run.

    \b
    Example:
    mora-lite pretrain library.csv.gz --processes 4 -o encoder.safetensors
    """
    from ..errors import OutputError

    if output.exists() and not force:
        raise OutputError(f"{output} exists; choose another name or use --force")
    kept = f"the last checkpoint of training is kept in {output}.run, once an epoch is done"
    with keeping(kept, output), show_work("describing molecules") as show:
        from ..machine.device import choose_device
        from ..training.loop import TrainConfig
        from ..training.pretrain import pretrain_encoder

        settings = TrainConfig(epochs=epochs, batch_size=batch_size, huber=1.0, seed=seed)
        pretrain_encoder(
            tables,
            output,
            settings,
            choose_device(device),
            processes=processes,
            on_read=lambda n_read: show.report(f"describing molecules, {n_read:,} done"),
            on_progress=lambda progress: show.training("encoder", progress),
        )
    say(f"{output}: the encoder; next: mora-lite train DATA --start {shlex.quote(str(output))} -t COLUMN -o DIR")
