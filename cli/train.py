"""`mora-lite train`: a table in, a pack out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Device

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..splits import Split
    from ..train import Progress


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Table with SMILES and targets: CSV, plain or .gz.")],
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
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="TOML file with tasks and settings; see examples/qm9.toml.")
    ] = None,
    smiles_column: Annotated[str | None, typer.Option(help="The SMILES column.", show_default="smiles")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="random, scaffold, or the name of a column that says train, valid or test.",
            show_default="random",
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model: a name or a path.", show_default="smollm2-135m")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="What the encoder starts from: pretrained, random, or a file of `mora-lite pretrain`.",
            show_default="pretrained",
        ),
    ] = None,
    encoder_epochs: Annotated[int | None, typer.Option(min=1, help="Of the encoder alone.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the whole, with the frozen base.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without progress before a stage stops; 0 for never.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Molecules in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of split, weights and order.")] = None,
    device: Device = "auto",
    unquantized: Annotated[
        bool, typer.Option("--unquantized", help="Leave the base as it is: to measure what 4 bits cost.")
    ] = False,
    share_upper: Annotated[
        bool, typer.Option("--share-upper", help="Keep the base's layers beside the pack, for several packs.")
    ] = False,
    drop_baseline: Annotated[
        bool, typer.Option("--drop-baseline", help="Keep the encoder alone out of the pack; its figures stay.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Train a pack: first the graph encoder alone, then MoRA on the frozen base.

    Blank cells are missing values; several targets may have gaps. What is odd
    about the table (unreadable rows, duplicates, rare classes) is told on
    stderr. The pack holds a README.md with the test figures.

    Started again with the same settings it goes on at its last checkpoint,
    which lies in OUTPUT.run. The base must have been pulled before.

    \b
    Examples:
    mora-lite train my.csv --target logS:mol/L -o mine
    mora-lite train my.csv -t active -t IC50:nM --split scaffold -o mine
    mora-lite train qm9.csv.gz --recipe examples/qm9.toml -o qm9
    """
    from ..device import choose_device
    from ..recipe import Recipe, read_recipe
    from ..training import train_pack
    from .evaluate import print_evaluation

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
            data,
            output,
            where,
            show,
            on_note,
            share_upper=share_upper,
            keep_baseline=not drop_baseline,
            force=force,
        )
    print_evaluation(pack.provenance["test"])


def _task(text: str) -> Any:
    """`COLUMN`, `COLUMN:UNIT`, `COLUMN:class` or `COLUMN:value`."""
    from ..recipe import TaskRecipe
    from ..tasks import KINDS

    column, _, rest = text.rpartition(":") if ":" in text else (text, "", "")
    return TaskRecipe(column, kind=rest) if rest in KINDS else TaskRecipe(column, unit=rest)


def _split(plan: Recipe, kind: str | None, seed: int | None) -> Split | None:
    """The recipe's split, or the one that the options ask for; sizes are left to the recipe's default."""
    from ..splits import KINDS, Split

    if kind is None:
        return replace(plan.split, seed=seed) if plan.split and seed is not None else plan.split
    seed = plan.seed if seed is None else seed
    if kind in KINDS and kind != "given":
        return Split(seed, kind=kind)
    return Split(seed, kind="given", column=kind)


def _given(**entries: object) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name, value in entries.items() if value is not None}


@contextmanager
def show_progress() -> Iterator[Callable[[str, Progress], None]]:
    """A line on stderr for each epoch; on a terminal, a bar below them that moves within the epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, highlight=False)
    fields = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Bar(*fields, console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("reading", total=None, text="")

        def show(stage: str, at: Progress) -> None:
            minutes, seconds = divmod(round(at.seconds_left), 60)
            text = f"loss {at.loss:.4f}  {at.mol_per_s:,.0f} mol/s  {minutes}:{seconds:02} left"
            bar.update(job, description=stage, total=at.n_steps, completed=at.step, text=text)
            if at.epoch_done:
                step = f"{at.step:>6}/{at.n_steps}"
                console.print(f"{stage:7} step {step}  valid {at.valid_error:.4f}  {text}", soft_wrap=True)

        yield show
