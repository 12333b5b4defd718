"""Drawings of molecules, and of those that RDKit reads but cannot draw."""

from __future__ import annotations

import pytest
from rdkit import Chem

from mora_lite.chem.drawing import draw, draw_weights, draw_weights_png, drawing_problem
from mora_lite.chem.molecules import parse_smiles
from mora_lite.errors import DeviceError

pytestmark = pytest.mark.skipif(drawing_problem() != "", reason="RDKit cannot draw here")
SIZE = (100, 100)


def test_what_rdkit_cannot_lay_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from rdkit.Chem.Draw import rdMolDraw2D

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Pre-condition Violation")

    monkeypatch.setattr(rdMolDraw2D, "PrepareAndDrawMolecule", refuse)
    assert draw("C") is None
    for draw_discs in (draw_weights, draw_weights_png):
        with pytest.raises(DeviceError, match="RDKit cannot lay out this molecule"):
            draw_discs(Chem.MolFromSmiles("C"), [1.0], SIZE)


@pytest.mark.parametrize("smiles", ["[*+]", "[*-]c1ccccc1", "C"])
def test_wildcards_are_drawn_as_any_atom(smiles: str) -> None:
    molecule = parse_smiles(smiles).mol
    assert draw(smiles) is not None
    assert draw_weights_png(molecule, [1.0] * molecule.GetNumAtoms(), SIZE).startswith(b"\x89PNG")
