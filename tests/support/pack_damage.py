"""What tests do to a pack, by accident or with bad intent."""

from __future__ import annotations

import json
from pathlib import Path

from mora_lite.packs.pack import MANIFEST, write_manifest

KINDS = ("adapter", "baseline", "prompts", "upper")  # of files of the tiny pack


def file_of(pack: Path, kind: str) -> Path:
    (path,) = pack.glob(f"{kind}*.safetensors")
    return path


def flip(path: Path, at: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


def edit(pack: Path, **changes: object) -> None:
    """Changes the manifest and signs it anew, as someone with a text editor and bad intent would."""
    manifest = json.loads((pack / MANIFEST).read_text())
    write_manifest(pack, {**manifest, **changes})
