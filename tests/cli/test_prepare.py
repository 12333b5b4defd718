"""`mora-lite prepare` from outside: what is written, what is said, and with which exit code."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from mora_lite.chem.featurizer import Featurizer
from mora_lite.tables.prepared_files import PreparedLibrary


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library"
    path.mkdir()
    (path / "a.smi").write_text("CCO ethanol\nC1CC broken\n")
    (path / "b.csv.gz").write_bytes(gzip.compress(b"code,smiles,id\nx,CC,7\n"))
    return path


def test_a_library_becomes_one_file(run: Any, library: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    code, out, err = run("prepare", library / "*", "-o", target)
    assert (code, out) == (0, "")
    assert err.startswith(f"{target}: 3 rows, 2 ok, ")
    assert "bytes a row\n" in err
    assert err.endswith("  1 unparsable; the first is row 2: unclosed ring\n")
    (rows,) = PreparedLibrary([target]).windows(10)
    assert rows.column("name") == ["ethanol", "broken", "7"]
    assert rows.column("status") == ["ok", "unparsable", "ok"]


def test_columns_can_be_named_and_notices_are_told(run: Any, library: Path, tmp_path: Path) -> None:
    (library / "c.txt").write_text("CCN,9\n")
    target = tmp_path / "out.parquet"
    table, bare = library / "b.csv.gz", library / "c.txt"
    assert run("prepare", table, "-o", target, "--smiles-column", "smiles", "--name-column", "code")[0] == 0
    assert next(PreparedLibrary([target]).windows(1)).column("name") == ["x"]
    code, _, err = run("prepare", bare, "-o", target, "--name-column", "2", "--force")
    assert code == 0
    assert err.startswith(f"note: {bare} has no header: column 1 is called 'smiles'\n")
    assert next(PreparedLibrary([target]).windows(1)).column("name") == ["9"]


def test_wrong_use_is_one_line_and_leaves_nothing(run: Any, library: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    for arguments, words in [
        ([library / "none.smi", "-o", target], "no such file"),
        ([library / "*.sdf", "-o", target], "no file matches"),
        ([library / "a.smi", "-o", "-"], "cannot go to standard output"),
        ([library / "a.smi", "-o", library / "a.smi", "--force"], "is the table being read"),
    ]:
        code, out, err = run("prepare", *arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
    assert not target.exists()
    assert run("prepare", library / "a.smi", "-o", target)[0] == 0
    assert "use --force" in run("prepare", library / "a.smi", "-o", target)[2]
    code, _, err = run("prepare", library / "a.smi", target, "-o", tmp_path / "x.parquet")
    assert code == 2
    assert "is prepared already" in err


def test_nothing_but_failures_is_exit_code_1(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("xx\n")
    assert run("prepare", tmp_path / "a.smi", "-o", tmp_path / "a.parquet")[0] == 1


def test_a_library_is_prepared_for_the_packs_that_read_molecules_as_the_named_one_does(
    run: Any, first_pack_path: Path, calibrated_pack_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.smi").write_text("CC(N)C.Cl salt\nCC(N)C base\n")
    atoms = {}
    for name, options in {
        "default": [],
        "second": ["--pack", calibrated_pack_path],
        "first": ["--pack", first_pack_path],
    }.items():
        target = tmp_path / f"{name}.parquet"
        assert run("prepare", tmp_path / "a.smi", "-o", target, *options)[0] == 0
        library = PreparedLibrary([target])
        (rows,) = library.windows(10)
        assert rows.column("smiles") == ["CC(N)C.Cl", "CC(N)C"]
        atoms[library.featurizer] = rows.graphs.n_atoms.tolist()
    assert atoms == {Featurizer(): [4, 4], Featurizer(1, "none"): [5, 4]}


def test_a_library_prepared_for_other_packs_is_refused_with_what_to_do(
    run: Any, first_pack_path: Path, calibrated_pack_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.smi").write_text("CC(N)C.Cl\nCCO\n")
    target = tmp_path / "a.parquet"
    screen = ["screen", target, "-o", tmp_path / "run", "--device", "cpu", "--pack"]
    assert run("prepare", tmp_path / "a.smi", "-o", target)[0] == 0
    code, _, err = run(*screen, first_pack_path)
    assert code == 2
    assert err.count("\n") == 1
    assert (
        "was prepared for packs with graph codes 2, standardize parent, tiny has graph codes 1, standardize none" in err
    )
    assert f"prepare it for this one: mora-lite prepare --pack {first_pack_path}" in err
    assert run("prepare", tmp_path / "a.smi", "-o", target, "--pack", first_pack_path, "--force")[0] == 0
    assert run(*screen, first_pack_path, "--workers", 1)[0] == 0
    code, _, err = run(*screen, calibrated_pack_path, "--force")
    assert (code, "was prepared for packs with graph codes 1" in err) == (2, True)
    run("prepare", tmp_path / "a.smi", "-o", tmp_path / "b.parquet")
    code, _, err = run("screen", target, tmp_path / "b.parquet", "-o", tmp_path / "two", "--pack", calibrated_pack_path)
    assert code == 2
    assert "were prepared for different packs; prepare them in one way, see --pack" in err
