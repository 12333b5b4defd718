"""`mora-lite calibrate`: error bars, probabilities and domain of a pack, refitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .messages import print_note, say
from .options import Device, Dtype, PackArgument, PackSmilesColumn
from .progress import show_work


def calibrate(
    pack: PackArgument,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The table that it was trained on.")],
    *,
    smiles_column: PackSmilesColumn = None,
    without_data: Annotated[
        bool,
        typer.Option("--without-data", help="Keep no training molecules and values in the pack; remove those in it."),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Fit a pack's intervals, probabilities and domain to the table it was made from.

    Intervals and probabilities come from the validation rows, the domain from
    the training rows, which the pack keeps with their values. `train` does the
    same at its end; this is for packs that were made without it. Where they
    change, figures of the old ones leave the pack; evaluate --record measures.

    \b
    Example:
    mora-lite calibrate ./mine my.csv
    """
    with show_work(f"reading {data}"):
        from ..hub.packs import check_changeable
        from ..packs.pack import open_pack
        from ..training.calibrate import KEEPS_DATA, calibrate_pack
        from ..training.evaluate import parts_of, read_training_table

        check_changeable(pack)
        opened = open_pack(pack)
        table = read_training_table(data, opened, opened.tasks, "valid", smiles_column, on_note=print_note)
        parts = parts_of(table, opened.provenance, opened.name, data)
        train, valid = parts["train"], parts["valid"]
        keep_data = not without_data and opened.provenance["recipe"].get("keep_data", True)
        if keep_data:
            print_note(KEEPS_DATA)
        calibrate_pack(opened, train, valid, keep_data=keep_data, device=device, dtype=dtype)
    values = zip(opened.tasks, valid.n_values(), strict=True)
    told = ", ".join(f"{task.name} {n:,}" for task, n in values)
    say(f"{opened.path}: calibrated on {len(valid.with_values()):,} molecules; values: {told}")
    say(f"next: mora-lite evaluate {pack} {data} --tables --record")
