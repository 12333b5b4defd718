"""`mora-lite push`: a pack, a text pack or an exported folder into a repository of the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from .messages import print_note
from .progress import show_work


def push(
    pack: Annotated[
        str, typer.Argument(metavar="PACK", help="Name of a pack, or its directory; a text pack; an exported folder.")
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="owner/name; created if it does not exist.")],
    *,
    private: Annotated[bool, typer.Option("--private", help="Make it private if it is created.")] = False,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Push the training molecules and their values too.")
    ] = False,
) -> None:
    """Upload a pack or an exported folder to the Hugging Face hub.

    Prints the address of the repository. Log in first with `hf auth login`, or
    set HF_TOKEN. Others then give hf:owner/name, or hf:owner/name@revision,
    where a command takes a pack.

    The training molecules and their values, which a pack holds to name
    neighbours from, are pushed only with --with-data.

    \b
    Examples:
    mora-lite push ./mine chemist/mine
    mora-lite push ./mine chemist/mine --private
    mora-lite predict molecules.csv --pack hf:chemist/mine
    """
    with show_work(f"uploading {pack}"):
        from ..publish import push_to_hub

        address = push_to_hub(pack, repository, private=private, with_data=with_data, on_note=print_note)
    typer.echo(address)
