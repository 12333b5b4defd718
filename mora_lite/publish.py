"""Packs, text packs and exported folders into repositories of the Hugging Face hub; `hub/packs.py` fetches them.

Exported folders are pushed where torch is not installed, so what needs it is imported late.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import OutputError, first_line
from .hub.access import OFFLINE, PREFIX, import_hub, offline_variable
from .hub.packs import local_path, named_files
from .packs.manifest import CARD, EXPORT, PACK, TEXT_PACK


def push_to_hub(source: str | Path, repository: str, *, private: bool = False) -> str:
    """Put a pack (by name or path), a text pack or an exported folder into a repository, which is made if need be;
    returns its URL.

    All files come in one commit: the manifest, the files that it names, each checked, and the model card. private: of a
    repository that is made. Raises `PackError` for the source, `OutputError` when the hub refuses or is out of reach.
    """
    if variable := offline_variable(OFFLINE):
        raise OutputError(f"cannot push to {repository}: {variable} is set")
    folder = Path(local_path(source))
    kinds = {EXPORT: ("Exported folder", _exported_files), TEXT_PACK: ("Text pack", _text_files)}
    kind = next((kind for kind in kinds if (folder / kind.manifest).is_file()), PACK)
    name, files_of = kinds.get(kind, ("Pack", _pack_files))
    files, card = files_of(folder)
    hub = import_hub()
    try:
        api = hub.HfApi()
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        content: dict[str, Any] = files | {CARD: card(f"{PREFIX}{url.repo_id}").encode()}
        api.create_commit(
            url.repo_id,
            [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in content.items()],
            commit_message=f"{name} of mora-lite",
        )
    # Any error of whichever network library is in use means the same: the hub did not take it.
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
    files = {PACK.manifest: pack.path / PACK.manifest} | {name: pack.file(name) for name in pack.manifest["files"]}
    return files, _card(pack.path, lambda address: model_card(pack.manifest, address))


def _text_files(folder: Path) -> tuple[dict[str, Path], Callable[[str], str]]:
    from .text.card import text_card
    from .text.pack import open_text_pack

    pack = open_text_pack(folder)
    files = {name: folder / name for name in (TEXT_PACK.manifest, *pack.manifest["files"])}
    return files, _card(folder, lambda address: text_card(folder.name, pack.manifest, address))


def _exported_files(folder: Path) -> tuple[dict[str, Path], Callable[[str], str]]:
    manifest = EXPORT.read(folder)
    files = {EXPORT.manifest: folder / EXPORT.manifest}
    for name in named_files(folder / EXPORT.manifest):
        if name != CARD:
            files[name] = EXPORT.check_file(manifest, name, folder)
    return files, _card(folder, lambda address: f"# {address.removeprefix(PREFIX)}\n")


def _card(folder: Path, make: Callable[[str], str]) -> Callable[[str], str]:
    """The card for an address: one that somebody has written stays; one that was made names the pack by the address."""
    file = folder / CARD
    written = file.read_text(encoding="utf-8") if file.is_file() else ""
    return lambda address: written if written not in ("", make("")) else make(address)
