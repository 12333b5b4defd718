"""`mora-lite generate`: a row for each row, questions, several answers, draws, checks, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rdkit import Chem
from text_packs import FORWARD, QUESTIONS, RETRO, read, write

from mora_lite import load_text
from mora_lite.chem.smiles import canonical
from mora_lite.errors import InputError
from mora_lite.packs.manifest import seal
from mora_lite.text.answerer import Answerer
from mora_lite.text.loop import TextTrainConfig
from mora_lite.text.pack import MANIFEST
from mora_lite.text.pipeline import train_text

EXACT = ["--dtype", "float32"]  # in 16 bits a draw that is nearly between two tokens may turn with the batch


def test_generate_writes_a_row_for_each_row(run: Any, forward_pack: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, stdout, err = run("generate", table, "--pack", forward_pack, "-o", out, "--max-tokens", 20)
    assert (code, stdout) == (0, "")
    rows = read(out)
    assert [row["name"] for row in rows] == list("abcdef")
    assert [row["product"] for row in rows] == ["C=O", "", "CC=O", "", "Clc1ccccc1", "C#N"]
    assert [row["status"] for row in rows] == ["ok", "unparsable", "ok", "empty", "ok", "ok"]
    assert "6 rows, 4 ok" in err
    code, _, err = run("generate", table, "--pack", forward_pack, "-o", out)
    assert code == 2
    assert "exists" in err


def test_generate_tells_what_only_reading_shows(run: Any, forward_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('smiles,name\nCO,"a" b\n')
    code, _, err = run("generate", tmp_path / "in.csv", "--pack", forward_pack, "--max-tokens", 20)
    assert code == 0
    assert "1 line with a quote out of place read as plain text; the first is line 2" in err


def test_a_run_that_was_stopped_is_told_how_to_go_on(
    run: Any, forward_pack: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [table, "--pack", forward_pack, "--batch-size", 1, "--max-tokens", 20]
    assert run("generate", *options, "-o", tmp_path / "whole.csv")[0] == 0
    asked, answer = [], Answerer.answer

    def stop_once(self: Answerer, questions: Any, *rest: Any, **settings: Any) -> Any:
        if len(asked) == 2:
            asked.clear()
            raise KeyboardInterrupt
        asked.append(len(questions))
        return answer(self, questions, *rest, **settings)

    monkeypatch.setattr("mora_lite.text.stream.CHUNK_BATCHES", 2)
    monkeypatch.setattr(Answerer, "answer", stop_once)
    code, _, err = run("generate", *options, "-o", tmp_path / "out.csv")
    assert code == 130
    assert f"the rows that are answered are kept beside {tmp_path / 'out.csv'}" in err
    assert run("generate", *options, "-o", tmp_path / "out.csv")[0] == 0
    assert asked == [2], "only the last of three windows"
    assert read(tmp_path / "out.csv") == read(tmp_path / "whole.csv")


def test_generate_tells_of_a_pack_of_version_1(run: Any, forward_pack: Path, table: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(forward_pack, tmp_path / "first"))
    manifest = json.loads((first / MANIFEST).read_text())
    assert manifest.pop("featurizer")["standardize"] == "none"
    (first / MANIFEST).write_text(seal(manifest))
    for pack, notes in ((first, 1), (forward_pack, 0)):
        code, _, err = run("generate", table, "--pack", pack, "-o", tmp_path / "out.csv", "--max-tokens", 4, "--force")
        assert code == 0
        assert err.count("note: this pack reads molecules by graph codes of version 1") == notes


def test_generate_gives_several_answers(run: Any, forward_pack: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, _, err = run(
        "generate", table, "--pack", forward_pack, "-o", out, "--top", 2, "--beams", 8, "--max-tokens", 20
    )
    assert code == 0, err
    rows = read(out)
    assert list(rows[0]) == [
        *("name", "smiles", "product", "product_2", "probability", "probability_2", "balanced", "balanced_2"),
        *("status", "error"),
    ]
    assert rows[0]["product"] == "C=O"
    for row in rows:
        for answer in (row["product"], row["product_2"]):
            assert not answer or canonical(answer) == answer
        assert not row["product_2"] or row["product_2"] != row["product"]


def test_what_is_drawn_depends_on_seed_and_question_alone(run: Any, forward_pack: Path, tmp_path: Path) -> None:
    """Not on the rows beside it, their number or their order: seven rows at a time, one, and another table."""
    sources = ["CO", "OCC", "c1ccccc1.Cl", "CN", "CC(C)O", "CCN", "CS", "CCl", "C"]
    table, other = tmp_path / "some.csv", tmp_path / "other.csv"
    table.write_text("smiles\n" + "".join(f"{source}\n" for source in sources))
    other.write_text("smiles\n" + "".join(f"{source}\n" for source in sources[:3:-1]))

    def answers(table: Path, *options: object) -> dict[str, str]:
        out = tmp_path / "out.csv"
        code, _, err = run(
            "generate", table, "--pack", forward_pack, "-o", out, "--force", "--max-tokens", 12, *options, *EXACT
        )
        assert code == 0, err
        return {row["smiles"]: row["product"] + row["error"] for row in read(out)}

    drawn = answers(table, "--temperature", 1.5, "--seed", 5, "--batch-size", 7)
    assert answers(table, "--temperature", 1.5, "--seed", 5, "--batch-size", 1) == drawn
    assert answers(other, "--temperature", 1.5, "--seed", 5) == {source: drawn[source] for source in sources[:3:-1]}
    assert answers(table, "--temperature", 1.5, "--seed", 6) != drawn
    greedy = answers(table)
    assert greedy != drawn
    assert answers(table, "--temperature", 0) == greedy


def test_several_answers_that_are_drawn_differ(
    run: Any, forward_pack: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any text counts: few that a tiny model draws are molecules.
    monkeypatch.setattr("mora_lite.text.checks.canonical", lambda text: text or None)
    out = tmp_path / "out.csv"
    options = ["--pack", forward_pack, "-o", out, "--force", "--max-tokens", 12, "--temperature", 2, *EXACT]
    code, _, err = run("generate", table, *options)
    first = [row["product"] for row in read(out)]
    code, _, err = run("generate", table, *options, "--top", 3)
    assert code == 0, err
    several = [[row[name] for name in ("product", "product_2", "product_3") if row[name]] for row in read(out)]
    assert max(map(len, several)) == 3
    for own, one in zip(several, first, strict=True):
        assert not one or one in own  # more are drawn where more are wanted, beside the first
        assert len(set(own)) == len(own)


def test_answers_that_are_no_molecule_are_a_status(run: Any, forward_pack: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "one.csv", tmp_path / "out.csv"
    table.write_text("smiles\nCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\n" + "C" * 120 + "\n")
    code, _, err = run("generate", table, "--pack", forward_pack, "-o", out, "--max-tokens", 1)
    rows = read(out)
    assert rows[1]["status"] == "too_long"
    assert "tokens, more than" in rows[1]["error"]
    assert rows[0]["status"] in ("ok", "no_molecule")
    assert code == (0 if rows[0]["status"] == "ok" else 1), err


def test_a_reaction_is_asked_for_its_product_by_its_other_sides(run: Any, forward_pack: Path, tmp_path: Path) -> None:
    """As reaction databases write it, with numbers that map atoms, which no question had in training."""
    table, out = tmp_path / "some.csv", tmp_path / "out.csv"
    written = ["CO", "[CH3:1][OH:2]", "CO>>", "[CH3:1][OH:2]>>[CH2:1]=[O:2]", "CO>C=O", ">>CO"]
    table.write_text("reaction_smiles\n" + "\n".join(written) + "\n")
    code, _, err = run("generate", table, "--pack", forward_pack, "-o", out, "--max-tokens", 12, *EXACT)
    assert code == 0, err
    rows = read(out)
    assert [row["reaction_smiles"] for row in rows] == written
    assert [row["product"] for row in rows] == ["C=O"] * 4 + [""] * 2
    assert len({row["probability"] for row in rows[:4]}) == 1
    assert [row["error"] for row in rows[4:]] == [
        "got half a reaction, expected reactants>reagents>product or reactants>>product",
        "the side of the reaction that forward needs is empty",
    ]


def test_a_table_that_trains_can_be_asked(run: Any, forward_pack: Path, tmp_path: Path) -> None:
    """Its sides stand in columns of their own, unless one column is named."""
    table, out = tmp_path / "some.csv", tmp_path / "out.csv"
    table.write_text("id,reactants,reagents,product\n1,[CH3:1][OH:2],,C=O\n2,c1ccccc1, Cl ,C=O\n3,,,C=O\n")
    options = ["--pack", forward_pack, "-o", out, "--max-tokens", 20, "--force", *EXACT]
    code, _, err = run("generate", table, *options)
    assert code == 0, err
    assert "note: what goes in is read from the columns reactants and reagents" in err
    assert [row["product (mora-lite)"] for row in read(out)] == ["C=O", "Clc1ccccc1", ""]
    assert [row["status"] for row in read(out)] == ["ok", "ok", "empty"]
    with_reagents = read(out)[1]["probability"]
    code, _, err = run("generate", table, *options, "--smiles-column", "reactants")
    assert (code, "note: what goes in" in err) == (0, False)
    assert read(out)[1]["probability"] != with_reagents


def test_a_smiles_that_is_typed_is_answered_on_stdout(run: Any, forward_pack: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out.csv", tmp_path / "page.html"
    table = tmp_path / "one.csv"
    table.write_text("smiles\nCCO.CCN\n")
    options = ["--pack", forward_pack, "--max-tokens", 12]
    _, stdout, _ = run("generate", "CCO.CCN", *options, "--report", page)
    assert "CCO" in page.read_text(encoding="utf-8")
    run("generate", table, *options, "-o", out)
    assert list(csv.DictReader(io.StringIO(stdout))) == read(out)
    run("generate", "CCO.CCN", *options, "-o", out, "--force")
    assert out.read_text(encoding="utf-8") == stdout.replace("\r\n", "\n")
    _, stdout, _ = run("generate", "CCO.CCN", "CCO", *options)
    assert [row["smiles"] for row in csv.DictReader(io.StringIO(stdout))] == ["CCO.CCN", "CCO"]
    code, stdout, err = run("generate", table, out, *options)
    assert (code, stdout) == (2, "")
    assert "got 2 files, expected one" in err
    code, stdout, err = run("generate", "missing.csv", *options)
    assert (code, stdout) == (2, "")
    assert "no such file: missing.csv" in err
    code, stdout, _ = run("generate", "C1CC", *options)
    assert code == 1, "no row has an answer"
    assert next(csv.DictReader(io.StringIO(stdout)))["status"] == "unparsable"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "retro"], "got retro"),
        (["--question", "Why?"], "the pack is for forward and takes none"),
        (["--seed", "1"], "only sampled answers"),
        (["--temperature", "1", "--beams", "3"], "got 3 with a temperature; expected one of the two"),
        (["--temperature", "1", "--top-p", "0"], "got 1.0 and 0.0; expected 0 or more, and a share"),
        (["--top", "3", "--beams", "2"], "top: got 3 with 2 beams"),
        (["--max-tokens", "1000000"], "max-tokens: got 1000000, but the base reads"),
        (["--top", "1000"], "beams: got 1000, expected 1 to 100"),
        (["--base", "nowhere"], "nowhere: neither a path nor a known base model"),
    ],
)
def test_generate_tells_what_is_wrong(
    run: Any, forward_pack: Path, table: Path, options: list[str], message: str
) -> None:
    code, stdout, err = run("generate", table, "--pack", forward_pack, *options)
    assert (code, stdout) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in table.parent.iterdir()) == ["some.csv"]


def test_each_row_may_have_its_own_question(run: Any, asked: Path, base_path: Path, tmp_path: Path) -> None:
    rows = [(smiles, question) for smiles, question, _ in QUESTIONS]
    table = write(
        tmp_path / "some.csv", ("smiles", "Question"), [*rows, ("C(O)C", "  Acid?\n"), ("CCO", " "), ("x", "Acid?")]
    )
    out = tmp_path / "out.csv"
    options = ["--pack", asked, "--base", base_path, "-o", out, "--max-tokens", 12]
    code, _, err = run("generate", table, *options)
    assert code == 0, err
    assert [row["answer"] for row in read(out)] == [*(answer for *_, answer in QUESTIONS), "no", "", ""]
    assert [row["status"] for row in read(out)] == ["ok"] * 6 + ["no_question", "unparsable"]
    code, _, err = run("generate", table, *options, "--force", "--question", "Acid?")
    assert [row["answer"] for row in read(out)] == ["no", "no", "yes", "no", "no", "no", "no", ""]
    assert "note: the column Question is not used" in err


@pytest.mark.parametrize("options", [[], ["--question", " "]])
def test_a_question_is_needed(run: Any, asked: Path, base_path: Path, tmp_path: Path, options: list[str]) -> None:
    table = write(tmp_path / "some.csv", ("smiles",), [("CCO",)])
    code, _, err = run("generate", table, "--pack", asked, "--base", base_path, *options)
    assert code == 2
    assert "say what to ask with --question, or in a column named question" in err
    assert "the pack was trained on 'Acid?' and " in err


def test_the_only_question_of_training_need_not_be_given(run: Any, base_path: Path, tmp_path: Path) -> None:
    rows = [("CO", "no"), ("CC(=O)O", "yes")]
    table = write(tmp_path / "acids.csv", ("smiles", "question", "answer"), [(s, "Acid {a}?", a) for s, a in rows])
    config = TextTrainConfig(steps=1)
    pack = train_text("ask", [table], tmp_path / "acids", base=str(base_path), rank=4, copies=1, config=config)
    assert "mora-lite generate molecules.csv --pack ./acids\n" in (pack.path / "README.md").read_text()
    molecules, out = write(tmp_path / "molecules.csv", ("smiles",), [("CO",)]), tmp_path / "out.csv"
    options = ["--pack", pack.path, "--base", base_path, "--max-tokens", 4, "--dtype", "float32", "--force", "-o", out]
    code, _, err = run("generate", molecules, *options)
    assert code == 0, err
    assert "note: asked of each row, as in training: Acid {a}?" in err
    (silent,) = read(out)
    assert run("generate", molecules, *options, "--question", "Acid {{a}}?")[0] == 0
    assert read(out) == [silent]
    model = load_text(pack.path, base_path, device="cpu", dtype="float32")
    assert model.generate(["CO"], max_new_tokens=4)[0].answers == [silent["answer"]]


def test_a_pack_of_reactions_is_asked_by_the_task_and_its_answers_are_checked(
    run: Any, reacting: Path, base_path: Path, tmp_path: Path
) -> None:
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32", "--force"]
    table, out = write(tmp_path / "in.csv", ("smiles",), [("CO",), ("OCC",), ("x",)]), tmp_path / "out.csv"
    code, _, err = run("generate", table, *options, "-o", out, "--spellings", 2)
    assert code == 0, err
    assert f"note: asked of each row: {FORWARD}" in err
    rows = read(out)
    assert list(rows[0]) == ["smiles", "product", "probability", "balanced", "agreement", "status", "error"]
    assert [row["product"] for row in rows] == ["C=O", "CC=O", ""]
    assert [row["balanced"] for row in rows] == ["true", "true", ""]
    assert all(0.5 < float(row["probability"]) <= 1 for row in rows[:2])
    assert all(float(row["agreement"]) in (0, 0.5, 1) for row in rows[:2])
    back, page = write(tmp_path / "back.csv", ("smiles",), [("C=O",), ("CC=O",)]), tmp_path / "page.html"
    code, _, err = run("generate", back, *options, "-o", out, "--task", "retro", "--report", page)
    assert code == 0, err
    rows = read(out)
    assert [(row["reactants"], row["balanced"], row["round_trip"]) for row in rows] == [
        ("CO", "true", "true"),
        ("CCO", "true", "true"),
    ]
    assert page.read_text().count("<svg") == 4
    code, _, err = run("generate", back, *options, "-o", out, "--task", "reagents")
    assert (code, err.count("\n")) == (2, 1)
    assert "is for ask and forward and retro" in err


def test_python_gets_what_the_command_writes(run: Any, reacting: Path, base_path: Path, tmp_path: Path) -> None:
    model = load_text(reacting, base_path, device="cpu", dtype="float32")
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32", "--force"]
    texts = ["CO", "C1CC", "[CH3:1][OH:2]>>", "", "OCC", "C" * 600]
    table, out = write(tmp_path / "in.csv", ("smiles",), [(text,) for text in texts]), tmp_path / "out.csv"
    assert run("generate", table, *options, "-o", out, "--spellings", 2)[0] == 0
    rows = model.generate(texts, spellings=2, max_new_tokens=12)
    assert [row.status for row in rows] == ["ok", "unparsable", "ok", "empty", "ok", "too_large"]
    for row, written in zip(rows, read(out), strict=True):
        assert (row.status, row.error, "".join(row.answers)) == (
            written["status"],
            written["error"],
            written["product"],
        )
        if row.answers:
            assert (row.direction, row.question) == ("forward", FORWARD)
            assert row.probabilities == pytest.approx([float(written["probability"])], rel=1e-5)
            assert row.agreement == float(written["agreement"])
            assert row.checks == {"balanced": [written["balanced"] == "true"]}
    assert [row.source for row in rows[::2]] == ["CO", "CO", "CCO"]
    (back,) = model.generate(">>C=O", task="retro", top=3, max_new_tokens=12)
    assert (back.source, back.answers[0], back.checks["round_trip"][0]) == ("C=O", "CO", True)
    assert len(back.answers) == len(back.probabilities) == len(back.checks["balanced"]) <= 3
    assert model.generate([]) == []


def test_python_is_told_what_a_pack_cannot_do(reacting: Path, base_path: Path) -> None:
    model = load_text(reacting, base_path, device="cpu", dtype="float32")
    for wrong, said in (
        ({"task": "reagents"}, "is for ask and forward and retro"),
        ({"top": 3, "beams": 2}, "expected 1 to the number of beams"),
        ({"max_new_tokens": 10**6}, "question and answer together"),
        ({"task": "retro", "question": "Why?"}, "has its own"),
    ):
        with pytest.raises(InputError, match=said):
            model.generate(["CO"], **wrong)
    with pytest.raises(InputError, match="molecules: got"):
        model.generate(7)


def test_reactants_are_searched_for_more_widely_than_products(
    run: Any, reacting: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[tuple[int, int]] = []

    def note(self: Answerer, questions: Any, graphs: Any, *, beams: int = 1, **options: Any) -> Any:
        widths.append((beams, len(questions)))
        return answer(self, questions, graphs, beams=beams, **options)

    answer = Answerer.answer
    monkeypatch.setattr(Answerer, "answer", note)
    rows = [("C=O", RETRO), ("OC", FORWARD), ("CC=O", RETRO)]
    table, out = write(tmp_path / "in.csv", ("smiles", "question"), rows), tmp_path / "out.csv"
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32", "--force", "-o", out]
    assert run("generate", table, *options)[0] == 0
    assert [row["answer"] for row in read(out)] == ["CO", "C=O", "CCO"]
    assert widths == [(1, 1), (5, 2), (1, 2)], "products, reactants, and what these give back"
    widths.clear()
    assert run("generate", table, *options, "--beams", 1)[0] == 0
    assert widths == [(1, 3), (1, 2)]


def test_each_row_of_reactions_may_go_its_own_way(run: Any, reacting: Path, base_path: Path, tmp_path: Path) -> None:
    rows = [("OC", FORWARD, "x"), ("C=O", RETRO, "y"), ("CO", "Why?", "z")]
    table, out = write(tmp_path / "in.csv", ("smiles", "question", "name"), rows), tmp_path / "out.csv"
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32", "-o", out]
    assert run("generate", table, *options)[0] == 0
    found = read(out)
    assert [row["answer"] for row in found[:2]] == ["C=O", "CO"]
    assert [(row["balanced"], row["round_trip"]) for row in found] == [("true", ""), ("true", "true"), ("", "")]
    assert run("generate", table, *options, "--force", "--short")[0] == 0
    assert list(read(out)[0]) == ["smiles", "question", "name", "answer", "status", "error"]


def test_molecules_come_from_an_sdf_too(run: Any, reacting: Path, base_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in.sdf").write_text(
        "".join(f"{Chem.MolToMolBlock(Chem.MolFromSmiles(s))}$$$$\n" for s in ("CO", "CCO"))
    )
    options = ["--pack", reacting, "--base", base_path, "--max-tokens", 12, "--dtype", "float32"]
    code, _, err = run("generate", tmp_path / "in.sdf", *options)
    assert code == 0, err
    rows = read(tmp_path / "in.answers.csv")
    assert [(row["smiles"], row["product"]) for row in rows] == [("CO", "C=O"), ("CCO", "CC=O")]
