"""The table of the pack `admet`: units, values of several sources, and what the benchmark's table leaves out."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from mora_lite.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
Rows = dict[str, list[dict[str, object]]]
Make = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    for name in ("make_admet", "admet_sources", "admet_endpoints"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import make_admet

    return make_admet


def table(fields: Sequence[str], rows: Sequence[dict[str, object]], delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.fixture
def make(script: ModuleType, tmp_path: Path) -> Make:
    """Write all files, with these rows in some of them; return the rows of the table by SMILES, without empty cells."""

    def make(files: Rows, *options: str) -> dict[str, dict[str, str]]:
        assert set(files) <= {source.name for source in script.SOURCES}
        wheel = tmp_path / "b3db.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for source in script.SOURCES:
                rows = files.get(source.name, [])
                used = [source.smiles, *(column.column for column in source.columns)]
                used += [column.where[0] for column in source.columns if column.where]
                used += [name for row in rows for name in row]
                fields = list(dict.fromkeys([*used, source.name, "tdc_split"] if source.board else used))
                if source.path.startswith("B3DB/"):
                    archive.writestr(source.path, table(fields, rows, "\t"))
                    continue
                path = tmp_path / f"{source.path}.csv.gz"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(gzip.compress(table(fields, rows, ",").encode()))
        target = tmp_path / "admet.csv.gz"
        script.main([str(tmp_path), str(wheel), str(target), *options])
        with gzip.open(target, "rt", encoding="utf-8") as file:
            return {row["smiles"]: {k: v for k, v in row.items() if v} for row in csv.DictReader(file)}

    return make


def without_split(cells: dict[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in cells.items() if name != "split"}


def number(cells: dict[str, str], name: str) -> float:
    return float(cells[name])


def test_values_come_in_the_units_that_chemists_use(make: Make) -> None:
    row = {
        "pharmabench_watersol": [{"smiles": "CCO", "pb_log_solubility_nm": 6.5}],
        "pharmabench_ppb": [{"smiles": "CCO", "pb_ppb_fraction": 0.25}],
        "pharmabench_hummiccl": [{"smiles": "CCO", "pb_hlm_log_clint": 2}],
        "pharmabench_cyp2d6": [{"smiles": "CCO", "pb_cyp2d6_ic50_um": 10}],
        "cyp_openadmet_pic50": [{"smiles": "CCO", "cyp3a4_pic50": 2.5, "cyp2c9_pic50": 6.5}],
        "human_pk_lombardo": [{"smiles": "CCO", "human_vdss_l_kg": 0.5, "human_mrt_h": 3}],
        "animal_pk": [{"smiles": "CCO", "dog_fup": 0.1}],
        "B3DB_classification": [{"SMILES": "CCO", "BBB+/BBB-": "BBB+"}],
    }
    cells = make(row)["CCO"]
    expected = {
        "logS": -2.5,
        "PPB": 25,
        "PPB_dog": 90,
        "CLint_HLM": 100,
        "CYP2D6_pIC50_PharmaBench": 5,
        "CYP3A4_pIC50": 4,  # less than 4 is extrapolated
        "CYP2C9_pIC50": 6.5,
        "VDss": 0.5,
        "MRT": 3,
        "BBB": 1,
    }
    assert {name: number(cells, name) for name in expected} == pytest.approx(expected, rel=1e-4)
    assert set(cells) - set(expected) == {"smiles", "split", "sources"}
    assert set(cells["sources"].split(";")) == set(row)


def test_salts_and_charges_are_the_molecule_itself_and_unreadable_rows_are_counted(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make({"caco2_wang": [{"smiles": s, "caco2_wang": -5} for s in ("CC[NH3+].[Cl-]", "CCN", "C[[", "")]})
    assert set(rows) == {"CCN"}
    printed = capsys.readouterr().err.splitlines()[1].split()
    assert printed == ["Caco2", "2", "1", "0", "2", "caco2_wang", "2"]  # rows, molecules, conflicts, dropped, files


def test_two_values_become_their_mean_and_more_their_median_on_the_scale_of_the_endpoint(make: Make) -> None:
    rows = make(
        {
            "vdss_lombardo": [{"smiles": "CCO", "vdss_lombardo": 1}],
            "human_pk_lombardo": [{"smiles": "CCO", "human_vdss_l_kg": 4, "human_fup": 0.8}],
            "ppbr_az_species": [{"smiles": "CCO", "ppbr_az": 80, "species": "Homo sapiens"}],
            "pharmabench_logd": [{"smiles": "CCO", "pb_logd": v} for v in (1, 2, 9)],
        }
    )
    assert number(rows["CCO"], "VDss") == pytest.approx(2)  # of logarithms
    assert number(rows["CCO"], "PPB") == pytest.approx(50)  # of log-odds: 20 and 80 %
    assert number(rows["CCO"], "logD") == 2


def test_classes_go_with_the_majority_and_ties_have_no_value(make: Make) -> None:
    rows = make(
        {
            "ames": [{"smiles": "CCO", "ames": 1}, {"smiles": "CCN", "ames": 1}],
            "pharmabench_ames": [{"smiles": s, "pb_ames": v} for s, v in (("CCO", 0), ("CCN", 0), ("OCC", 0))],
            "hia_hou": [{"smiles": "NCC", "hia_hou": 1}],
        }
    )
    assert rows["CCO"]["AMES"] == "0"
    assert "AMES" not in rows["CCN"]
    assert rows["CCN"]["sources"] == "hia_hou"


@pytest.mark.parametrize(
    ("file", "column", "values", "conflicts"),
    [
        ("pharmabench_logd", "pb_logd", (1.0, 2.1), 1),
        ("pharmabench_logd", "pb_logd", (1.0, 1.9), 0),
        ("vdss_lombardo", "vdss_lombardo", (1, 11), 1),
        ("vdss_lombardo", "vdss_lombardo", (1, 9), 0),
        ("pharmabench_ppb", "pb_ppb_fraction", (0.5, 0.92), 1),  # bound to free 1 and 11.5
        ("pharmabench_ppb", "pb_ppb_fraction", (0.5, 0.9), 0),
        ("herg_karim", "herg_karim", (1, 1, 0), 1),
        ("herg_karim", "herg_karim", (1, 1, 1), 0),
    ],
)
def test_conflicts_are_counted(
    make: Make, capsys: pytest.CaptureFixture[str], file: str, column: str, values: tuple[float, ...], conflicts: int
) -> None:
    make({file: [{"smiles": "CCO", column: value} for value in values]})
    assert capsys.readouterr().err.splitlines()[1].split()[1:4] == [str(len(values)), "1", str(conflicts)]


def test_impossible_values_bounds_and_the_solubility_of_salts_are_dropped(make: Make) -> None:
    rows = make(
        {
            "herg_ctoxpred": [{"smiles": "C", "herg_pic50": v} for v in (0.02, 12)],
            "pharmabench_moumiccl": [{"smiles": "C", "pb_mlm_log_clint": 5}],
            "bsep_chembl": [{"smiles": "CC", "bsep_pic50": 4, "relation": "<", "bsep_active": 0}],
            "solubility_aqsoldb": [{"smiles": "C[NH3+].[Cl-]", "solubility_aqsoldb": 1}],
            "half_life_obach": [{"smiles": "C", "half_life_obach": 0}],
        }
    )
    assert list(rows) == ["CC"]
    assert without_split(rows["CC"]) == {"smiles": "CC", "BSEP_inhibitor": "0", "sources": "bsep_chembl"}


def test_plasma_protein_binding_is_by_species(make: Make) -> None:
    names = ("Homo sapiens", "Rattus norvegicus", "Canis lupus familiaris")
    rows = make(
        {
            "ppbr_az_species": [{"smiles": "C", "ppbr_az": 90 - i, "species": name} for i, name in enumerate(names)],
            "ppbr_az": [{"smiles": "C", "ppbr_az": 50}],
        }
    )
    assert {k: number(rows["C"], k) for k in ("PPB", "PPB_rat", "PPB_dog")} == {"PPB": 90, "PPB_rat": 89, "PPB_dog": 88}


def test_the_table_for_the_boards_has_no_value_of_a_test_row(make: Make) -> None:
    rows = make(
        {
            "half_life_obach": [
                {"smiles": "CO", "half_life_obach": 2, "tdc_split": "train_val"},
                {"smiles": "CCO", "half_life_obach": 3, "tdc_split": "test"},
            ],
            "ppbr_az": [
                {"smiles": "CO", "ppbr_az": 50, "tdc_split": "train_val"},
                {"smiles": "CCO", "ppbr_az": 60, "tdc_split": "test"},
            ],
            "ppbr_az_species": [
                {"smiles": "CO", "ppbr_az": 50, "species": "Homo sapiens", "tdc_split": "train_val"},
                {"smiles": "CCO", "ppbr_az": 60, "species": "Homo sapiens", "tdc_split": "test"},
            ],
            "human_pk_lombardo": [{"smiles": "CCCO", "human_thalf_h": 4}],
            "solubility_aqsoldb": [{"smiles": "C[NH3+].[Cl-]", "solubility_aqsoldb": 1, "tdc_split": "train_val"}],
        },
        "--boards",
    )
    assert set(rows) == {"CO", "CCCO", "CN"}
    assert without_split(rows["CO"]) == {
        "smiles": "CO",
        "half_life_obach": "2",
        "ppbr_az": "50",
        "PPB": "50",
        "sources": rows["CO"]["sources"],
    }
    assert without_split(rows["CCCO"]) == {"smiles": "CCCO", "half_life": "4", "sources": "human_pk_lombardo"}
    assert rows["CN"]["solubility_aqsoldb"] == "1"  # a board keeps what it has


def test_stereoisomers_are_held_out_together(make: Make) -> None:
    drawn = ["CC(N)C(=O)O", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"]
    rows = make({"lipo": [{"smiles": s, "lipo": 1} for s in (*drawn, *("C" * n for n in range(1, 100)))]})
    assert len({rows[smiles]["split"] for smiles in drawn}) == 1
    parts = [row["split"] for row in rows.values()]
    assert set(parts) == {"train", "valid", "test"}
    assert parts.count("train") > 60


def test_sources_can_be_left_out(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    files: Rows = {
        "lipo": [{"smiles": "CCO", "lipo": 1}],
        "pharmabench_logd": [{"smiles": "CCN", "pb_logd": 2}],
        "pharmabench_ames": [{"smiles": "CCN", "pb_ames": 1}],
    }
    assert set(make(files, "--without", "pharmabench_logd,pharmabench_ames")) == {"CCO"}
    with pytest.raises(SystemExit, match="pharmabench_logp"):
        make(files, "--without", "pharmabench_logp")


def test_nothing_is_read_that_may_not_be_shipped(script: ModuleType) -> None:
    paths = " ".join(source.path for source in script.SOURCES)
    assert not any(word in paths for word in ("unclear", "pxr", "clintox"))
    assert all(source.origin.licence and source.origin.reference for source in script.SOURCES)
    assert sum(source.board for source in script.SOURCES) == 22


def test_the_recipe_and_the_page_have_every_endpoint(script: ModuleType) -> None:
    recipe = read_recipe(ROOT / "examples" / "admet.toml")
    tasks = {task.name: task for task in recipe.tasks}
    assert list(tasks) == [endpoint.name for endpoint in script.ENDPOINTS]
    page = (ROOT / "docs" / "endpoints.md").read_text(encoding="utf-8")
    for endpoint in script.ENDPOINTS:
        task = tasks[endpoint.name]
        assert (task.unit, task.kind, task.prompt) == (endpoint.unit, endpoint.kind, endpoint.prompt)
        assert task.scale == ("" if endpoint.kind == "class" else endpoint.scale)
        assert (task.auxiliary, task.description.startswith(endpoint.meaning)) == (endpoint.auxiliary, True)
        assert f"\n| `{endpoint.name}` |" in page
    assert sum(not endpoint.auxiliary for endpoint in script.ENDPOINTS) >= 45
