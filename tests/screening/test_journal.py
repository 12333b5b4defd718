"""A journal is good up to where it was cut off, and a run that goes on from it ends in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mora_lite.screening import shards
from mora_lite.screening.journal import Journal, Scored

WINDOWS = [
    Scored(3, {"ok": 2, "empty": 1}, {"empty": (2, "no SMILES")}, b"some\nrows\x00", "ab"),
    Scored(1, {"ok": 1}, {}, b""),
    Scored(4, {"ok": 4}, {}, b"\xff" * 5000),
]


def written(path: Path) -> bytes:
    journal = Journal(path)
    journal.append(WINDOWS[:1])
    journal.append(WINDOWS[1:])
    journal.close()
    return path.read_bytes()


def test_what_was_kept_comes_back_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / ".part-00000.journal"
    assert Journal(path).read().kept == []
    whole = written(path)
    journal = Journal(path).read()
    assert journal.kept == WINDOWS
    journal.append(WINDOWS[:1])
    journal.close()
    assert path.read_bytes().startswith(whole)
    assert Journal(path).read().kept == [*WINDOWS, WINDOWS[0]]
    journal.remove()
    assert not path.exists()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_journal_is_good_up_to_where_it_is_damaged(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    whole = written(path)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at] + b"\n{}\n"])
    )
    path.write_bytes(damaged)
    journal = Journal(path).read()
    assert journal.kept == WINDOWS[: len(journal.kept)]
    assert len(journal.kept) < len(WINDOWS) or damaged.startswith(whole)
    journal.append(WINDOWS[len(journal.kept) :])  # what cannot be read is cut off, so this can be
    journal.close()
    assert Journal(path).read().kept == WINDOWS


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_windows_are_kept_in_time_and_when_writing_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(shards, "COMMIT_SECONDS", seconds)
    journal = Journal(tmp_path / "journal").read()
    kept_meanwhile = []

    def results():
        for window in WINDOWS:
            yield window
            kept_meanwhile.append(len(Journal(journal.path).read().kept))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(shards._kept_and_new(results(), journal, lambda n_rows: None))
    assert kept_meanwhile == ([1, 2, 3] if seconds == 0 else [0, 0, 0])
    assert Journal(journal.path).read().kept == WINDOWS
