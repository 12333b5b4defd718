"""A run's directory at any moment is that of a run that was stopped cleanly, and belongs to one run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mora_lite.errors import InputError, OutputError
from mora_lite.machine.files import replacing
from mora_lite.screening.run_directory import RESUME_HINT, RunDirectory, open_run, parse_part

SETTINGS = {"pack": "tiny", "tasks": ["size"], "format": "parquet", "inputs": [{"file": "a.smi", "sha256": "aa"}]}


def begin(path: Path, resume: bool = False, force: bool = False, part: str = "", **changes: Any) -> RunDirectory:
    return open_run(path, SETTINGS | changes, part=part, resume=resume, force=force)


def add(run: RunDirectory, number: int, content: bytes = b"rows") -> Path:
    file = run.file(number)
    with replacing(file, RESUME_HINT) as stream:
        stream.write(content)
    sha256 = hashlib.sha256(content).hexdigest()
    run.add(number, {"file": file.name, "bytes": len(content), "sha256": sha256, "rows": 4, "counts": {}, "first": {}})
    return file


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


# --- begin, resume, force


def test_a_new_run_makes_its_directory_and_a_manifest(tmp_path: Path) -> None:
    run = begin(tmp_path / "a" / "run")
    assert names(run.path) == ["manifest.json"]
    assert json.loads(run.manifest.read_text()) == {"format": 1, "settings": SETTINGS, "rows": None, "shards": {}}


def test_a_run_that_is_there_is_kept_unless_one_says_what_to_do(tmp_path: Path) -> None:
    run = begin(tmp_path)
    file = add(run, 0)
    with pytest.raises(OutputError, match="holds a run already: --resume to go on with it, --force to replace it"):
        begin(tmp_path)
    again = begin(tmp_path, resume=True)
    assert again.shards == run.shards
    assert again.finished() == [file]
    assert again.notes == []
    with pytest.raises(OutputError, match="give one of the two"):
        begin(tmp_path, resume=True, force=True)
    assert begin(tmp_path, force=True, tasks=["mass"]).shards == {}
    assert names(tmp_path) == ["manifest.json"]


def test_resume_begins_where_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.0123.part").touch()  # of a run that was killed at once
    assert begin(tmp_path, resume=True).shards == {}
    assert names(tmp_path) == [".lock", "manifest.json"]


@pytest.mark.parametrize("name", ["notes.txt", "top.csv", "part-00000.parquet"])
def test_files_of_others_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for how in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(OutputError, match=rf"holds other files \({name}\): name an empty or a new directory"):
            begin(tmp_path, **how)
    assert names(tmp_path) == [name]


def test_force_removes_a_run_and_nothing_else(tmp_path: Path) -> None:
    run = begin(tmp_path)
    add(run, 0)
    own = ["top.csv", "report.html", ".top.csv.00ff.part", "manifest-1-of-2.json"]
    others = ["part-list.csv", "notes.txt", "manifest-old.json", "x.part"]
    for name in own + others:
        (tmp_path / name).write_bytes(run.manifest.read_bytes())
    begin(tmp_path, force=True)
    assert names(tmp_path) == sorted([*others, "manifest.json"])


def test_a_manifest_of_something_else_is_not_ours_to_replace(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    for how in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(OutputError, match="is not of a screening run"):
            begin(tmp_path, **how)


# --- what may not have changed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pack": "other"}, 'begun with pack "tiny", and now it is "other": use what it was begun with'),
        ({"tasks": ["size", "mass"]}, r'begun with tasks \["size"\], and now it is \["size", "mass"\]'),
        ({"window_rows": 7}, "begun with window rows null, and now it is 7"),
        (
            {"inputs": [{"file": "a.smi", "sha256": "bb"}]},
            r'begun with inputs {"file": "a.smi", "sha256": "aa"}, and now it is {"file": "a.smi", "sha256": "bb"}',
        ),
        (
            {"inputs": [{"file": "a.smi", "sha256": "aa"}, {"file": "b.smi", "sha256": "bb"}]},
            r'begun with inputs \["a.smi"\], and now it is \["a.smi", "b.smi"\]',
        ),
    ],
)
def test_each_changed_setting_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    begin(tmp_path)
    with pytest.raises(OutputError, match=words):
        begin(tmp_path, resume=True, **changes)


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"format": 1, "settings": 3, "shards": {}}', '{"format": 1, "settings": {}, "shards": {"0": {}}}']
    + [f'{{"format": 1, "settings": {json.dumps(SETTINGS)}, "shards": {shards}}}' for shards in ("[]", '{"x": {}}')],
)
def test_a_damaged_manifest_is_told_and_can_be_replaced(tmp_path: Path, content: str) -> None:
    begin(tmp_path).manifest.write_text(content)
    with pytest.raises(OutputError, match=r"manifest.json is damaged \(.*\): --force starts again"):
        begin(tmp_path, resume=True)
    assert begin(tmp_path, force=True).shards == {}


def test_a_manifest_of_another_format_is_told(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.manifest.write_text(run.manifest.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(OutputError, match="of format 9, expected 1: finish it with the version that began it"):
        begin(tmp_path, resume=True)


def test_shards_that_are_damaged_or_missing_are_made_again_and_told(tmp_path: Path) -> None:
    run = begin(tmp_path)
    files = [add(run, number) for number in range(4)]
    files[0].write_bytes(b"cows")  # of the same length
    files[1].write_bytes(b"row")
    files[2].unlink()
    again = begin(tmp_path, resume=True)
    assert list(again.shards) == [3]
    assert again.notes == [
        "part-00000.parquet is not what it was: it is made again",
        "part-00001.parquet is not what it was: it is made again",
        "part-00002.parquet is missing: it is made again",
    ]
    assert list(json.loads(again.manifest.read_text())["shards"]) == ["3"]


# --- several runs


def test_manifests_of_several_machines_are_one_run(tmp_path: Path) -> None:
    runs = [begin(tmp_path, part=f"{i}-of-2") for i in (1, 2)]
    for number in range(4):
        add(runs[number % 2], number)
    with pytest.raises(OutputError, match="holds a run already"):
        begin(tmp_path, part="2-of-2")
    assert list(begin(tmp_path, part="2-of-2", resume=True).listed) == [1, 3]
    whole = begin(tmp_path, resume=True)
    assert sorted(whole.shards) == [0, 1, 2, 3]
    assert whole.listed == set()
    whole.set_rows(16)
    assert begin(tmp_path, resume=True).rows == 16
    with pytest.raises(OutputError, match="begun with pack"):
        begin(tmp_path, part="1-of-3", resume=True, pack="other")


# --- the disk


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = begin(tmp_path)
    add(run, 0)
    before = run.manifest.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    for work in (lambda: add(run, 1), lambda: run.set_rows(3)):
        with pytest.raises(OutputError, match="No space left on device; what is finished is kept: --resume goes on"):
            work()
    assert names(tmp_path) == ["manifest.json", "part-00000.parquet"]
    assert run.manifest.read_bytes() == before


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="cannot write in"):
            begin(path)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_part_is_one_of_so_many(text: str) -> None:
    assert parse_part("2/4") == (1, 4)
    with pytest.raises(InputError, match="expected for example 2/4, the second of four"):
        parse_part(text)
