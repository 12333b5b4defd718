"""`mora-lite evaluate`: the error of a pack on molecules whose values are known."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import BatchSize, Device, Dtype, Tasks, split_names

if TYPE_CHECKING:
    from collections.abc import Mapping


class Split(str, Enum):
    """Part of the data, as the pack recorded it when it was trained."""

    TEST = "test"
    VALID = "valid"
    TRAIN = "train"
    ALL = "all"


def evaluate(
    pack: Annotated[str, typer.Argument(metavar="PACK", help="Name of a pack, or its directory.")],
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Table with SMILES and the true values: CSV, plain or .gz."),
    ],
    *,
    split: Annotated[
        Split, typer.Option(help="Which part of the data, by the split that the pack records.")
    ] = Split.TEST,
    tasks: Tasks = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    dtype: Dtype = "auto",
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the first so many molecules of the split.", show_default="all"),
    ] = None,
    bf16: Annotated[
        Path | None,
        typer.Option(
            metavar="PACK",
            help="The same pack trained with --unquantized, to measure what 4 bits cost.",
            show_default="the figure that the pack records",
        ),
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the metrics of the test set into the pack.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object for each task.")] = False,
) -> None:
    """Print the errors of a pack on data with known values.

    Beside them stand the errors of the graph encoder without a language model
    (encoder mae) and of the same pack trained on the base before 4 bits
    (bf16 mae), with the difference (loss 4bit).

    \b
    Examples:
    mora-lite evaluate qm9 qm9.csv.gz --split test
    mora-lite evaluate qm9 qm9.csv.gz --tasks homo,lumo,gap --json
    """
    from ..evaluate import evaluate_pack, record_metrics
    from ..pack import open_pack

    if record and (split is not Split.TEST or limit is not None or tasks is not None):
        raise typer.BadParameter("only the whole test set with all tasks is recorded", param_hint="--record")
    metrics = evaluate_pack(
        pack,
        data,
        split=split.value,
        tasks=split_names(tasks),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        limit=limit,
        bf16=bf16,
    )
    if record:
        record_metrics(open_pack(pack), metrics)
    if as_json:
        import json

        typer.echo(json.dumps(metrics, indent=2))
    else:
        print_metrics(metrics)


def print_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """A table on stdout: a row for each task, a column for each metric that any task has."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for values in metrics.values() for name in values if name != "unit"))
    table = Table("task", box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for task, values in metrics.items():
        label = f"{task} \\[{values['unit']}]" if values.get("unit") else task
        table.add_row(label, *(_show(values.get(name)) for name in names))
    Console().print(table)


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
