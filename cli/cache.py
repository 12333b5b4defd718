"""`mora-lite cache`: what is kept on the disk beside packs, and how to be rid of it."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import complete_caches
from .messages import say


def cache(
    action: Annotated[
        str | None, typer.Argument(metavar="[clear]", help="clear removes it.", show_default="print what there is")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]...",
            help="bases, nf4 or packs: what to remove.",
            show_default="bases and nf4",
            autocompletion=complete_caches,
        ),
    ] = None,
) -> None:
    """Print what the program keeps on the disk beside packs, or remove it.

    bases are base models that pull fetched, nf4 their 4-bit copies, packs
    what you put there. The hub's own cache is shown too, but left to `hf cache`.

    \b
    Examples:
    mora-lite cache
    mora-lite cache clear
    mora-lite cache clear nf4
    """
    from ..errors import InputError
    from ..hub.cache import KINDS, REPLACEABLE, clear_caches, list_caches

    if action is None:
        for folder in list_caches():
            typer.echo(f"{folder.kind:<6}{folder.n_bytes / 1e6:>9,.1f} MB  {folder.path}")
            typer.echo(f"{'':<20}{KINDS[folder.kind]}{': ' if folder.names else ''}{', '.join(folder.names)}")
        return
    if action != "clear":
        raise InputError(f"cache: got {action!r}, expected clear, or nothing to see what there is")
    removed = clear_caches(kinds or REPLACEABLE)
    for folder in removed:
        say(f"{folder.path}: {folder.n_bytes / 1e6:,.1f} MB removed")
    if any(folder.kind == "bases" and folder.n_bytes for folder in removed):
        say("train and generate need a base model: mora-lite pull fetches it again")
