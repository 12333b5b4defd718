"""`mora-lite predict`: a table of molecules in, the same table with predictions out."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from .engine import Engine, Provider, load_model
from .options import BatchSize, Confidence, Device, Dtype, Force, SmilesColumn, Tasks, split_names
from .progress import print_note, print_summary, progress_bar


def predict(
    table_path: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Table of molecules: CSV (comma, tab or semicolon), plain or .gz; - is standard input.",
        ),
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write; .gz packs, .tsv writes tabs, - is standard output.",
            show_default="INPUT.predictions.csv",
        ),
    ] = None,
    pack: Annotated[
        str, typer.Option("--pack", "-p", help="Name of a pack, its directory, hf:owner/name, or an exported folder.")
    ] = "admet",
    tasks: Tasks = None,
    smiles_column: SmilesColumn = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    provider: Provider = "auto",
    confidence: Confidence = 0.9,
    neighbours: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            metavar="N",
            help="Name the N most similar training molecules, with their measured values.",
            show_default="none",
        ),
    ] = 0,
    force: Force = False,
) -> None:
    """Score every molecule of a table.

    Writes one row for each row of INPUT, in order, with all its columns, then
    a column for each task: a value with its unit and interval (X_lo, X_hi),
    or the probability of a yes; then similarity to the nearest training
    molecule, in_domain, and outside: the tasks whose training molecules it is
    far from; with --neighbours the nearest training molecules, their similarity
    and what was measured for them; then status (ok, empty, unparsable,
    too_large, malformed, not_finite) and error. A bad molecule is a row with a
    status, never the end of the run.

    \b
    Examples:
    mora-lite predict molecules.csv
    mora-lite predict library.csv.gz --tasks homo,lumo -o out.csv.gz
    cat molecules.csv | mora-lite predict - | head
    mora-lite predict molecules.csv --tasks logS --neighbours 3
    mora-lite predict molecules.csv --engine onnx --pack admet-onnx
    """
    from ..scoring.stream import output_columns, predict_table
    from ..tables.table import STDIO, TableWriter, claim_output, default_output, open_table

    with open_table(table_path, smiles_column) as table:
        target = output or default_output(table_path)
        if target != STDIO:
            # Before the slow load: a name that is taken is reported at once.
            claim_output(target, source=table_path, force=force)
        for note in table.notes:
            print_note(note)
        started = time.perf_counter()
        model = load_model(
            pack,
            engine=engine,
            provider=provider,
            device=device,
            dtype=dtype,
            tasks=split_names(tasks),
            confidence=confidence,
        )
        load_seconds = time.perf_counter() - started
        for note in model.featurizer.notes:
            print_note(note)
        columns = output_columns(table.columns, model, neighbours)
        with (
            TableWriter(target, columns, source=table_path, force=force) as writer,
            progress_bar(table) as on_progress,
        ):
            summary = predict_table(
                table, writer, model, batch_size=batch_size, n_neighbours=neighbours, on_progress=on_progress
            )
    print_summary(summary.lines(writer.name, load_seconds), summary)
