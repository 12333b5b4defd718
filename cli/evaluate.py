"""`mora-lite evaluate`: the error of a pack on molecules whose values, or answers, are known."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, Confidence, Device, Dtype, Tasks, refuse, split_names
from .tables import print_evaluation

RECORDED = 0.9  # confidence of the figures in packs and their model cards


class Split(str, Enum):
    """Part of the data, as the pack recorded it when it was trained."""

    TEST = "test"
    VALID = "valid"
    TRAIN = "train"
    ALL = "all"


def evaluate(
    pack: Annotated[str, typer.Argument(metavar="PACK", help="Name of a pack, or its directory; or of a text pack.")],
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Table with SMILES and the true values or answers: CSV, plain or .gz."),
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
    tables: Annotated[
        bool, typer.Option("--tables", help="Also by similarity to training, by domain, by scaffold; calibration.")
    ] = False,
    confidence: Confidence = RECORDED,
    smiles_column: Annotated[
        str | None, typer.Option(help="The SMILES column.", show_default="as in the pack's training table")
    ] = None,
    beams: Annotated[
        int | None, typer.Option("--beams", min=1, metavar="N", help="Of a text pack: width.", show_default="1, greedy")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Of a text pack: its base model.", show_default="the one the pack names"),
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the metrics of the test set into the pack.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: figures and tables of each task.")] = False,
) -> None:
    """Print the errors of a pack on data with known values.

    Values: n, mae, rmse, r2, the share of true values inside their interval,
    and the intervals' mean width. Classes: n, positives, roc auc, pr auc,
    brier and ece (calibration error). Beside them stand the graph encoder
    without a language model (encoder ...) and, where it was measured, the same
    pack trained on the base before 4 bits (bf16 mae, loss 4bit).

    Of a text pack: the share of exact answers and how near the others come, on
    a table with the columns that train --task reads.

    \b
    Examples:
    mora-lite evaluate admet mine.csv --split all --tasks logS --tables
    mora-lite evaluate qm9 qm9.csv.gz --tasks homo,lumo,gap --json
    mora-lite evaluate ./forward reactions.csv --beams 5 --limit 200
    """
    from ..hub.packs import TEXT_MANIFEST, check_changeable, local_path

    if (Path(local_path(pack)) / TEXT_MANIFEST).is_file():
        of_values = {
            "--tasks": tasks,
            "--bf16": bf16,
            "--tables": tables or None,
            "--smiles-column": smiles_column,
            "--record": record or None,
            "--batch-size": batch_size,
            "--confidence": None if confidence == RECORDED else confidence,
        }
        refuse(of_values, "is for packs of values; leave it out")
        _evaluate_text(pack, data, split.value, limit, beams or 1, base, device, dtype, as_json)
        return
    refuse({"--beams": beams, "--base": base}, "is for text packs; leave it out")
    from ..packs.pack import open_pack
    from ..training.evaluate import evaluate_pack, record_metrics

    if record and (split is not Split.TEST or limit is not None or tasks is not None or confidence != RECORDED):
        raise typer.BadParameter(
            f"only the whole test set with all tasks and confidence {RECORDED} is recorded", param_hint="--record"
        )
    if record:
        check_changeable(pack)
    found = evaluate_pack(
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
        tables=tables or record or as_json,
    )
    if record:
        record_metrics(open_pack(pack), found)
    if as_json:
        import json

        typer.echo(json.dumps({"figures": found.figures, "tables": found.tables}, indent=2))
    else:
        print_evaluation(found.figures, found.tables if tables else {})


def _evaluate_text(
    pack: str,
    data: Path,
    split: str,
    limit: int | None,
    beams: int,
    base: str | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """The figures of a text pack, on stdout."""
    import json

    from rich.console import Console

    from ..machine.device import choose_device, choose_dtype
    from ..text.evaluation import evaluate_table, rows_of_figures
    from ..text.pack import load_text_pack, open_text_pack
    from .tables import print_rows

    opened, where = open_text_pack(pack), choose_device(device)
    answerer = load_text_pack(opened, base=base, device=where, dtype=choose_dtype(dtype, where))
    held_out = opened.manifest["provenance"]["held_out"]
    figures = evaluate_table(answerer, opened.task, data, held_out=held_out, split=split, limit=limit, beams=beams)
    if as_json:
        typer.echo(json.dumps({"figures": figures}, indent=2))
    else:
        print_rows(f"{opened.task}, {split} rows", rows_of_figures(figures), Console(highlight=False))
