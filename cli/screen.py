"""`mora-lite screen`: a library of any size in, scored shards, a ranked list and a report out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .messages import invocation, print_note, say_stopped
from .options import (
    Confidence,
    Device,
    Dtype,
    Extras,
    LibraryPaths,
    NameColumn,
    PackOption,
    Percentiles,
    Provider,
    SmilesColumn,
    Tasks,
    TimeLimit,
    Workers,
    split_names,
)
from .progress import Measured, print_summary, progress_bar


def screen(
    paths: LibraryPaths,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the run.")],
    pack: PackOption = "admet",
    tasks: Tasks = None,
    shard_format: Annotated[str, typer.Option("--format", metavar="parquet|csv", help="Shard format.")] = "parquet",
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of top.csv and of the report's table.")] = 100,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help="What top.csv is sorted by, the highest first: a task, or for example 'logS - 0.5 * logD'.",
            show_default="the first task",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="What rows of top.csv must meet: 'logS > -4 and bbb > 0.5'."),
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="Sort the lowest first.")] = False,
    unique: Annotated[bool, typer.Option("--unique", help="Keep only the best row of each molecule.")] = False,
    diverse: Annotated[
        bool,
        typer.Option("--diverse", help="Keep only hits that are not alike: a similarity of 0.5 or less."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR, if there is one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in DIR.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    dtype: Dtype = "auto",
    confidence: Confidence = 0.9,
    smiles_column: SmilesColumn = None,
    name_column: NameColumn = None,
    extras: Extras = False,
    percentiles: Percentiles = False,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Score only every N-th shard: one of N machines.", show_default="all")
    ] = "1/1",
    time_limit: TimeLimit = 30.0,
    engine: Annotated[
        str,
        typer.Option(
            metavar="auto|torch|onnx|ray",
            help="torch for a pack, onnx for an exported folder; ray: a pack on a Ray cluster.",
        ),
    ] = "auto",
    provider: Provider = "auto",
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address of the cluster: auto or HOST:PORT.", show_default="a local one"),
    ] = None,
) -> None:
    """Score a library of millions, with a fixed amount of memory.

    Writes DIR/part-00000.parquet and so on with a row for each row of the
    LIBRARY (row, name, smiles, the columns that `predict` writes, status,
    error), then DIR/top.csv, the best rows, and DIR/report.html. --resume
    continues an interrupted run, and its files are the same to the byte; --top,
    --by and --where may change between the two.

    \b
    Examples:
    mora-lite screen library.smi.gz -o run --tasks logS,BBB --by BBB --where 'logS > -4'
    mora-lite screen lib.parquet -o run --resume
    mora-lite screen 'zinc/*.sdf.zst' -o run --shard 2/8
    mora-lite screen 'zinc/*.smi.gz' -o run --engine ray --ray-address auto
    """
    from ..screening.campaign import screen_library

    with stopping(output) as count, progress_bar() as show:

        def on_progress(n_rows: int, library: Measured) -> None:
            count(n_rows)
            show(n_rows, library)

        summary = screen_library(
            paths,
            output,
            pack=pack,
            tasks=split_names(tasks),
            shard_format=shard_format,
            top=top,
            by=by,
            where=where,
            ascending=ascending,
            unique=unique,
            diverse=diverse,
            resume=resume,
            force=force,
            device=device,
            workers=workers,
            dtype=dtype,
            confidence=confidence,
            smiles_column=smiles_column,
            name_column=name_column,
            shard=shard,
            time_limit=time_limit,
            extras=extras,
            percentiles=percentiles,
            engine=engine,
            provider=provider,
            ray_address=ray_address,
            command=invocation.command_line(),
            on_note=print_note,
            on_progress=on_progress,
        )
    print_summary(summary.lines(str(output)), summary.counts)


@contextmanager
def stopping(output: Path) -> Iterator[Callable[[int], None]]:
    """When the block is interrupted, say what is kept and how to go on. Yields a function that takes the rows done."""
    n_done = 0

    def count(n_rows: int) -> None:
        nonlocal n_done
        n_done = n_rows

    try:
        yield count
    except (KeyboardInterrupt, SystemExit):
        words = [word for word in invocation.arguments if word not in ("--force", "--resume")]
        kept = f"{n_done:,} row{'s are' if n_done != 1 else ' is'} scored and kept in {output}"
        say_stopped(kept, shlex.join(["mora-lite", *words, "--resume"]))
        raise
