"""A journal is good up to where it was cut off."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mora_lite.machine.journal import Entry, Journal

ENTRIES = [
    Entry({"n_rows": 3, "counts": {"ok": 2, "empty": 1}}, b"some\nrows\x00"),
    Entry({}, b""),
    Entry({"key": "café"}, b"\xff" * 5000),
]


def as_it_is(entry: Entry) -> Entry:
    return entry


def written(path: Path) -> bytes:
    journal = Journal(path, as_it_is)
    journal.append(ENTRIES[:1])
    journal.append(ENTRIES[1:])
    journal.close()
    return path.read_bytes()


def test_what_was_kept_comes_back_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert Journal(path, as_it_is).read().kept == []
    whole = written(path)
    journal = Journal(path, as_it_is).read()
    assert journal.kept == ENTRIES
    journal.append(ENTRIES[:1])
    journal.close()
    assert path.read_bytes().startswith(whole)
    assert Journal(path, as_it_is).read().kept == [*ENTRIES, ENTRIES[0]]
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
    journal = Journal(path, as_it_is).read()
    assert journal.kept == ENTRIES[: len(journal.kept)]
    assert len(journal.kept) < len(ENTRIES) or damaged.startswith(whole)
    journal.append(ENTRIES[len(journal.kept) :])  # what cannot be read is cut off, so this can be
    journal.close()
    assert Journal(path, as_it_is).read().kept == ENTRIES


def test_a_journal_ends_at_an_entry_that_is_not_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path)
    journal = Journal(path, lambda entry: entry.header["n_rows"]).read()
    assert journal.kept == [3], "the second has no such number"
    assert Journal(path, as_it_is).read().kept == ENTRIES[:1], "cut off"
