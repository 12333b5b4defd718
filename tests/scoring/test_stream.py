"""Tables in and out: every row and every cell survives, and predictions stand beside them."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from unittest import mock

import numpy as np
import pytest
from atom_counter import AtomCounter
from fragile_reading import CRASHES, HANGS, FragileFeaturizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pool_here import PoolHere
from rdkit import Chem

from mora_lite.chem.molecules import parse_smiles
from mora_lite.machine.workers import WorkerPool
from mora_lite.scoring import parallel, stream
from mora_lite.scoring.scores import Scores
from mora_lite.scoring.stream import AnswerColumns, predict_library
from mora_lite.tables.formats import add_columns
from mora_lite.tables.library import open_library

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN(CC)CC", "O=C=O", "CC(C)C"]


class Calibrated(AtomCounter):
    """Its intervals go from `low` to the value. inside: bool, whether each molecule is in the domain of each task."""

    def __init__(self, names, inside, low=0.0):
        super().__init__(names, ("", ""))
        self.calibrator, self.inside, self.low = mock.sentinel.calibrator, inside, low

    def calibrate(self, values, bits):
        n, low = len(values), np.full_like(values, self.low)
        return Scores(values, ["ok"] * n, [""] * n, low, values, np.ones_like(values), self.inside[:n])


def counter(*names):
    return AtomCounter(names or ("atoms", "mass"), ("", "" if names else "Da"), (1, 12.345678))


def write(path, text, newline="\n"):
    data = text if isinstance(text, bytes) else text.replace("\n", newline).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def predict(source, target, smiles_column=None, chunk_rows=1024, model=None, **options):
    """The whole way from file to file; returns header, rows and summary."""
    with (
        mock.patch.object(stream, "CHUNK_ROWS", chunk_rows),
        open_library(source, smiles_column, cells=True) as library,
    ):
        summary = predict_library(
            library, str(target), AnswerColumns(**options), lambda: model or counter(), unused, force=True
        )
    unpack = gzip.open if str(target).endswith(".gz") else open
    with unpack(target, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t" if ".tsv" in target.name else library.delimiter, strict=True)
    return header, rows, summary


def unused():
    raise AssertionError("a small table needs no other model")


@pytest.fixture(autouse=True, scope="module")
def reading_here():
    with mock.patch.object(parallel, "WorkerPool", PoolHere):
        yield


def test_a_molecule_at_which_rdkit_hangs_or_dies_is_a_row_of_a_small_table_too(tmp_path):
    source = write(tmp_path / "a.smi", "\n".join(["C", HANGS, "CC", CRASHES, "CCC"]))
    model = counter()
    model.featurizer = FragileFeaturizer()
    with mock.patch.object(parallel, "WorkerPool", WorkerPool), open_library(source, cells=True) as library:
        summary = predict_library(
            library, str(tmp_path / "o.csv"), AnswerColumns(), lambda: model, unused, time_limit=1.0
        )
    with open(tmp_path / "o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "timeout", "ok", "crashed", "ok"]
    assert [row["atoms"] for row in rows] == ["1", "", "2", "", "3"]
    assert summary.n_ok == 3


def test_the_summary_counts_by_task_whatever_its_name(tmp_path):
    """A name may have a blank, at which the column `outside` divides names."""
    source = write(tmp_path / "in.csv", "smiles\nC\nCC\n")
    model = Calibrated(("number of atoms", "mass"), np.array([[False, True], [False, False]]))
    _, _, summary = predict(source, tmp_path / "out.csv", model=model)
    assert summary.outside == {"number of atoms": 2, "mass": 1}


def test_the_output_is_the_input_with_columns_added(tmp_path):
    source = write(tmp_path / "a.csv", "name,smiles,note\nethanol,CCO,x\nbad,C1CC,\n,,\n")
    header, rows, summary = predict(source, tmp_path / "out.csv")
    assert header == ["name", "smiles", "note", "atoms", "mass [Da]", "status", "error"]
    assert rows[0] == ["ethanol", "CCO", "x", "3", "37.037", "ok", ""]
    assert rows[1] == ["bad", "C1CC", "", "", "", "unparsable", "unclosed ring"]
    assert rows[2] == ["", "", "", "", "", "empty", "no SMILES in this row"]
    assert (summary.n_rows, summary.n_ok) == (3, 1)
    assert summary.first == {"unparsable": (2, "unclosed ring"), "empty": (3, "no SMILES in this row")}


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 1000])
def test_chunks_do_not_show(tmp_path, chunk_rows):
    source = write(tmp_path / "a.csv", "smiles\n" + "\n".join(SMILES) + "\nxx\n")
    _, rows, summary = predict(source, tmp_path / "out.csv", chunk_rows=chunk_rows)
    assert [row[0] for row in rows] == [*SMILES, "xx"]
    assert summary.first["unparsable"][0] == 7


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [*SMILES, "", '"', "a,b", "a\nb", "a\r\nb", "\r", " x ", "\ufeff", "1.50", "007", "NA", "=1+1"]
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=8)
)
# A NUL in a table is an error of the csv module before Python 3.11.
if sys.version_info < (3, 11):
    tables = tables.filter(lambda table: not any("\0" in cell for row in table for cell in row))


@given(table=tables, packed=st.booleans(), line_end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_keeps_every_cell_and_row(tmp_path, table, packed, line_end):
    header = ["smiles", *(cell + "_" for cell in table[0][1:])]
    text = io.StringIO(newline="")
    # All quoted, for a lone CR in a bare cell would end the line.
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([header, *table])
    suffix = ".csv.gz" if packed else ".csv"
    source = tmp_path / f"in{suffix}"
    data = text.getvalue().encode()
    source.write_bytes(gzip.compress(data) if packed else data)
    got_header, got, summary = predict(source, tmp_path / f"out{suffix}", chunk_rows=3)
    width = len(header)
    assert got_header[:width] == header
    assert [row[:width] for row in got] == table
    assert all(len(row) == width + 4 for row in got)
    assert [row[-2] for row in got] == [parse_smiles(row[0]).status for row in table]
    assert summary.n_rows == len(table)


def test_bytes_that_are_not_utf8_come_back_unchanged(tmp_path):
    source = write(tmp_path / "a.csv", b"smiles,name\nCCO,caf\xe9\nC\xff\xfeC,x\n")
    _, rows, _ = predict(source, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_bytes().split(b"\n")
    assert lines[1].startswith(b"CCO,caf\xe9,3,")
    assert lines[2].startswith(b"C\xff\xfeC,x,")
    assert [row[-2] for row in rows] == ["ok", "unparsable"]
    assert rows[1][-1] == "character 2 (byte 0xFF) is not ASCII"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_byte_order_marks_line_ends_and_delimiters(tmp_path, mark, line_end, delimiter):
    lines = ["smiles,name", "CCO,a", '"CC","b"', ""]
    text = line_end.join(line.replace(",", delimiter) for line in lines)
    header, rows, _ = predict(write(tmp_path / "a.csv", mark + text.encode()), tmp_path / "out.csv")
    assert header[:2] == ["smiles", "name"]
    assert [row[:2] for row in rows] == [["CCO", "a"], ["CC", "b"]]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_table_with_decimal_commas_goes_on_with_them(tmp_path, delimiter):
    lines = ["smiles,logS,MW", "CCO,0|85,46|07", "xx,-1|2,", "C,,16"]
    text = "\n".join(line.replace(",", delimiter).replace("|", ",") for line in lines)
    source = write(tmp_path / "a.csv", text)
    _, rows, _ = predict(source, tmp_path / "out.csv")
    assert [row[1:5] for row in rows] == [
        ["0,85", "46,07", "3", "37,037"],
        ["-1,2", "", "", ""],
        ["", "16", "1", "12,3457"],
    ]
    points = write(tmp_path / "b.csv", text.replace("46,07", "46.07").replace("16", "16.0"))
    assert [row[4] for row in predict(points, tmp_path / "out2.csv")[1]] == ["37.037", "", "12.3457"]


def test_an_sdf_has_atoms_only_for_what_was_scored(tmp_path):
    """Thousands of atoms take minutes to draw."""
    source = write(tmp_path / "a.csv", f"smiles,name\nCCO,one\n{'C' * 600},long\nC1CC,bad\n,none\n")
    with open_library(source, cells=True, name_column="name") as library:
        predict_library(library, str(tmp_path / "o.sdf"), AnswerColumns(), counter, unused)
    molecules = list(Chem.SDMolSupplier(str(tmp_path / "o.sdf")))
    assert [mol.GetNumAtoms() for mol in molecules] == [3, 0, 0, 0]
    assert [mol.GetProp("_Name") for mol in molecules] == ["one", "long", "bad", "none"]
    assert [mol.GetProp("status") for mol in molecules] == ["ok", "too_large", "unparsable", "empty"]


def test_decimal_commas_in_quotes_are_no_reason_to_write_more_of_them(tmp_path):
    source = write(tmp_path / "a.csv", 'smiles,logS\nCCO,"0,85"\n')
    assert predict(source, tmp_path / "out.csv")[1][0][1:4] == ["0,85", "3", "37.037"]


def test_a_sheet_has_the_numbers_of_decimal_commas(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    source = write(tmp_path / "a.csv", "smiles;logS;name\nCCO;0,85;1\nC;-12,5;2\nCC;1,20;3\n")
    with open_library(source, cells=True) as library:
        predict_library(library, str(tmp_path / "o.xlsx"), AnswerColumns(), counter, unused)
    _, *rows = openpyxl.load_workbook(tmp_path / "o.xlsx").active.values
    assert [row[1] for row in rows] == [0.85, -12.5, "1,20"]  # what a number would not give back stays


def test_where_no_number_shows_its_mark_a_note_says_so(tmp_path):
    notes = []
    for name, text in (
        ("a.csv", "id;smiles\n1;CCO\n"),
        ("b.csv", "id,smiles\n1,CCO\n"),
        ("c.csv", "x;smiles\n0,5;C\n"),
    ):
        with open_library(write(tmp_path / name, text), cells=True) as library:
            predict_library(library, str(tmp_path / f"o{name}"), AnswerColumns(), counter, unused, on_note=notes.append)
    assert len([note for note in notes if "decimal point" in note]) == 1


@pytest.mark.parametrize("delimiter", ["\t", "|", ";"])
def test_locants_are_no_decimals_and_what_decides_is_told(tmp_path, delimiter):
    pairs = write(tmp_path / "a.csv", "smiles locants\nCCO 1,4\nC 12,7\n".replace(" ", delimiter))
    notes = []
    with open_library(pairs, cells=True) as library:
        predict_library(library, str(tmp_path / "o.csv"), AnswerColumns(), counter, unused, on_note=notes.append)
    commas = delimiter == ";"
    assert f"{delimiter}37{',' if commas else '.'}037{delimiter}" in (tmp_path / "o.csv").read_text()
    assert notes == ["numbers are written with a decimal comma, as column 'locants' has them"] * commas


def test_a_tsv_output_has_tabs(tmp_path):
    source = write(tmp_path / "a.tsv", "smiles\tname\nCCO\ta,b\n")
    header, rows, _ = predict(source, tmp_path / "out.tsv.gz")
    assert header[:2] == ["smiles", "name"]
    assert rows[0][:2] == ["CCO", "a,b"]


def test_quoted_cells_may_hold_line_ends(tmp_path):
    source = write(tmp_path / "a.csv", 'smiles,note\nCCO,"two\r\nlines, ""quoted"""\nCC,\n')
    _, rows, _ = predict(source, tmp_path / "out.csv")
    assert rows[0][1] == 'two\r\nlines, "quoted"'
    assert len(rows) == 2


def test_ragged_rows_stay_in_place(tmp_path):
    source = write(tmp_path / "a.csv", 'name,smiles\na,CCO\nb\n2,4-xylidine,CCO,"x,y"\nd,CC,,\n\ne,CC\n\n\n')
    header, rows, summary = predict(source, tmp_path / "out.csv")
    assert {len(row) for row in rows} == {len(header)}
    assert [row[-2] for row in rows] == ["ok", "empty", "malformed", "ok", "empty", "ok"]
    assert rows[1][:2] == ["b", ""]
    assert rows[2][:2] == ["2", "4-xylidine"]
    assert rows[2][-1] == '4 cells for 2 columns; the cells beyond: CCO,"x,y"'
    assert rows[4][:2] == ["", ""]  # a blank line between rows is a row; those at the end are not
    assert summary.counts == {"ok": 3, "empty": 2, "malformed": 1}


def test_duplicate_rows_and_column_names_are_kept(tmp_path):
    source = write(tmp_path / "a.csv", "x,smiles,x,status,atoms\n1,CCO,2,s,t\n1,CCO,2,s,t\n")
    header, rows, _ = predict(source, tmp_path / "out.csv")
    assert header[:5] == ["x", "smiles", "x", "status", "atoms"]
    assert header[5:] == ["atoms (mora-lite)", "mass [Da]", "status (mora-lite)", "error"]
    assert rows[0] == rows[1]
    assert rows[0][:5] == ["1", "CCO", "2", "s", "t"]


def test_predictions_of_predictions_have_names_of_their_own():
    names = add_columns(["status", "status (mora-lite)"], ["atoms", "mass [Da]", "status", "error"])
    assert names == ["status", "status (mora-lite)", "atoms", "mass [Da]", "status (mora-lite 2)", "error"]


def test_flags_are_words_and_an_unlimited_interval_is_inf(tmp_path):
    source = write(tmp_path / "a.csv", "smiles\nCCO\nCC\nxx\n")
    inside = np.array([[False, True], [True, True]])
    model = Calibrated(("atoms", "mass"), inside, low=-np.inf)
    predict(source, tmp_path / "o.csv", model=model)
    assert (tmp_path / "o.csv").read_text().splitlines()[:4] == [
        "smiles,atoms,atoms_lo,atoms_hi,mass,mass_lo,mass_hi,similarity,in_domain,outside,status,error",
        "CCO,3,-inf,3,3,-inf,3,1,false,atoms,ok,",
        "CC,2,-inf,2,2,-inf,2,1,true,,ok,",
        "xx,,,,,,,,,,unparsable,syntax error near character 1",
    ]


def test_a_header_alone_gives_a_header_alone(tmp_path):
    header, rows, summary = predict(write(tmp_path / "a.csv", "id,smiles\n"), tmp_path / "out.csv")
    assert header == ["id", "smiles", "atoms", "mass [Da]", "status", "error"]
    assert rows == []
    assert summary.n_rows == 0


def test_a_value_that_is_no_number_is_not_printed_as_one(tmp_path):
    class Broken(AtomCounter):
        def score_graphs(self, graphs, batch_size=None):
            return super().score_graphs(graphs) * np.array([[1, np.inf], [1, 1]], np.float32)[: len(graphs)]

    source = write(tmp_path / "a.csv", "smiles\nCCO\nCC\n")
    _, _, summary = predict(source, tmp_path / "o.csv", model=Broken())
    assert summary.counts == {"not_finite": 1, "ok": 1}


def test_a_value_has_six_digits(tmp_path):
    class Small(AtomCounter):
        def score_graphs(self, graphs, batch_size=None):
            return np.tile(np.array([[-0.2458731, 1234567.0]], np.float32), (len(graphs), 1))

    source = write(tmp_path / "a.csv", "smiles\nCCO\n")
    predict(source, tmp_path / "o.csv", model=Small())
    assert (tmp_path / "o.csv").read_text().splitlines()[1] == "CCO,-0.245873,1.23457e+06,ok,"
