"""Checks of answers about reactions, with a stand-in for the model that knows some questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.chem.smiles import canonical
from mora_lite.text.answerer import Answerer, Text
from mora_lite.text.checks import (
    agreement,
    elect,
    in_other_orders,
    is_balanced,
    other_orders,
    round_trips,
    valid_answers,
)


class Knowing:
    """Answers each question by a dictionary from its text; what it does not know gets `x(`, which is no molecule."""

    featurizer = Featurizer(standardize="none")

    def __init__(self, answers: dict[str, str], ended: bool = True):
        self.answers, self.asked, self.ended = answers, [""], ended

    def max_question_tokens(self, max_new_tokens: int) -> int:
        return 100 - max_new_tokens

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        self.asked = list(texts)
        return [list(range(len(text))) for text in texts]

    def answer(self, questions: list[list[int]], graphs: Graphs, **_: Any) -> list[list[Text]]:
        assert len(questions) == len(graphs)
        fits = [text for text in self.asked if len(text) <= 90]
        return [[Text(self.answers.get(text, "x("), -1.0, self.ended)] for text in fits]


def test_all_spellings_and_tokenisations_of_an_answer_count() -> None:
    """A wide search finds one text in several tokenisations, the likeliest first."""
    found = [("OCC", 0.5), ("CCO", 0.2), ("OCC", 0.1), ("C", 0.1)]
    texts = [Text(text, math.log(probability)) for text, probability in found]
    assert valid_answers(texts, True) == {"CCO": pytest.approx(0.8), "C": pytest.approx(0.1)}
    assert valid_answers(texts, False)["OCC"] == pytest.approx(0.6)


def test_what_was_cut_off_is_no_molecule() -> None:
    cut = Text("CC", math.log(0.9), ended=False)
    assert valid_answers([cut, Text("CCO", math.log(0.1))], True) == {"CCO": pytest.approx(0.1)}
    assert valid_answers([cut], False) == {"CC": pytest.approx(0.9)}
    for ended in (True, False):
        answerer = cast(Answerer, Knowing({"CO\nQuestion: And?": "C=O"}, ended))
        assert round_trips(answerer, ["CO"], ["C=O"], "And?", 10, 4) == [ended]


@pytest.mark.parametrize(
    ("inputs", "product", "expected"),
    [
        ("CC(=O)O.OCC", "CCOC(C)=O", True),
        ("CC(=O)O.OCC", "CCNC(C)=O", False),
        ("CC(=O)O.OC", "CCOC(C)=O", False),
        ("C=C.[H][H]", "CC", True),
        ("[13CH4]", "C", True),
        ("C", "x(", False),
    ],
)
def test_no_atom_comes_from_nowhere(inputs: str, product: str, expected: bool) -> None:
    assert is_balanced(inputs, product) == expected


@given(st.lists(st.sampled_from(["CCO", "c1ccccc1Br", "[Na+].[OH-]", "CC(=O)Cl"]), min_size=1, max_size=4))
def test_a_part_of_the_inputs_is_always_balanced(parts: list[str]) -> None:
    whole = ".".join(parts)
    assert is_balanced(whole, parts[0])
    assert is_balanced(whole, whole)
    assert not is_balanced(parts[0], whole + "." + parts[0])


def test_other_orders_are_the_same_molecules_and_the_same_again() -> None:
    orders = other_orders("CCOC(C)=O.NCc1ccccc1", 8)
    assert len(set(orders)) > 4
    assert {canonical(order) for order in orders} == {canonical("CCOC(C)=O.NCc1ccccc1")}
    assert other_orders("CCOC(C)=O.NCc1ccccc1", 8) == orders


def test_reactants_are_asked_for_their_product() -> None:
    answerer = Knowing({"CCO\nQuestion: And?": "C(C)=O", "CO\nQuestion: And?": "CO"})
    back = round_trips(
        cast(Answerer, answerer), ["CCO", "CO", "CO", "C" * 99], ["CC=O", "C=O", "CO", "C"], "And?", 10, 4
    )
    assert back == [True, False, False, False]  # wrong; what was to be made is there already; too long


def test_reactants_without_a_graph_have_no_way_back() -> None:
    """A model that repeats itself writes a chain of more atoms than a graph may have, in few tokens."""
    answerer = Knowing({"CCO": "CC=O"})
    answerer.ids = lambda texts: [[0] for _ in texts]  # type: ignore[method-assign]
    answerer.asked = ["CCO"]
    assert round_trips(cast(Answerer, answerer), ["C" * 401, "CCO"], ["C", "CC=O"], "", 10, 4) == [False, True]


def test_other_orders_are_asked_and_vote() -> None:
    orders = other_orders("CCO.CN", 4)
    assert len(set(orders)) == 4
    assert Chem.MolFromSmiles(orders[0]).GetNumAtoms() == 5
    answerer = Knowing({order: "CC=O" if i else "C" for i, order in enumerate(orders[:3])})
    (others,) = in_other_orders(cast(Answerer, answerer), ["CCO.CN"], [""], 4, 10, 4)
    p = pytest.approx(math.exp(-1))
    assert others == [("C", p), ("CC=O", p), ("CC=O", p), (None, p)]
    assert agreement("CC=O", others) == 0.5
    assert elect({"C": 0.1}, others) == {
        "CC=O": pytest.approx(2 * math.exp(-1) / 5),
        "C": pytest.approx((0.1 + math.exp(-1)) / 5),
    }
    assert list(elect({"C": 0.5}, others)) == ["C", "CC=O"], "a sure answer outweighs two that are less so"


@given(st.dictionaries(st.sampled_from("CNOS"), st.floats(0, 1)))
def test_without_other_orders_the_likeliest_answer_is_first(own: dict[str, float]) -> None:
    elected = elect(own, [])
    assert elected == own
    assert list(elected.values()) == sorted(own.values(), reverse=True)
