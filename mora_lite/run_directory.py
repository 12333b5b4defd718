"""The directory of a screening run: shards, and a manifest that says what they are of and which are finished.

    manifest.json           settings, inputs with their SHA-256, finished shards with theirs
    part-00000.parquet      rows 1 .. 65,536, and so on; or .csv
    top.csv  report.html    made from the shards at the end

A shard gets its name only when it is whole and on the disk, and its entry in the manifest after that; so at any moment
the directory is that of a run that was stopped cleanly. Where several machines share the work (`--shard 2/4`), each has
a manifest of its own, and all that lie in one directory count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .errors import InputError, OutputError, words_of
from .sources import digest_file

FORMAT = 1
FORMATS = ("parquet", "csv")
_NAMES = ("manifest*.json", "part-*.parquet", "part-*.csv", "top.csv", "report.html", ".*.part")


@dataclass
class RunDirectory:
    """An open run. settings: plain types for JSON, all that the shards' bytes depend on. shards: number -> entry with
    `file`, `rows`, `sha256`, `counts` of rows by status, `first` row and error of each. Made by `open_run`.
    """

    path: Path
    settings: dict[str, Any]
    manifest: Path
    shards: dict[int, dict[str, Any]] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)  # those that this manifest lists

    def file(self, number: int) -> Path:
        """Where the shard lies or will."""
        return self.path / f"part-{number:05d}.{self.settings['format']}"

    def add(self, number: int, entry: Mapping[str, Any]) -> None:
        """Enter a finished shard into the manifest."""
        self.shards[number] = dict(entry)
        self.own.add(number)
        self._write()

    def set_rows(self, n_rows: int) -> None:
        """Enter that the library has ended, after so many rows."""
        self.settings["rows"] = n_rows
        self._write()

    def _write(self) -> None:
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "shards": {str(n): self.shards[n] for n in sorted(self.own)},
        }
        with replacing(self.manifest) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())

    def finished(self) -> list[Path]:
        """The shards' files in order."""
        return [self.file(number) for number in sorted(self.shards)]


def open_run(path: Path, settings: dict[str, Any], *, part: str = "", resume: bool, force: bool) -> RunDirectory:
    """Begin a run in `path`, or go on with the one that is there.

    part: `2-of-4` for one of several that share the work. Raises `OutputError` when something is there and neither
    resume nor force is given, or the settings are not those it was begun with; with `force` the old run is removed.
    """
    manifest = path / (f"manifest-{part}.json" if part else "manifest.json")
    try:
        path.mkdir(parents=True, exist_ok=True)
        strangers = [p.name for p in path.iterdir() if not any(p.match(name) for name in (*_NAMES, ".lock*"))]
        begun = any(path.glob("manifest*.json"))
        if strangers and not begun:
            raise OutputError(f"{path} holds other files ({strangers[0]}): name an empty or a new directory")
        if begun and not (resume or force):
            raise OutputError(f"{path} holds a run already: --resume to go on with it, --force to replace it")
        if force and not resume:
            for name in _NAMES:
                for old in path.glob(name):
                    old.unlink()
        run = RunDirectory(path, settings, manifest)
        for file in sorted(path.glob("manifest*.json")):
            _take_over(run, file)
        run._write()
    except OSError as error:
        raise OutputError(f"cannot write in {path}: {words_of(error)}") from None
    return run


def _take_over(run: RunDirectory, file: Path) -> None:
    """The finished shards of a manifest that still are what it says."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        held, shards, version = content["settings"], content["shards"], content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} is damaged ({words_of(error)}): --force starts again") from None
    if version != FORMAT:
        raise OutputError(f"{file} is of format {version}, expected {FORMAT}: finish it with the version that began it")
    n_rows = held.pop("rows", None)
    _compare(run.path, held, {key: value for key, value in run.settings.items() if key != "rows"})
    if n_rows is not None:
        run.settings["rows"] = n_rows
    for name, entry in shards.items():
        if _is_whole(run.path / entry["file"], entry):
            run.shards[int(name)] = entry
            if file == run.manifest:
                run.own.add(int(name))


def _compare(path: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in dict.fromkeys([*held, *wanted]):
        if held.get(key) != wanted.get(key):
            was, now = (json.dumps(side.get(key))[:200] for side in (held, wanted))
            raise OutputError(
                f"{path} was begun with {key.replace('_', ' ')} {was}, and now it is {now}: "
                "use what it was begun with, another directory, or --force to start again"
            )


def _is_whole(file: Path, entry: Mapping[str, Any]) -> bool:
    try:
        if file.stat().st_size != entry["bytes"]:
            return False
        return digest_file(file) == entry["sha256"]
    except (OSError, InputError):
        return False


@contextmanager
def lock(path: Path, part: str = "") -> Iterator[None]:
    """Keep other runs out of the directory; the lock ends with the process, however it ends. Raises `OutputError`."""
    from filelock import FileLock, Timeout

    try:
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / (f".lock-{part}" if part else ".lock"), timeout=0):
            yield
    except Timeout:
        raise OutputError(f"another run is writing to {path}: wait for it, or name another directory") from None


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; it takes the place of `path` when it is whole and on the disk. Raises `OutputError`."""
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_directory(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {words_of(error)}; what is finished is kept: --resume goes on"
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


def parse_part(text: str) -> tuple[int, int]:
    """`2/4` -> (1, 4): which of how many parts, counted from 0. Raises `InputError`."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"--shard: got {text!r}, expected for example 2/4, the second of four")
    return int(first) - 1, int(last)
