"""Packs, text packs and exported folders into repositories of the Hugging Face hub; `hub_packs.py` fetches them.

Exported folders are pushed where torch is not installed, so what needs it is imported late.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import OutputError, PackError
from .hub.access import OFFLINE, PREFIX, first_line, import_hub, offline_variable
from .hub.packs import CARD, EXPORT, PACK, TEXT, local_path, named_files
from .machine.files import sha256_of


def push_to_hub(source: str | Path, repository: str, *, private: bool = False) -> str:
    """Put a pack (by name or path), a text pack or an exported folder into a repository, which is made if need be;
    returns its URL.

    All files come in one commit: the manifest, the files that it names, each checked, and the model card. private: of a
    repository that is made. Raises `PackError` for the source, `OutputError` when the hub refuses or is out of reach.
    """
    if variable := offline_variable(OFFLINE):
        raise OutputError(f"cannot push to {repository}: {variable} is set")
    folder = Path(local_path(source))
    kinds = {EXPORT: ("Exported folder", _exported_files), TEXT: ("Text pack", _text_files)}
    manifest = next((name for name in kinds if (folder / name).is_file()), PACK)
    kind, files_of = kinds.get(manifest, ("Pack", _pack_files))
    files, card = files_of(folder)
    hub = import_hub()
    try:
        api = hub.HfApi()
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        content: dict[str, Any] = files | {CARD: card(f"{PREFIX}{url.repo_id}").encode()}
        api.create_commit(
            url.repo_id,
            [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in content.items()],
            commit_message=f"{kind} of mora-lite",
        )
    # As in `hub_packs.fetch`.
    except Exception as error:
        raise OutputError(
            f"cannot push to {repository} ({first_line(error)}); log in with `hf auth login` or set HF_TOKEN, and "
            "check the name"
        ) from None
    return str(url)


def _pack_files(folder: Path) -> tuple[dict[str, Path], Callable[[str], str]]:
    """Name -> where it lies; and the card, given the address."""
    from .packs.card import model_card
    from .packs.pack import open_pack

    pack = open_pack(folder)
    files = {PACK: pack.path / PACK} | {name: pack.file(name) for name in pack.manifest["files"]}
    return files, _card(pack.path, lambda address: model_card(pack.manifest, address))


def _text_files(folder: Path) -> tuple[dict[str, Path], Callable[[str], str]]:
    from .text.card import text_card
    from .text.pack import open_text_pack

    pack = open_text_pack(folder)
    files = {name: folder / name for name in (TEXT, *pack.manifest["files"])}
    return files, _card(folder, lambda address: text_card(folder.name, pack.manifest, address))


def _card(folder: Path, made: Callable[[str], str]) -> Callable[[str], str]:
    """The card for an address: one that somebody has written stays; one that was made names the pack by the address."""
    own = folder / CARD
    written = own.read_text(encoding="utf-8") if own.is_file() else ""
    return lambda address: written if written not in ("", made("")) else made(address)


def _exported_files(folder: Path) -> tuple[dict[str, Path], Callable[[str], str]]:
    names = [name for name in named_files(folder / EXPORT) if name != CARD]
    entries = json.loads((folder / EXPORT).read_text(encoding="utf-8"))["files"]
    for name in names:
        if not (folder / name).is_file() or sha256_of(folder / name) != entries[name]["sha256"]:
            raise PackError(f"{folder / name} is missing or damaged; export it again")
    own = folder / CARD

    def card(address: str) -> str:
        return own.read_text(encoding="utf-8") if own.is_file() else f"# {address.removeprefix(PREFIX)}\n"

    return {name: folder / name for name in (EXPORT, *names)}, card
