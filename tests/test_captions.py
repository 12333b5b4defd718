"""Descriptions: read from tables, held out by molecule, written in several orders of the molecule."""

from __future__ import annotations

from pathlib import Path

import pytest

from mora_lite.captions import read_captions
from mora_lite.errors import InputError
from mora_lite.reactions import canonical, part_of, write_block


def test_pairs_are_read_once_and_held_out_by_molecule(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(
        "cid,smiles,description,overlap_with\n"
        '1,OCC,"An alcohol,\n with two carbons.",\n'
        '2,CCO,"An alcohol, with two carbons.",\n'  # the same in other words
        "3,C1CC,Not a molecule.,\n"
        "4,CCC,,\n"
        "5,CCCC,Of another set.,chebi\n"
        "6,c1ccccc1,A ring.,\n"
    )
    pairs = read_captions([path])
    assert [(p.source, p.target) for p in pairs] == [
        ("CCO", "An alcohol, with two carbons."),
        ("c1ccccc1", "A ring."),
    ]
    assert [p.part for p in pairs] == [part_of("CCO", 0.08, 0.02), part_of("c1ccccc1", 0.08, 0.02)]
    texts, graphs = write_block(pairs, 5, seed=0)
    assert len(graphs) == 2
    assert len(texts[0]) > 1
    assert {(canonical(source), target) for source, target in texts[0]} == {("CCO", "An alcohol, with two carbons.")}


def test_tables_without_descriptions_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("smiles,text\nC,one\n")
    with pytest.raises(InputError, match="expected smiles and description"):
        read_captions([tmp_path / "bad.csv"])
    (tmp_path / "empty.csv").write_text("smiles,description\nx,one\n")
    with pytest.raises(InputError, match="no description"):
        read_captions([tmp_path / "empty.csv"])
