"""Packs, text packs and exported folders in repositories of the Hugging Face hub, as `hf:owner/name` or
`hf:owner/name@revision`.

A repository holds the files of one of them side by side, the shared upper layers of a pack too. Only the
manifest and the files that it names are fetched, and only data: no code of a repository is looked at. Sizes and SHA-256
are checked when the folder is opened, as those of any other. What was fetched stays in the hub's own cache.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError, PackError
from .access import HUB_SECONDS, OFFLINE, PREFIX, first_line, import_hub, offline_variable

PACK, EXPORT, TEXT = "pack.json", "export.json", "text_pack.json"
CARD = "README.md"
SUFFIXES = (".safetensors", ".onnx", ".data", ".npz", ".json", ".md")  # of files that are data
_ADDRESS = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


class Address(NamedTuple):
    """repository: `owner/name`. revision: branch, tag or commit; None is the main branch."""

    repository: str
    revision: str | None


def is_address(name: object) -> bool:
    """Whether this names a repository of the hub, rightly or wrongly written."""
    return str(name).startswith(PREFIX)


def parse_address(text: str) -> Address:
    """Raises `PackError` for what is no address."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise PackError(f"got {text!r}, expected hf:owner/name or hf:owner/name@revision")
    return Address(found["repository"], found["revision"])


def local_path(name: str | Path) -> str | Path:
    """The folder of a repository, fetched when it is not there; any other name as it is."""
    return fetch(str(name)) if is_address(name) else name


def check_changeable(name: str | Path) -> None:
    """Raises `InputError` for a pack in the hub's cache, which must stay as it was fetched."""
    if is_address(name):
        raise InputError(f"{name} lies in the cache of the hub, which must not be changed; give the path of a copy")


def fetch(address: str) -> Path:
    """The folder in the hub's cache with all files that the manifest names.

    The hub is asked which commit it is; when it cannot be asked, what is in the cache will do. HF_HUB_OFFLINE and
    MORA_LITE_OFFLINE are respected. Raises `PackError` when it cannot be had.
    """
    repository, revision = parse_address(address)
    hub = import_hub()
    api, missing = hub.HfApi(), hub.errors.EntryNotFoundError
    names, only_cached, why = [PACK, EXPORT, TEXT], True, f"{offline_variable(OFFLINE)} is set"
    if not offline_variable(OFFLINE):
        try:
            # A plain question first, with a short wait: a download would try for a minute without a network.
            found = api.model_info(repository, revision=revision, timeout=HUB_SECONDS)
            only_cached = False
            names = [name for name in names if name in {file.rfilename for file in found.siblings}]
            why = f"it holds no {PACK}, {EXPORT} or {TEXT}"
        # Any error of whichever network library is in use means the same: the hub does not answer.
        except Exception as error:
            why = first_line(error)

    def get(name: str, revision: str | None) -> Path:
        return Path(api.hf_hub_download(repository, name, revision=revision, local_files_only=only_cached))

    for name in names:
        try:
            manifest = get(name, revision)  # by this name the cache keeps it for when there is no network
            for other in named_files(manifest):
                get(other, manifest.parent.name)  # of the same commit, whatever is pushed meanwhile
            return manifest.parent
        except PackError as error:
            raise PackError(f"{address}: {error}") from None
        except Exception as error:
            # What is not in the cache is explained already, by why the hub was not asked.
            why = why if only_cached and isinstance(error, missing) else first_line(error)
    raise PackError(
        f"{address} could not be fetched ({why}), and it is not in the cache; check name, revision and network, and "
        "`hf auth login` if it is private"
    )


def named_files(manifest: Path) -> list[str]:
    """The files that a manifest names. Raises `PackError` for names that are not those of data beside it."""
    try:
        names = [str(name) for name in json.loads(manifest.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackError(f"{manifest.name} is damaged ({type(error).__name__}: {error})") from None
    for name in names:
        if name != Path(name).name or "\\" in name or not name.endswith(SUFFIXES):
            raise PackError(f"{manifest.name} names the file {name!r}, which no pack and no exported folder has")
    return names
