"""Packs, text packs and exported folders in repositories of the Hugging Face hub, as `hf:owner/name` or
`hf:owner/name@revision`.

A repository holds the files of one of them side by side, the shared upper layers of a pack too. Only the manifest and
the files that it names are fetched, and only data: no code of a repository is looked at. Sizes and SHA-256 are checked
when the folder is opened, as those of any other. What was fetched stays in the hub's own cache.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import InputError, PackError
from .access import PREFIX, Address, Snapshot, match_address

PACK_MANIFEST, EXPORT_MANIFEST, TEXT_MANIFEST = MANIFESTS = ("pack.json", "export.json", "text_pack.json")
SUFFIXES = (".safetensors", ".onnx", ".data", ".npz", ".json", ".md")  # of files that are data


def is_address(name: object) -> bool:
    """Whether this is meant as an address on the hub, valid or not."""
    return str(name).startswith(PREFIX)


def parse_address(text: str) -> Address:
    """Raises `PackError` for what is no address."""
    address = match_address(text)
    if address is None:
        raise PackError(f"got {text!r}, expected hf:owner/name or hf:owner/name@revision")
    return address


def local_path(name: str | Path) -> str | Path:
    """The folder of a repository, fetched when it is not there; any other name as it is."""
    return fetch(str(name)) if is_address(name) else name


def check_changeable(name: str | Path) -> None:
    """Raises `InputError` for a pack in the hub's cache, which must stay as it was fetched."""
    if is_address(name):
        raise InputError(f"{name} lies in the cache of the hub, which must not be changed; give the path of a copy")


def fetch(address: str) -> Path:
    """The folder in the hub's cache with all files that the manifest names.

    The hub is asked which commit it is; when it cannot be asked, the cache is used. HF_HUB_OFFLINE and
    MORA_LITE_OFFLINE are respected. Raises `PackError` when it cannot be fetched.
    """
    snapshot = Snapshot(parse_address(address), PackError)
    manifest = _find_manifest(snapshot)
    try:
        names = named_files(manifest)
    except PackError as error:
        raise PackError(f"{address}: {error}") from None
    for name in names:
        snapshot.get(name)
    return manifest.parent


def _find_manifest(snapshot: Snapshot) -> Path:
    """The manifest of the repository, or of what the cache has of it when the hub does not answer."""
    failure = snapshot.failure(f"it holds no {PACK_MANIFEST}, {EXPORT_MANIFEST} or {TEXT_MANIFEST}")
    for name in MANIFESTS:
        if snapshot.names is not None and name not in snapshot.names:
            continue
        try:
            return snapshot.get(name)
        except PackError as error:
            failure = error
    raise failure


def named_files(manifest: Path) -> list[str]:
    """The files that a manifest names. Raises `PackError` for names that are not those of data beside it."""
    try:
        names = [str(name) for name in json.loads(manifest.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackError(f"{manifest.name} is damaged ({type(error).__name__}: {error})") from None
    for name in names:
        if name != Path(name).name or "\\" in name or not name.endswith(SUFFIXES):
            raise PackError(f"{manifest.name} names the file {name!r}, which no pack and no exported folder has")
    return names
