"""`mora-lite train`: a table in, a pack out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .messages import keeping, print_note, say
from .options import Device, Force, SmilesColumn, path_as_pack
from .progress import show_work


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Molecules with targets: a file that predict reads.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory of the new pack.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="COLUMN[:UNIT]",
            help="A column to learn; repeatable. Nothing but 0 and 1 (or yes and no) is a class, anything else a "
            "value; COLUMN:value and COLUMN:class override this.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", metavar="FILE", help="TOML file with tasks and settings; see examples/qm9.toml."
        ),
    ] = None,
    smiles_column: SmilesColumn = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="random, scaffold, or the name of a column that says train, valid or test.",
            show_default="random",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Base model: a name known to pull, a path, or owner/name.",
            show_default="smollm2-135m",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="START",
            help="What the encoder starts from: endpoints, structures, random, or a file of `mora-lite pretrain`.",
            show_default="endpoints",
        ),
    ] = None,
    standardize: Annotated[
        str | None,
        typer.Option(
            metavar="parent|none",
            help="Take the largest organic fragment, neutralised, or the molecule as it is drawn.",
            show_default="parent",
        ),
    ] = None,
    trees: Annotated[
        bool,
        typer.Option("--trees", help="Average with boosted trees on descriptors: better, but slow to predict."),
    ] = False,
    encoder_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the encoder alone.", show_default="30, 15 for large tables")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of the whole, with the frozen base.", show_default="12, 6 for large tables"),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without progress before a stage stops; 0 for never.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Molecules in a training step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, weights and order.")] = None,
    device: Device = "auto",
    unquantized: Annotated[
        bool, typer.Option("--unquantized", help="Do not quantize the base, to measure what 4 bits cost.")
    ] = False,
    without_data: Annotated[
        bool,
        typer.Option("--without-data", help="Leave the training molecules and their values out of the pack."),
    ] = False,
    share_upper: Annotated[
        bool, typer.Option("--share-upper", help="Keep the base's layers beside the pack, for several packs.")
    ] = False,
    drop_baseline: Annotated[
        bool, typer.Option("--drop-baseline", help="Leave the encoder alone out of the pack; its metrics stay.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Page with charts of the errors on the test molecules and of the training (.html).",
            show_default="OUTPUT.report.html",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Train a pack: first the graph encoder alone, then MoRA on the frozen base.

    Blank cells are missing values; several targets may have gaps. Notes about
    the table (unreadable rows, duplicates, rare classes) are printed on stderr.
    The pack holds a README.md with the metrics on the test molecules, and the
    training molecules with their values, which predict --neighbours shows.
    Beside it, OUTPUT.report.html has charts of the errors on the test molecules.

    Started again with the same settings, training continues from its last
    checkpoint, which is kept in OUTPUT.run. The base must have been pulled
    before. For packs that answer in text see train-text.

    \b
    Examples:
    mora-lite train my.csv --target logS:mol/L -o mine
    mora-lite train my.csv -t active -t IC50:nM --split scaffold -o mine
    mora-lite train qm9.csv.gz --recipe examples/qm9.toml -o qm9
    """
    from .tables import print_evaluation

    kept = f"the last checkpoint of training is kept in {output}.run, once an epoch is done"
    with keeping(kept, output), show_work(f"reading {data}") as show:
        from ..training import pipeline

        pack = pipeline.train(
            data,
            output,
            targets=target or (),
            recipe=recipe,
            smiles_column=smiles_column,
            split=split,
            base=base,
            start=start,
            standardize=standardize,
            trees=trees,
            encoder_epochs=encoder_epochs,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            seed=seed,
            device=device,
            unquantized=unquantized,
            without_data=without_data,
            share_upper=share_upper,
            drop_baseline=drop_baseline,
            report=report,
            force=force,
            on_note=print_note,
            on_progress=show.training,
        )
    print_evaluation(pack.provenance["test"])
    say(f"{output}: the pack {pack.name}, {pack.nbytes / 1e6:.1f} MB; {output / 'README.md'} has these figures")
    say(f"{pipeline.report_path(output, report)}: charts of the errors, the worst molecules drawn")
    say(f"{output}.run: the checkpoints, which can be deleted")
    say(f"next: mora-lite predict FILE --pack {shlex.quote(path_as_pack(output))}")
