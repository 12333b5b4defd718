"""`mora-lite info`: versions, devices, packs and caches of this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, devices, packs and caches: what to put into a bug report."""
    from ..environment import describe_environment

    sections = describe_environment()
    if as_json:
        import json

        typer.echo(json.dumps(sections, indent=2))
        return
    for title, entries in sections.items():
        typer.secho(title, bold=True)
        width = max((len(name) for name in entries), default=0)
        for name, value in entries.items():
            typer.echo(f"  {name:<{width}}  {_show(value)}")
        if not entries:
            typer.echo("  none")


def _show(value: object) -> str:
    """A nested value in one line: `30 MB, base smollm2-135m, tasks homo lumo gap`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(item)}" if name else _show(item) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_show(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
