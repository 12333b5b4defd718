"""`mora-lite explain`: which atoms made a value, as a table, a page or a drawing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..status import MAX_EXPLAINED, counted
from .messages import invocation, print_note, say
from .options import (
    Confidence,
    Device,
    Dtype,
    Engine,
    Force,
    NameColumn,
    PackOption,
    Provider,
    SmilesColumn,
    split_names,
)
from .predict import typed_smiles
from .progress import print_lines, show_work

if TYPE_CHECKING:
    from ..reports.explanation import Explained
    from ..scoring.predictor import Predictor
    from ..scoring.tasks import Task

PAGE_TASKS = 6  # shown on a page where none are named
NEIGHBOURS = 3  # likewise, where the pack holds its training molecules
FORMATS = (".csv", ".json", ".html", ".svg")


def explain(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help=f"SMILES, or files of molecules; at most {MAX_EXPLAINED} molecules."),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write, by its ending: .html a page, .csv, .json, .svg a drawing of one molecule and task.",
            show_default="a CSV on standard output",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "--tasks",
            "-t",
            metavar="A,B",
            help="Tasks of the pack.",
            show_default="all; on a page the first 6",
        ),
    ] = None,
    pack: PackOption = "admet",
    neighbours: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=20,
            metavar="N",
            help="Draw the N most similar training molecules on the page.",
            show_default=f"{NEIGHBOURS}, if the pack holds them",
        ),
    ] = None,
    smiles_column: SmilesColumn = None,
    name_column: NameColumn = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    provider: Provider = "auto",
    confidence: Confidence = 0.9,
    force: Force = False,
) -> None:
    """Show which atoms of a molecule raise a predicted value and which lower it.

    The molecule is built up from its groups and scored at each step; what an
    atom changes on average is its contribution. Contributions add up to the
    molecule's value minus that of methane: in the task's unit, for classes and
    percentages in log-odds, for values on a logarithmic scale in powers of ten.

    The table has a row for each atom as drawn; atoms of a counter-ion, which is
    not scored, have blanks. A page shows drawings, values, intervals, domain,
    percentiles among approved drugs and the nearest training molecules with
    their measured values.

    \b
    Examples:
    mora-lite explain 'CC(=O)Oc1ccccc1C(=O)O' --task logS
    mora-lite explain CCO 'c1ccccc1O' --task logS,BBB -o page.html
    mora-lite explain molecules.csv --task logS -o atoms.csv
    """
    from ..errors import InputError

    kind = _check_output(output, inputs[0], force)
    rows = list(_rows_of(typed_smiles(inputs, smiles_column, name_column), inputs, smiles_column, name_column))
    tasks = split_names(task)
    if kind == ".svg" and (len(rows) != 1 or tasks is None or len(tasks) != 1):
        raise InputError(f"-o {output}: a drawing is of one molecule for one task: give one SMILES and one --task")
    with show_work("loading the pack") as display:
        from ..reports.explanation import explain_molecule
        from ..screening.model_choice import ModelChoice

        model = ModelChoice(pack, engine, provider, device, dtype, tasks, confidence).load()
        shown = model.tasks if kind != ".html" or tasks else model.tasks[:PAGE_TASKS]
        if len(shown) < len(model.tasks):
            print_note(f"the page shows {len(shown)} of {len(model.tasks)} tasks: name others with --task")
        print_note(*model.featurizer.notes)
        near = _n_neighbours(model, neighbours) if kind == ".html" else None
        done: list[Explained] = []
        for row in rows:
            display.report("explaining", len(done), len(rows))
            done.append(explain_molecule(model, row, shown, near))
    n_explained = sum(row.explanation is not None for row in done)
    if _write(model, done, shown, output, kind):
        say(f"{output}: {counted(n_explained, 'molecule')}, {counted(len(shown), 'task')}")
    print_lines([row.failure for row in done if row.error])
    if not n_explained:
        raise typer.Exit(1)


def _check_output(output: Path | None, source: str, force: bool) -> str:
    """The ending of the output, `.csv` for standard output. Raises an error before any work."""
    from ..errors import InputError
    from ..tables.writers import claim_output

    kind = ".csv" if output is None else output.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"-o {output}: got the ending {kind or 'none'!r}, expected {', '.join(FORMATS)}")
    if output is not None:
        claim_output(output, source=source, force=force)
    return kind


def _rows_of(
    smiles: Sequence[str], inputs: Sequence[str], smiles_column: str | None, name_column: str | None
) -> Iterator[tuple[int, str, str]]:
    """Number from 1, name and text of each molecule. Raises `InputError` for more than `MAX_EXPLAINED`, or none."""
    from ..errors import InputError
    from ..tables.library import TypedSmiles, open_library

    with TypedSmiles(smiles) if smiles else open_library(inputs, smiles_column, name_column) as library:
        window = next(library.windows(MAX_EXPLAINED + 1), None)
        records = window.records if window else []
    print_note(*library.notes)
    if not records:
        raise InputError("got no molecule, expected one or more SMILES")
    if len(records) > MAX_EXPLAINED:
        raise InputError(f"got more than {MAX_EXPLAINED} molecules: explain those that matter, for example top.csv's")
    yield from ((i, record.name, record.text) for i, record in enumerate(records, 1))


def _n_neighbours(model: Predictor, wanted: int | None) -> int:
    """As many as there are; without a wish a pack that does not hold its training molecules has a page all the same."""
    from ..errors import PackError

    try:
        return min(NEIGHBOURS if wanted is None else wanted, len(model.training)) if wanted != 0 else 0
    except PackError as error:
        if wanted is not None:
            raise
        print_note(str(error))
        return 0


def _write(model: Predictor, rows: Sequence[Explained], tasks: Sequence[Task], output: Path | None, kind: str) -> bool:
    """Returns whether there is a file."""
    from ..machine.files import replacing

    if output is None:
        typer.echo("\n".join(_table(rows, tasks)))
        return False
    if kind == ".csv":
        text = "".join(f"{line}\n" for line in _table(rows, tasks))
    elif kind == ".json":
        text = json.dumps([_entry(row) for row in rows], indent=1) + "\n"
    elif kind == ".svg":
        (row,) = rows
        if row.explanation is None:
            return False
        text = row.explanation.to_svg() + "\n"
    else:
        from ..reports.explanation import explanation_page

        text = explanation_page(model, rows, tasks, invocation.command_line())
    with replacing(output) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    return True


def _table(rows: Sequence[Explained], tasks: Sequence[Task]) -> list[str]:
    """A CSV: a row for each atom, one for a molecule without."""
    from ..tables.formats import csv_lines

    lines = [["row", "name", "smiles", "atom", "symbol", *(task.name for task in tasks), "status", "error"]]
    for row in rows:
        head, tail = [str(row.row), row.name, row.smiles], [row.status, row.error]
        if row.explanation is None:
            lines.append([*head, "", "", *("" for _ in tasks), *tail])
            continue
        atoms, symbols, *columns = row.explanation.columns().values()
        for i, symbol in zip(atoms, symbols, strict=True):
            cells = ["" if column[i] != column[i] else f"{column[i]:.6g}" for column in columns]
            lines.append([*head, str(i + 1), symbol, *cells, *tail])
    return csv_lines(lines)


def _entry(row: Explained) -> dict[str, Any]:
    from ..tables.parquet import utf8

    texts = {"name": row.name, "smiles": row.smiles, "status": row.status, "error": row.error}
    head = {"row": row.row} | {key: utf8(text) for key, text in texts.items()}
    return head | (row.explanation.as_dict() if row.explanation else {})
