"""`mora-lite quantize`: writes a 4-bit copy of a model and prints what it cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .progress import show_work

if TYPE_CHECKING:
    from ..quant.convert import QuantReport


def quantize(
    src: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Model directory, .gguf file, owner/name on the hub, or a name known to pull."
        ),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to write.")],
    double: Annotated[
        bool, typer.Option("--double", help="Store the scales in 8 bits too: 4.13 bits a weight.")
    ] = False,
    no_perplexity: Annotated[bool, typer.Option("--no-perplexity", help="Do not measure the perplexity.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the model in the output directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a 4-bit (NF4) copy of a language model.

    mora-lite loads it, and so does transformers with bitsandbytes. Prints
    bits per weight, sizes, the relative squared error of each kind of layer,
    and the perplexity on a bundled text before and after.

    \b
    Examples:
    mora-lite quantize smollm2-135m -o smollm2-nf4
    mora-lite quantize ./Qwen3-0.6B -o qwen3-nf4 --double --json
    mora-lite quantize HuggingFaceTB/SmolLM2-360M-Instruct -o smollm2-360m-nf4
    """
    with show_work("opening the model") as show:
        from ..hub.bases import resolve_base
        from ..lm.perplexity import text_perplexity
        from ..machine.files import check_free
        from ..quant.convert import quantize_checkpoint
        from ..quant.formats import open_checkpoint
        from ..quant.writer import KIND

        check_free(out, force, *KIND)  # before the seconds that opening a large file takes
        checkpoint = open_checkpoint(resolve_base(src))
        if not no_perplexity:
            checkpoint.tokenizer()  # without one there is no perplexity: better said before the work
        report = quantize_checkpoint(
            checkpoint, out, double, lambda done, total, name: show.report(name, done, total), force=force
        )
        if not no_perplexity:
            show.report("perplexity before")
            report.perplexity_before = text_perplexity(checkpoint)
            show.report("perplexity after")
            report.perplexity_after = text_perplexity(open_checkpoint(out))
    if as_json:
        typer.echo(json.dumps(report.as_dict() | {"out": str(out)}))
    else:
        _print(report, out)


def _print(report: QuantReport, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"4-bit model in {out}", title_justify="left", show_header=False)
    for label, value in _rows(report):
        table.add_row(label, value)
    Console().print(table)


def _rows(report: QuantReport) -> list[tuple[str, Any]]:
    saved = 1 - report.bytes_out / report.bytes_16bit
    weights = f"{report.weights_quantized:,} of {report.weights_total:,} weights"
    rows = [
        ("matrices in 4 bits", f"{report.matrices} ({weights})"),
        ("bits per weight", f"{report.bits_per_weight:.3f}"),
        ("size of the source", f"{report.bytes_source / 1e6:.1f} MB"),
        ("size at 16 bits", f"{report.bytes_16bit / 1e6:.1f} MB"),
        ("size now", f"{report.bytes_out / 1e6:.1f} MB ({saved:.0%} less than at 16 bits)"),
    ]
    rows += [(f"relative error {kind}", f"{error:.3%}") for kind, error in report.relative_error.items()]
    rows.append(("relative error, all", f"{report.relative_error_all:.3%}"))
    if report.perplexity_before is not None:
        rows.append(("perplexity", f"{report.perplexity_before:.3f} -> {report.perplexity_after:.3f}"))
    return rows
