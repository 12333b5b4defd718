"""SHA-256 of files, and what manifests say of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def entry_of(file: Path) -> dict[str, Any]:
    """What a manifest says of a file: `sha256` and `bytes`."""
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def is_intact(file: Path, entry: dict[str, Any]) -> bool:
    """Whether a file is what its manifest's entry says; the size first, which costs nothing."""
    return file.stat().st_size == entry["bytes"] and sha256_of(file) == entry["sha256"]
