"""`mora-lite screen`: a library of any size in, scored shards, a ranked list and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    Confidence,
    Device,
    Dtype,
    LibraryPaths,
    NameColumn,
    SmilesColumn,
    Tasks,
    TimeLimit,
    Workers,
    split_names,
)
from .progress import progress_bar


def screen(
    paths: LibraryPaths,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the run.")],
    pack: Annotated[str, typer.Option("--pack", "-p", help="Name of a pack, or its directory.")] = "admet",
    tasks: Tasks = None,
    form: Annotated[str, typer.Option("--format", metavar="parquet|csv", help="Of the shards.")] = "parquet",
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Rows of top.csv and of the report's table.")] = 100,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help="What top.csv is sorted by, the highest first: a task, or for example 'logS - 0.5 * HIV'.",
            show_default="the first task",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="What rows of top.csv must fulfil: 'logS > -4 and bbb > 0.5'."),
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="The lowest first.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what DIR holds; begin when it holds nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that DIR holds.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    dtype: Dtype = "auto",
    confidence: Confidence = 0.9,
    smiles_column: SmilesColumn = None,
    name_column: NameColumn = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Score only every N-th shard: one of N machines.", show_default="all")
    ] = "1/1",
    time_limit: TimeLimit = 30.0,
    engine: Annotated[
        str,
        typer.Option(metavar="local|ray", help="Processes of this machine, or a Ray cluster for prepared libraries."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of the cluster: auto or HOST:PORT.", show_default="a local one"),
    ] = None,
) -> None:
    """Score a library of millions, with a fixed amount of memory.

    Writes DIR/part-00000.parquet and so on with a row for each row of the
    LIBRARY (row, name, smiles, the columns that `predict` writes, status,
    error), then DIR/top.csv, the best rows, and DIR/report.html. A run that
    was stopped, however it was, goes on with --resume and ends in the same
    bytes. --top, --by and --where may change between the two.

    \b
    Examples:
    mora-lite screen library.smi.gz -o run --tasks logS,BBB --by BBB --where 'logS > -4'
    mora-lite screen lib.parquet -o run --resume
    mora-lite screen 'zinc/*.sdf.zst' -o run --shard 2/8
    mora-lite screen 'prepared/*.parquet' -o run --engine ray --ray-address auto
    """
    from ..chem.drawing import drawing_problem
    from ..errors import InputError
    from ..screening.campaign import Campaign, open_any_library, summary_lines
    from ..screening.ray_engine import check_ray, score_on_ray
    from ..screening.run_directory import lock, open_run, parse_part

    if engine not in ("local", "ray"):
        raise InputError(f"--engine: got {engine!r}, expected local or ray")
    if ray_address is not None and engine != "ray":
        raise InputError("--ray-address is for --engine ray: give both or neither")
    first, parts = parse_part(shard)
    part = f"{first + 1}-of-{parts}" if parts > 1 else ""
    with open_any_library(paths, smiles_column, name_column) as library:
        for note in library.notes:
            typer.echo(f"note: {note}", err=True)
        on_ray = check_ray(library) if engine == "ray" else None
        campaign = Campaign.plan(
            library,
            pack=pack,
            tasks=split_names(tasks),
            form=form,
            device=device,
            dtype=dtype,
            confidence=confidence,
            columns=(smiles_column, name_column),
        )
        ranking = campaign.ranking(top, by, where, ascending)  # a wrong expression is told before the work
        with lock(output, part, alone=force):
            run = open_run(output, campaign.settings, part=part, resume=resume, force=force)
            for note in run.notes:
                typer.echo(f"note: {note}", err=True)
            with progress_bar(library) as on_rows:
                options: dict[str, Any] = {
                    "workers": workers,
                    "part": (first, parts),
                    "on_progress": lambda progress: on_rows(progress.skipped + progress.rows),
                }
                if on_ray is not None:
                    progress = score_on_ray(campaign, run, on_ray, address=ray_address, **options)
                else:
                    progress = campaign.score(run, library, time_limit=time_limit, **options)
            counts = campaign.counts(run)
            for line in summary_lines(str(output), counts, progress):
                typer.echo(line, err=True)
            if parts > 1:
                typer.echo("when all parts are in one directory, --resume without --shard makes top.csv", err=True)
            else:
                campaign.finish(run, progress, ranking)
                if drawing_problem():
                    typer.echo(f"note: {drawing_problem()}", err=True)
    if counts.n_rows and not counts.n_ok:
        raise typer.Exit(1)
