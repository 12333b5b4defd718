"""`mora-lite predict`: molecules in, the same molecules with predictions out."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..tables.source import STDIO, output_name
from .messages import print_note
from .options import (
    BatchSize,
    Confidence,
    Device,
    Dtype,
    Engine,
    Extras,
    Force,
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
from .progress import print_lines, progress_bar
from .tables import print_rows

if TYPE_CHECKING:
    from ..scoring.stream import AnswerColumns
    from ..scoring.tasks import Task
    from ..screening.model_choice import ModelChoice


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files of molecules (CSV, TSV, SMI, CXSMILES, SDF, Parquet, XLSX; plain, .gz, .bz2 or .zst), or "
            "SMILES; - is standard input.",
        ),
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write, by its ending: .csv, .tsv, .parquet, .xlsx or .sdf, text also .gz; - is standard "
            "output.",
            show_default="INPUT.predictions.csv and so on; of SMILES a table on standard output",
        ),
    ] = None,
    pack: PackOption = "admet",
    tasks: Tasks = None,
    short: Annotated[bool, typer.Option("--short", help="Leave out intervals and domain.")] = False,
    smiles_column: SmilesColumn = None,
    name_column: NameColumn = None,
    device: Device = "auto",
    workers: Workers = None,
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
    extras: Extras = False,
    percentiles: Percentiles = False,
    time_limit: TimeLimit = 30.0,
    force: Force = False,
) -> None:
    """Score every molecule of a file, or of the SMILES given.

    Writes one row for each row of INPUT, in order, with all its columns, then
    a column for each task: a value with its unit and interval (X_lo, X_hi),
    or the probability of a yes; then similarity to the nearest training
    molecule, in_domain, and outside: the tasks whose training molecules it is
    far from; with --neighbours the nearest training molecules, their similarity
    and what was measured for them; what --extras and --percentiles add; then
    status (ok, empty, unparsable, too_large, malformed, not_finite, timeout,
    crashed) and error. A bad molecule is a row with a status.

    Several files give a file each, or one with all rows where -o names it.

    \b
    Examples:
    mora-lite predict CCO 'c1ccccc1O' --tasks logS,logD
    mora-lite predict molecules.csv
    mora-lite predict library.sdf.gz --tasks homo,lumo -o out.xlsx
    cat molecules.csv | mora-lite predict - | head
    mora-lite predict molecules.csv --tasks logS --neighbours 3
    mora-lite predict molecules.csv --engine onnx --pack admet-onnx
    """
    from ..scoring.stream import AnswerColumns, predict_library
    from ..screening.model_choice import ModelChoice
    from ..tables.library import TypedSmiles, open_library, telling_notes

    choice = ModelChoice(pack, engine, provider, device, dtype, split_names(tasks), confidence)
    answers = AnswerColumns(
        n_neighbours=neighbours, short=short, batch_size=batch_size, extras=extras, percentiles=percentiles
    )
    smiles = typed_smiles(inputs, smiles_column, name_column)
    if smiles and output is None:
        print_answers(smiles, choice, answers)
        return
    load, failed = functools.cache(choice.load), False
    for paths, target in jobs_of(inputs, smiles, output, force):
        with (
            open_library(paths, smiles_column, name_column, cells=True) if paths else TypedSmiles(smiles) as library,
            progress_bar() as on_progress,
            telling_notes(library, print_note),
        ):
            summary = predict_library(
                library,
                target,
                answers,
                load,
                choice.source,
                workers=workers,
                time_limit=time_limit,
                force=force,
                on_note=print_note,
                on_progress=on_progress,
            )
        print_lines(summary.lines(output_name(target)))
        failed = failed or bool(summary.n_rows and not summary.n_ok)
    if failed:
        raise typer.Exit(1)


def typed_smiles(inputs: Sequence[str], *columns: str | None) -> list[str]:
    """`inputs` if they are SMILES, nothing if they are files. Raises `InputError` for a mixture, or for neither.

    What exists, or ends like a file, is a file.
    columns: that options ask for, which SMILES do not have.
    """
    from ..errors import InputError

    smiles = [text for text in inputs if not _is_file(text)]
    if smiles and len(smiles) < len(inputs):
        file = next(text for text in inputs if text not in smiles)
        raise InputError(f"{file!r} is a file and {smiles[0]!r} is taken as a SMILES: give files or SMILES, not both")
    if smiles and (column := next(filter(None, columns), None)):
        raise InputError(
            f"{smiles[0]!r} is taken as a SMILES, which has no column {column!r}: leave that option out, or name a file"
        )
    return smiles


def _is_file(text: str) -> bool:
    if text == STDIO or os.path.isfile(text) or _FILE_ENDING.search(text):
        return True
    from ..chem.molecules import parse_smiles
    from ..errors import InputError
    from ..status import OK

    if parse_smiles(text).status == OK:
        return False
    if os.path.exists(text) or glob.glob(text):
        return True
    if _ANY_ENDING.search(text):
        raise InputError(f"{text!r} is neither a file that exists nor a SMILES: check the name")
    return False


_FILE_ENDING = re.compile(
    r"\.(csv|tsv|tab|txt|dat|smi|smiles|ism|can|cxsmiles|sdf?|mol2?|parquet|xlsx?|xlsm|ods|json|gz|zst|bz2|xz|zip)$",
    re.IGNORECASE,
)
_ANY_ENDING = re.compile(r"\.[A-Za-z]\w{1,6}$")


def jobs_of(
    inputs: Sequence[str], smiles: Sequence[str], output: str | None, force: bool
) -> list[tuple[list[str], str]]:
    """Files to read, none for SMILES, and the file to write for each run. Raises `OutputError` before any work."""
    from ..errors import InputError
    from ..tables.formats import default_output
    from ..tables.library import expand_paths
    from ..tables.writers import claim_table

    files = [] if smiles else expand_paths(inputs)
    for path in files:
        if os.path.isdir(path):
            raise InputError(f"{path} is a directory: name a file in it")
    jobs = [(files, output)] if output is not None else [([path], default_output(path)) for path in files]
    targets, read = [target for _, target in jobs], set(map(os.path.realpath, files))
    for paths, target in jobs:
        # Not even the input of another job is replaced: it may come later, or have been made by hand.
        for source in [target if os.path.realpath(target) in read else None, *paths]:
            claim_table(target, source=source, force=force, molecules=True)
        if targets.count(target) > 1:
            raise InputError(f"several files want to be {target}: name one with -o, or predict them one by one")
    return jobs


def print_answers(smiles: Sequence[str], choice: ModelChoice, answers: AnswerColumns) -> None:
    """On stdout: a row for each task, a column for each molecule; in blocks that fit the terminal."""
    from rich.console import Console

    from ..status import OK

    model = choice.load()
    print_note(*model.featurizer.notes)
    scores = model.score(
        smiles, answers.batch_size, answers.n_neighbours, extras=answers.extras, percentiles=answers.percentiles
    )
    columns, console = answers.columns(scores, model.tasks), Console(highlight=False)
    ok = [i for i, status in enumerate(scores.status) if status == OK]
    n_beside = max(1, (console.width - _TASK_WIDTH) // (_CELL_WIDTH + 1))
    inside = None if answers.short else scores.inside
    for start in range(0, len(ok), n_beside):
        block = {i: f"{i + 1}: {smiles[i]}" for i in ok[start : start + n_beside]}
        heads = {i: text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 1]}…" for i, text in block.items()}
        rows: list[dict[str, str]] = []
        for k, task in enumerate(model.tasks):
            marks = {i: "*" if inside is not None and not inside[i, k] else " " for i in block}
            cells = {heads[i]: _answer(columns, task, i) + marks[i] for i in block}
            rows.append({"task": task.column, **cells})
        for name in columns:
            if name == "similarity" or name.startswith("neighbour_") or name in scores.beside:
                rows.append({"task": name, **{heads[i]: _show(columns[name][i]) for i in block}})
        print_rows(f"pack {choice.pack}", rows, console)
    if inside is not None and not inside[ok].all():
        print_note("* is far from the molecules that the task was trained on")
    print_lines([f"{smiles[i]}: {scores.status[i]}, {scores.error[i]}" for i in range(len(smiles)) if i not in ok])
    if not ok:
        raise typer.Exit(1)


def _answer(columns: Mapping[str, Any], task: Task, i: int) -> str:
    """A value with its interval, if it has one."""
    low, high = (columns.get(f"{task.name}_{end}") for end in ("lo", "hi"))
    interval = "" if low is None or high is None else f" [{low[i]:.3g}, {high[i]:.3g}]"
    return _show(columns[task.column][i]) + interval


def _show(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


_TASK_WIDTH, _CELL_WIDTH = 30, 24  # characters of a terminal
