"""Where the bytes of a table come from: files, pipes and standard input, packed or not."""

from __future__ import annotations

import bz2
import io
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from mora_lite.errors import InputError
from mora_lite.tables.library import open_library
from mora_lite.tables.source import Source


@pytest.mark.parametrize("begin", ["id", "id\tsmi", "id\tsmiles\n1"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_the_kind_of_a_pipe_does_not_depend_on_how_it_is_filled(tmp_path: Path, begin: str) -> None:
    os.mkfifo(tmp_path / "pipe")

    def fill() -> None:
        with open(tmp_path / "pipe", "w") as pipe:
            for piece in (begin, "id\tsmiles\n1\tCCO\n2\tCCN\n".removeprefix(begin)):
                pipe.write(piece)
                pipe.flush()
                time.sleep(0.2)

    writer = threading.Thread(target=fill)
    writer.start()
    with open_library(tmp_path / "pipe") as library:
        records = [record for window in library.windows(1000) for record in window.records]
    assert all(record.fault == "" for record in records)
    assert [(record.name, record.text) for record in records] == [("1", "CCO"), ("2", "CCN")]
    writer.join()


@pytest.mark.parametrize("data", [b"\x89PNG", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfdx"])
def test_a_file_that_is_refused_is_not_held_open(tmp_path: Path, data: bytes) -> None:
    """Windows could not remove it."""
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError) as refused:
        open_library(tmp_path / "a.csv")
    assert refused.value.__traceback__ is not None
    assert str(tmp_path / "a.csv") not in [file.path for file in psutil.Process().open_files()]


@pytest.mark.parametrize(
    ("name", "start", "what"),
    [
        ("a.cdxml", '\ufeff<?xml version="1.0"?>\n<CDXML>', "a drawing or a page in XML or HTML"),
        ("a.csv", "\n<HTML><table>", "a drawing or a page in XML or HTML"),
        ("a.dwar", "<datawarrior-fileinfo>\nSmiles\tID\nCCO\t1\n", "a file of DataWarrior"),
        ("a.cdx", "VjCD0100\4\3\2\1", "a file of ChemDraw"),
        ("a.mae", "{ \n s_m_m2io_version\n", "a Maestro file"),
        ("a.rxn", "$RXN\n\n\n\n  1  1\n", "a file of reactions"),
        ("a.sdf", "$RDFILE 1\n", "a file of reactions"),
        ("a.mol2", "#\tName: a\n# b\n\n@<TRIPOS>MOLECULE\n", "a MOL2 file"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path: Path, name: str, start: str, what: str) -> None:
    """Each line of them was an unparsable row."""
    (tmp_path / name).write_text(start, encoding="utf-8")
    with pytest.raises(InputError, match=f"is {what}: save its molecules as SDF, or as CSV in UTF-8"):
        open_library(tmp_path / name)


def test_a_bzip2_file_is_read_as_any_other_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    packed = tmp_path / "real.cxsmiles.bz2"  # as Enamine gives its REAL space
    packed.write_bytes(bz2.compress(b"smiles\tid\tMW\n" + b"CCN |&1:1|\tZ1\t45.1\n" * 100_000))
    with open_library(packed, cells=True) as library:
        assert library.columns == ["smiles", "id", "MW"]
        assert sum(len(window.records) for window in library.windows(1000)) == 100_000
        assert library.bytes_read == library.bytes_total == packed.stat().st_size
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"real\.cxsmiles\.bz2"), open_library(packed) as library:
        list(library.windows(1000))
    packed.write_bytes(b"BZh9" + b"x" * 40)
    with pytest.raises(InputError, match="cannot unpack"):
        open_library(packed)


def test_standard_input_is_read_to_its_end_and_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"CO\nCCO\n"))))
    with open_library("-", cells=True) as library:
        assert [record.text for window in library.windows(10) for record in window.records] == ["CO", "CCO"]


def test_how_much_was_read_is_known_of_a_file_that_another_thread_has_closed(tmp_path: Path) -> None:
    (tmp_path / "a.smi.bz2").write_bytes(bz2.compress(b"CCO a\n" * 9))
    source = Source(str(tmp_path / "a.smi.bz2"))
    assert len(list(source.line_blocks(99))) == 1
    source.close()
    assert source.bytes_read == source.bytes_total
