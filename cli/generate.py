"""`mora-lite generate`: a table of molecules in, the same table with answers in text out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..status import counted
from .completion import complete_text_packs
from .messages import keeping, print_note
from .options import Device, Dtype, Force, SmilesColumn, TextPackBase, TextPackTask
from .predict import typed_smiles
from .progress import print_summary, progress_bar, show_work

if TYPE_CHECKING:
    from ..tables.library import Library, TypedSmiles
    from ..text.answerer import Answerer
    from ..text.pack import TextPack


def generate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Molecules, or sets of them joined by dots, or reactions: a table, a list, SDF, Parquet, or SMILES "
            "that are typed; - is standard input.",
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
    ] = "reactions",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; - is standard output.",
            show_default="INPUT.answers.csv; - for typed SMILES",
        ),
    ] = None,
    task: TextPackTask = None,
    question: Annotated[
        str | None,
        typer.Option(
            help="What to ask about each row, for the task ask; {NAME} is the cell of a column.",
            show_default="column question",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Answers of each row, all different, the likeliest first.")
    ] = 1,
    beams: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Width of the search; 1 is greedy.",
            show_default="as --top; at least 5 for reactants and reagents",
        ),
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
        int | None,
        typer.Option(
            "--max-tokens", min=1, metavar="N", help="Largest number of tokens of an answer.", show_default="256"
        ),
    ] = None,
    spellings: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ask in N other orders of atoms too, which vote.")
    ] = 0,
    short: Annotated[bool, typer.Option("--short", help="Leave out probabilities and checks.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the reactions drawn (.html).")
    ] = None,
    base: TextPackBase = None,
    smiles_column: SmilesColumn = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Rows at a time.")] = 32,
    device: Device = "auto",
    dtype: Dtype = "auto",
    force: Force = False,
) -> None:
    """Answer in text: products, reactants, reagents, descriptions.

    A text pack is an adapter for a base model, which is fetched the first
    time. Writes one row for each row of INPUT, in order, with all its columns,
    then product, reactants, reagents, description or answer (with --top 3 also
    product_2 and product_3), probability, checks, status and error. balanced:
    no atom of the product comes from nowhere. round_trip: the reactants give
    the product back. Where no answer is one that RDKit reads, status is
    no_molecule. A row does not depend on the others.

    \b
    Examples:
    mora-lite generate examples/reactions.csv
    mora-lite generate 'CC(=O)Cl.NCc1ccccc1'
    mora-lite generate --task reagents 'Nc1ccccc1>>CC(=O)Nc1ccccc1'
    mora-lite generate molecules.csv --task retro --top 5 --report routes.html
    mora-lite generate molecules.csv -p ./retro --top 5 --temperature 1 --seed 7
    mora-lite generate molecules.csv --pack ./asked --question "Is it an acid?"
    """
    from ..tables.library import telling_notes
    from ..tables.source import STDIO, output_name
    from ..text.pack import open_text_pack
    from ..text.report import AnswersReport
    from ..text.stream import GenerationConfig, answer_table

    opened = open_text_pack(pack)
    with (
        open_input(inputs, smiles_column, opened.questions.of_reactions) as table,
        telling_notes(table, print_note),
    ):
        config, notes = GenerationConfig.of(
            opened.questions,
            table.columns,
            None if smiles_column else table.smiles_index,
            task=task,
            question=question,
            top=top,
            beams=beams or 0,
            batch_size=batch_size,
            **sampling(temperature, top_p, seed),
            spellings=spellings,
            short=short,
        )
        target = claim_answers(inputs[0] if table.files else None, output, report, force)
        print_note(*notes, *opened.featurizer.notes)
        answerer, page = load(opened, pack, base, device, dtype), AnswersReport(report)
        config = replace(config, max_new_tokens=max_new_tokens or answerer.long_answer)
        kept = f"the rows that are answered are kept beside {target}"
        with nullcontext() if target == STDIO else keeping(kept, Path(target)), progress_bar(table) as advance:
            summary = answer_table(
                table, target, answerer, config, force=force, on_note=print_note, on_progress=advance, on_rows=page.add
            )
    written = output_name(target)
    page.write({"Pack": pack, "Input": ", ".join(inputs), "Answers": written}, summary)
    before = f", {counted(table.n_kept, 'row')} kept from before" if table.n_kept else ""
    counts = f"{counted(summary.n_rows, 'row')}, {summary.n_ok:,} ok{before}, {summary.seconds:.1f} s"
    rate = (summary.n_rows - table.n_kept) / summary.seconds if summary.seconds else 0.0
    beside = f", report {report}" if report else ""
    print_summary([f"{written}: {counts} ({rate:,.1f} rows/s){beside}", *summary.failures()], summary)


def sampling(temperature: float | None, top_p: float | None, seed: int | None) -> dict[str, Any]:
    """The three as `GenerationConfig` takes them. Raises `InputError` for those without a temperature."""
    from ..errors import InputError

    if temperature is None and (top_p is not None or seed is not None):
        raise InputError("top-p and seed: only sampled answers have them; give a --temperature too")
    return {"temperature": temperature or 0.0, "top_p": 1.0 if top_p is None else top_p, "seed": seed or 0}


def open_input(inputs: list[str], smiles_column: str | None, of_reactions: bool) -> Library | TypedSmiles:
    """A file of molecules, or of reactions, or the SMILES that were typed. Raises `InputError` for several files."""
    from ..errors import InputError
    from ..tables.library import TypedSmiles, open_library
    from ..text.tasks import REACTION_COLUMNS

    typed, expected = typed_smiles(inputs, smiles_column), REACTION_COLUMNS if of_reactions else ()
    if typed:
        return TypedSmiles(typed)
    if len(inputs) > 1:
        raise InputError(f"got {len(inputs)} files, expected one, or SMILES: give one file after the other")
    return open_library(inputs[0], smiles_column, cells=True, expected=expected)


def load(opened: TextPack, pack: str, base: str | None, device: str, dtype: str) -> Answerer:
    """The model of a pack, with a note where its base is fetched first."""
    from ..text.pack import load_text_pack

    with show_work(f"loading {pack}"):
        return load_text_pack(opened, base=base, device=device, dtype=dtype, on_note=print_note)


def claim_answers(source: str | None, output: str | None, report: Path | None, force: bool) -> str:
    """The file of the answers; standard output for SMILES that are typed, which have no source.

    Raises `OutputError` before the work where it or the report cannot be written.
    """
    from ..tables.formats import default_output
    from ..tables.source import STDIO
    from ..tables.writers import claim_output, claim_table

    default = STDIO if source is None else default_output(source, "answers")
    if default.removesuffix(".gz").endswith(".sdf"):  # a record of an SDF is one molecule, an answer another
        default = f"{default.removesuffix('.gz').removesuffix('.sdf')}.csv"
    target = output or default
    claim_table(target, source=source, force=force)
    if report is not None:
        claim_output(report, source=source, force=force)
    return target
