"""Descriptions: read from tables, held out by molecule, written in several orders of the molecule."""

from __future__ import annotations

from pathlib import Path

import pytest

from mora_lite.chem.smiles import canonical
from mora_lite.errors import InputError
from mora_lite.text.pairs import asked, part_of, read_captions, read_questions, write_block


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


def test_questions_stand_behind_each_order_of_their_molecule(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(
        "smiles,question,answer\n"
        "OCC,Is it  an\talcohol?,yes\n"
        "CCO,Is it an alcohol?,yes\n"  # the same
        "CCO,How many carbons?,two\n"
        "CCC,,nothing was asked\n"
        "CCC,No answer?,\n"
        "C1CC,No molecule?,yes\n"
    )
    pairs = read_questions([path])
    assert [(p.source, p.question, p.target) for p in pairs] == [
        ("CCO", "Is it an alcohol?", "yes"),
        ("CCO", "How many carbons?", "two"),
    ]
    texts, graphs = write_block(pairs, 5, seed=0)
    assert len(graphs) == 2
    assert texts[0][0] == (asked("CCO", "Is it an alcohol?"), "yes") == ("CCO\nQuestion: Is it an alcohol?", "yes")
    assert len(texts[0]) > 1
    for source, answer in texts[0]:
        smiles, question = source.split("\n")
        assert (canonical(smiles), question, answer) == ("CCO", "Question: Is it an alcohol?", "yes")


def test_all_questions_about_a_molecule_are_in_one_part(tmp_path: Path) -> None:
    lines = [f"{'C' * n}O,Question {i}?,answer\n" for n in range(1, 60) for i in range(3)]
    (tmp_path / "some.csv").write_text("smiles,question,answer\n" + "".join(lines))
    parts: dict[str, set[str]] = {}
    for pair in read_questions([tmp_path / "some.csv"]):
        parts.setdefault(pair.source, set()).add(pair.part)
    assert {len(own) for own in parts.values()} == {1}
    assert {"train", "test"} <= set().union(*parts.values())


def test_a_split_column_decides_for_descriptions_too(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("smiles,description,part\nCCO,one,test\nOCC,two,train\nCCC,three,train\n")
    pairs = read_captions([tmp_path / "some.csv"], "part")
    assert [(p.source, p.target, p.part) for p in pairs] == [("CCO", "one", "test"), ("CCC", "three", "train")]


def test_tables_without_descriptions_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("smiles,text\nC,one\n")
    with pytest.raises(InputError, match="expected smiles and description"):
        read_captions([tmp_path / "bad.csv"])
    (tmp_path / "empty.csv").write_text("smiles,description\nx,one\n")
    with pytest.raises(InputError, match="expected cells in smiles and description"):
        read_captions([tmp_path / "empty.csv"])
