"""One molecule, one answer, however it was spelled: what packs of version 2 promise, and those of version 1 do not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem

import mora_lite
from mora_lite.chem.featurizer import Featurizer
from mora_lite.model import Model
from mora_lite.packs.pack import open_pack, write_manifest

TOLERANCE = 1e-4  # of a task's deviation
FIRST_NOTE = "note: this pack reads molecules by graph codes of version 1"
ISOMERS = {
    "C[C@H](N)C(=O)O": "C[C@@H](N)C(=O)O",
    "C/C=C/[C@@H](O)Cl": "C/C=C\\[C@@H](O)Cl",
    "C[C@H]1CC[C@@H](O)CC1": "C[C@H]1CC[C@H](O)CC1",
    "F/C=C\\[C@](C)(O)c1ccccc1": "F/C=C\\[C@@](C)(O)c1ccccc1",
}
CHIRAL = list(ISOMERS)
ISOTOPES = ["CCO", "[2H]OCC", "[13CH3]CO", "C([2H])([2H])([2H])CO", "[CH3:1][CH2:2][OH:3]", "[H]OC([H])([H])C"]
SALTS = ["CC(N)Cc1ccccc1", "CC([NH3+])Cc1ccccc1.[Cl-]", "CC(N)Cc1ccccc1.OS(O)(=O)=O", "O.CC(N)CC1=CC=CC=C1"]
ZWITTERION = ["NCC(=O)O", "[NH3+]CC(=O)[O-]", "[Na+].NCC(=O)[O-]"]


def spellings(smiles: str) -> list[str]:
    """With other orders of atoms, Kekulé bonds, and hydrogens written out."""
    mol = Chem.MolFromSmiles(smiles)
    texts = [Chem.MolToSmiles(mol, doRandom=True) for _ in range(10)]
    texts += [Chem.MolToSmiles(mol, kekuleSmiles=True), Chem.MolToSmiles(Chem.AddHs(mol)), smiles]
    return sorted(set(texts))


@pytest.fixture(scope="module")
def as_drawn_path(calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack as one that was trained with `--standardize none`."""
    path = Path(shutil.copytree(calibrated_pack_path, tmp_path_factory.mktemp("packs") / "drawn"))
    entry = Featurizer(standardize="none").as_dict()
    write_manifest(path, open_pack(path).manifest | {"featurizer": entry})
    return path


@pytest.fixture(scope="module")
def model(calibrated_pack_path: Path) -> Model:
    return mora_lite.load(calibrated_pack_path, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def as_drawn(as_drawn_path: Path) -> Model:
    return mora_lite.load(as_drawn_path, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def first(first_pack_path: Path) -> Model:
    return mora_lite.load(first_pack_path, device="cpu", dtype="float32")


def spread(model: Any, texts: Sequence[str]) -> tuple[float, int]:
    """How far apart the values of these texts are, in deviations, and how many different similarities they have."""
    scores = model.predict(texts).scores
    deviations = np.array([task.deviation for task in model.tasks])
    return float((np.ptp(scores.values, axis=0) / deviations).max()), len(np.unique(scores.nearest, axis=0))


@pytest.mark.parametrize("smiles", CHIRAL)
def test_a_chiral_molecule_has_one_answer_in_all_spellings(model: Model, as_drawn: Model, smiles: str) -> None:
    texts = spellings(smiles)
    assert len(texts) > 5
    for of in (model, as_drawn):
        apart, n_similarities = spread(of, texts)
        assert apart < TOLERANCE
        assert n_similarities == 1


@pytest.mark.parametrize("smiles", CHIRAL)
def test_its_stereoisomer_has_another_answer_and_the_same_similarity(model: Model, smiles: str) -> None:
    apart, n_similarities = spread(model, [smiles, ISOMERS[smiles]])
    assert apart > 10 * TOLERANCE
    assert n_similarities == 1


def test_isotopes_and_atom_maps_change_nothing(model: Model, as_drawn: Model) -> None:
    for of in (model, as_drawn):
        apart, n_similarities = spread(of, ISOTOPES)
        assert apart < TOLERANCE
        assert n_similarities == 1


@pytest.mark.parametrize("texts", [SALTS, ZWITTERION])
def test_a_salt_has_the_answer_of_its_parent_unless_the_pack_takes_molecules_as_drawn(
    model: Model, as_drawn: Model, texts: list[str]
) -> None:
    apart, n_similarities = spread(model, texts)
    assert apart < TOLERANCE
    assert n_similarities == 1
    assert model.predict(texts).to_pandas()["smiles"].tolist() == texts, "the SMILES as given stays"
    for other in texts[1:]:
        assert spread(as_drawn, [texts[0], other])[0] > 10 * TOLERANCE


def test_a_pack_of_version_1_reads_molecules_as_it_was_trained(first: Model, model: Model) -> None:
    assert first.featurizer == Featurizer(1, "none")
    apart, n_similarities = spread(first, spellings("CC(=O)Nc1ccc(O)cc1"))
    assert apart < TOLERANCE
    assert n_similarities == 1, "what is not chiral has one answer there too"
    assert max(spread(first, spellings(smiles))[0] for smiles in CHIRAL) > 10 * TOLERANCE
    assert spread(first, SALTS)[0] > 10 * TOLERANCE
    known = first.neighbours("CC(C)(C)O").similarity[0, 0]
    assert known == 1, "its fingerprints are Morgan's, those of its training molecules"
    assert first.predict("CCCCCCO").scores.nearest[0, 0] != model.predict("CCCCCCO").scores.nearest[0, 0]


def test_predict_and_screen_tell_of_version_1_and_say_nothing_of_version_2(
    run: Any, first_pack_path: Path, calibrated_pack_path: Path, tmp_path: Path
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("smiles\n" + "\n".join(CHIRAL) + "\n")
    for pack, notes in ((first_pack_path, 1), (calibrated_pack_path, 0)):
        for command in (["predict", table, "-o", tmp_path / "out.csv"], ["screen", table, "-o", tmp_path / "run"]):
            options = ["--workers", 1] if command[0] == "screen" else []
            code, _, err = run(*command, *options, "--pack", pack, "--device", "cpu", "--force")
            assert code == 0
            assert err.count(FIRST_NOTE) == notes


@pytest.mark.parametrize("version", [1, 2])
def test_an_exported_folder_reads_molecules_as_its_pack_does(
    version: int, first: Model, model: Model, tmp_path: Path, first_pack_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("onnxruntime")
    from mora_lite.export import runtime
    from mora_lite.export.writer import export_pack

    if version == 2:
        folder, expected = request.getfixturevalue("exported_path"), model
    else:
        folder, expected = tmp_path / "onnx", first
        export_pack(open_pack(first_pack_path), folder, full=True)
    exported = runtime.load(folder, provider="cpu")
    assert exported.featurizer == expected.featurizer == Featurizer.of({"featurizer": expected.featurizer.as_dict()})
    texts = [text for smiles in CHIRAL for text in spellings(smiles)] + ISOTOPES + SALTS + ZWITTERION
    got, wanted = exported.predict(texts).scores, expected.predict(texts).scores
    deviations = np.array([task.deviation for task in expected.tasks])
    assert (np.abs(got.values - wanted.values) / deviations).max() < 1e-3
    np.testing.assert_array_equal(got.nearest, wanted.nearest)
    if version == 2:
        assert all(spread(exported, texts)[0] < TOLERANCE for texts in (*map(spellings, CHIRAL), ISOTOPES, SALTS))
