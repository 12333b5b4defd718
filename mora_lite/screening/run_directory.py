"""The directory of a screening run: shards, and a manifest with their settings and the list of the finished ones.

    manifest.json           settings, inputs with their SHA-256, finished shards with theirs
    part-00000.parquet      rows 1 .. 65,536, and so on; or .csv
    .part-00007.journal     what is finished of a shard that is not; see `shards.Scored`
    top.csv  report.html    made from the shards at the end

A shard gets its name only when it is complete on disk, and its entry in the manifest after that; so at any moment the
directory is that of a run that was stopped cleanly. Where several machines share the work (`--shard 2/4`), each writes
its own manifest, and all manifests in a directory count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError, error_text
from ..machine.files import replacing, verify_file

FORMAT = 1
FORMATS = ("parquet", "csv")
RESUME_HINT = "what is finished is kept: --resume goes on"
_MANIFEST = re.compile(r"manifest(-\d+-of-\d+)?\.json")
_SHARD = r"part-\d{5,}"
_OURS = re.compile(
    rf"{_MANIFEST.pattern}|{_SHARD}\.(parquet|csv)|\.{_SHARD}\.journal|top\.csv|report\.html(\.part)?|\..+\.part"
)
_EARLY = re.compile(r"\.lock.*|\.manifest.*\.part")  # left by a run that ended before its first manifest
_SHOWN_CHARACTERS = 200  # of a setting


@dataclass
class RunDirectory:
    """An open run. Made by `open_run`.

    settings: all that the shards' bytes depend on, in plain types for JSON.
    shards: number -> entry with `file`, `bytes`, `rows`, `sha256`, `counts` of rows by status, `first` row and error
        of each status.
    listed: the shards that this run's manifest lists.
    rows: of the library, once it was read to its end.
    notes: lines for the user.
    """

    path: Path
    settings: dict[str, Any]
    manifest: Path
    shards: dict[int, dict[str, Any]] = field(default_factory=dict)
    listed: set[int] = field(default_factory=set)
    rows: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the library are in finished shards."""
        return self.rows is not None and self.rows == sum(entry["rows"] for entry in self.shards.values())

    def file(self, number: int) -> Path:
        """The path of a shard, finished or not."""
        return self.path / f"part-{number:05d}.{self.settings['format']}"

    def journal(self, number: int) -> Path:
        """The file with what is finished of a shard that is not."""
        return self.path / f".part-{number:05d}.journal"

    def add(self, number: int, entry: Mapping[str, Any]) -> None:
        """Enter a finished shard into the manifest."""
        self.shards[number] = dict(entry)
        self.listed.add(number)
        self._write()

    def set_rows(self, n_rows: int) -> None:
        """Enter the number of rows of the library, once it was read to its end."""
        self.rows = n_rows
        self._write()

    def _write(self) -> None:
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "rows": self.rows,
            "shards": {str(n): self.shards[n] for n in sorted(self.listed)},
        }
        with replacing(self.manifest, RESUME_HINT) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())

    def finished(self) -> list[Path]:
        """The shards' files in order."""
        return [self.file(number) for number in sorted(self.shards)]


def open_run(path: Path, settings: dict[str, Any], *, part: str = "", resume: bool, force: bool) -> RunDirectory:
    """Begin a run in `path`, or continue the one that is there. To be called under `lock`.

    part: `2-of-4` for one of several machines that share the work.
    resume, force: continue the run that `path` holds, or remove it.

    Raises `OutputError` when the directory is not empty and neither is given, or the run was begun with other settings.
    """
    if resume and force:
        raise OutputError("--resume keeps what is finished and --force removes it: give one of the two")
    run = RunDirectory(path, settings, path / (f"manifest-{part}.json" if part else "manifest.json"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        manifests = sorted(file for file in path.iterdir() if _MANIFEST.fullmatch(file.name))
        for file in manifests:
            _check_ours(file)
        strangers = sorted(file.name for file in path.iterdir() if not _EARLY.fullmatch(file.name))
        if strangers and not manifests:
            raise OutputError(f"{path} holds other files ({strangers[0]}): name an empty or a new directory")
        # Of runs that share the work each may begin where others did.
        begun = any(not part or file.name in (run.manifest.name, "manifest.json") for file in manifests)
        if begun and not (resume or force):
            raise OutputError(f"{path} holds a run already: --resume to go on with it, --force to replace it")
        if force:
            _remove_run(path)
        for file in [] if force else manifests:
            _load_shards(run, file)
        if not part:
            for leftover in path.glob(".*.part"):  # of killed runs: under the lock nobody else is writing
                leftover.unlink()
        for number in run.shards:
            run.journal(number).unlink(missing_ok=True)
        run._write()
    except OSError as error:
        raise OutputError(f"cannot write in {path}: {error_text(error)}") from None
    return run


def check_kept(path: Path, files: Iterable[str]) -> None:
    """Raise `OutputError` for a file to read that is in `path`, where --force would remove it before it is read."""
    for file in files:
        if Path(file).resolve().parent == path.resolve():
            raise OutputError(f"{file} is in {path}, the run that --force replaces: name another directory with -o")


def _check_ours(file: Path) -> None:
    """Raise `OutputError` for a manifest of another program, which not even --force may remove."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return  # damaged: it may have been ours
    if not (isinstance(content, dict) and {"format", "settings", "shards"} <= content.keys()):
        raise OutputError(f"{file} is not of a screening run: name an empty or a new directory")


def _remove_run(path: Path) -> None:
    """Remove a run, manifests first: if this is stopped halfway, no manifest lists shards that are gone."""
    for old in sorted(path.iterdir(), key=lambda file: not _MANIFEST.fullmatch(file.name)):
        if _OURS.fullmatch(old.name):
            old.unlink()


def _load_shards(run: RunDirectory, file: Path) -> None:
    """Add the finished shards of a manifest to the run, those that still have the size and SHA-256 that it says."""
    try:
        content = json.loads(file.read_bytes())
        settings, rows, version = dict(content["settings"]), content.get("rows"), content["format"]
        shards = {int(number): dict(entry) for number, entry in content["shards"].items()}
        for entry in shards.values():
            _ = entry["bytes"], entry["sha256"], entry["counts"].items(), entry["first"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{file} is damaged ({error_text(error)}): --force starts again") from None
    if version != FORMAT:
        raise OutputError(f"{file} is of format {version}, expected {FORMAT}: finish it with the version that began it")
    _compare_settings(run.path, settings, run.settings)
    run.rows = rows if isinstance(rows, int) else run.rows
    for number, entry in shards.items():
        fault = _fault_of(run.file(number), entry)
        if fault:
            run.notes.append(f"{run.file(number).name} {fault}: it is made again")
            continue
        run.shards[number] = entry
        if file == run.manifest:
            run.listed.add(number)


def _compare_settings(path: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        if was == now:
            continue
        if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            was, now = next(pair for pair in zip(was, now, strict=True) if pair[0] != pair[1])
        elif key == "inputs" and isinstance(was, list) and isinstance(now, list):
            was, now = ([entry.get("file") for entry in entries if isinstance(entry, dict)] for entries in (was, now))
        old, new = (json.dumps(value)[:_SHOWN_CHARACTERS] for value in (was, now))
        raise OutputError(
            f"{path} was begun with {key.replace('_', ' ')} {old}, and now it is {new}: "
            "use what it was begun with, another directory, or --force to start again"
        )


def _fault_of(file: Path, entry: dict[str, Any]) -> str:
    """What is wrong with a shard's file, in words for the user; empty when nothing is."""
    try:
        return "" if verify_file(file, entry) else "is not what it was"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error_text(error)})"


def parse_part(text: str) -> tuple[int, int]:
    """`2/4` -> (1, 4): which of how many parts, counted from 0. Raises `InputError`."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"--shard: got {text!r}, expected for example 2/4, the second of four")
    return int(first) - 1, int(last)
