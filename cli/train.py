"""`mora-lite train`: a table and a recipe in, a pack out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..train import Progress


def train(
    recipe_path: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="TOML file with tasks and settings; see examples/qm9.toml."),
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="Table with SMILES and targets: CSV, plain or .gz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new pack.")],
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN[:UNIT]", help="Without a recipe: a column to learn, with its unit; repeatable."),
    ] = None,
    smiles_column: Annotated[str | None, typer.Option(help="The SMILES column.", show_default="smiles")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: a name or a path.", show_default="smollm2-135m")] = None,
    pretrain_epochs: Annotated[int | None, typer.Option(min=1, help="Of the encoder alone.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the whole, with the frozen base.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Molecules in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of split, weights and order.")] = None,
    device: Device = "auto",
    unquantized: Annotated[
        bool, typer.Option("--unquantized", help="Leave the base as it is: to measure what 4 bits cost.")
    ] = False,
    share_upper: Annotated[
        bool, typer.Option("--share-upper", help="Keep the base's layers beside the pack, for several packs.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Train a pack: first the graph encoder alone, then MoRA on the frozen base.

    Started again with the same settings it goes on at its last checkpoint,
    which lies in OUTPUT.run. The base must have been pulled before.

    \b
    Examples:
    mora-lite train examples/qm9.toml --data qm9.csv.gz -o qm9
    mora-lite train --data my.csv --target logS:mol/L --epochs 20 -o mine
    """
    from ..device import choose_device
    from ..recipe import Recipe, TaskRecipe, read_recipe
    from ..training import train_pack

    if recipe_path is not None:
        if target:
            raise typer.BadParameter("the recipe names the tasks; leave --target out", param_hint="--target")
        recipe = read_recipe(recipe_path)
    elif target:
        tasks = tuple(TaskRecipe(t.partition(":")[0], unit=t.partition(":")[2]) for t in target)
        recipe = Recipe(output.name, tasks)
    else:
        raise typer.BadParameter("give a RECIPE, or at least one --target", param_hint="RECIPE")
    recipe = _override(recipe, smiles_column, base, pretrain_epochs, epochs, batch_size, seed)
    recipe = replace(recipe, four_bit=recipe.four_bit and not unquantized)
    where = choose_device(device)
    with _progress() as show:
        pack = train_pack(recipe, data, output, where, show, share_upper=share_upper, force=force)
    for name, row in pack.provenance["test"].items():
        error = f"{row['mae']:.4g} {row['unit']} (encoder alone {row['encoder_mae']:.4g})" if row["n"] else "unknown"
        typer.echo(f"{name}: test MAE {error}")


def _override(
    recipe: Recipe,
    smiles: str | None,
    base: str | None,
    pretrain_epochs: int | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
) -> Recipe:
    """The recipe with the options that were given in place of its entries."""

    def given(**entries: object) -> dict[str, object]:
        return {name: value for name, value in entries.items() if value is not None}

    stage = given(batch_size=batch_size, seed=seed)
    pretrain = replace(recipe.pretrain, **given(epochs=pretrain_epochs), **stage)  # type: ignore[arg-type]
    mora = replace(recipe.mora, **given(epochs=epochs), **stage)  # type: ignore[arg-type]
    split = replace(recipe.split, seed=seed) if recipe.split and seed is not None else recipe.split
    changed = given(smiles=smiles, base=base, seed=seed)
    return replace(recipe, pretrain=pretrain, mora=mora, split=split, **changed)  # type: ignore[arg-type]


@contextmanager
def _progress() -> Iterator[Callable[[str, Progress], None]]:
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
