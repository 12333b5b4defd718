"""`mora-lite evaluate`: the error of a pack on molecules whose values are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .messages import print_note, say
from .options import (
    BatchSize,
    Confidence,
    DataSplit,
    Device,
    Dtype,
    Force,
    Limit,
    PackArgument,
    PackSmilesColumn,
    SplitOption,
    Tasks,
    split_names,
)
from .progress import show_work


def evaluate(
    pack: PackArgument,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Molecules with the true values: a file that predict reads.")
    ],
    *,
    split: SplitOption = DataSplit.TEST,
    tasks: Tasks = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    dtype: Dtype = "auto",
    limit: Limit = None,
    bf16: Annotated[
        Path | None,
        typer.Option(
            metavar="PACK",
            help="The same pack trained with --unquantized, to measure what 4 bits cost.",
            show_default="the metric that the pack records",
        ),
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also by similarity to training, by domain and by scaffold; calibration.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Also write a row for each molecule: truth, prediction, interval, domain, split.",
            show_default="none",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page with charts and the worst molecules drawn (.html).",
            show_default="none",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="TASK=HEADER",
            help="The column with a task's values; repeatable.",
            show_default="as in the pack's training table",
        ),
    ] = None,
    confidence: Confidence = 0.9,
    smiles_column: PackSmilesColumn = None,
    record: Annotated[bool, typer.Option("--record", help="Write the metrics of the test set into the pack.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: metrics and tables of each task.")] = False,
    force: Force = False,
) -> None:
    """Print the errors of a pack on data with known values.

    Values: n, mae, rmse, r2, spearman, the share of true values inside
    their interval, and the intervals' mean width. Classes: n, positives,
    roc auc, pr auc, brier and ece (calibration error). For comparison: the
    graph encoder without a language model (encoder ...) and, where it was
    measured, the same pack trained on the unquantized base (bf16 mae,
    loss 4bit). For text packs see evaluate-text.

    \b
    Examples:
    mora-lite evaluate admet mine.csv --split all --tasks logS --tables
    mora-lite evaluate admet mine.csv --split all --column logS=Solubility -t logS
    mora-lite evaluate ./mine mine.csv -o mine.evaluated.csv --report mine.html
    mora-lite evaluate qm9 qm9.csv.gz --tasks homo,lumo,gap --json
    """
    from .tables import print_evaluation

    with show_work(f"loading {pack}"):
        from ..training import evaluate

        columns = _columns(column or [])
        evaluation = evaluate.evaluate(
            pack,
            data,
            split=split.value,
            tasks=split_names(tasks),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            limit=limit,
            bf16=bf16,
            smiles_column=smiles_column,
            confidence=confidence,
            tables=tables or as_json,
            record=record,
            columns=columns,
            output=output,
            report=report,
            force=force,
            on_note=print_note,
        )
    if as_json:
        import json

        typer.echo(json.dumps({"figures": evaluation.metrics, "tables": evaluation.tables}, indent=2))
    else:
        print_evaluation(evaluation.metrics, evaluation.tables if tables else {})
    n = len(evaluation.molecules["row"])
    say(f"{data}: {n:,} of {evaluation.n_rows:,} rows evaluated, split {split.value}")
    if output is not None:
        say(f"{output}: truth, prediction and interval of each of the {n:,} molecules")
    if report is not None:
        say(f"{report}: charts of the errors, the worst molecules drawn")
    if output is None and report is None:
        say("next: -o FILE writes truth, prediction and interval of each molecule, --report FILE.html draws charts")


def _columns(texts: list[str]) -> dict[str, str]:
    """`TASK=HEADER` of each."""
    from ..errors import InputError

    for text in texts:
        if not all(text.partition("=")):
            raise InputError(f"--column: got {text!r}, expected TASK=HEADER, such as logS=Solubility")
    return {task.strip(): header for task, _, header in (text.partition("=") for text in texts)}
