"""`mora-lite prepare`: a library of molecules in, their graphs and fingerprints out."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..status import counted
from .completion import complete_packs
from .messages import print_note
from .options import Force, LibraryPaths, NameColumn, SmilesColumn, TimeLimit, Workers
from .progress import print_summary, progress_bar, show_work


def prepare(
    paths: LibraryPaths,
    *,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write: a Parquet file.")],
    pack: Annotated[
        str | None,
        typer.Option(
            metavar="PACK",
            help="A pack that is to score it: its way of reading molecules is taken.",
            show_default="admet",
            autocompletion=complete_packs,
        ),
    ] = None,
    smiles_column: SmilesColumn = None,
    name_column: NameColumn = None,
    workers: Workers = None,
    time_limit: TimeLimit = 30.0,
    force: Force = False,
) -> None:
    """Make the graphs and fingerprints of a library once, to be scored often.

    Parsing takes longer than scoring on a fast device. The file written has
    a row for each row of the LIBRARY, in order, some 80 bytes each; a bad
    molecule is a row with a status. It serves all packs that read molecules
    as PACK does (see `mora-lite info`).

    \b
    Examples:
    mora-lite prepare enamine.smi.gz -o enamine.parquet
    mora-lite prepare 'zinc/*.sdf.zst' --name-column zinc_id -o zinc.parquet
    """
    from ..chem.featurizer import Featurizer
    from ..tables.prepared_files import prepare_library

    featurizer = Featurizer()
    if pack is not None:
        with show_work(f"loading {pack}"):
            from ..packs.pack import open_pack  # imports torch

            featurizer = open_pack(pack).featurizer
    with progress_bar() as on_progress:
        summary = prepare_library(
            paths,
            output,
            featurizer=featurizer,
            smiles_column=smiles_column,
            name_column=name_column,
            workers=workers,
            time_limit=time_limit,
            force=force,
            on_note=print_note,
            on_progress=on_progress,
        )
    line = (
        f"{output}: {counted(summary.n_rows, 'row')}, {summary.n_ok:,} ok, {summary.seconds:.1f} s "
        f"({summary.mol_per_s:,.0f} molecules/s), {os.path.getsize(output) / max(summary.n_rows, 1):,.0f} bytes a row"
    )
    print_summary([line, *summary.failures()], summary)
