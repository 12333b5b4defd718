"""Tables of answers: how many answers are sampled for a row, with a stand-in for the model that says given texts.

The whole is tested in test_pack.py.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from pyarrow import parquet

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.errors import InputError
from mora_lite.tables.library import open_library
from mora_lite.text.answerer import Answerer, Text, row_seed
from mora_lite.text.stream import CHUNK_BATCHES, Answered, GenerationConfig, answer_table
from mora_lite.text.tasks import QUESTIONS, PackQuestions


class Parrot:
    """Says the next of its texts for each row that it is asked, whatever is asked."""

    featurizer = Featurizer(standardize="none")
    log_probability = 0.0
    origin = "parrot"

    def __init__(self, *texts: str | Text):
        self.texts = [text if isinstance(text, Text) else Text(text, self.log_probability) for text in texts]
        self.seeds: list[list[int]] = []

    def max_question_tokens(self, max_new_tokens: int) -> int:
        return 512 - max_new_tokens

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[len(text)] for text in texts]

    def answer(self, questions: list[list[int]], graphs: Graphs, *, seeds: list[int], **_: Any) -> list[list[Text]]:
        assert len(questions) == len(graphs) == len(seeds)
        self.seeds.append(seeds)
        return [[self.texts[len(self.seeds) - 1]] for _ in questions]


def answer(parrot: Parrot, folder: Path, **options: Any) -> dict[str, str]:
    """The row of the output for a table of one molecule."""
    (folder / "in.csv").write_text("smiles\nCO\n")
    config = GenerationConfig("product", temperature=1.0, **options)
    with open_library(folder / "in.csv", cells=True) as table:
        answer_table(table, str(folder / "out.csv"), cast(Answerer, parrot), config, force=True)
    with (folder / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row


def test_answers_are_sampled_until_enough_differ(tmp_path: Path) -> None:
    parrot = Parrot("C=O", "x(", "O=C", "OC", "CC", "N")
    row = answer(parrot, tmp_path, molecules=True, top=3)
    assert [row[name] for name in ("product", "product_2", "product_3", "status")] == ["C=O", "CO", "CC", "ok"]
    assert parrot.seeds == [[row_seed(0, number, "CO")] for number in range(5)]


def test_of_the_answers_that_were_drawn_the_likeliest_is_first(tmp_path: Path) -> None:
    row = answer(Parrot(Text("C", -4.0), Text("C", -4.0), Text("CC", -1.0)), tmp_path, molecules=True, top=2)
    assert (row["product"], row["product_2"]) == ("CC", "C")
    assert float(row["probability_2"]) == pytest.approx(0.0183156), "what is drawn again counts once"


def test_an_answer_that_is_cut_off_says_so(tmp_path: Path) -> None:
    said = "cut off after 256 tokens: more are read with a larger --max-tokens"
    row = answer(Parrot(*[Text("CC", -0.1, ended=False)] * 4), tmp_path, molecules=True)
    assert (row["product"], row["status"], row["error"]) == ("", "no_molecule", said)
    row = answer(Parrot(Text("It is an", -0.1, ended=False)), tmp_path, molecules=False)
    assert (row["product"], row["status"], row["error"]) == ("It is an", "ok", said)


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"beams": -1}, {"max_new_tokens": 0}, {"batch_size": 0}, {"spellings": -1}]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_python_gives_are_checked_as_those_of_the_command(
    wrong: dict[str, int], temperature: float
) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name}: got {wrong[name]}, expected [01] or more"):
        GenerationConfig("product", molecules=True, temperature=temperature, **wrong)


def test_blank_cells_stay_blank(tmp_path: Path) -> None:
    """Also in the column that is taken for that of the SMILES, where another one is asked about."""
    (tmp_path / "in.csv").write_text("reactants,product\nCO,C=O\n,C=O\n")
    with open_library(tmp_path / "in.csv", "reactants", cells=True) as table:
        known = PackQuestions("retro")
        config, _ = GenerationConfig.of(known, table.columns, table.smiles_index, temperature=1.0, short=True)
        answer_table(table, str(tmp_path / "out.csv"), cast(Answerer, Parrot("OC")), config)
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [["CO", "C=O", "CO"], ["", "C=O", "CO"]]


def test_a_question_about_a_product_is_asked_in_the_words_of_training(tmp_path: Path) -> None:
    """In the product's canonical SMILES, however it is spelled in the row."""
    (tmp_path / "in.csv").write_text(
        "smiles,question\nCO,Which reagents turn it into O(C)CC?\nCO,Which reagents turn it into X?\nCO,Acid?\n"
    )
    asked: list[Answered] = []
    with open_library(tmp_path / "in.csv", cells=True) as table:
        known = PackQuestions("ask", QUESTIONS)
        config, _ = GenerationConfig.of(known, table.columns, table.smiles_index, temperature=1.0)
        parrot = cast(Answerer, Parrot(*["N"] * 4))
        answer_table(table, str(tmp_path / "out.csv"), parrot, config, on_rows=asked.extend)
    assert [row.question for row in asked] == ["Which reagents turn it into CCOC?", "", "Acid?"]
    assert [row.status for row in asked] == ["ok", "no_question", "ok"]
    assert asked[1].error == "RDKit cannot read the product 'X'"


def test_a_rows_own_question_about_a_reaction_is_sampled_until_molecules_are_enough(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"smiles,question\nCO,{QUESTIONS['forward']}\n")
    asked: list[Answered] = []
    with open_library(tmp_path / "in.csv", cells=True) as table:
        known = PackQuestions("ask", QUESTIONS)
        config, _ = GenerationConfig.of(known, table.columns, table.smiles_index, temperature=1.0, top=2)
        parrot = cast(Answerer, Parrot("x(", "C=O", "O=C", "CC"))
        answer_table(table, str(tmp_path / "out.csv"), parrot, config, on_rows=asked.extend)
    assert sorted(asked[0].answers) == ["C=O", "CC"]


def test_no_more_than_four_times_as_many_are_sampled(tmp_path: Path) -> None:
    parrot = Parrot(*["yes"] * 8)
    row = answer(parrot, tmp_path, molecules=False, top=2)
    assert (row["product"], row["product_2"], row["status"]) == ("yes", "", "ok")
    parrot = Parrot(*["x("] * 4)
    row = answer(parrot, tmp_path, molecules=True)
    assert (row["product"], row["status"]) == ("", "no_molecule")
    assert len(parrot.seeds) == 4


def test_answers_go_on_as_the_table_has_begun(tmp_path: Path) -> None:
    """With its delimiter and decimal mark, and in Parquet as numbers and flags, missing where there is no answer."""
    (tmp_path / "in.csv").write_text("smiles;yield\nCO;91,5\nx(;\n")
    config = GenerationConfig("product", True, 2, temperature=1.0, direction="forward")
    told: list[str] = []
    for target in ("out.csv", "out.parquet"):
        with open_library(tmp_path / "in.csv", cells=True) as table:
            parrot = Parrot(Text("C=O", -1.0), *[Text("O=C", -1.0)] * 7)
            answer_table(table, str(tmp_path / target), cast(Answerer, parrot), config, on_note=told.append)
    assert told == ["numbers are written with a decimal comma, as column 'yield' has them"]
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "smiles;yield;product;product_2;probability;probability_2;balanced;balanced_2;status;error",
        "CO;91,5;C=O;;0,735759;;true;;ok;",
        "x(;;;;;;;;unparsable;syntax error near character 1",
    ]
    names = ["product", "product_2", "probability", "balanced", "balanced_2", "status"]
    rows = [tuple(row[name] for name in names) for row in parquet.read_table(tmp_path / "out.parquet").to_pylist()]
    assert rows == [
        ("C=O", None, pytest.approx(0.735759), True, None, "ok"),
        (None, None, None, None, None, "unparsable"),
    ]


def test_seeds_differ_by_seed_sample_and_question() -> None:
    seeds = {row_seed(seed, number, text) for seed in range(3) for number in range(3) for text in ("CO", "CCO")}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)


class Tired(Parrot):
    """Gives up at the question after its last text."""

    def answer(self, *args: Any, **options: Any) -> list[list[Text]]:
        if len(self.seeds) == len(self.texts):
            raise KeyboardInterrupt
        return super().answer(*args, **options)


@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are answered are kept until the table is whole, which is the same as of one run."""
    n_rows = 2 * CHUNK_BATCHES + 1  # three windows
    (tmp_path / "in.csv").write_text("smiles,n\n" + "".join(f"CO,{i}\n" for i in range(n_rows)))

    def run(parrot: Parrot, name: str, seed: int = 0) -> list[Answered]:
        config, rows = GenerationConfig("product", True, batch_size=1, temperature=1.0, seed=seed), []
        with open_library(tmp_path / "in.csv", cells=True) as table:
            answer_table(table, str(tmp_path / name), cast(Answerer, parrot), config, on_rows=rows.extend)
        n_kept.append(table.n_kept)
        return rows

    n_kept: list[int] = []
    whole = run(Parrot("C=O", "CC", "N"), f"whole.{target}")
    with pytest.raises(KeyboardInterrupt):
        run(Tired("C=O", "CC"), target)
    assert not (tmp_path / target).exists()
    assert run(Parrot("N"), target) == whole
    assert (tmp_path / target).read_bytes() == (tmp_path / f"whole.{target}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.csv", target, f"whole.{target}"])

    (tmp_path / target).unlink()
    with pytest.raises(KeyboardInterrupt):
        run(Tired("C=O", "CC"), target)
    other = run(Parrot("O", "O", "O"), target, seed=1)
    assert {row.answers[0] for row in other} == {"O"}, "what was answered otherwise is not taken"
    assert n_kept == [0, n_rows - 1, 0]

    (tmp_path / target).unlink()
    with pytest.raises(KeyboardInterrupt):
        run(Tired("C=O", "CC"), target)
    monkeypatch.setattr("mora_lite.text.stream.__version__", "another")
    other = run(Parrot("O", "O", "O"), target)
    assert {row.answers[0] for row in other} == {"O"}, "nor by another version"
