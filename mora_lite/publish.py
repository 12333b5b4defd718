"""Packs, text packs and exported folders into repositories of the Hugging Face hub; `hub/packs.py` fetches them.

Exported folders are pushed where torch is not installed, so what needs it is imported late.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .errors import OutputError, first_line
from .hub.access import OFFLINE, PREFIX, import_hub, offline_variable
from .hub.packs import local_path, named_files
from .packs.manifest import CARD, EXPORT, PACK, TEXT_PACK, TRAINING, seal, without_training

LEFT_OUT = "the training molecules and their values are not pushed; --with-data pushes them too"


class _Content(NamedTuple):
    """files: name in the repository -> where it lies, or what is in it. card: README.md, given the address.

    left_out: whether the training molecules are in the source but not here.
    """

    files: dict[str, Path | bytes]
    card: Callable[[str], str]
    left_out: bool = False


def push_to_hub(
    source: str | Path,
    repository: str,
    *,
    private: bool = False,
    with_data: bool = False,
    on_note: Callable[[str], None] = lambda _note: None,
) -> str:
    """Put a pack (by name or path), a text pack or an exported folder into a repository, which is made if need be;
    returns its URL.

    All files come in one commit: the manifest, the files that it names, each checked, and the model card.

    private: of a repository that is made.
    with_data: push the training molecules and their values too, where the source holds them; else they are left out.
    on_note: gets a line when they are, and when those of an earlier push are removed.

    Raises `PackError` for the source, `OutputError` when the hub refuses or is out of reach.
    """
    if variable := offline_variable(OFFLINE):
        raise OutputError(f"cannot push to {repository}: {variable} is set")
    folder = Path(local_path(source))
    kinds = {EXPORT: ("Exported folder", _exported_content), TEXT_PACK: ("Text pack", _text_content)}
    kind = next((kind for kind in kinds if (folder / kind.manifest).is_file()), PACK)
    name, content_of = kinds.get(kind, ("Pack", _pack_content))
    content = content_of(folder, with_data)
    if content.left_out:
        on_note(LEFT_OUT)
    hub = import_hub()
    try:
        api = hub.HfApi()
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        files: dict[str, Any] = content.files | {CARD: content.card(f"{PREFIX}{url.repo_id}").encode()}
        changes: list[Any] = [hub.CommitOperationAdd(file, data) for file, data in files.items()]
        earlier = _training_files(api, url.repo_id) if content.left_out else []
        changes += [hub.CommitOperationDelete(file) for file in earlier]
        api.create_commit(url.repo_id, changes, commit_message=f"{name} of mora-lite")
    # Any error of whichever network library is in use means the same: the hub did not take it.
    except Exception as error:
        raise OutputError(
            f"cannot push to {repository} ({first_line(error)}); log in with `hf auth login` or set HF_TOKEN, and "
            "check the name"
        ) from None
    for file in earlier:
        on_note(f"{file} of an earlier push is removed; the repository's history still holds it")
    return str(url)


def _training_files(api: Any, repository: str) -> list[str]:
    """The files with training molecules that are in the repository."""
    names = [file.rfilename for file in api.model_info(repository).siblings or ()]
    return [name for name in names if Path(name).stem == TRAINING]


def _pack_content(folder: Path, with_data: bool) -> _Content:
    from .packs.card import model_card
    from .packs.pack import open_pack

    pack = open_pack(folder)
    manifest, left_out = _choose_manifest(pack.manifest, with_data)
    files: dict[str, Path | bytes] = {name: pack.file(name) for name in manifest["files"]}
    files[PACK.manifest] = seal(manifest).encode() if left_out else pack.path / PACK.manifest
    written = _written_card(pack.path, model_card(pack.manifest))
    return _Content(files, lambda address: written or model_card(manifest, address), left_out)


def _text_content(folder: Path, _with_data: bool) -> _Content:
    from .text.card import text_card
    from .text.pack import open_text_pack

    pack = open_text_pack(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in (TEXT_PACK.manifest, *pack.manifest["files"])}
    written = _written_card(folder, text_card(folder.name, pack.manifest, ""))
    return _Content(files, lambda address: written or text_card(folder.name, pack.manifest, address))


def _exported_content(folder: Path, with_data: bool) -> _Content:
    named_files(folder / EXPORT.manifest)  # which raises for names that nobody could fetch
    manifest, left_out = _choose_manifest(EXPORT.read(folder), with_data)
    files: dict[str, Path | bytes] = {
        name: EXPORT.check_file(manifest, name, folder) for name in manifest["files"] if name != CARD
    }
    files[EXPORT.manifest] = json.dumps(manifest).encode() if left_out else folder / EXPORT.manifest
    written = _written_card(folder, "")
    if left_out:  # so is its line in the card's table of files
        written = "\n".join(line for line in written.split("\n") if not line.startswith(f"| `{TRAINING}."))
    return _Content(files, lambda address: written or f"# {address.removeprefix(PREFIX)}\n", left_out)


def _choose_manifest(manifest: dict[str, Any], with_data: bool) -> tuple[dict[str, Any], bool]:
    """The manifest to push, and whether the training molecules are left out of it."""
    rest = without_training(manifest)
    left_out = not with_data and len(rest["files"]) < len(manifest["files"])
    return rest if left_out else manifest, left_out


def _written_card(folder: Path, made: str) -> str:
    """The card that somebody has written, which stays as it is; '' for the one that was `made`, or none."""
    file = folder / CARD
    written = file.read_text(encoding="utf-8") if file.is_file() else ""
    return "" if written == made else written
