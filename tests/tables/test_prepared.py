"""Prepared libraries hold what a scorer needs, exactly, for every row, however they are cut."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem

from mora_lite.chem import native
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import ATOM_FIELDS, Graphs, concatenate
from mora_lite.errors import InputError, OutputError
from mora_lite.machine.workers import BETWEEN
from mora_lite.tables import prepared_files
from mora_lite.tables.library import Window, open_library
from mora_lite.tables.parquet import PREPARED_KEY
from mora_lite.tables.prepared import Prepared, WindowPreparer, from_arrow, from_ipc, prepare, to_arrow
from mora_lite.tables.prepared_files import (
    PreparedLibrary,
    PreparedWriter,
    is_prepared,
    prepare_library,
    write_prepared,
)
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


def assert_same(a: Prepared, b: Prepared) -> None:
    assert a.first_row == b.first_row
    assert all(x.equals(y) for x, y in zip(a.texts.columns, b.texts.columns, strict=True))
    for got, wanted in [
        (a.bits, b.bits),
        *((getattr(a.graphs, f.name), getattr(b.graphs, f.name)) for f in fields(Graphs)),
    ]:
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def write(path: Path, *parts: Prepared) -> Path:
    with PreparedWriter(path, ["source.smi"]) as writer:
        for part in parts:
            writer.write(part)
    return path


# --- preparing


def test_each_row_gets_its_status_and_the_good_ones_a_graph_and_bits() -> None:
    rows = prepare(
        Window(7, [Record("a", "CCO x", ""), Record("b", "C1CC", ""), Record("c", "CC", "bad"), Record("d", BLOCK, "")])
    )
    assert rows.first_row == 7
    assert rows.column("name") == ["a", "b", "c", "d"]
    assert rows.column("smiles") == ["CCO", "C1CC", "CC", "CO"]
    assert rows.column("status") == ["ok", "unparsable", "malformed", "ok"]
    assert rows.column("error") == ["", "unclosed ring", "bad", ""]
    assert rows.ok_rows.tolist() == [0, 3]
    graphs = Featurizer().read_smiles(["CCO", "OC"])
    expected = replace(rows, graphs=graphs, bits=Featurizer().fingerprints(graphs, list))
    assert_same(rows, expected)


@given(st.lists(st.text("CNOc1()[]=#+-@%.*/\\ \n\0\udcff|", max_size=30) | texts, max_size=6))
@settings(max_examples=40, deadline=None)
def test_any_texts_are_as_many_rows(chosen: list[str]) -> None:
    rows = prepare(window_of(*chosen))
    assert len(rows) == len(rows.column("error")) == len(chosen)
    assert len(rows.graphs) == len(rows.bits) == rows.column("status").count("ok")
    assert not any("\n" in text for text in rows.column("smiles") + rows.column("error"))


def test_rows_that_are_featurised_one_by_one_are_the_same() -> None:
    window, seen = window_of("CCO", "C1CC", "c1ccccc1"), []
    assert_same(prepare(window, marked={BETWEEN: "crashed"}, at=seen.append), prepare(window))
    assert seen == [0, 1, 2, -1, 0, 2, -1]


@pytest.mark.skipif(not Featurizer().is_native, reason="the native reader is not used here")
@given(window=windows, standardize=st.sampled_from(["none", "parent"]))
@settings(deadline=None)
def test_rows_are_the_same_whether_the_native_reader_or_rdkit_reads_them(window: Window, standardize: str) -> None:
    featurizer = Featurizer(standardize=standardize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "is_used", lambda: False)
        by_rdkit = prepare(window, featurizer)
    assert_same(prepare(window, featurizer), by_rdkit)


def test_the_native_reader_leaves_rdkit_only_what_it_is_not_certain_of(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Featurizer().is_native:
        pytest.skip("the native reader is not used here")
    seen: list[str] = []
    parse = Featurizer.parse_molecule
    monkeypatch.setattr(Featurizer, "parse_molecule", lambda self, text: seen.append(text) or parse(self, text))
    prepare(window_of("CCO", "C1CC", "c1ccccc1O", "CCN ethylamine"))
    assert seen == ["C1CC", "CCN ethylamine"]


def test_a_text_that_failed_is_shown_in_one_short_line() -> None:
    rows = prepare(window_of("a\r\nb" + "x" * 500))
    assert rows.column("smiles") == ["a  b" + "x" * 196]


def test_a_molecule_that_rdkit_fails_on_later_does_not_disturb_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Featurizer.graphs

    def all_but_helium(self: Featurizer, molecules: list[Chem.Mol]) -> Graphs:
        if any(mol.GetAtomWithIdx(0).GetSymbol() == "He" for mol in molecules):
            raise RuntimeError("no helium\nat all")
        return whole(self, molecules)

    monkeypatch.setattr(native, "is_used", lambda: False)
    monkeypatch.setattr(Featurizer, "graphs", all_but_helium)
    rows = prepare(window_of("CCO", "[He]", "CC"))
    assert rows.column("status") == ["ok", "unparsable", "ok"]
    assert rows.column("error")[1] == "no helium at all"
    assert rows.graphs.n_atoms.tolist() == [3, 2]
    assert len(rows.bits) == 2


# --- Arrow


@given(windows)
@settings(max_examples=40, deadline=None)
def test_arrow_and_back_is_the_same(window: Window) -> None:
    rows = prepare(window)
    batch = to_arrow(rows)
    assert batch.column("row").to_pylist() == [window.first_row + i for i in range(len(window.records))]
    assert_same(from_arrow(batch), rows)


@given(st.lists(texts, min_size=1, max_size=12), st.data())
@settings(max_examples=30, deadline=None)
def test_a_slice_of_a_batch_is_those_rows(chosen: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(chosen) - 1))
    stop = data.draw(st.integers(start + 1, len(chosen)))
    part = from_arrow(to_arrow(prepare(window_of(*chosen))).slice(start, stop - start))
    expected = prepare(window_of(*chosen[start:stop]))
    assert_same(part, replace(expected, first_row=start + 1))


# --- files


@given(
    chosen=st.lists(texts, max_size=14),
    cuts=st.lists(st.integers(0, 14), max_size=4),
    n_rows=st.integers(1, 16),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_show_neither_files_nor_row_groups(
    tmp_path: Path, chosen: list[str], cuts: list[int], n_rows: int
) -> None:
    borders = [0, *sorted(min(cut, len(chosen)) for cut in cuts), len(chosen)]
    paths = [tmp_path / f"{i}.parquet" for i in range(len(borders) - 1)]
    for path, start, stop in zip(paths, borders, borders[1:], strict=False):
        path.unlink(missing_ok=True)
        half = (start + stop) // 2  # two row groups
        write(path, *(prepare(window_of(*chosen[a:b])) for a, b in ((start, half), (half, stop)) if a < b))
    with PreparedLibrary(paths) as library:
        got = list(library.windows(n_rows))
        assert library.bytes_read == library.bytes_total or not chosen
        assert library.n_rows == len(chosen)
    assert [window.first_row for window in got] == list(range(1, len(chosen) + 1, n_rows))
    assert all(len(window) == n_rows for window in got[:-1])
    if chosen:
        whole = prepare(window_of(*chosen))
        graphs = concatenate([window.graphs for window in got])
        bits = np.concatenate([window.bits for window in got])
        texts = pa.Table.from_batches([window.texts for window in got]).combine_chunks().to_batches()[0]
        assert_same(Prepared(1, texts, graphs, bits), whole)


def test_a_library_is_prepared_in_order_whoever_prepares(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CCO a\nC1CC b\nCC c\nxx d\n")
    done: list[int] = []
    with open_library([tmp_path / "a.smi"]) as library, PreparedWriter(tmp_path / "a.parquet", library.files) as writer:
        summary = write_prepared(map(prepare, library.windows(3)), writer, done.append)
    assert done == [3, 4]
    assert summary.counts == {"ok": 2, "unparsable": 2}
    assert summary.first == {"unparsable": (2, "unclosed ring")}
    assert summary.failures() == ["  2 unparsable; the first is row 2: unclosed ring"]
    with open_library([tmp_path / "a.smi"]) as library, PreparedWriter(tmp_path / "b.parquet", library.files) as writer:
        work = WindowPreparer(Featurizer())
        windows = [work(window, {}, lambda row: None) for window in library.windows(3)]  # as in another process
        write_prepared((from_arrow(from_ipc(data)) for data in windows), writer)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.usefixtures("small_screens")
def test_one_call_prepares_a_library(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("CCO,a\nCCN,b\n")
    notes: list[str] = []
    done: list[int] = []
    target = tmp_path / "a.parquet"
    summary = prepare_library(
        tmp_path / "a.txt", target, on_note=notes.append, on_progress=lambda n_rows, library: done.append(n_rows)
    )
    assert (summary.counts, done) == ({"ok": 2}, [2])
    assert notes == [f"{tmp_path / 'a.txt'} has no header: column 1 is called 'smiles'"]
    assert PreparedLibrary(target).n_rows == 2


def test_the_file_says_what_it_was_made_from_and_with(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", prepare(window_of("CCO")))
    facts = json.loads(pq.read_schema(path).metadata[PREPARED_KEY])
    assert facts["format"] == 1
    assert dict(facts["atom_fields"]) == ATOM_FIELDS
    assert Featurizer.of(facts) == Featurizer()
    assert facts["files"] == ["source.smi"]
    assert {"rdkit", "mora_lite"} <= set(facts)
    assert pq.read_table(path).column("smiles").to_pylist() == ["CCO"]


def test_only_prepared_files_of_this_version_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = write(tmp_path / "a.parquet", prepare(window_of("CCO")))
    plain = tmp_path / "b.parquet"
    pq.write_table(pa.table({"smiles": ["CCO"]}), plain)
    assert is_prepared(prepared)
    assert not is_prepared(plain)
    assert not is_prepared(tmp_path / "none.parquet")
    with pytest.raises(InputError, match=r"b\.parquet is not a prepared library"):
        PreparedLibrary([prepared, plain])
    with pytest.raises(InputError, match=r"no such file: .*none\.parquet"):
        PreparedLibrary([tmp_path / "none.parquet"])
    with pytest.raises(InputError, match=r"a\.parquet is prepared already"):
        open_library([plain, prepared])
    monkeypatch.setattr(prepared_files, "FORMAT", 2)
    with pytest.raises(InputError, match=r"format differ; prepare it again"):
        PreparedLibrary([prepared])


def test_a_file_with_other_columns_or_no_facts_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pq.read_table(write(path, prepare(window_of("CCO"))))
    pq.write_table(table.drop_columns(["bonds"]), path)
    with pytest.raises(InputError, match="columns differ"):
        PreparedLibrary([path])
    pq.write_table(table.replace_schema_metadata({PREPARED_KEY: b"[1"}), path)
    with pytest.raises(InputError, match="description differ"):
        PreparedLibrary([path])


def test_a_file_from_before_graph_codes_of_version_2_is_of_version_1(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pq.read_table(write(path, prepare(window_of("CCO"), Featurizer(1, "none"))))
    facts = json.loads(table.schema.metadata[PREPARED_KEY])
    del facts["featurizer"]
    facts["fingerprint"] = {"radius": 2, "bits": 1024}
    pq.write_table(table.replace_schema_metadata({PREPARED_KEY: json.dumps(facts)}), path)
    assert PreparedLibrary([path]).featurizer == Featurizer(1, "none")
    for entry in ({"version": 9, "standardize": "parent"}, {"version": 2}, 7):
        metadata = {PREPARED_KEY: json.dumps(facts | {"featurizer": entry})}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(InputError, match=r"prepared by another version of mora-lite \(.*\); prepare it again"):
            PreparedLibrary([path])


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    rows = prepare(window_of(*[f"{'C' * i}O" for i in range(1, 300)]))
    path = write(tmp_path / "a.parquet", rows)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet after 0 rows"):
        list(PreparedLibrary([path]).windows(10))


def test_a_failed_run_leaves_nothing_and_a_taken_name_needs_force(tmp_path: Path) -> None:
    rows = prepare(window_of("CCO"))
    path = write(tmp_path / "a.parquet", rows)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists: use --force"):
        PreparedWriter(path)

    def write_and_fail() -> None:
        with PreparedWriter(path, force=True) as writer:
            writer.write(rows)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.parquet"]
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="is the table being read"):
        PreparedWriter(path, [str(path)], force=True)
    with pytest.raises(OutputError, match="cannot go to standard output"):
        PreparedWriter("-")
