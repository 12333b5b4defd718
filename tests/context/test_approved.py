"""Percentiles among approved drugs: the list that ships, and the values kept for the pack `admet`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mora_lite.chem.featurizer import Featurizer
from mora_lite.context import approved
from mora_lite.context.approved import ApprovedDrugs, approved_smiles
from mora_lite.errors import PackError
from mora_lite.packs.pack import open_pack


def test_the_drugs_are_molecules_each_once() -> None:
    drugs, featurizer = approved_smiles(), Featurizer()
    assert len(drugs) == len(set(drugs)) > 1300
    assert "CC(=O)Oc1ccccc1C(=O)O" in drugs
    assert all(featurizer.parse_smiles(smiles).mol is not None for smiles in drugs)


def test_a_place_is_the_share_of_drugs_below() -> None:
    drugs = np.stack([np.arange(1001), -np.arange(1001)], axis=1).astype(np.float32)
    known = ApprovedDrugs.of(("a", "b"), drugs)
    values = np.array([[0, 0], [500, -250], [2000, -2000], [np.nan, -500]], np.float32)
    np.testing.assert_allclose(known.places(values), np.array([[0, 100], [50, 75], [100, 0], [np.nan, 50]]), rtol=1e-5)
    np.testing.assert_allclose(known.select(("b",)).places(values[:, 1:]), known.places(values)[:, 1:])


def test_the_default_pack_is_known_with_all_its_tasks() -> None:
    pack = open_pack("admet")
    known = ApprovedDrugs.known(pack.manifest["sha256"])
    assert known is not None
    assert known.names == tuple(task.name for task in pack.tasks)
    assert np.isfinite(known.percentiles).all()
    assert (np.diff(known.percentiles, axis=1) >= 0).all()


def test_another_pack_is_not_known() -> None:
    sha256 = open_pack("admet").manifest["sha256"]
    assert ApprovedDrugs.known("") is None
    assert ApprovedDrugs.known(f"{sha256[:12]}{'0' * 52}") is None


def test_what_is_written_is_read_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approved, "_files", lambda: tmp_path)
    sha256, made = "ab" * 32, ApprovedDrugs.of(("x", "y z"), np.random.default_rng(0).normal(size=(50, 2)))
    file = tmp_path / "approved_drugs_abababababab.csv"
    file.write_text("\n".join(made.lines(sha256)))
    known = ApprovedDrugs.known(sha256)
    assert known is not None
    assert known.names == made.names
    np.testing.assert_allclose(known.percentiles, made.percentiles, rtol=1e-5)
    file.write_text(f"{sha256},0\nx,1\n")
    with pytest.raises(PackError, match="damaged"):
        ApprovedDrugs.known(sha256)
