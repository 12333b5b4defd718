"""A parsed window holds what a scorer needs for every row, whoever has read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from mora_lite.chem import native
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import ARRAYS, Graphs
from mora_lite.machine.workers import BETWEEN
from mora_lite.tables.library import Window
from mora_lite.tables.parsed import ParsedWindow, RdkitParser, parse_by_rdkit, parse_window, read_certain
from mora_lite.tables.records import Record

BLOCK = Chem.MolToMolBlock(Chem.MolFromSmiles("OC"))
TEXTS = ["CCO", "c1ccccc1 benzene", " C[C@H](N)O ", "[Na+].[Cl-]", "*", "C", "", "C1CC", "x\udcff", BLOCK, "C" * 500]
texts = st.sampled_from(TEXTS)
records = st.builds(
    Record,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.just("caf\udce9"),
    texts,
    st.sampled_from(["", "", "", "too many cells"]),
)
windows = st.builds(Window, st.integers(1, 10**12), st.lists(records, min_size=1, max_size=12))


def window_of(*texts: str) -> Window:
    return Window(1, [Record("", text, "") for text in texts])


def assert_same(a: ParsedWindow, b: ParsedWindow) -> None:
    for name in ("first_row", "names", "smiles", "status", "error"):
        assert getattr(a, name) == getattr(b, name)
    for got, wanted in [
        (a.bits, b.bits),
        *((getattr(a.graphs, name), getattr(b.graphs, name)) for name in ARRAYS),
    ]:
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def symbols_of(molecules: Sequence[Chem.Mol | None]) -> dict[str, np.ndarray]:
    """The symbols of each molecule's atoms; blank where there is none."""
    texts = ["".join(atom.GetSymbol() for atom in molecule.GetAtoms()) if molecule else "" for molecule in molecules]
    return {"symbols": np.array(texts, object)}


@pytest.mark.parametrize("marked", [{}, {0: "timeout"}])
def test_molecules_are_described_while_their_row_is_reported(marked: dict[int, str]) -> None:
    """So that one at which RDKit hangs can be told from the others."""
    now, during = [-1], []

    def describe(molecules: Sequence[Chem.Mol | None]) -> dict[str, np.ndarray]:
        during.extend(now * len(molecules))
        return symbols_of(molecules)

    def at(row: int) -> None:
        now[0] = row

    window = Window(1, [Record("", "CCO", ""), Record("", "C1CC", ""), Record("", "CC", "bad"), Record("", BLOCK, "")])
    rows = parse_window(window, marked=marked, at=at, describe=describe)
    assert rows.beside["symbols"].tolist() == ["" if marked else "CCO", "", "", "OC"]
    assert during == [0, 1, 2, 3]
    assert_same(rows, parse_window(window, marked=marked))
    elsewhere = RdkitParser(Featurizer(), symbols_of)(window, marked, at)
    assert elsewhere.beside["symbols"].tolist() == rows.beside["symbols"].tolist()


def test_no_rows_have_the_columns_of_what_is_described() -> None:
    assert parse_window(Window(1, []), describe=symbols_of).beside["symbols"].shape == (0,)
    assert not parse_window(Window(1, [])).beside


def test_what_cannot_be_featurized_is_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Featurizer, molecules: Sequence[Chem.Mol]) -> Graphs:
        if any(molecule.GetNumAtoms() == 3 for molecule in molecules):
            raise RuntimeError("no graph of this")
        return graphs(self, molecules)

    graphs = Featurizer.graphs
    monkeypatch.setattr(Featurizer, "graphs", refuse)
    rows = parse_window(window_of("CCO", "CC"), describe=symbols_of)
    assert rows.status == ["unparsable", "ok"]
    assert rows.beside["symbols"].tolist() == ["", "CC"]


def test_each_row_gets_its_status_and_the_good_ones_a_graph_and_bits() -> None:
    rows = parse_window(
        Window(7, [Record("a", "CCO x", ""), Record("b", "C1CC", ""), Record("c", "CC", "bad"), Record("d", BLOCK, "")])
    )
    assert rows.first_row == 7
    assert rows.names == ["a", "b", "c", "d"]
    assert rows.smiles == ["CCO", "C1CC", "CC", "CO"]
    assert rows.status == ["ok", "unparsable", "malformed", "ok"]
    assert rows.error == ["", "unclosed ring", "bad", ""]
    assert rows.ok_rows.tolist() == [0, 3]
    graphs = Featurizer().read_smiles(["CCO", "OC"])
    expected = replace(rows, graphs=graphs, bits=Featurizer().fingerprints(graphs, list))
    assert_same(rows, expected)


@given(st.lists(st.text("CNOc1()[]=#+-@%.*/\\ \n\0\udcff|", max_size=30) | texts, max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_texts_are_as_many_rows(chosen: list[str]) -> None:
    rows = parse_window(window_of(*chosen))
    assert len(rows) == len(rows.error) == len(chosen)
    assert len(rows.graphs) == len(rows.bits) == rows.status.count("ok")
    assert not any("\n" in text for text in rows.smiles + rows.error)


def test_rows_that_are_featurised_one_by_one_are_the_same() -> None:
    window, seen = window_of("CCO", "C1CC", "c1ccccc1"), []
    assert_same(parse_window(window, marked={BETWEEN: "crashed"}, at=seen.append), parse_window(window))
    assert seen == [0, 1, 2, -1, 0, 2, -1]


@pytest.mark.skipif(not Featurizer().is_native, reason="the native reader is not used here")
@given(window=windows, standardize=st.sampled_from(["none", "parent"]))
@settings(deadline=None)
def test_rows_are_the_same_whether_the_native_reader_or_rdkit_reads_them(window: Window, standardize: str) -> None:
    featurizer = Featurizer(standardize=standardize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "is_used", lambda: False)
        by_rdkit = parse_window(window, featurizer)
    assert_same(parse_window(window, featurizer), by_rdkit)


def test_the_native_reader_leaves_rdkit_only_what_it_is_not_certain_of(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Featurizer().is_native:
        pytest.skip("the native reader is not used here")
    seen: list[str] = []
    parse = Featurizer.parse_molecule
    monkeypatch.setattr(Featurizer, "parse_molecule", lambda self, text: seen.append(text) or parse(self, text))
    parse_window(window_of("CCO", "C1CC", "c1ccccc1O", "CCN ethylamine"))
    assert seen == ["C1CC", "CCN ethylamine"]


def test_a_text_that_failed_is_shown_in_one_short_line() -> None:
    rows = parse_window(window_of("a\r\nb" + "x" * 500))
    assert rows.smiles == ["a  b" + "x" * 196]


def test_a_molecule_that_rdkit_fails_on_later_does_not_disturb_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Featurizer.graphs

    def all_but_helium(self: Featurizer, molecules: list[Chem.Mol]) -> Graphs:
        if any(mol.GetAtomWithIdx(0).GetSymbol() == "He" for mol in molecules):
            raise RuntimeError("no helium\nat all")
        return whole(self, molecules)

    monkeypatch.setattr(native, "is_used", lambda: False)
    monkeypatch.setattr(Featurizer, "graphs", all_but_helium)
    rows = parse_window(window_of("CCO", "[He]", "CC"))
    assert rows.status == ["ok", "unparsable", "ok"]
    assert rows.error[1] == "no helium at all"
    assert rows.graphs.n_atoms.tolist() == [3, 2]
    assert len(rows.bits) == 2


@pytest.mark.skipif(not Featurizer().is_native, reason="the native reader is not used here")
@given(windows)
@settings(deadline=None)
def test_what_is_left_can_be_parsed_elsewhere(window: Window) -> None:
    featurizer = Featurizer()
    certain = read_certain(window, featurizer)
    rest = certain.rest
    assert (rest is None) == (not certain.left)
    elsewhere = None if rest is None else RdkitParser(featurizer)(rest, {}, lambda row: None)
    assert_same(certain.with_rest(elsewhere), parse_window(window, featurizer))


def test_a_row_that_is_marked_keeps_its_status_and_all_others_are_rdkits() -> None:
    window, seen = window_of("CCO", "C1CC", "CC"), []
    rows = parse_window(window, marked={2: "timeout"}, at=seen.append)
    assert rows.status == ["ok", "unparsable", "timeout"]
    assert seen == [0, 1, 2, -1]
    assert_same(rows, parse_by_rdkit(window, Featurizer(), {2: "timeout"}))


@pytest.mark.skipif(not Featurizer().is_native, reason="the native reader is not used here")
def test_the_rows_that_are_rdkits_are_reported_by_their_place_in_the_window() -> None:
    seen: list[int] = []
    parse_window(window_of("CCO", "C1CC", "CC", "xx"), at=seen.append)
    assert seen == [1, 3, -1]
