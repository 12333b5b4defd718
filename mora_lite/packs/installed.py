"""Packs that can be loaded by name: those that ship, then those in the user's cache. Nothing here needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import PackError
from ..hub.cache import cache_dir
from ..hub.packs import local_path
from .manifest import TEXT_PACK, FolderKind

SHIPPED = Path(__file__).parent / "shipped"


def pack_folders() -> list[Path]:
    """Where packs are looked for by name, in this order."""
    return [SHIPPED, cache_dir() / "packs"]


def find_installed(name: str, manifest: str) -> Path | None:
    """The folder `name` with a file `manifest` among those of `pack_folders`; None where there is none."""
    folders = [folder / name for folder in pack_folders() if name == Path(name).name]
    return next((folder for folder in folders if (folder / manifest).is_file()), None)


def find_text_pack(pack: str | Path) -> Path:
    """The folder of a text pack by its directory, its name or `hf:owner/name`. Raises `PackError` when it is none."""
    path = Path(local_path(pack))
    if not (path / TEXT_PACK.manifest).is_file():
        path = find_installed(str(pack), TEXT_PACK.manifest) or path
    if not (path / TEXT_PACK.manifest).is_file():
        raise PackError(f"{path} is not a text pack: it has no {TEXT_PACK.manifest}; give the directory of one")
    return path


def installed(kind: FolderKind) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of a kind and their manifests, each name once; the other files are not looked at."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in pack_folders():
        for file in sorted(folder.glob(f"*/{kind.manifest}")):
            try:
                found.setdefault(file.parent.name, (file.parent, kind.read(file.parent)))
            except PackError:
                continue  # `info` lists what works; loading the broken one by name says what is wrong with it
    return list(found.values())
