"""What the program keeps on the disk beside packs: base models, their 4-bit copies, and what came from the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError, did_you_mean, error_text

KINDS = {
    "bases": "base models that pull fetched",
    "nf4": "4-bit copies of base models, made again when needed",
    "packs": "packs that you put there",
    "hub": "the Hugging Face hub's own cache, which other programs use too",
}
REPLACEABLE = ("bases", "nf4")  # what can be fetched or made again


@dataclass(frozen=True)
class CacheFolder:
    """One kind of what is kept. names: of what is in it. n_bytes: of all files in it."""

    kind: str
    path: Path
    names: list[str]
    n_bytes: int


def cache_dir() -> Path:
    """The cache: the environment variable MORA_LITE_CACHE, else the per-user cache directory of the system."""
    from platformdirs import user_cache_dir

    directory = os.environ.get("MORA_LITE_CACHE")
    return Path(directory).expanduser() if directory else Path(user_cache_dir("mora-lite"))


def hub_cache_dir() -> Path:
    """Where huggingface_hub keeps what it fetches, by its own environment variables."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def list_caches() -> list[CacheFolder]:
    """All kinds, in the order of `KINDS`, also those of which there is nothing."""
    return [_describe(kind, hub_cache_dir() if kind == "hub" else cache_dir() / kind) for kind in KINDS]


def clear_caches(kinds: Sequence[str] = REPLACEABLE) -> list[CacheFolder]:
    """Remove what is kept of these kinds; returns what there was.

    Raises `InputError` for an unknown kind and for the hub's own cache, `OutputError` when something cannot be removed.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"cache: got {kind!r}; {did_you_mean(kind, KINDS)}")
        if kind == "hub":
            raise InputError("cache: got 'hub', which other programs use too; clear it with: hf cache rm")
    caches = [cache for cache in list_caches() if cache.kind in kinds]
    for cache in caches:
        try:
            if cache.path.is_dir():
                shutil.rmtree(cache.path)
        except OSError as error:
            raise OutputError(f"cannot remove {cache.path}: {error_text(error)}") from None
    return caches


def _describe(kind: str, folder: Path) -> CacheFolder:
    names = sorted(e.name for e in folder.iterdir() if e.is_dir() and e.name[0] != ".") if folder.is_dir() else []
    # Links in the hub's cache lead to files in it.
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return CacheFolder(kind, folder, names, sum(file.stat().st_size for file in files))
