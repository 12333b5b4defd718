"""Options that several commands share, with one wording."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from .completion import complete_devices, complete_dtypes, complete_packs, complete_tasks, complete_text_tasks

PackArgument = Annotated[
    str, typer.Argument(metavar="PACK", help="Name of a pack, or its directory.", autocompletion=complete_packs)
]


def _pack_option(text: str) -> Any:
    return typer.Option(
        "--pack",
        "-p",
        metavar="PACK",
        help=text,
        envvar="MORA_LITE_PACK",
        show_envvar=False,
        autocompletion=complete_packs,
    )


PackOption = Annotated[str, _pack_option("Name of a pack, its directory, hf:owner/name, or an exported folder.")]
TorchPackOption = Annotated[str, _pack_option("Name of a pack, its directory, or hf:owner/name.")]
TextPackBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="Base model: a name known to pull, its path, or owner/name.",
        show_default="the one the pack names",
    ),
]
TextPackTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK",
        autocompletion=complete_text_tasks,
        help="forward, retro or reagents for the pack reactions; for others what they must be for.",
        show_default="that of the pack",
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        "-t",
        metavar="A,B",
        help="Tasks of the pack, separated by commas.",
        show_default="all",
        envvar="MORA_LITE_TASKS",
        show_envvar=False,
        autocompletion=complete_tasks,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda or cuda:0; auto takes CUDA when there is one.",
        envvar="MORA_LITE_DEVICE",
        show_envvar=False,
        autocompletion=complete_devices,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="auto|torch|onnx", help="torch for a pack, onnx for an exported folder; auto picks the right one."
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="ONNX Runtime provider: auto, cpu, cuda, tensorrt, directml, coreml or openvino."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Molecules at a time. Results do not depend on it beyond rounding.",
        show_default="fitted to the device",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        help="auto, float32, bfloat16 or float16; float32 is the most exact and slower.",
        autocompletion=complete_dtypes,
    ),
]
Confidence = Annotated[
    float, typer.Option(metavar="P", help="Share of true values that the intervals X_lo to X_hi should contain.")
]


class DataSplit(str, Enum):
    """Part of the data, as the pack recorded it when it was trained."""

    TEST = "test"
    VALID = "valid"
    TRAIN = "train"
    ALL = "all"


SplitOption = Annotated[DataSplit, typer.Option(help="Which part of the data, by the split that the pack records.")]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Use only the first N rows of the split.", show_default="all")
]
PackSmilesColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The SMILES column.", show_default="as in the pack's training table"),
]
LibraryPaths = Annotated[
    list[str],
    typer.Argument(
        metavar="LIBRARY...",
        help="Files of molecules: table, SMILES list, SDF (each plain, .gz, .bz2 or .zst), Parquet or .xlsx; patterns "
        "like 'part-*.smi'; - is standard input.",
    ),
]
SmilesColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The SMILES column: its name, or its number from 1; of a workbook SHEET!COLUMN too, or SHEET!.",
        show_default="found by name or content",
    ),
]
NameColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column, or the data field of an SDF, with the molecules' names.",
        show_default="id, name or the like; the title in an SDF",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of worker processes.", show_default="one for each core")
]
TimeLimit = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Limit for parsing one molecule; beyond it: status timeout.")
]
Extras = Annotated[
    bool, typer.Option("--extras", help="Add molecular weight, Lipinski, QED, TPSA, logP, PAINS and Brenk alerts.")
]
Percentiles = Annotated[
    bool, typer.Option("--percentiles", help="Add to each task X_percentile, its percentile among approved drugs.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


def path_as_pack(path: Path) -> str:
    """A directory as --pack names it: with a separator, so that no pack of that name is meant."""
    return str(path) if path.parent != Path() else f"./{path}"


def split_names(text: str | None) -> list[str] | None:
    """`a, b` -> `["a", "b"]`; None, or nothing but commas, -> None, which stands for all."""
    names = [name.strip() for name in (text or "").split(",")]
    return [name for name in names if name] or None
