"""`mora-lite train`: a table in, a pack out; or tables of texts in, a text pack out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Device, refuse
from .progress import show_progress

if TYPE_CHECKING:
    from ..text.loop import TextProgress
    from ..training.recipe import Recipe
    from ..training.splits import Split

VALUES, TEXT = "Packs of values", "Packs that answer in text, with --task"  # panels of the help


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA", help="Table with SMILES and targets: CSV, plain or .gz; one or more with --task."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new pack.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="COLUMN[:UNIT]",
            help="A column to learn; repeatable. Nothing but 0 and 1 (or yes and no) is a class, all else a value; "
            "COLUMN:value and COLUMN:class decide it.",
            rich_help_panel=VALUES,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="TOML file with tasks and settings; see examples/qm9.toml.", rich_help_panel=VALUES
        ),
    ] = None,
    smiles_column: Annotated[
        str | None, typer.Option(help="The SMILES column.", show_default="smiles", rich_help_panel=VALUES)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="random, scaffold, or the name of a column that says train, valid or test. With --task such a "
            "column; else held out by product or molecule.",
            show_default="random",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="What to answer: forward, retro, reagents, describe or ask.", rich_help_panel=TEXT),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="M", help="Budget of training.", show_default="10", rich_help_panel=TEXT),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter",
            help="mora; static (LoRA of equal rank), static-large (of equal size), prompt (static with "
            "soft tokens made of the graph).",
            show_default="mora",
            rich_help_panel=TEXT,
        ),
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option(
            "--target-modules",
            metavar="NAMES",
            help="Where a layer is adapted, some of q,k,v,o (attention) and ffn (the feed-forward block).",
            show_default="ffn",
            rich_help_panel=TEXT,
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="NUMBERS",
            help="Adapted layers, counted from 0, like 0,5 or 20-29.",
            show_default="all",
            rich_help_panel=TEXT,
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", min=1, metavar="R", help="Of the adapter.", show_default="64", rich_help_panel=TEXT),
    ] = None,
    copies: Annotated[
        int | None,
        typer.Option(
            "--copies",
            min=1,
            metavar="N",
            help="Orders in which a row's SMILES are written.",
            show_default="6",
            rich_help_panel=TEXT,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model: a name known to pull, a path, or owner/name.", show_default="smollm2-135m"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="What the encoder starts from: pretrained, random, or a file of `mora-lite pretrain`.",
            show_default="pretrained",
            rich_help_panel=VALUES,
        ),
    ] = None,
    encoder_epochs: Annotated[
        int | None, typer.Option(min=1, help="Of the encoder alone.", rich_help_panel=VALUES)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of the whole, with the frozen base.", rich_help_panel=VALUES)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=0, help="Epochs without progress before a stage stops; 0 for never.", rich_help_panel=VALUES),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Molecules in a step.", rich_help_panel=VALUES)] = None,
    seed: Annotated[int | None, typer.Option(help="Of split, weights and order.")] = None,
    device: Device = "auto",
    unquantized: Annotated[
        bool,
        typer.Option(
            "--unquantized", help="Leave the base as it is: to measure what 4 bits cost.", rich_help_panel=VALUES
        ),
    ] = False,
    share_upper: Annotated[
        bool,
        typer.Option(
            "--share-upper", help="Keep the base's layers beside the pack, for several packs.", rich_help_panel=VALUES
        ),
    ] = False,
    drop_baseline: Annotated[
        bool,
        typer.Option(
            "--drop-baseline", help="Keep the encoder alone out of the pack; its figures stay.", rich_help_panel=VALUES
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Train a pack: first the graph encoder alone, then MoRA on the frozen base.

    Blank cells are missing values; several targets may have gaps. What is odd
    about the table (unreadable rows, duplicates, rare classes) is told on
    stderr. The pack holds a README.md with the test figures.

    With --task the pack answers in text: an adapter over a base that stays
    apart. The tables need the columns reactants (reagents) and product, for
    reagents reactants and reagents, for describe smiles and description, for
    ask smiles, question and answer.

    Started again with the same settings it goes on at its last checkpoint,
    which lies in OUTPUT.run. The base must have been pulled before.

    \b
    Examples:
    mora-lite train my.csv --target logS:mol/L -o mine
    mora-lite train my.csv -t active -t IC50:nM --split scaffold -o mine
    mora-lite train qm9.csv.gz --recipe examples/qm9.toml -o qm9
    mora-lite train reactions.csv.gz --task forward --minutes 25 -o forward
    """
    of_values = {
        "--target": target,
        "--recipe": recipe,
        "--smiles-column": smiles_column,
        "--start": start,
        "--encoder-epochs": encoder_epochs,
        "--epochs": epochs,
        "--patience": patience,
        "--batch-size": batch_size,
        "--unquantized": unquantized or None,
        "--share-upper": share_upper or None,
        "--drop-baseline": drop_baseline or None,
    }
    of_text = {
        "--minutes": minutes,
        "--adapter": adapter,
        "--rank": rank,
        "--target-modules": target_modules,
        "--layers": layers,
        "--copies": copies,
    }
    if task is not None:
        refuse(of_values, "is for packs of values; leave it out, or leave --task out")
        numbers = None if layers is None else _layers(layers)
        modules = None if target_modules is None else tuple(target_modules.split(","))
        own = _given(base=base, variant=adapter, rank=rank, target_modules=modules, layers=numbers, copies=copies)
        _train_text(task, data, output, split, 10 if minutes is None else minutes, seed or 0, device, force, own)
        return
    refuse(of_text, "is for packs that answer in text; give a --task too, or leave it out")
    if len(data) > 1:
        refuse({"DATA": data}, f"got {len(data)} tables, expected one; several are for --task")
    from ..machine.device import choose_device
    from ..training.pipeline import train_pack
    from ..training.recipe import Recipe, read_recipe
    from .tables import print_evaluation

    if recipe is not None:
        if target:
            raise typer.BadParameter("the recipe names the tasks; leave --target out", param_hint="--target")
        plan = read_recipe(recipe)
    elif target:
        plan = Recipe(output.name, tuple(_task(text) for text in target))
    else:
        raise typer.BadParameter("name at least one column to learn, or give a --recipe", param_hint="--target")
    stage = _given(batch_size=batch_size, seed=seed, patience=patience)
    plan = replace(
        plan,
        encoder=replace(plan.encoder, **_given(epochs=encoder_epochs), **stage),
        mora=replace(plan.mora, **_given(epochs=epochs), **stage),
        split=_split(plan, split, seed),
        four_bit=plan.four_bit and not unquantized,
        **_given(smiles=smiles_column, base=base, seed=seed, start=start),
    )

    def on_note(note: str) -> None:
        typer.echo(f"note: {note}", err=True)

    where = choose_device(device)
    with show_progress() as show:
        pack = train_pack(
            plan,
            data[0],
            output,
            where,
            show,
            on_note,
            share_upper=share_upper,
            keep_baseline=not drop_baseline,
            force=force,
        )
    print_evaluation(pack.provenance["test"])


def _train_text(
    task: str,
    tables: list[Path],
    output: Path,
    split: str | None,
    minutes: float,
    seed: int,
    device: str,
    force: bool,
    options: dict[str, Any],
) -> None:
    """A text pack, and its figures on stdout."""
    from rich.console import Console

    from ..errors import InputError
    from ..machine.device import choose_device
    from ..text.evaluation import rows_of_figures
    from ..text.loop import TextTrainConfig
    from ..text.pipeline import train_text_pack
    from ..training.splits import KINDS
    from .tables import print_rows

    if split in KINDS:
        raise InputError(f"--split: got {split}, but --task holds out by product or molecule; or name a column")
    if not minutes > 0:
        raise InputError(f"--minutes: got {minutes}; expected more than 0")
    settings = TextTrainConfig(seconds=60 * minutes, seed=seed)

    def show(at: TextProgress) -> None:
        left = max(0, round(settings.seconds - at.seconds))
        typer.echo(
            f"step {at.step:>6,}  epoch {at.epoch}  loss {at.loss:.4f}  {at.tokens_per_s:,.0f} tokens/s  "
            f"{left // 60}:{left % 60:02} left",
            err=True,
        )

    pack = train_text_pack(
        task,
        tables,
        output,
        choose_device(device),
        settings=settings,
        split_column=split,
        force=force,
        tell=lambda line: typer.echo(f"note: {line}", err=True),
        on_progress=show,
        **options,
    )
    if figures := pack.manifest["provenance"]["test"]:
        print_rows(f"{task}, test rows", rows_of_figures(figures), Console(highlight=False))


def _layers(text: str) -> tuple[int, ...]:
    """`0,5` or `20-29`, or both, as numbers."""
    from ..errors import InputError

    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise InputError(f"--layers: got {text!r}; expected numbers and ranges of them, like 0,5 or 20-29")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _task(text: str) -> Any:
    """`COLUMN`, `COLUMN:UNIT`, `COLUMN:class` or `COLUMN:value`."""
    from ..scoring.tasks import KINDS
    from ..training.recipe import TaskRecipe

    column, _, rest = text.rpartition(":") if ":" in text else (text, "", "")
    return TaskRecipe(column, kind=rest) if rest in KINDS else TaskRecipe(column, unit=rest)


def _split(plan: Recipe, kind: str | None, seed: int | None) -> Split | None:
    """The recipe's split, or the one that the options ask for; sizes are left to the recipe's default."""
    from ..training.splits import KINDS, Split

    if kind is None:
        return replace(plan.split, seed=seed) if plan.split and seed is not None else plan.split
    seed = plan.seed if seed is None else seed
    if kind in KINDS and kind != "given":
        return Split(seed, kind=kind)
    return Split(seed, kind="given", column=kind)


def _given(**entries: object) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in entries.items() if value is not None}
