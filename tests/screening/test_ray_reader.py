"""The reader of a Ray cluster sends the rows that `Library` reads, a shard to a block."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.screening import ray_reader
from mora_lite.screening.ray_reader import BLOCK, END, Reading, windows_of
from mora_lite.tables.library import Window, open_library
from mora_lite.tables.records import Record


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """22 rows: with 4 in a window and 2 windows in a shard, 3 shards."""
    rows = [*(f"C{'C' * i},row {i}" for i in range(20)), "CCO,too,many", "CCN,caf\xe9"]
    (tmp_path / "a.csv").write_bytes("\n".join(["smiles,name", *rows]).encode("latin-1"))
    return tmp_path / "a.csv"


def blocks(*files: Path, finished: tuple[int, ...] = (), part: tuple[int, int] = (0, 1)) -> list[tuple[int, Any, dict]]:
    """The number, the cell and what is said of each block."""
    reading = Reading(tuple(map(str, files)), (None, None), 4, 2, frozenset(finished), part)
    read = list(reading.blocks())
    assert all(block.schema == BLOCK and len(block) == 1 for block in read)
    return [(b["shard"][0].as_py(), b["rows"][0], json.loads(b["about"][0].as_py())) for b in read]


def test_shards_hold_the_windows_of_the_library(library: Path) -> None:
    *shards, (end, _, about) = blocks(library)
    assert [number for number, _, _ in shards] == [0, 1, 2]
    assert [about["skipped"] for _, _, about in shards] == [0, 0, 0]
    assert shards[-1][2]["bytes_read"] == library.stat().st_size
    with open_library(library) as opened:
        wanted = [(window.first_row, window.records) for window in opened.windows(4)]
    sent = [window for number, rows, _ in shards for window in windows_of(rows, 8 * number + 1)]
    assert [(window.first_row, window.records) for window in sent] == wanted
    assert "cells for 2 columns" in sent[5].records[0].fault
    assert sent[5].records[1].name == "caf\udce9"
    assert (end, about) == (END, {"skipped": 0, "rows": 22, "notes": []})


def test_what_is_finished_or_of_another_machine_is_not_sent(library: Path) -> None:
    (number, rows, about), (_, _, end) = blocks(library, finished=(0,), part=(0, 2))
    assert (number, about["skipped"]) == (2, 16)
    assert next(iter(windows_of(rows, 17))).records[0].name == "row 16"
    assert (end["skipped"], end["rows"]) == (16, 22)


def test_what_is_wrong_with_a_file_comes_after_the_rows_before(library: Path, tmp_path: Path) -> None:
    packed = gzip.compress(b"CCO a\n" * 50_000)
    (tmp_path / "b.smi.gz").write_bytes(packed[: len(packed) // 2])
    *_, (number, _, about) = read = blocks(library, tmp_path / "b.smi.gz")
    assert [number for number, _, _ in read[:3]] == [0, 1, 2]
    assert number == END
    assert about["kind"] == "InputError"
    assert about["error"].startswith(f"{tmp_path / 'b.smi.gz'} is damaged after line ")
    (_, _, about), *others = blocks(tmp_path / "gone.csv")
    assert not others
    assert about == {"kind": "InputError", "error": f"no such file: {tmp_path / 'gone.csv'}"}


texts = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))


@given(st.lists(st.lists(st.builds(Record, texts, texts, texts), min_size=1, max_size=5), min_size=1, max_size=3))
def test_any_text_arrives_as_it_was(windows: list[list[Record]]) -> None:
    packed, n_rows = ray_reader._packed(Window(1, records) for records in windows)
    assert n_rows == sum(map(len, windows))
    cell = ray_reader._block(0, packed)["rows"][0]
    sent = list(windows_of(cell, 7))
    assert [window.records for window in sent] == windows
    assert [window.first_row for window in sent][:1] == [7]
