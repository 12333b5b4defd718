"""Molecules that would hang or end the server do neither."""

from __future__ import annotations

import threading
import time

import pytest

from mora_lite.chem.featurizer import Featurizer
from mora_lite.serve import reader as reader_module
from mora_lite.serve.reader import SafeReader
from mora_lite.tables.library import Window
from mora_lite.tables.parsed import parse_window
from mora_lite.tables.records import Record
from mora_lite.tables.writers import mol_block


def window(*texts):
    return Window(1, [Record("", text, "") for text in texts])


@pytest.fixture
def reader():
    reader = SafeReader(Featurizer(), seconds=60)
    yield reader
    reader.close()


def test_rows_are_those_of_parse_window(reader, molecules):
    given = window(*molecules, "C1CC", "", "CCO |atomProp:0.p.1|")
    parsed, wanted = reader.parse(given), parse_window(given)
    assert (parsed.smiles, parsed.status, parsed.error) == (wanted.smiles, wanted.status, wanted.error)
    assert (parsed.bits == wanted.bits).all()


def test_drawings_are_made_once_each(reader):
    first = reader.draw(["CCO", "no molecule", "CCO"])
    assert first[0] == first[2]
    assert first[0].startswith("<svg")
    assert first[1] is None
    started = time.perf_counter()
    assert reader.draw(["CCO", "no molecule"]) == first[:2]
    assert time.perf_counter() - started < 0.1


def test_drawings_take_turns_with_those_of_others(reader):
    reader.draw(["C"])
    long = threading.Thread(target=reader.draw, args=(["C" * n for n in range(301, 400)],))
    long.start()
    assert reader.draw(["CCO"])[0].startswith("<svg")
    assert long.is_alive()
    long.join()


def test_drawings_end_when_their_time_does(reader):
    first, second = reader.draw(["CCO", "CCN"], seconds=0)
    assert first.startswith("<svg")
    assert second is None
    assert reader.draw(["CCN"])[0].startswith("<svg"), "the next time"


def test_a_process_that_dies_is_replaced(reader):
    reader.draw(["CCO"])
    reader._process._pool._workers[0].process.kill()
    assert reader.draw(["CCN"])[0].startswith("<svg")


def test_few_drawings_are_kept(reader, monkeypatch):
    monkeypatch.setattr(reader_module, "KEPT_DRAWINGS", 2)
    assert all(reader.draw(["C", "CC", "CCC", "CCCC"]))
    assert list(reader._drawings) == ["CCC", "CCCC"]


def test_a_molecule_that_takes_too_long_to_lay_out_has_no_atoms(reader):
    assert reader.mol_block("ethanol", "CCO") == mol_block("ethanol", "CCO")
    assert reader.mol_block("a", mol_block("b", "CCO")) == mol_block("b", "CCO"), "a mol block stays as it is"
    slow = SafeReader(Featurizer(), seconds=1)
    try:
        assert slow.mol_block("chain", "C" * 2000) == mol_block("chain", "")
    finally:
        slow.close()
