"""`mora-lite predict` from outside: what is a file and what a SMILES, every format in and out, small and large."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from rdkit import Chem

from mora_lite.cli.predict import typed_smiles
from mora_lite.errors import InputError
from mora_lite.scoring import parallel, stream
from mora_lite.tables.library import open_library

ROWS = ["name,smiles,note", "ethanol,CCO,x", "bad,C1CC,", '"a, b",c1ccccc1,=1', ",,", "ion,[NH4+],y"]


@pytest.fixture
def predict(run: Any, calibrated_pack_path: Path) -> Any:
    def predict(*arguments: object) -> tuple[int, str, str]:
        options = ("--pack", calibrated_pack_path, "--device", "cpu", "--dtype", "float32", "--workers", 1)
        return run("predict", *arguments, *options)

    return predict


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(ROWS) + "\n")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


# --- files or SMILES


def test_smiles_that_are_typed_are_answered_in_a_table(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = predict("CCO", "c1ccccc1O", "C1CC", "--tasks", "size,mass")
    assert code == 0
    head, first, second = out.splitlines()[1:4]
    assert "1: CCO" in head
    assert "2: c1ccccc1O" in head
    assert first.split()[0] == "size"
    assert second.split()[:2] == ["mass", "[u]"]
    assert "C1CC: unparsable, unclosed ring" in err
    assert max(map(len, out.splitlines())) <= 80
    assert predict("C1CC")[0] == 1


def test_smiles_that_are_typed_can_be_written_too(predict: Any, tmp_path: Path) -> None:
    assert predict("CCO", "N", "-o", tmp_path / "x.csv")[0] == 0
    assert [row["smiles"] for row in rows_of(tmp_path / "x.csv")] == ["CCO", "N"]


@pytest.mark.parametrize("text", ["CCO", "F/C=C/F", "[Na+].[Cl-]", "C*", "xx", "c1ccccc", "C(=O)O.Cl", "C[N+](=O)[O-]"])
def test_what_is_no_name_of_a_file_is_a_smiles(text: str) -> None:
    assert typed_smiles([text]) == [text]


@pytest.mark.parametrize("text", ["-", "none.csv", "none.SMI.gz", "no*.sdf", "dir/x.parquet", "x.txt"])
def test_what_ends_like_a_file_is_a_file(text: str) -> None:
    assert typed_smiles([text]) == []


def test_a_mixture_and_a_strange_name_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"'a\.csv' is a file and 'CCO' is taken as a SMILES"):
        typed_smiles(["CCO", "a.csv"])
    with pytest.raises(InputError, match=r"'report\.docx' is neither a file that exists nor a SMILES"):
        typed_smiles(["report.docx"])
    Path("CCO").touch()
    assert typed_smiles(["CCO"]) == []


def test_a_column_is_for_files(run: Any, tmp_path: Path) -> None:
    for command in (
        ["predict", "CCO", "--name-column", "id"],
        ["predict", "CCO", "--smiles-column", "id", "-o", tmp_path / "x.csv"],
        ["explain", "CCO", "--name-column", "id"],
        ["generate", "CCO", "--smiles-column", "id", "--pack", "reactions"],
    ):
        code, out, err = run(*command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "'CCO' is taken as a SMILES, which has no column 'id'" in err
    assert not any(tmp_path.iterdir())


# --- formats


def test_every_output_has_the_same_rows(predict: Any, table: Path, tmp_path: Path) -> None:
    assert predict(table)[0] == 0
    wanted = rows_of(tmp_path / "a.predictions.csv")
    assert list(wanted[0])[:3] == ["name", "smiles", "note"]
    for name in ("o.tsv", "o.parquet", "o.xlsx", "o.sdf", "o.csv.gz"):
        code, _, err = predict(table, "-o", tmp_path / name)
        assert code == 0, err
        with open_library(tmp_path / name, cells=True) as library:
            cells = [row for window in library.windows(10) for row in window.cells]
        places = [library.columns.index(column) for column in wanted[0]]
        assert places == sorted(places)
        for row, expected in zip(cells, wanted, strict=True):
            found = dict(zip(wanted[0], (row[i] for i in places), strict=True))
            for column, text in expected.items():
                try:
                    assert float(found[column]) == pytest.approx(float(text), rel=1e-6), (name, column)
                except ValueError:
                    assert found[column].lower() == text.lower(), (name, column)


def test_an_output_of_another_kind_is_refused_before_the_work(predict: Any, table: Path, tmp_path: Path) -> None:
    code, out, err = predict(table, "-o", tmp_path / "q.docx", "--pack", "none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "got the ending .docx, expected .csv, .tsv, .parquet, .xlsx or .sdf" in err


def test_an_sdf_comes_back_with_its_blocks_and_fields(predict: Any, tmp_path: Path) -> None:
    blocks = []
    for smiles, title in (("CCO", "one"), ("c1ccccc1", "two")):
        mol = Chem.MolFromSmiles(smiles)
        mol.SetProp("_Name", title)
        blocks.append(Chem.MolToMolBlock(mol))
    text = "".join(f"{block}>  <batch>\n{i}\n\n$$$$\n" for i, block in enumerate(blocks))
    (tmp_path / "a.sdf").write_text(text)
    assert predict(tmp_path / "a.sdf", "--short")[0] == 0
    written = (tmp_path / "a.predictions.sdf").read_text().split("$$$$\n")
    assert [part.startswith(block) for part, block in zip(written, blocks, strict=False)] == [True, True]
    first, second = Chem.SDMolSupplier(str(tmp_path / "a.predictions.sdf"))
    assert (first.GetProp("batch"), second.GetProp("batch")) == ("0", "1")
    assert predict(tmp_path / "a.sdf", "-o", tmp_path / "a.csv")[0] == 0
    assert [row["smiles"] for row in rows_of(tmp_path / "a.csv")] == ["CCO", "c1ccccc1"]


def test_a_table_keeps_its_delimiter_and_byte_order_mark(predict: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\n".join(ROWS[:2]).replace(",", ";").encode("utf-8-sig"))
    assert predict(tmp_path / "a.csv", "--short")[0] == 0
    data = (tmp_path / "a.predictions.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfname;smiles;note;size;")
    for name in ("b.tsv", "c.csv"):
        (tmp_path / name).write_text("smiles\tname\nC\tx\n")
        assert predict(tmp_path / name, "--short")[0] == 0
    assert (tmp_path / "b.predictions.tsv").read_text().startswith("smiles\tname\tsize")
    assert (tmp_path / "c.predictions.csv").read_text().startswith("smiles\tname\tsize")
    assert predict(tmp_path / "b.tsv", "--short", "-o", tmp_path / "d.csv")[0] == 0
    assert (tmp_path / "d.csv").read_text().startswith("smiles,name,size")


@pytest.mark.parametrize(("number", "mark"), [("0,85", ";"), ("0.85", ",")])
def test_tabs_of_another_name_do_not_go_into_a_csv(predict: Any, tmp_path: Path, number: str, mark: str) -> None:
    for name in ("e.txt", "f.cxsmiles"):  # as DataWarrior and vendors write them
        (tmp_path / name).write_text(f"smiles\tlogS\nC\t{number}\n")
        assert predict(tmp_path / name, "--short", "--tasks", "size")[0] == 0
        text = (tmp_path / name).with_suffix(".predictions.csv").read_text()
        assert text.startswith(f"smiles{mark}logS{mark}size{mark}status{mark}error\nC{mark}{number}{mark}")


def test_a_parquet_file_keeps_its_types(predict: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    parquet.write_table(pa.table({"id": [1, 2], "smiles": ["C", "CC"], "x": [0.5, None]}), tmp_path / "a.parquet")
    assert predict(tmp_path / "a.parquet")[0] == 0
    table = parquet.read_table(tmp_path / "a.predictions.parquet")
    assert [str(kind) for kind in table.schema.types[:3]] == ["int64", "string", "double"]
    assert table["x"].to_pylist() == [0.5, None]


def test_short_leaves_out_intervals_and_domain(predict: Any, table: Path, tmp_path: Path) -> None:
    assert predict(table, "--short", "--tasks", "size")[0] == 0
    names = list(rows_of(tmp_path / "a.predictions.csv")[0])
    assert names == ["name", "smiles", "note", "size", "status", "error"]


def test_several_files_have_a_file_each_or_one_together(predict: Any, table: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tsv").write_text("smiles\tplate\nCC\tP1\n")
    assert predict(table, tmp_path / "b.tsv")[0] == 0
    assert (tmp_path / "a.predictions.csv").exists()
    assert (tmp_path / "b.predictions.tsv").exists()
    assert predict(table, tmp_path / "b.tsv", "-o", tmp_path / "all.csv")[0] == 0
    rows = rows_of(tmp_path / "all.csv")
    assert [row["smiles"] for row in rows] == ["CCO", "C1CC", "c1ccccc1", "", "[NH4+]", "CC"]
    assert [row["plate"] for row in rows] == [""] * 5 + ["P1"]
    (tmp_path / "a.csv.gz").touch()
    (tmp_path / "a.csv.zst").write_text("smiles\nC\n")
    code, _, err = predict(table, tmp_path / "a.csv.zst", "--force")
    assert code == 2
    assert "several files want to be" in err


def test_no_input_is_replaced_by_what_another_gives(predict: Any, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("smiles\nCCO\n")
    made = tmp_path / "m.predictions.csv"
    made.write_text("smiles,note\nCC,by hand\n")
    for force in ([], ["--force"]):
        code, _, err = predict(tmp_path / "m.csv", made, *force)
        assert code == 2
        assert "m.predictions.csv is the table being read: choose another output" in err
    assert made.read_text() == "smiles,note\nCC,by hand\n"
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["m.csv", "m.predictions.csv"]


# --- large tables


def test_a_large_table_is_scored_by_other_processes_in_the_same_way(
    predict: Any, tmp_path: Path, molecules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In spawned processes, with windows of the true size."""
    names = ["", "a, b", "x\ny", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [[names[i % 4], smiles] for i, smiles in enumerate([*molecules, "C1CC", "", "C" * 450] * 2)]
        csv.writer(file).writerows([["name", "smiles"], *rows])
    options = ["--neighbours", 0, "--tasks", "mass,size"]
    assert predict(path, "-o", tmp_path / "small.csv", *options)[0] == 0
    for module in (stream, parallel):
        monkeypatch.setattr(module, "SMALL_ROWS", 1)
    code, _, err = predict(path, "-o", tmp_path / "large.csv", *options)
    assert code == 0, err
    small, large = rows_of(tmp_path / "small.csv"), rows_of(tmp_path / "large.csv")
    assert list(small[0]) == list(large[0])
    for one, other in zip(small, large, strict=True):
        for column in one:
            try:
                assert float(one[column]) == pytest.approx(float(other[column]), rel=1e-4, abs=1e-4)
            except ValueError:
                assert one[column] == other[column]


def test_a_run_without_a_bar_says_what_it_does(tmp_path, run, pack_path, monkeypatch):
    monkeypatch.setattr("mora_lite.cli.progress.FIRST_SECONDS", 0.0)
    (tmp_path / "a.smi").write_text("CCO\n")
    code, _, err = run("predict", tmp_path / "a.smi", "--pack", pack_path)
    assert code == 0
    assert err.splitlines()[0] == "loading ..."
    code, _, err = run("predict", tmp_path / "a.smi", "--pack", pack_path, "--force", "--quiet")
    assert (code, err) == (0, "")


def test_properties_and_percentiles_are_columns(
    predict: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mora_lite.context import approved
    from mora_lite.scoring import predictor

    monkeypatch.setattr(predictor, "approved_smiles", lambda: approved.approved_smiles()[:20])
    out = tmp_path / "out.csv"
    assert predict(table, "-o", out, "--tasks", "size", "--extras", "--percentiles")[0] == 0
    rows = rows_of(out)
    assert rows[0]["mol_weight"] == "46.069"
    assert 0 <= float(rows[0]["size_percentile"]) <= 100
    assert {rows[1][name] for name in ("mol_weight", "alerts", "size_percentile")} == {""}
    for module in (stream, parallel):
        monkeypatch.setattr(module, "SMALL_ROWS", 2)
    assert predict(table, "-o", tmp_path / "large.csv", "--tasks", "size", "--extras")[0] == 0
    large = rows_of(tmp_path / "large.csv")
    assert [row["QED"] for row in large] == [row["QED"] for row in rows]
    assert "size_percentile" not in large[0]
    text = predict("CCO", "--tasks", "size", "--extras")[1]
    assert "rotatable_bonds" in text
