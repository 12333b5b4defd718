"""`mora-lite bench`: the speed of this machine, stage by stage."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import BatchSize, Device, Dtype, PackOption, Tasks, split_names
from .progress import show_work

if TYPE_CHECKING:
    from ..bench import Bench
    from ..model import Model


def bench(
    paths: Annotated[list[str], typer.Argument(metavar="LIBRARY...", help="Files of molecules, as for screen.")],
    *,
    pack: PackOption = "admet",
    tasks: Tasks = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, metavar="N", help="Molecules to score.")] = 4096,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Threads of matrix products on a CPU.", show_default="all cores"),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    dtype: Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Measure how fast this machine scores molecules.

    Prints a table of stages: time and share of each, the operations of its
    matrix products, and how many times longer it takes than these (or one
    reading of the weights) would at the rates measured on this machine.

    \b
    Examples:
    mora-lite bench library.smi --tasks logS,BBB
    mora-lite bench library.smi --threads 1
    """
    from .tables import print_rows

    with show_work("loading") as show:
        import torch

        import mora_lite

        from .. import bench as benchmark
        from ..errors import InputError
        from ..machine.device import describe_processor
        from ..tables.library import open_library

        if threads:
            torch.set_num_threads(threads)
        with open_library(paths) as library:
            windows = library.windows(min(number, 4096))
            smiles = list(islice((record.text for window in windows for record in window.records), number))
        model = mora_lite.load(pack, device=device, dtype=dtype, tasks=split_names(tasks))
        if not any(status == "ok" for status in model.score(smiles).status):
            n = len(smiles)
            raise InputError(f"{', '.join(library.files)}: no molecule among the first {n:,} rows can be scored")
        show.report("measuring")
        measured = benchmark.measure(model, smiles, batch_size)
    processor = describe_processor(model.device)
    dtype_name = str(model.dtype).removeprefix("torch.")
    if as_json:
        import json

        typer.echo(json.dumps(_results(measured, model, dtype_name, processor)))
        return
    from rich.console import Console

    title = f"{measured.n:,} molecules, {len(model.tasks)} tasks of {model.pack.name}, {dtype_name} on {processor}"
    console = Console(highlight=False)
    print_rows(title, measured.rows(), console)
    rates = f"{measured.tflop_per_s:.2f} TFLOP/s" + (f" and {measured.gb_per_s:,.0f} GB/s" if measured.gb_per_s else "")
    console.print(f"{measured.mol_per_s:,.0f} molecules/s from SMILES, {measured.parsed_mol_per_s:,.0f} after parsing")
    console.print(f"floors from {rates}")


def _results(measured: Bench, model: Model, dtype: str, processor: str) -> dict[str, Any]:
    """What the table shows, in plain types; what was not measured is left out."""
    import torch

    results = {
        "molecules": measured.n,
        "tasks": len(model.tasks),
        "pack": model.pack.name,
        "dtype": dtype,
        "device": processor,
        "torch": torch.__version__,
        "mol_per_s": round(measured.mol_per_s, 1),
        "parsed_mol_per_s": round(measured.parsed_mol_per_s, 1),
        "tflop_per_s": round(measured.tflop_per_s, 3),
        "gb_per_s": round(measured.gb_per_s, 2),
        "stages": {
            stage.name: {
                name: float(f"{us:.4g}") for name, us in (("us", stage.us), ("floor_us", stage.floor_us)) if us
            }
            for stage in measured.stages
            if stage.us
        },
    }
    return {name: value for name, value in results.items() if value != 0}
