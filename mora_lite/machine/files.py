"""Files and folders that appear whole or not at all, their SHA-256, and what manifests say of a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import InputError, OutputError, error_text

if TYPE_CHECKING:
    from torch import Tensor

SUMS = "SHA256SUMS"


def temporary_folder() -> Path:
    """That of the system. Raises `OutputError` where there is none to write in, as in a container that is read-only."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise OutputError(
            "there is no folder for temporary files that can be written; name one in the variable TMPDIR"
        ) from None


@contextmanager
def replacing(path: Path, hint: str = "") -> Iterator[IO[bytes]]:
    """A file to write; it takes the place of `path` when it is whole and on the disk. What is no file is written to.

    hint: what to do when that fails, for the message. Raises `OutputError`.
    """
    if path.exists() and not path.is_file():
        try:
            with path.open("wb") as pipe:
                yield pipe
        except BrokenPipeError:  # the reader has read enough
            raise
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error_text(error)}{hint and '; '}{hint}") from None
        return
    with replacing_path(path, hint) as part, part.open("xb") as file:
        yield file


@contextmanager
def replacing_path(path: Path, hint: str = "") -> Iterator[Path]:
    """As `replacing`, for what writes files by name: the path of a file that is to be made in the block."""
    part = _part_of(path)
    try:
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_directory(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error_text(error)}{hint and '; '}{hint}") from None


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all. Raises `OutputError`."""
    with replacing(target) as file, source.open("rb") as content:
        shutil.copyfileobj(content, file)


@contextmanager
def staged(out: Path, force: bool, mark: str, kind: str) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well, and is removed when it does not.

    force, mark, kind: as for `check_free`. Raises `OutputError`.
    """
    check_free(out, force, mark, kind)
    stage = _part_of(out)
    try:
        try:
            stage.mkdir(parents=True)
            yield stage
            replace_folder(stage, out)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error_text(error)}; choose another place with -o") from None


def check_free(out: Path, force: bool, mark: str, kind: str) -> None:
    """Raises `OutputError` when `out` exists, unless it is an empty folder, or `force` is set and it may be replaced.

    It is also raised for `.` and `..`, as nothing can take the place of what is no name, and for `-`: no folder goes to
    standard output.
    mark: name of the file by which a folder of this kind is known: replacing deletes, so nothing else is replaced.
    kind: of the folder, with its article, for the message.
    """
    if out.name in ("", "..", "-"):
        raise OutputError(f"got {out}, expected the name of a folder; the folder itself is made")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / mark).is_file():
        raise OutputError(f"{out} exists and is not {kind}, so --force does not replace it; choose another name")
    if not force:
        raise OutputError(f"{out} exists; choose another name or use --force")


def replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target` on one file system. The old `target` is removed after that, or put back if it fails.

    Of a link to a folder the link is replaced; what it leads to stays. Raises what the system raises.
    """
    old = target.with_name(f".{target.name}.old")
    _remove_folder(old)
    try:
        if os.path.lexists(target):
            os.replace(target, old)
        os.replace(source, target)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(target):
            os.replace(old, target)
        raise
    _remove_folder(old)


def _remove_folder(path: Path) -> None:
    """Remove a folder, or a link to one, where there is one and as far as the system lets it."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _part_of(path: Path) -> Path:
    """The name that a file or folder has until it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _sync_directory(path: Path) -> None:
    """Write the name to the disk too, where the system can; some network drives cannot."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def lock(path: Path, part: str = "", *, alone: bool = False) -> Iterator[None]:
    """Keep other runs out of a folder, which is made; the lock ends with the process, however it ends.

    part: of a run that shares the work with others, which may run at the same time unless `alone`.

    Raises `OutputError` when another run holds the lock.
    """
    from filelock import FileLock, Timeout

    whole = path / ".lock"
    this = path / f".lock-{part}" if part else whole
    with ExitStack() as locks:
        try:
            path.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(this, timeout=0))
            # First this lock, then a look at the others: of two runs that start at once at least one sees the other.
            others = set(path.glob(".lock*")) if alone or not part else {whole}
            for other in sorted(others - {this}):
                with FileLock(other, timeout=0):
                    pass
        except Timeout:
            raise OutputError(f"another run is writing to {path}: wait for it, or name another directory") from None
        except OSError as error:
            raise OutputError(f"cannot write in {path}: {error_text(error)}; choose another place with -o") from None
        yield


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that people can read; for files of a folder that is `staged`."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all. Raises `OutputError`."""
    from safetensors import SafetensorError  # not installed where only ONNX Runtime is
    from safetensors.torch import save_file

    with replacing_path(path) as part:
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        part.chmod(0o644)  # safetensors writes files that only their owner can read


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest_file(path: str | Path) -> str:
    """As `sha256_of`, for a file that the user gave. Raises `InputError` when it cannot be read."""
    try:
        return sha256_of(Path(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error_text(error)}") from None


def file_entry(file: Path) -> dict[str, Any]:
    """What a manifest says of a file: `sha256` and `bytes`."""
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def verify_file(file: Path, entry: dict[str, Any]) -> bool:
    """Whether a file is what its manifest's entry says; the size first, which costs nothing."""
    return file.stat().st_size == entry["bytes"] and sha256_of(file) == entry["sha256"]


def write_sums(directory: Path) -> None:
    """Write SHA256SUMS, the list of a directory's files with their SHA-256, as `sha256sum` does."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    (directory / SUMS).write_text("".join(f"{sha256_of(path)}  {path.name}\n" for path in files))


def verify_sums(directory: Path) -> bool:
    """Whether SHA256SUMS of a directory names at least one file, and all that it names are there and unchanged."""
    try:
        lines = [line.split("  ", 1) for line in (directory / SUMS).read_text().splitlines() if line]
        return bool(lines) and all(sha256_of(directory / Path(name).name) == digest for digest, name in lines)
    except (OSError, ValueError):
        return False
