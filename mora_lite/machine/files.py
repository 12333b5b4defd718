"""Files written whole or not at all, their SHA-256, and what manifests say of a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, OutputError, error_text


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def file_entry(file: Path) -> dict[str, Any]:
    """What a manifest says of a file: `sha256` and `bytes`."""
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def verify_file(file: Path, entry: dict[str, Any]) -> bool:
    """Whether a file is what its manifest's entry says; the size first, which costs nothing."""
    return file.stat().st_size == entry["bytes"] and sha256_of(file) == entry["sha256"]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; it takes the place of `path` when it is whole and on the disk. Raises `OutputError`."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_directory(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error_text(error)}; what is finished is kept: --resume goes on"
        ) from None


def _sync_directory(path: Path) -> None:
    """Where the system can: that the name is on the disk too."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_file(path: str | Path) -> str:
    """SHA-256 of the file's bytes as they lie on disk, in hexadecimal. Raises `InputError` when it cannot be read."""
    try:
        return sha256_of(Path(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error_text(error)}") from None


@contextmanager
def staged(out: Path, force: bool, mark: str) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well, and goes when it does not.

    mark: the file by which an earlier one of its kind is known.
    """
    check_free(out, force, mark)
    stage = None
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
            yield stage
            stage.chmod(0o755)
            old = stage.with_name(f"{stage.name}.old")
            if out.exists():
                os.replace(out, old)
            try:
                os.replace(stage, out)
            except OSError:
                if old.exists():
                    os.replace(old, out)
                raise
            shutil.rmtree(old, ignore_errors=True)
        finally:
            if stage is not None:
                shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error_text(error)}; choose another place with -o") from None


def check_free(out: Path, force: bool, mark: str) -> None:
    """Raises `OutputError` when `out` exists and is not an export that `force` may replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / mark).is_file():
        raise OutputError(f"{out} exists and is not an exported folder; choose another name")
    if not force:
        raise OutputError(f"{out} exists; choose another name or use --force")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
