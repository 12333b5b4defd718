"""Where the bytes of a table come from: files, pipes and standard input, packed or not."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from mora_lite.errors import InputError
from mora_lite.tables.library import open_library


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


def test_standard_input_is_read_to_its_end_and_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"CO\nCCO\n"))))
    with open_library("-", cells=True) as library:
        assert [record.text for window in library.windows(10) for record in window.records] == ["CO", "CCO"]
