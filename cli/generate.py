"""`mora-lite generate`: a table of molecules in, the same table with answers in text out."""

from __future__ import annotations

from typing import Annotated

import typer

from ..status import counted
from .completion import complete_text_packs, complete_text_tasks
from .messages import print_note
from .options import Device, Dtype, Force, SmilesColumn, TextPackBase
from .progress import print_summary, progress_bar, show_work


def generate(
    table_path: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Table of molecules, or of sets of them joined by dots: CSV, plain or .gz; - is standard input.",
        ),
    ],
    *,
    pack: Annotated[
        str,
        typer.Option(
            "--pack",
            "-p",
            metavar="PACK",
            help="A text pack: reactions, a directory, or hf:owner/name.",
            autocompletion=complete_text_packs,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; - is standard output.",
            show_default="INPUT.answers.csv",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            autocompletion=complete_text_tasks,
            help="describe, forward, retro, reagents or ask: what the pack must be for.",
            show_default="that of the pack",
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(help="What to ask about each molecule, for the task ask.", show_default="column question"),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Answers of each row, all different, the likeliest first.")
    ] = 1,
    beams: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Width of the search; 1 is greedy.", show_default="as --top")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, metavar="T", help="Sample the answers; 0 is greedy, 1 is as learnt.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(metavar="P", help="Sample from the likeliest tokens, up to a probability of P.", show_default="1"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.", show_default="0")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, metavar="N", help="Largest number of tokens of an answer.")
    ] = 256,
    base: TextPackBase = None,
    smiles_column: SmilesColumn = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Rows at a time.")] = 32,
    device: Device = "auto",
    dtype: Dtype = "auto",
    force: Force = False,
) -> None:
    """Answer in text: products, reactants, reagents, descriptions.

    A text pack is an adapter for a base model, which is fetched separately
    (mora-lite pull). Writes one row for each row of INPUT, in order, with all
    its columns, then product, reactants, reagents, description or answer
    (with --top 3 also product_2 and product_3), status and error. Products,
    reactants and reagents are canonical SMILES; where no answer is one that
    RDKit reads, status is no_molecule. A row does not depend on the others:
    its samples depend on --seed and its own question alone.

    \b
    Examples:
    mora-lite generate examples/reactions.csv --pack reactions
    mora-lite generate molecules.csv --pack ./retro --top 5 --beams 10
    mora-lite generate molecules.csv -p ./retro --top 5 --temperature 1 --seed 7
    mora-lite generate molecules.csv --pack ./asked --question "Is it an acid?"
    """
    from ..errors import InputError
    from ..machine.device import choose_device, choose_dtype
    from ..tables.table import open_table
    from ..tables.writers import TableWriter
    from ..text.pack import load_text_pack, open_text_pack
    from ..text.stream import GenerationConfig, answer_columns, answer_table, question_of_table
    from ..text.tasks import text_task

    opened = open_text_pack(pack)
    if task is not None and task != opened.task:
        raise InputError(f"task: got {task}, but {pack} is for {opened.task}; leave --task out or give another pack")
    if temperature is None and (top_p is not None or seed is not None):
        raise InputError("top-p and seed: only sampled answers have them; give a --temperature too")
    kind = text_task(opened.task)
    with open_table(table_path, smiles_column) as table:
        table_question, notes = question_of_table(table, opened.task, question)
        config = GenerationConfig(
            kind.column,
            kind.of_molecules,
            top,
            beams or (1 if temperature else top),
            max_new_tokens,
            batch_size,
            temperature or 0.0,
            1.0 if top_p is None else top_p,
            seed or 0,
            table_question,
        )
        target = claim_answers(table_path, output, force)
        for note in [*table.notes, *notes, *opened.featurizer.notes]:
            print_note(note)
        with show_work(f"loading {pack}"):
            chosen = choose_device(device)
            answerer = load_text_pack(opened, base=base, device=chosen, dtype=choose_dtype(dtype, chosen))
        with (
            TableWriter(target, answer_columns(table.columns, config), source=table_path, force=force) as writer,
            progress_bar(table) as on_progress,
        ):
            summary = answer_table(table, writer, answerer, config, on_progress)
    rows, rate = counted(summary.n_rows, "row"), f"{summary.mol_per_s:,.1f} rows/s"
    line = f"{writer.name}: {rows}, {summary.n_ok:,} ok, {summary.seconds:.1f} s ({rate})"
    print_summary([line, *summary.failures()], summary)


def claim_answers(table_path: str, output: str | None, force: bool) -> str:
    """The file of the answers. Raises `OutputError` before the work where it cannot be written."""
    from ..tables.formats import default_output
    from ..tables.writers import claim_table

    target = output or default_output(table_path, "answers")
    claim_table(target, source=table_path, force=force)
    return target
