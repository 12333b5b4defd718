"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mora_lite.errors import InputError, OutputError
from mora_lite.machine.files import (
    digest_file,
    lock,
    replace_folder,
    replacing,
    staged,
    temporary_folder,
    verify_sums,
    write_sums,
    write_tensors,
)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_where_nothing_can_be_written_the_variable_to_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(OutputError, match="TMPDIR"):
        temporary_folder()


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="limits of the size of files are of POSIX")
def test_a_file_that_may_not_grow_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from mora_lite.machine.files import replacing\nfrom mora_lite.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    with replacing(Path(sys.argv[1]), 'what is finished is kept') as file:\n"
        "        file.write(b'x' * 100_000)\n"
        "except OutputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert "File too large; what is finished is kept" in done.stdout
    assert names(tmp_path) == []


def test_tensors_are_written_whole_and_for_all_to_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.arange(6).view(2, 3).T}, {"note": "text"})
    assert torch.equal(load_file(path)["x"], torch.arange(6).view(2, 3).T)
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["a.safetensors"]
    with pytest.raises(OutputError, match="cannot write"):
        write_tensors(tmp_path / "none" / "a.safetensors", {})


def test_a_folder_is_replaced_whole_and_only_by_its_kind(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write(text: str, force: bool, stop: bool = False) -> None:
        with staged(out, force, "mark.json", "a thing") as stage:
            (stage / "mark.json").write_text(text)
            if stop:
                raise KeyError

    out.mkdir()
    write("1", force=False)  # an empty folder is free
    with pytest.raises(OutputError, match="exists; choose another name or use --force"):
        write("2", force=False)
    with pytest.raises(KeyError):
        write("2", force=True, stop=True)
    assert (out / "mark.json").read_text() == "1"
    write("2", force=True)
    assert (out / "mark.json").read_text() == "2"
    (out / "mark.json").rename(out / "thesis.txt")
    with pytest.raises(OutputError, match="exists and is not a thing, so --force does not replace it"):
        write("3", force=True)
    assert names(out) == ["thesis.txt"]
    assert names(tmp_path) == ["out"]


def test_a_link_to_a_folder_is_replaced_each_time_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    (elsewhere / "mark.json").write_text("theirs")
    out.symlink_to(elsewhere)
    for text in ("1", "2"):
        with staged(out, True, "mark.json", "a thing") as stage:
            (stage / "mark.json").write_text(text)
        assert (out / "mark.json").read_text() == text
        assert (elsewhere / "mark.json").read_text() == "theirs"
        assert names(tmp_path) == ["elsewhere", "out"]


@pytest.mark.parametrize("name", [".", "..", "-"])
def test_a_folder_without_a_name_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with (
        pytest.raises(OutputError, match=r"^got [.-]+, expected the name of a folder"),
        staged(Path(name), True, "m", "a"),
    ):
        pass


def test_a_folder_whose_entry_cannot_be_written_out_gets_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network drives refuse it, as does a folder that nobody may list; the file is whole all the same."""
    sync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "file").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "none", old)
    assert names(old) == ["file"]
    assert names(tmp_path) == ["old"]


def test_a_list_of_sums_holds_until_a_file_changes(tmp_path: Path) -> None:
    assert not verify_sums(tmp_path)
    (tmp_path / "a").write_text("1")
    write_sums(tmp_path)
    assert verify_sums(tmp_path)
    (tmp_path / "a").write_text("2")
    assert not verify_sums(tmp_path)
    (tmp_path / "a").unlink()
    assert not verify_sums(tmp_path)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert digest_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="cannot read"):
        digest_file(tmp_path / "none")


def test_two_runs_cannot_write_at_once(tmp_path: Path) -> None:
    with lock(tmp_path / "run"):
        for part in ("", "1-of-2"):
            with (
                pytest.raises(OutputError, match=r"another run is writing to .*: wait for it"),
                lock(tmp_path / "run", part),
            ):
                pass
    with lock(tmp_path / "run"):
        pass


def test_runs_that_share_the_work_go_on_together_but_not_beside_the_whole(tmp_path: Path) -> None:
    with lock(tmp_path, "1-of-2"), lock(tmp_path, "2-of-2"):
        for part, alone in (("", False), ("1-of-2", False), ("3-of-3", True)):
            with pytest.raises(OutputError, match="another run"), lock(tmp_path, part, alone=alone):
                pass
    with lock(tmp_path), pytest.raises(KeyError):  # what happens inside is not the lock's affair
        raise KeyError


def test_a_folder_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match=r"cannot write in .*; choose another place with -o"), lock(path):
            pass
