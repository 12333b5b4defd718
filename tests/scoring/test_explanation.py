"""Explanations of packs and exported folders, as tables and drawings, and percentiles beside the scores."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atom_counter import AtomCounter

import mora_lite
from mora_lite.context import approved
from mora_lite.errors import InputError, PackError
from mora_lite.model import Model
from mora_lite.scoring import predictor
from mora_lite.scoring.explanation import scale_of
from mora_lite.scoring.tasks import Task

TOLERANCE = 1e-3  # of a task's deviation
SALT = "[Na+].CC(C)(O)c1ccccc1C(=O)[O-]"
pytestmark = pytest.mark.usefixtures("few_drugs")


@pytest.fixture
def few_drugs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny pack scores them for itself."""
    monkeypatch.setattr(predictor, "approved_smiles", lambda: approved.approved_smiles()[:20])


def test_contributions_add_up_to_what_is_predicted(model: Model) -> None:
    for smiles in (SALT, "C", "CCOC(=O)c1ccncc1", "[NH4+]", "*CC*"):
        found = model.explain(smiles)
        assert (found.check() < TOLERANCE).all()
        np.testing.assert_allclose(found.values, model.score([smiles]).values[0], rtol=1e-5)
        np.testing.assert_allclose(found.base, model.score(["C"]).values[0], rtol=1e-3, atol=1e-4)
        total = found.contributions.sum(axis=0) + found.base
        np.testing.assert_allclose(total, found.values, rtol=1e-4, atol=1e-4)


def test_an_exported_folder_explains_alike(exported_path: Path, model: Model) -> None:
    runtime = pytest.importorskip("mora_lite.export.runtime")
    folder = runtime.load(exported_path, provider="cpu").explain(SALT)
    assert (folder.check() < TOLERANCE).all()
    deviations = np.array([task.deviation for task in model.tasks])
    np.testing.assert_allclose(
        folder.contributions / deviations, model.explain(SALT).contributions / deviations, atol=1e-3
    )


def test_atoms_of_a_counter_ion_have_no_contribution(model: Model) -> None:
    found = model.explain(SALT)
    drawn = found.drawn_contributions
    assert found.parent == "CC(C)(O)c1ccccc1C(=O)O"
    assert drawn.shape == (14, 3)
    assert np.isnan(drawn[0]).all()
    np.testing.assert_array_equal(drawn[1:], found.contributions)
    assert "".join(found.symbols) == "CCCOCCCCCCCOO"
    frame = found.to_pandas()
    assert list(frame) == ["atom", "symbol", "size", "polarity", "mass"]
    assert frame["symbol"][0] == "Na"
    assert json.loads(json.dumps(found.as_dict()))["tasks"][0]["contributions"][0] is None


def test_tasks_are_chosen_by_name(model: Model) -> None:
    whole, part = model.explain("CCO"), model.explain("CCO", "MASS,size")
    assert [task.name for task in part.tasks] == ["mass", "size"]
    np.testing.assert_array_equal(part.contributions, whole.contributions[:, [2, 0]])
    with pytest.raises(PackError, match="unknown task 'mas'"):
        model.explain("CCO", ["mas"])


@pytest.mark.parametrize("wrong", ["C1CC", "", ["CCO", "C"], None])
def test_what_cannot_be_explained_is_one_clear_line(model: Model, wrong: Any) -> None:
    with pytest.raises(InputError):
        model.explain(wrong)


def test_a_model_without_a_pack_can_be_explained() -> None:
    found = AtomCounter().explain("CCCO")
    np.testing.assert_allclose(found.contributions.sum(axis=0), [3, 3])
    np.testing.assert_allclose(found.base, [1, 1])


def test_a_drawing_has_a_disc_for_each_atom_that_matters(model: Model) -> None:
    found = model.explain(SALT)
    root = ET.fromstring(found.to_svg("mass"))
    discs = [child for child in root if child.tag.endswith("circle")]
    weights = found.weights("mass")
    strong = [weight for weight in weights if abs(weight) >= 0.01 * max(map(abs, weights))]
    assert [disc.get("class") for disc in discs] == ["more" if weight > 0 else "less" for weight in strong]
    assert max(float(disc.get("opacity", 0)) for disc in discs) == 1
    assert found.to_png("mass").startswith(b"\x89PNG")
    assert found._repr_svg_() == found.to_svg("size")
    assert "<style>" not in found.to_svg(styled=False)


@pytest.mark.parametrize(
    ("task", "scale"),
    [
        (Task("a", "", "", 0, 1, "class"), "log-odds"),
        (Task("a", "h", "", 0, 1, scale="log"), "log10 h"),
        (Task("a", "%", "", 0, 1, scale="logit"), "logit %"),
        (Task("a", "eV", "", 0, 1), "eV"),
    ],
)
def test_the_scale_has_a_name(task: Task, scale: str) -> None:
    assert scale_of(task) == scale


# --- beside the scores


def test_percentiles_of_a_pack_that_is_not_known_are_computed(model: Model) -> None:
    scores = model.score(["CCO", "C1CC"], percentiles=True)
    drugs = model.score(approved.approved_smiles()[:20]).values
    place = (drugs < scores.values[0]).mean(axis=0) * 100
    found = np.array([scores.beside[f"{task.name}_percentile"] for task in model.tasks])
    assert np.abs(found[:, 0] - place).max() <= 100 / 20
    assert np.isnan(found[:, 1]).all()


def test_columns_are_added_only_when_they_are_asked_for(calibrated_pack_path: Path) -> None:
    model = mora_lite.load(calibrated_pack_path, device="cpu", dtype="float32")
    plain = model.predict(["CCO", "C1CC"]).to_pandas()
    more = model.predict(["CCO", "C1CC"], extras=True, percentiles=True)
    frame = more.to_pandas()
    added = [name for name in frame if name not in plain]
    assert added[:4] == ["size_percentile", "polarity_percentile", "mass_percentile", "mol_weight"]
    assert added[-1] == "alerts"
    assert frame["mol_weight"][0] == pytest.approx(46.07, abs=0.01)
    assert frame["mol_weight"].isna()[1]
    assert more[1:].scores.beside["alerts"].tolist() == [""]
    assert more.to_arrow()["QED"].null_count == 1


def test_a_task_called_like_an_extra_keeps_its_column() -> None:
    scores = AtomCounter(("QED", "mass")).score(["CCO"], extras=True)
    columns = scores.columns(AtomCounter(("QED", "mass")).tasks)
    assert columns["QED"][0] == 3
    assert 0 < columns["QED (mora-lite)"][0] < 1
