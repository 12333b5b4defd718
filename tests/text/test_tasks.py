"""Questions with columns in them, which way of a reaction a question is about, and the sides of a reaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.errors import InputError
from mora_lite.text.tasks import QUESTIONS, PackQuestions, Question, SideColumns, direction_of, read_sides

COLUMNS = ["smiles", "Product ", "note"]


def test_a_column_in_braces_is_the_cell_of_a_row() -> None:
    question = Question("Which  {note} makes {product}, in {{braces}}?", COLUMNS)
    assert question.of_row(["CO", "OCC", " acid "]) == "Which acid makes OCC, in {braces}?"
    assert question.of_row(["CO", "OCC", " "]) == ""


def test_a_cell_that_should_be_a_molecule_is_canonical_or_there_is_no_question() -> None:
    question = Question(QUESTIONS["reagents"], COLUMNS, of_molecules=True)
    assert question.of_row(["CO", "OCC", ""]) == "Which reagents turn it into CCO?"
    assert question.of_row(["CO", "none", ""]) == ""


def test_the_product_of_a_reaction_stands_in_where_no_column_has_one() -> None:
    question = Question(QUESTIONS["reagents"], ["smiles"], of_molecules=True)
    assert question.of_row(["CO>>OCC"], "OCC") == "Which reagents turn it into CCO?"
    assert question.of_row(["CO"]) == ""
    question = Question(QUESTIONS["reagents"], COLUMNS, of_molecules=True)
    assert question.of_row(["CO>>OC", "CCO", ""], "OC") == "Which reagents turn it into CCO?", "the column is first"


@pytest.mark.parametrize(
    ("template", "message"),
    [("Is {prodct} it?", "no column 'prodct'; did you mean Product"), ("Is {it?", "write {{ and }} for braces")],
)
def test_what_cannot_be_filled_in_is_named(template: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Question(template, [name.strip() for name in COLUMNS])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("What is the product?", "forward"),
        (" What are  the reactants?", "retro"),
        ("Which reagents turn it into CC(=O)O?", "reagents"),
        ("Which reagents turn it into ?", None),
        ("Is it an acid?", None),
        ("", None),
    ],
)
def test_the_direction_is_in_the_words(text: str, direction: str | None) -> None:
    assert direction_of(text, QUESTIONS) == (direction, "CC(=O)O" if direction == "reagents" else "")
    assert direction_of(text, {}) == (None, "")


def test_who_asks() -> None:
    """--task, then --question, then the column, then what a pack of reactions is for first of all."""
    with_column = ["smiles", "Question"]
    cells = ["CO", "Acid?"]

    def ask(columns: list[str], question: str | None, direction: str | None) -> tuple[str, str | None, int]:
        asked, found, notes = PackQuestions("ask", QUESTIONS).choose(columns, question, direction)
        assert asked is not None
        return asked.of_row(cells), found, len(notes)

    assert ask(with_column, None, "retro") == ("What are the reactants?", "retro", 1)
    assert ask(with_column, "Base?", None) == ("Base?", None, 1)
    assert ask(with_column, None, None) == ("Acid?", None, 0)
    assert ask(["smiles"], None, None) == ("What is the product?", "forward", 1)
    with pytest.raises(InputError, match="has its own"):
        ask(with_column, "Base?", "retro")
    assert PackQuestions("forward").choose(with_column, None) == (None, "forward", [])
    assert PackQuestions("describe").choose(with_column, None) == (None, None, [])


@pytest.mark.parametrize(
    ("direction", "text", "sides"),
    [
        ("forward", " CO.O ", ("CO.O", "")),
        ("forward", "CO>O=O>C=O", ("CO.O=O", "")),
        ("forward", "CO.O>>", ("CO.O", "")),
        ("retro", "CO>>C=O", ("C=O", "")),
        ("retro", "CO >> C=O formaldehyde", ("C=O formaldehyde", "")),
        ("retro", "CO>>C=O |f:0.1| formaldehyde", ("C=O", "")),
        ("forward", "CO >> |f:0.1|", ("CO", "")),
        ("retro", ">>C=O", ("C=O", "")),
        ("retro", "CO > O=O > C=O", ("C=O", "")),
        ("forward", "CO> O=O >C=O formaldehyde", ("CO.O=O", "")),
        ("forward", "[NH3]-> [Cu]", ("[NH3]-> [Cu]", "")),
        ("reagents", "CO>O=O>C=O", ("CO", "C=O")),
        ("forward", "[NH3]->[Cu]", ("[NH3]->[Cu]", "")),
        ("forward", "[NH3]->[Cu].C>>C", ("[NH3]->[Cu].C", "")),
        ("retro", "CO methanol, > 99 %", ("CO methanol, > 99 %", "")),
        (None, "CO", ("CO", "")),
    ],
)
def test_a_direction_takes_its_side_of_a_reaction(direction: str | None, text: str, sides: tuple[str, str]) -> None:
    assert read_sides(direction, text) == sides


@pytest.mark.parametrize(
    ("direction", "text", "message"),
    [
        ("forward", "C>CC", "half a reaction"),
        ("forward", "C>>CC>>CCC", "several reactions in one"),
        ("forward", "CC(=O)Cl + CN >> C", "'\\+' between molecules"),
        ("forward", "CC(=O)Cl + CN", "'\\+' between molecules"),
        ("retro", "CC(=O)Cl.CN --> CC(=O)NC", "'-->' between molecules"),
        ("retro", "CC(=O)Cl.CN \N{RIGHTWARDS ARROW} CC(=O)NC", "'\N{RIGHTWARDS ARROW}' between molecules"),
        ("retro", "CO>>", "that retro needs is empty"),
        ("retro", "CO >> |f:0.1|", "that retro needs is empty"),
        (None, "C>>C", "about no"),
    ],
)
def test_what_is_no_reaction_to_ask_about_is_told(direction: str | None, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_sides(direction, text)


def test_each_direction_asks_about_the_columns_of_its_sides() -> None:
    columns, cells = ["id", "Reactants", "reagents", "product "], ["1", "CO", " O=O ", "C=O"]
    sides = SideColumns(columns, 1)
    assert sides.read("forward", "CO", cells) == ("CO.O=O", "")
    assert sides.read("retro", "CO", cells) == ("C=O", "")
    assert sides.read("reagents", "CO", cells) == ("CO", "")  # the product is the question's
    assert sides.read(None, "CO", cells) == ("CO", "")
    assert SideColumns(columns, 1, "forward").notes == ["what goes in is read from the columns Reactants and reagents"]
    assert not SideColumns(columns, 1, "retro").notes
    assert SideColumns(columns, 0).read("retro", "CO", cells) == ("CO", ""), "the SMILES column holds all"
    with pytest.raises(InputError, match="retro is asked about product, but the table has no such column"):
        SideColumns(columns[:3], 1, "retro")
    with pytest.raises(InputError, match="about product, but"):
        SideColumns(columns[:3], 1).read("retro", "CO", cells[:3])


def test_sides_are_known_by_the_names_that_notebooks_give_their_columns() -> None:
    """Of two columns for a side the one with SMILES holds it, not the one with names."""
    columns = ["Product", "Reactant SMILES", "Reagents (SMILES)", "Product SMILES"]
    cells = ["anisole", "CO", "O=O", "C=O"]
    sides = SideColumns(columns, 1)
    assert sides.read("forward", "CO", cells) == ("CO.O=O", "")
    assert sides.read("retro", "CO", cells) == ("C=O", "")
    assert Question("Into {product}?", columns, True).of_row(cells) == "Into C=O?"
    assert Question("Is {product} {Product SMILES}?", columns).of_row(cells) == "Is anisole C=O?"


@pytest.mark.parametrize(
    ("cells", "asked"),
    [
        (["CO methanol", "O=O", ""], "CO.O=O"),
        (["CO |c:1|", "O=O oxygen", ""], "CO.O=O"),
        ([" CO methanol ", "", ""], "CO methanol"),
        (["CO", "CC C", ""], "CC C"),
        (["CO\nC", "CC", ""], "CO C"),
        (["CO", "none of them", ""], "none of them"),
    ],
)
def test_what_follows_the_molecules_of_a_cell_hides_none_of_the_next(cells: list[str], asked: str) -> None:
    """A cell that cannot be read, as one with a blank in its SMILES, is read alone, and told."""
    sides = SideColumns(["reactants", "reagents", "product"], 0)
    assert sides.read("forward", cells[0], cells) == (asked, "")


@given(st.text(max_size=30), st.sampled_from(["forward", "retro", "reagents", None]))
def test_any_text_is_read_or_refused_in_one_line(text: str, direction: str | None) -> None:
    refusal = ""
    try:
        smiles, _ = read_sides(direction, text)
    except InputError as error:
        smiles, refusal = "", str(error)
    assert "\n" not in refusal
    assert len(smiles) <= len(text) + 1
