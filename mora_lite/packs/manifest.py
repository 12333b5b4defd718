"""The manifest of a pack, a text pack or an exported folder: one JSON file that says what lies beside it.

All of them have `format`, and `files`: `bytes` and `sha256` of each by name. Those of packs are sealed: they also have
`sha256`, of their own content, and `atom_fields` and `bond_fields`, the codes that the weights were trained with.
Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS
from ..errors import PackError, fitting
from ..hub.packs import EXPORT_MANIFEST, PACK_MANIFEST, TEXT_MANIFEST
from ..machine.files import check_free, staged, verify_file

TRAINING = "training"  # what the file of the training molecules is called, before its suffix
CARD = "README.md"  # the model card, which may be edited: no manifest of a pack names it
ANY = "*"  # see `check_entries`
FILES = {ANY: {"bytes": int, "sha256": str}}


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder with a manifest.

    manifest: name of the file.
    name: of the kind, with its article, for messages.
    again: what to do about a damaged folder, for messages.
    sealed: whether the manifest has a SHA-256 of its own and the fields of atoms and bonds.
    entries: what else its manifest has, as `check_entries` takes it.
    """

    manifest: str
    name: str
    again: str
    sealed: bool = True
    entries: Mapping[str, Any] = field(default_factory=dict, hash=False)
    format: int = 1

    def check_free(self, out: Path, force: bool) -> None:
        """Raises `OutputError` when something is at `out` that must not be replaced."""
        check_free(out, force, self.manifest, self.name)

    def staged(self, out: Path, force: bool) -> AbstractContextManager[Path]:
        """A folder to fill, which becomes `out` whole or not at all; see `machine.files.staged`."""
        return staged(out, force, self.manifest, self.name)

    def read(self, folder: Path) -> dict[str, Any]:
        """The content of a folder's manifest.

        Raises `PackError` when it is damaged, of another format, or for graph codes that this version does not know.
        """
        file = folder / self.manifest
        with fitting(f"{file} is damaged", self.again):
            manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if manifest["format"] != self.format:
                raise PackError(
                    f"{folder} is {self.name} of format {manifest['format']}, but this version reads format "
                    f"{self.format}; update mora-lite"
                )
            if self.sealed and manifest["sha256"] != manifest_sha256(manifest):
                raise PackError(f"{file} is damaged (its SHA-256 is wrong); {self.again}")
            if self.sealed and (manifest["atom_fields"], manifest["bond_fields"]) != (ATOM_FIELDS, BOND_FIELDS):
                raise PackError(f"{folder}: made for other atom and bond codes than this version's; update mora-lite")
            check_entries(manifest, {"files": FILES, **self.entries})
            self._check_featurizer(folder, manifest)
        return manifest

    def _check_featurizer(self, folder: Path, manifest: dict[str, Any]) -> None:
        try:
            Featurizer.of(manifest)
        except PackError as error:
            raise PackError(f"{folder}: {error}") from None

    def check_file(self, manifest: dict[str, Any], name: str, *folders: Path) -> Path:
        """The file that the manifest names, in the first of `folders` that has it.

        Raises `PackError` when it is missing, or its size or SHA-256 is not the manifest's.
        """
        entry = manifest["files"].get(name)
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if entry is None or file is None or name != Path(name).name:
            raise PackError(f"{name} is missing from {' and '.join(map(str, folders))}; {self.again}")
        if not verify_file(file, entry):
            raise PackError(f"{file} is damaged (its SHA-256 is wrong); {self.again}")
        return file


def check_entries(value: Any, expected: Any, name: str = "it") -> None:
    """Raises `KeyError` or `TypeError` where a value that JSON gave, called `name`, is not what is expected.

    expected: a type; or entries by name, beside which there may be others, that of `ANY` for all names, and those with
    a `?` behind the name only where they are there; or a list of one, for all items of a list.
    """
    kind: Any = expected if isinstance(expected, type) else type(expected)
    if type(value) is not kind:
        raise TypeError(f"{name}: got {type(value).__name__}, expected {kind.__name__}")
    if kind is list:
        for item in value:
            check_entries(item, expected[0], name)
    elif kind is dict:
        for key, of_key in expected.items():
            names = [key]
            if key == ANY:
                names = list(value)
            elif key.endswith("?"):
                names = [present for present in (key[:-1],) if present in value]
            for entry in names:
                check_entries(value[entry], of_key, entry)


PACK = FolderKind(
    PACK_MANIFEST,
    "a pack",
    "install the pack again",
    entries={
        "name": str,
        "base": {"name": str},
        "sizes": {},
        "decoder": {},
        "tasks": [{"name": str}],
        "provenance": {},
    },
)
TEXT_PACK = FolderKind(
    TEXT_MANIFEST,
    "a text pack",
    "get the pack again",
    entries={
        "task": str,
        "adapter": str,
        "sizes": {},
        "prompt": {"before": str, "between": str, "end": int},
        "base": {"name": str, "sha256": str},
        "questions?": {ANY: str},
        "asked?": [str],
        "provenance": {},
    },
)
EXPORT = FolderKind(
    EXPORT_MANIFEST, "an exported folder", "export it again, or copy the whole folder again", sealed=False
)


def seal(manifest: dict[str, Any]) -> str:
    """Enter the SHA-256 of the manifest's content into it; returns the text of its file."""
    manifest["sha256"] = manifest_sha256(manifest)
    return json.dumps(manifest, indent=1) + "\n"


def without_training(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the manifest that does not name the file of the training molecules."""
    files = {name: entry for name, entry in manifest["files"].items() if Path(name).stem != TRAINING}
    return {**manifest, "files": files}


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """Of the content in a fixed form, itself left out, so that line ends and spaces do not matter."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
