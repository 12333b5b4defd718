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
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError, error_text
from ..machine.files import digest_file, replacing

FORMAT = 1
FORMATS = ("parquet", "csv")
RESUME_HINT = "what is finished is kept: --resume goes on"
_MANIFEST = re.compile(r"manifest(-\d+-of-\d+)?\.json")
_OURS = re.compile(rf"{_MANIFEST.pattern}|part-\d{{5,}}\.(parquet|csv)|top\.csv|report\.html(\.part)?|\..+\.part")
_BEFORE = re.compile(r"\.lock.*|\.manifest.*\.part")  # what a run that ended before its first manifest leaves
_SHOWN_CHARACTERS = 200  # of a setting


@dataclass
class RunDirectory:
    """An open run. settings: plain types for JSON, all that the shards' bytes depend on. shards: number -> entry with
    `file`, `bytes`, `rows`, `sha256`, `counts` of rows by status, `first` row and error of each. notes: lines for the
    user. rows: of the library, if it has ended already. Made by `open_run`.
    """

    path: Path
    settings: dict[str, Any]
    manifest: Path
    shards: dict[int, dict[str, Any]] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)  # those that this manifest lists
    rows: int | None = None
    notes: list[str] = field(default_factory=list)

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
        self.rows = n_rows
        self._write()

    def _write(self) -> None:
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "rows": self.rows,
            "shards": {str(n): self.shards[n] for n in sorted(self.own)},
        }
        with replacing(self.manifest, RESUME_HINT) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())

    def finished(self) -> list[Path]:
        """The shards' files in order."""
        return [self.file(number) for number in sorted(self.shards)]


def open_run(path: Path, settings: dict[str, Any], *, part: str = "", resume: bool, force: bool) -> RunDirectory:
    """Begin a run in `path`, or go on with the one that is there. To be called under `lock`.

    part: `2-of-4` for one of several that share the work. Raises `OutputError` when something is there and neither
    resume nor force is given, or the settings are not those it was begun with; with `force` the old run is removed.
    """
    if resume and force:
        raise OutputError("--resume keeps what is finished and --force removes it: give one of the two")
    run = RunDirectory(path, settings, path / (f"manifest-{part}.json" if part else "manifest.json"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        manifests = sorted(file for file in path.iterdir() if _MANIFEST.fullmatch(file.name))
        for file in manifests:
            _check_ours(file)
        strangers = sorted(file.name for file in path.iterdir() if not _BEFORE.fullmatch(file.name))
        if strangers and not manifests:
            raise OutputError(f"{path} holds other files ({strangers[0]}): name an empty or a new directory")
        # Of runs that share the work each may begin where others did.
        begun = any(not part or file.name in (run.manifest.name, "manifest.json") for file in manifests)
        if begun and not (resume or force):
            raise OutputError(f"{path} holds a run already: --resume to go on with it, --force to replace it")
        if force:
            _remove_run(path)
        for file in [] if force else manifests:
            _take_over(run, file)
        if not part:
            _remove_leftovers(path)
        run._write()
    except OSError as error:
        raise OutputError(f"cannot write in {path}: {error_text(error)}") from None
    return run


def _check_ours(file: Path) -> None:
    """Others have files of this name too, which not even --force may remove."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return  # damaged: it may have been ours
    if not (isinstance(content, dict) and {"format", "settings", "shards"} <= content.keys()):
        raise OutputError(f"{file} is not of a screening run: name an empty or a new directory")


def _remove_run(path: Path) -> None:
    """Manifests first: what is stopped between leaves no manifest of shards that are gone."""
    for old in sorted(path.iterdir(), key=lambda file: not _MANIFEST.fullmatch(file.name)):
        if _OURS.fullmatch(old.name):
            old.unlink()


def _remove_leftovers(path: Path) -> None:
    """What runs that were killed had not finished; nobody else is writing here now."""
    for file in path.glob(".*.part"):
        file.unlink()


def _take_over(run: RunDirectory, file: Path) -> None:
    """The finished shards of a manifest that still are what it says."""
    try:
        content = json.loads(file.read_bytes())
        held, rows, version = dict(content["settings"]), content.get("rows"), content["format"]
        shards = {int(number): dict(entry) for number, entry in content["shards"].items()}
        sums = {number: (int(entry["bytes"]), str(entry["sha256"])) for number, entry in shards.items()}
        _ = [(entry["counts"].items(), entry["first"].items()) for entry in shards.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{file} is damaged ({error_text(error)}): --force starts again") from None
    if version != FORMAT:
        raise OutputError(f"{file} is of format {version}, expected {FORMAT}: finish it with the version that began it")
    _compare(run.path, held, run.settings)
    run.rows = rows if isinstance(rows, int) else run.rows
    for number, entry in shards.items():
        fault = _fault_of(run.file(number), *sums[number])
        if fault:
            run.notes.append(f"{run.file(number).name} {fault}: it is made again")
            continue
        run.shards[number] = entry
        if file == run.manifest:
            run.own.add(number)


def _compare(path: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in dict.fromkeys([*held, *wanted]):
        was, now = held.get(key), wanted.get(key)
        if was == now:
            continue
        if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            was, now = next(pair for pair in zip(was, now, strict=True) if pair[0] != pair[1])
        old, new = (json.dumps(value)[:_SHOWN_CHARACTERS] for value in (was, now))
        raise OutputError(
            f"{path} was begun with {key.replace('_', ' ')} {old}, and now it is {new}: "
            "use what it was begun with, another directory, or --force to start again"
        )


def _fault_of(file: Path, n_bytes: int, sha256: str) -> str:
    """Words for the user; empty when the file is what it was."""
    try:
        if file.stat().st_size == n_bytes and digest_file(file) == sha256:
            return ""
        return "is not what it was"
    except FileNotFoundError:
        return "is missing"
    except (OSError, InputError) as error:
        return f"cannot be read ({error_text(error)})"


@contextmanager
def lock(path: Path, part: str = "", *, alone: bool = False) -> Iterator[None]:
    """Keep other runs out of the directory; the lock ends with the process, however it ends.

    part: of a run that shares the work with others, which may go on at the same time unless `alone`. Raises
    `OutputError`.
    """
    from filelock import FileLock, Timeout

    own, whole = (path / name for name in (f".lock-{part}" if part else ".lock", ".lock"))
    with ExitStack() as held:
        try:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(own, timeout=0))
            # First one's own, then a look at the others': of two that start at once at least one sees the other.
            others = set(path.glob(".lock*")) if alone or not part else {whole}
            for other in sorted(others - {own}):
                with FileLock(other, timeout=0):
                    pass
        except Timeout:
            raise OutputError(f"another run is writing to {path}: wait for it, or name another directory") from None
        except OSError as error:
            raise OutputError(f"cannot write in {path}: {error_text(error)}; choose another place with -o") from None
        yield


def parse_part(text: str) -> tuple[int, int]:
    """`2/4` -> (1, 4): which of how many parts, counted from 0. Raises `InputError`."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"--shard: got {text!r}, expected for example 2/4, the second of four")
    return int(first) - 1, int(last)
