"""`mora-lite export`: a pack as ONNX, checked against the pack before it is written; or an adapter for PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .messages import say
from .options import PackArgument, Tasks, split_names
from .progress import show_work

ALONE = "; the encoder alone, which gives no values: --full writes what predicts too"


def export(
    pack: PackArgument = "admet",
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to write.")],
    full: Annotated[
        bool, typer.Option("--full", help="Also the whole scorer: graphs in, values out, language model in 4 bits.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="With --full: also in standard operators, for other runtimes.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also the encoder in float16, for GPUs.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also the encoder in 8 bits, for small CPUs.")] = False,
    web: Annotated[
        bool, typer.Option("--web", help="In place of it: a web page that predicts in the browser, as static files.")
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --web: the folder dist of the npm package onnxruntime-web.",
            show_default="node_modules/onnxruntime-web/dist",
        ),
    ] = None,
    tasks: Tasks = None,
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="Version of the ONNX operators, 18 to 22.", show_default="22")
    ] = None,
    peft: Annotated[
        str | None,
        typer.Option(metavar="SMILES", help="For a text pack: its adapter for these molecules, in PEFT's format."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --peft: base model, a name known to pull, or its path.",
            show_default="the one the pack names",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in DIR.")] = False,
) -> None:
    """Write a pack as ONNX, to run without torch; as a web page; or an adapter for PEFT.

    DIR gets the graph encoder, with --full the whole scorer, a description of
    the inputs, and a model card. Each model is compared with the pack on a
    thousand molecules first: one that does not give the pack's numbers is an
    error, and nothing is written.

    With --web DIR gets a page that any web server can send: it predicts in the
    browser, and what is entered stays there. It needs ONNX Runtime Web from npm.

    For a text pack, --peft writes its adapter for one molecule (or a set of
    them joined by dots) in the format of the library PEFT. That needs a pack
    that adapts attention projections only.

    \b
    Examples:
    mora-lite export -o encoder
    mora-lite export admet --full -o admet-onnx
    mora-lite export ./mine --full --plain --tasks logS -o mine-onnx
    mora-lite export admet --web -o site
    mora-lite export ./forward --peft "CCO.CC(=O)O" -o adapter
    """
    from ..errors import ExportError
    from ..hub.packs import TEXT_MANIFEST, local_path

    if peft is not None:
        if full or plain or fp16 or int8 or web or runtime or tasks or opset is not None:
            raise ExportError("--peft goes with --base, --force and -o alone; the other options are for ONNX")
        _export_peft(pack, peft, output, base, force)
        return
    if base is not None:
        raise ExportError("--base is for --peft; packs of scores hold their base model")
    if (Path(local_path(pack)) / TEXT_MANIFEST).is_file():
        raise ExportError(
            f"{pack} is a text pack, which has no ONNX form; --peft SMILES exports its adapter for one row"
        )
    if runtime is not None and not web:
        raise ExportError("--runtime is for --web")
    if web:
        if full or plain or fp16 or int8 or opset is not None:
            raise ExportError("--web goes with --runtime, --tasks, --force and -o alone; it takes the model it needs")
        _export_web(pack, output, runtime, split_names(tasks), force)
        return
    with show_work("exporting"):
        from ..export.writer import OPSET, export_pack
        from ..packs.pack import open_pack

        report = export_pack(
            open_pack(pack),
            output,
            tasks=split_names(tasks),
            full=full,
            plain=plain,
            fp16=fp16,
            int8=int8,
            opset=OPSET if opset is None else opset,
            force=force,
            on_note=say,
        )
    say(f"{_size(output)}, checked in {report['seconds']:.0f} s{'' if full else ALONE}")


def _export_peft(pack: str, smiles: str, output: Path, base: str | None, force: bool) -> None:
    """Write the adapter of a text pack."""
    from ..export.lora import export_peft
    from ..text.pack import open_text_pack

    export_peft(open_text_pack(pack), smiles, output, base=base, force=force)
    say(f"{output}: a LoRA adapter for PEFT")


def _export_web(pack: str, output: Path, runtime: Path | None, tasks: list[str] | None, force: bool) -> None:
    """Write a pack as a web page."""
    with show_work("exporting"):
        from ..export.web import export_site
        from ..packs.pack import open_pack

        report = export_site(open_pack(pack), output, runtime=runtime, tasks=tasks, force=force, on_note=say)
    say(f"{_size(output)}, checked in {report['seconds']:.0f} s")
    say(f"to try it: python -m http.server --bind 127.0.0.1 -d {output}")


def _size(folder: Path) -> str:
    """The folder and the size of all its files."""
    return f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"
