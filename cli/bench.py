"""`mora-lite bench`: the speed of this machine, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..status import counted
from .options import BatchSize, Device, Dtype, Tasks, TorchPackOption, split_names
from .progress import show_work

if TYPE_CHECKING:
    from ..bench import Bench
    from ..model import Model


def bench(
    paths: Annotated[list[str], typer.Argument(metavar="LIBRARY...", help="Files of molecules, as for screen.")],
    *,
    pack: TorchPackOption = "admet",
    tasks: Tasks = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, metavar="N", help="Molecules to score.")] = 4096,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Threads that parse, and of matrix products on a CPU.", show_default="all cores"
        ),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    dtype: Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Measure how fast this machine scores molecules.

    Prints a table of stages, from reading the library to writing the scores:
    time and share of each, the operations of its matrix products, and how many
    times longer it takes than these (or one reading of the weights) would at
    the rates measured on this machine.

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
        from ..machine.device import describe_processor
        from ..tables.library import open_library

        if threads:
            torch.set_num_threads(threads)
        model = mora_lite.load(pack, device=device, dtype=dtype, tasks=split_names(tasks))
        show.report("measuring")
        with open_library(paths) as library:
            measured = benchmark.measure(model, library, number, batch_size, threads)
    processor = describe_processor(model.device)
    dtype_name = str(model.dtype).removeprefix("torch.")
    if as_json:
        import json

        typer.echo(json.dumps(_results(measured, model, dtype_name, processor)))
        return
    from rich.console import Console

    scored = f"{counted(measured.n, 'molecule')}, {counted(len(model.tasks), 'task')} of {model.pack.name}"
    title = f"{scored}, {dtype_name} on {processor}"
    console = Console(highlight=False)
    print_rows(title, measured.rows(), console)
    rates = f"{measured.tflop_per_s:.2f} TFLOP/s" + (f" and {measured.gb_per_s:,.0f} GB/s" if measured.gb_per_s else "")
    longest, rate = measured.beside
    after = f"{measured.parsed_mol_per_s:,.0f} without reading and parsing"
    console.print(f"{measured.mol_per_s:,.0f} molecules/s one stage after the other, {after}")
    overlap = f"reading, parsing by {counted(measured.threads, 'thread')}, scoring and writing overlap"
    console.print(f"{rate:,.0f} where {overlap}: {longest} takes longest")
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
        "overlapping_mol_per_s": round(measured.beside[1], 1),
        "longest": measured.beside[0],
        "threads": measured.threads,
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
