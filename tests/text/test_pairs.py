"""Pairs of texts: read from tables, held out by molecule, written in orders that keep the molecules."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
from rdkit import Chem

from mora_lite.chem.smiles import canonical, flat, largest
from mora_lite.errors import InputError
from mora_lite.text.pairs import (
    SKIP_REASON,
    format_question,
    part_of,
    read_pairs,
    write_block,
    write_copies,
)


def table(path: Path, *lines: str) -> Path:
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_molecules_without_a_graph_are_left_out(tmp_path: Path) -> None:
    largest_one, larger = "C" * 400, "C" * 401
    path = table(
        tmp_path / "names.csv",
        "smiles,question,answer,split",
        *(f"{smiles},What is it?,an alkane,train" for smiles in (largest_one, larger)),
    )
    lines: list[str] = []
    pairs = read_pairs(["ask"], [path], split_column="split", on_note=lines.append)
    assert lines == ["left out: 1 row of more than 400 atoms"]
    assert [pair.source for pair in pairs] == [largest_one]
    assert len(write_block(pairs, 2, seed=0)[1]) == 1


def test_sources_of_all_columns_and_both_directions(tmp_path: Path) -> None:
    path = table(
        tmp_path / "some.csv.gz",
        "reactants,reagents,product",
        "OCC.CC(=O)O,Cl,CCOC(C)=O",
        "C(C)O.OC(C)=O,Cl,CC(=O)OCC",  # the same reaction in other words
        "CC(=O)O.CCO,,CCOC(C)=O",  # without the reagent it is another source
        "not a molecule,,CCO",
        "CCO,,",
    )
    lines: list[str] = []
    forward = read_pairs(["forward"], [path], on_note=lines.append)
    assert lines == ["left out: 1 row whose pair is there already", f"left out: 2 rows {SKIP_REASON}"]
    assert [(r.source, r.target, r.origin) for r in forward] == [
        ("CC(=O)O.CCO.Cl", "CCOC(C)=O", "some"),
        ("CC(=O)O.CCO", "CCOC(C)=O", "some"),
    ]
    retro = read_pairs(["retro"], [path])
    assert [(r.source, r.target) for r in retro] == [("CCOC(C)=O", "CC(=O)O.CCO")]


def test_names_and_extensions_in_the_cells_of_sides_hide_no_molecule(tmp_path: Path) -> None:
    path = table(
        tmp_path / "some.csv",
        "reactants,reagents,product",
        "CCO ethanol,O.[Na+].[Cl-] |f:1.2|,CC=O ethanal (Säure)",
        "c1ccccc1 OC,O,COc1ccccc1",  # a blank in a SMILES: its first piece is another molecule
        "COc1ccccc1,O,c1ccccc1 OC",
    )
    ((source, target),) = [(pair.source, pair.target) for pair in read_pairs(["forward"], [path])]
    assert (source, target) == ("CCO.O.[Cl-].[Na+]", "CC=O")


def test_whole_reactions_give_their_sides(tmp_path: Path) -> None:
    """As databases write them: in one column, with atom maps, extensions and more columns, with a header or without."""
    rows = ("[CH3:1][CH2:2][OH:3]>O.[Na+].[Cl-]>[CH3:1][CH:2]=[O:3] |f:2.3|,US1", "CCC>>,US2", "CC>C>,US3")
    lines: list[str] = []
    for number, header in enumerate(("ReactionSmiles,PatentNumber", "mapped,origin", rows[0])):
        path = table(tmp_path / f"{number}.csv", header, *rows)
        column = ("ReactionSmiles", "mapped", "smiles")[number]
        (forward,) = read_pairs(["forward"], [path], on_note=lines.append)
        assert (forward.source, forward.target) == ("CCO.O.[Cl-].[Na+]", "CC=O")
        assert f"{path}: reactants, reagents, product are read from the column {column}" in lines
        assert f"left out: 2 rows {SKIP_REASON}" in lines
        assert lines.count("left out: 1 row whose pair is there already") == (number == 2)
        lines.clear()
        assert [(r.source, r.target) for r in read_pairs(["retro"], [path])] == [("CC=O", "CCO")]
        assert next((r.source, r.target) for r in read_pairs(["reagents"], [path])) == ("CCO", "O.[Cl-].[Na+]")
        assert len(read_pairs(["forward", "retro", "reagents"], [path])) == 3
    with pytest.raises(InputError, match="no column 'product'"):
        read_pairs(["forward"], [table(tmp_path / "molecules.csv", "smiles,x", "CCO,1")])
    with pytest.raises(InputError, match="no column 'smiles'"):
        read_pairs(["describe"], [path])


def test_sides_are_known_by_the_names_that_notebooks_give_their_columns(tmp_path: Path) -> None:
    """As for `generate`: a column called SMILES goes before one of names, one of whole reactions before both."""
    ways = {"forward": ("CC(=O)O.CCO.Cl", "CCOC(C)=O"), "retro": ("CCOC(C)=O", "CC(=O)O.CCO")}
    ways["reagents"] = ("CC(=O)O.CCO", "Cl")
    sides, names = "OCC.CC(=O)O,Cl,CCOC(C)=O", "ethanol,ester"
    tables = [
        table(tmp_path / "a.csv", "Reactant,Product,Reactant SMILES,Reagent SMILES,Product SMILES", f"{names},{sides}"),
        table(tmp_path / "b.csv", "Reactants,Reagents,Products", sides),
        table(tmp_path / "c.csv", "Reactant,Products,Rxn", f"{names},OCC.CC(=O)O>Cl>CCOC(C)=O"),
    ]
    for path in tables:
        for task, expected in ways.items():
            assert [(pair.source, pair.target) for pair in read_pairs([task], [path])] == [expected], (path, task)
        assert len(read_pairs(list(ways), [path])) == 3
    with pytest.raises(InputError, match="got the columns Products, x; expected product and reactants_and"):
        read_pairs(["forward"], [table(tmp_path / "d.csv", "Products,x", "CCO,1")])


def test_no_product_of_the_training_part_is_held_out(tmp_path: Path) -> None:
    """Whatever its table, reaction or stereochemistry."""
    acids = ["C" * n + "C(=O)O" for n in range(1, 40)]
    amines = ["N" + "C" * n for n in range(1, 12)]
    rows = [f"{acid}.{amine},{acid[:-1]}{amine}" for acid in acids for amine in amines]
    one = table(tmp_path / "one.csv", "reactants,product", *rows)
    two = table(tmp_path / "two.csv", "reactants_and_reagents,product", *(f"O.{row}" for row in rows))
    reactions = read_pairs(["forward"], [one, two])
    parts = {part: {flat(r.target) for r in reactions if r.part == part} for part in ("train", "valid", "test")}
    assert all(parts.values())
    assert not parts["train"] & (parts["test"] | parts["valid"])
    assert not parts["test"] & parts["valid"]
    assert {r.part for r in reactions} == set(parts)
    assert len(reactions) == 2 * len(rows)


def test_the_part_of_a_product_is_fixed_and_blind_to_stereochemistry() -> None:
    assert part_of("CCO") == part_of("OCC") == "train"
    parts = [part_of("C" * n + "O") for n in range(1, 400)]
    assert 0 < parts.count("test") < 30
    for n, part in enumerate(parts[3:], 4):
        assert part_of("C[C@H](F)" + "C" * (n - 2)) == part_of("C[C@@H](F)" + "C" * (n - 2)), part


def test_a_split_column_decides_and_held_out_products_do_not_train(tmp_path: Path) -> None:
    split = table(
        tmp_path / "split.csv",
        "reactants,product,own_split",
        "CCO,CC=O,test",
        "CCCO,CCC=O,val",
        "CO,C=O,train",
        "CCl,C,product_in_test",
        "CC(F)Cl,C[C@H](F)O,test",
    )
    other = table(tmp_path / "other.csv", "reactants,product", "CCBr,CC=O", "CBr,C[C@@H](F)O", "CCI,CCC#N")
    lines: list[str] = []
    reactions = read_pairs(["retro"], [split, other], "own_split", lines.append)
    assert lines == [
        "left out: 1 row with another mark than train, valid or test in the column own_split",
        "left out: 2 rows for training whose product or molecule is held out",
    ]
    assert [(r.source, r.part) for r in reactions] == [
        ("CC=O", "test"),
        ("CCC=O", "valid"),
        ("C=O", "train"),
        ("C[C@@H](O)F", "test"),
        ("CCC#N", "train"),
    ]


ALL = ("forward", "retro", "reagents")


def test_no_row_trains_whose_product_is_a_test_product_of_any_table(tmp_path: Path) -> None:
    """By its largest molecule and without stereochemistry; whichever table comes first, whatever is asked."""
    marked = table(
        tmp_path / "marked.csv",
        "reactants,reagents,product,part,other_part",
        "CCO.Cl,O,CC(F)C=O.Cl,test,train",  # with a salt
        "CCBr,O,CC(N)Cl,valid,train",
        "CCCO,O,CCC=O,train,test",  # the first of two columns counts
    )
    second = table(tmp_path / "second.csv", "reactants,reagents,product,other_part", "CO,O,C=O,test", "CS,O,C=S,train")
    tests = table(tmp_path / "tests.csv.gz", "reactants,reagents,product", "CCN,O,C[C@H](N)CC.[Na+]", "CI,O,CC#N")
    rest = table(
        tmp_path / "rest.csv",
        "reactants,reagents,product",
        "CCO,O,C[C@@H](F)C=O",
        "CCI,O,O.C[C@H](N)Cl",
        "CF,O,C=O",
        "CCF,O,CC(N)CC",
        "CI,O,CC#N",  # the very row of the test
        "CCS,O,CC=S",
    )
    for paths in ([marked, second, rest], [rest, second, marked]):
        pairs = read_pairs(ALL, paths, "part, other_part", test_paths=[tests])
        train = [pair for pair in pairs if pair.part == "train"]
        held_out = {largest(pair.source) for pair in pairs if pair.part != "train" and "retro" in pair.origin}
        assert held_out == {"CC(F)C=O", "CC(N)Cl", "C=O", "CCC(C)N", "CC#N"}
        assert not held_out & {largest(pair.target) for pair in train if "forward" in pair.origin}
        assert {pair.source for pair in train if "retro" in pair.origin} == {"C=S", "CC=S", "CCC=O"}
        assert not any(product in pair.question for pair in train for product in ("F)C=O", "CC#N", "CC(N)"))
        assert [len([pair for pair in train if direction in pair.origin]) for direction in ALL] == [3, 3, 3]
        for direction in ("forward", "retro"):
            alone = read_pairs([direction], paths, "part,other_part", test_paths=[tests])
            expected = [pair for pair in train if direction in pair.origin]
            found = [pair for pair in alone if pair.part == "train"]
            assert {(p.source, p.target) for p in found} == {(p.source, p.target) for p in expected}


def test_tables_of_the_test_leave_a_hash_to_choose_the_validation_rows_alone(tmp_path: Path) -> None:
    rows = [f"{'C' * n}O,{'C' * n}{x}" for n in range(1, 120) for x in ("Cl", "F", "Br", "I")]
    tests = table(tmp_path / "tests.csv", "reactants,product", "CCO,CCCl", "CCCO,CCCF")
    pairs = read_pairs(["forward"], [table(tmp_path / "some.csv", "reactants,product", *rows)], test_paths=[tests])
    assert {pair.target for pair in pairs if pair.part == "test"} == {"CCCl", "CCCF"}
    assert [pair.target for pair in pairs].count("CCCl") == 1
    assert any(pair.part == "valid" for pair in pairs)


def test_a_row_is_asked_in_all_directions_that_its_columns_answer(tmp_path: Path) -> None:
    one = table(tmp_path / "one.csv", "reactants,reagents,product", "OCC.CC(=O)O,Cl.O,CCOC(C)=O", "CO,,C=O")
    two = table(tmp_path / "two.csv", "reactants_and_reagents,product", "CCl.O,CO")
    pairs = read_pairs(ALL, [one, two])
    assert [(p.source, p.question, p.target, p.origin) for p in pairs] == [
        ("CC(=O)O.CCO.Cl.O", "What is the product?", "CCOC(C)=O", "forward/one"),
        ("CCOC(C)=O", "What are the reactants?", "CC(=O)O.CCO", "retro/one"),
        ("CC(=O)O.CCO", "Which reagents turn it into CCOC(C)=O?", "Cl.O", "reagents/one"),
        ("CO", "What is the product?", "C=O", "forward/one"),
        ("C=O", "What are the reactants?", "CO", "retro/one"),
        ("CCl.O", "What is the product?", "CO", "forward/two"),
    ]
    for pair in pairs:
        for source, target in write_copies(pair, 4, seed=0):
            smiles, question = source.split("\n")
            assert (canonical(smiles), question) == (pair.source, f"Question: {pair.question}")
            assert canonical(target) == pair.target
            assert target == pair.target or "reagents" not in pair.origin


def test_copies_of_training_reactions_only_the_canonical_first(tmp_path: Path) -> None:
    rows = [f"{'C' * n}O,{'C' * n}Cl" for n in range(4, 90)]
    reactions = read_pairs(["forward"], [table(tmp_path / "some.csv", "reactants,product", *rows)])
    texts, graphs = write_block(reactions, 4, seed=0)
    assert len(graphs) == len(texts) == len(reactions)
    for reaction, copies in zip(reactions, texts, strict=True):
        assert copies[0][0] == reaction.source
        assert 1 < len(copies) <= 4 if reaction.part == "train" else copies == [(reaction.source, reaction.target)]
        for source, target in copies:
            assert (canonical(source), canonical(target)) == (reaction.source, reaction.target)
    assert texts[0] == write_copies(reactions[0], 4, seed=0)  # the same again, whatever is beside it
    assert texts[0] != write_copies(reactions[0], 4, seed=1)


def test_tables_of_every_kind_give_the_same_pairs(tmp_path: Path) -> None:
    rows = [["CCO", "It is an alcohol; it burns."], ["CC(=O)O", "Eine Säure, klar."], ["xx", "nothing"]]
    frame = pd.DataFrame(rows, columns=["smiles", "description"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";", encoding="utf-8-sig")  # as Excel does
    frame.to_csv(tmp_path / "c.tsv", index=False, sep="\t")
    frame.to_excel(tmp_path / "d.xlsx", index=False)
    frame.to_parquet(tmp_path / "e.parquet")
    blocks = [
        f"{Chem.MolToMolBlock(Chem.MolFromSmiles(smiles))}>  <description>\n{text}\n\n$$$$\n"
        for smiles, text in rows[:2]
    ]
    (tmp_path / "f.sdf").write_text("".join(blocks))
    for path in sorted(tmp_path.iterdir()):
        pairs = read_pairs(["describe"], [path])
        assert [(pair.source, pair.target) for pair in pairs] == [tuple(row) for row in rows[:2]], path


def test_tables_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    bad = table(tmp_path / "bad.csv", "smiles,value", "C,1")
    with pytest.raises(InputError, match="no column 'product'; known: smiles, value; expected product and "):
        read_pairs(["forward"], [bad])
    with pytest.raises(InputError, match="got the columns product, value; expected product and reactants_and_reagents"):
        read_pairs(["forward"], [table(tmp_path / "worse.csv", "product,value", "C,1")])
    (tmp_path / "latin.csv").write_bytes("smiles,description\nC,Säure\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv, line 2: got text that is not UTF-8"):
        read_pairs(["describe"], [tmp_path / "latin.csv"])
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_pairs(["forward"], [tmp_path / "missing.csv"])
    with pytest.raises(InputError, match="did you mean forward"):
        read_pairs(["foward"], [bad])
    with pytest.raises(InputError, match="no row of the tables can be used; expected cells in product and "):
        read_pairs(["forward"], [table(tmp_path / "none.csv", "reactants,product", "x,y")])


def test_reagents_are_asked_for_reactants_and_held_out_by_them(tmp_path: Path) -> None:
    """A product is not needed; no set of reactants, in whatever order or stereochemistry, is in two parts."""
    lines = [f"{'C' * n}O.[C@@H](F)(Cl)Br,{reagent}" for n in range(1, 200) for reagent in ("[Na+].[OH-]", "O")]
    other = [f"[C@H](F)(Cl)Br.O{'C' * n},Cl" for n in range(1, 200)]
    path = table(tmp_path / "some.csv", "reactants,reagents", *lines, *other, "CCO,", ",Cl", "CO,C1CC")
    pairs = read_pairs(["reagents"], [path])
    assert len(pairs) == 3 * 199  # the last three rows lack one side
    assert {pair.target for pair in pairs} == {"[Na+].[OH-]", "O", "Cl"}
    parts = {part: {flat(p.source) for p in pairs if p.part == part} for part in ("train", "test")}
    assert all(parts.values())
    assert not parts["train"] & parts["test"]
    with pytest.raises(InputError, match="expected reactants and reagents"):
        read_pairs(["reagents"], [table(tmp_path / "bad.csv", "reactants,product", "C,C")])


def test_a_split_column_that_no_table_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 'own', but no table has that column"):
        read_pairs(["forward"], [table(tmp_path / "some.csv", "reactants,product", "CO,C=O")], "own")


# --- descriptions and questions


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
    pairs = read_pairs(["describe"], [path])
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
    pairs = read_pairs(["ask"], [path])
    assert [(p.source, p.question, p.target) for p in pairs] == [
        ("CCO", "Is it an alcohol?", "yes"),
        ("CCO", "How many carbons?", "two"),
    ]
    texts, graphs = write_block(pairs, 5, seed=0)
    assert len(graphs) == 2
    assert (
        texts[0][0]
        == (format_question("CCO", "Is it an alcohol?"), "yes")
        == ("CCO\nQuestion: Is it an alcohol?", "yes")
    )
    assert len(texts[0]) > 1
    for source, answer in texts[0]:
        smiles, question = source.split("\n")
        assert (canonical(smiles), question, answer) == ("CCO", "Question: Is it an alcohol?", "yes")


def test_all_questions_about_a_molecule_are_in_one_part(tmp_path: Path) -> None:
    lines = [f"{'C' * n}O,Question {i}?,answer\n" for n in range(1, 60) for i in range(3)]
    (tmp_path / "some.csv").write_text("smiles,question,answer\n" + "".join(lines))
    parts: dict[str, set[str]] = {}
    for pair in read_pairs(["ask"], [tmp_path / "some.csv"]):
        parts.setdefault(pair.source, set()).add(pair.part)
    assert {len(own) for own in parts.values()} == {1}
    assert {"train", "test"} <= set().union(*parts.values())


def test_a_split_column_decides_for_descriptions_too(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("smiles,description,part\nCCO,one,test\nOCC,two,train\nCCC,three,train\n")
    pairs = read_pairs(["describe"], [tmp_path / "some.csv"], "part")
    assert [(p.source, p.target, p.part) for p in pairs] == [("CCO", "one", "test"), ("CCC", "three", "train")]


def test_marks_and_columns_are_read_as_train_reads_them(tmp_path: Path) -> None:
    """In any case and with blanks around, and of a mark all words that are usual."""
    rows = ["C,1,", "CC,2, ", "CCC,3,dev", "CCCC,4,Training", "CCCCC,5,VAL", "CCCCCC,6,testing", "CCCCCCC,7,held out"]
    path = table(tmp_path / "some.csv", "SMILES, Description ,Part", *rows)
    pairs = read_pairs(["describe"], [path], "part")
    assert [pair.part for pair in pairs] == ["train", "train", "valid", "train", "valid", "test"]
    assert [pair.target for pair in pairs] == list("123456")


def test_of_columns_alike_the_one_that_is_spelled_so_is_read(tmp_path: Path) -> None:
    path = table(tmp_path / "some.csv", "SMILES,smiles,description", "C,CC,one")
    assert [pair.source for pair in read_pairs(["describe"], [path])] == ["CC"]
    with pytest.raises(InputError, match=r"some\.csv: columns 1 and 2 are all called 'smiles'; give each a name"):
        read_pairs(["describe"], [table(tmp_path / "some.csv", "smiles,smiles,description", "C,CC,one")])


def test_tables_without_descriptions_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected smiles and description"):
        read_pairs(["describe"], [table(tmp_path / "bad.csv", "smiles,text", "C,one")])
    with pytest.raises(InputError, match="expected cells in smiles and description"):
        read_pairs(["describe"], [table(tmp_path / "empty.csv", "smiles,description", "x,one")])
