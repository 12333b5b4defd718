"""Properties and alerts by RDKit: known values, and nothing where there is no molecule."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from mora_lite.context.extras import ALERTS, EXTRAS, extra_columns


def test_aspirin_quinone_and_nothing() -> None:
    molecules = [Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O"), None, Chem.MolFromSmiles("O=C1C=CC(=O)C=C1")]
    columns = extra_columns(molecules)
    assert list(columns) == list(EXTRAS)
    assert columns["mol_weight"][0] == pytest.approx(180.16, abs=0.01)
    assert columns["TPSA"][0] == pytest.approx(63.6)
    assert columns["QED"][0] == pytest.approx(0.55, abs=0.01)
    assert columns["crippen_logP"][0] == pytest.approx(1.31, abs=0.01)
    assert columns["PAINS"][[0, 2]].tolist() == [0, 1]
    assert columns[ALERTS][2].startswith("PAINS quinone")
    assert columns[ALERTS][1] == ""
    assert all(np.isnan(columns[name][1]) for name in EXTRAS if name != ALERTS)


def test_the_rule_of_five_counts_what_breaks_it() -> None:
    long, sugar = "C" * 40, "OCC1OC(OC2C(CO)OC(O)C(O)C2O)C(O)C(O)C1O"
    columns = extra_columns([Chem.MolFromSmiles(smiles) for smiles in ("CCO", long, sugar)])
    assert columns["lipinski_violations"].tolist() == [0, 2, 2]


def test_no_molecule_has_the_same_columns() -> None:
    columns = extra_columns([])
    assert {name: column.dtype.kind for name, column in columns.items()} == {
        name: "O" if name == ALERTS else "f" for name in EXTRAS
    }


def test_no_molecule_stops_the_others(molecules: list[str]) -> None:
    odd = [*molecules, "[U]", "[H][H]", "F[P-](F)(F)(F)(F)F", "C" * 400, "[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1"]
    columns = extra_columns([Chem.MolFromSmiles(smiles) for smiles in odd])
    assert np.isfinite(columns["mol_weight"]).all()
    broken = Chem.MolFromSmiles("C1CC1", sanitize=False)  # without what the patterns ask for
    assert extra_columns([broken, Chem.MolFromSmiles("O")])["mol_weight"][1] == pytest.approx(18.015, abs=0.01)
