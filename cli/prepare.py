"""`mora-lite prepare`: a library of molecules in, their graphs and fingerprints out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .options import LibraryPaths, NameColumn, SmilesColumn, TimeLimit, Workers
from .progress import progress_bar

if TYPE_CHECKING:
    from ..tables.prepared import Prepared


def prepare(
    paths: LibraryPaths,
    *,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write: a Parquet file.")],
    smiles_column: SmilesColumn = None,
    name_column: NameColumn = None,
    workers: Workers = None,
    time_limit: TimeLimit = 30.0,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Make the graphs and fingerprints of a library once, to be scored often.

    Parsing takes longer than scoring on a fast device. The file written has
    a row for each row of the LIBRARY, in order, some 80 bytes each; a bad
    molecule is a row with a status. It fits this version's graphs, whatever
    the pack.

    \b
    Examples:
    mora-lite prepare enamine.smi.gz -o enamine.parquet
    mora-lite prepare 'zinc/*.sdf.zst' --name-column zinc_id -o zinc.parquet
    """
    from ..machine.workers import WorkerPool, default_workers
    from ..screening.shards import from_stream, make_preparer
    from ..tables.library import Window, open_library
    from ..tables.prepared import from_arrow
    from ..tables.prepared_files import PreparedWriter, prepare_library

    with open_library(paths, smiles_column, name_column) as library:
        for note in library.notes:
            typer.echo(f"note: {note}", err=True)
        with (
            PreparedWriter(output, library.files, force=force) as writer,
            WorkerPool[Window, bytes](workers or default_workers(), make_preparer, (), time_limit) as pool,
            progress_bar(library) as on_progress,
        ):

            def prepared(_: object, windows: Iterator[Window]) -> Iterator[Prepared]:
                return (from_arrow(from_stream(data)) for data in pool.results(windows))

            summary = prepare_library(library, writer, map=prepared, on_progress=on_progress)
    size = os.path.getsize(output)
    typer.echo(
        f"{output}: {summary.n_rows:,} rows, {summary.n_ok:,} ok, {summary.seconds:.1f} s "
        f"({summary.mol_per_s:,.0f} molecules/s), {size / max(summary.n_rows, 1):,.0f} bytes a row",
        err=True,
    )
    for line in summary.failures():
        typer.echo(line, err=True)
    if summary.n_rows and not summary.n_ok:
        raise typer.Exit(1)
