"""What can be checked of an answer without knowing the right one.

`valid_answers`: RDKit reads it, where it should be molecules. Of those about reactions:
`balanced`: no atom of the product comes from nowhere. `round_trip`: the reactants, asked for their product, give it
back. What other orders of the question get (`in_other_orders`) can vote, and the share that agrees is a confidence.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from rdkit import Chem, rdBase

from ..chem.smiles import canonical, reorder
from .answerer import Answerer, Text
from .pairs import format_question, hash_of, is_too_large

Given = tuple[str | None, float]  # an answer, and its probability


def valid_answers(texts: Sequence[Text], molecules: bool) -> dict[str, float]:
    """The valid ones in their order, each once, and its probability: the sum over its different spellings.

    texts: no two of the same tokens; a text may be there in several tokenisations. What was cut off is no molecule.
    """
    found: dict[str, float] = {}
    for text, score, ended in texts:
        answer = text if not molecules else canonical(text) if ended else None
        if answer is not None:
            found[answer] = found.get(answer, 0.0) + math.exp(score)
    return found


def is_balanced(inputs: str, product: str) -> bool:
    """Whether every atom of the product, hydrogen left out, can come from the inputs; not if one cannot be read.

    Inputs may have more: what leaves is not written in a reaction.
    """
    there, needed = _atoms(inputs), _atoms(product)
    return there is not None and needed is not None and not needed - there


def _atoms(smiles: str) -> Counter[int] | None:
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    return mol and Counter(number for atom in mol.GetAtoms() if (number := atom.GetAtomicNum()) > 1)


def other_orders(smiles: str, n: int) -> list[str]:
    """`n` random orders of molecules and atoms, the same for the same text at any time."""
    return reorder(smiles, random.Random(hash_of(smiles)), n)


def round_trips(
    answerer: Answerer, reactants: Sequence[str], products: Sequence[str], question: str, max_new_tokens: int, size: int
) -> list[bool]:
    """Whether the greedy answer about each set of reactants is its product, which is not among them itself.

    All are canonical SMILES.
    """
    answers = greedy(answerer, reactants, reactants, [question] * len(reactants), max_new_tokens, size)
    rows = zip(answers, products, reactants, strict=True)
    return [answer == product and product not in source.split(".") for (answer, _), product, source in rows]


def in_other_orders(
    answerer: Answerer, sources: Sequence[str], questions: Sequence[str], n: int, max_new_tokens: int, size: int
) -> list[list[Given]]:
    """What `n` other orders of each source get, as of `greedy`. sources: canonical SMILES."""
    texts = [order for source in sources for order in other_orders(source, n)]
    wide = [[each for each in column for _ in range(n)] for column in (sources, questions)]
    found = greedy(answerer, texts, wide[0], wide[1], max_new_tokens, size)
    return [found[i * n : (i + 1) * n] for i in range(len(sources))]


def elect(own: Mapping[str, float], others: Sequence[Given]) -> dict[str, float]:
    """Answers and their probability in the mean of all orders, the likeliest first.

    own: answer -> probability, of the question as it is. others: of its other orders. An order counts for the answers
    that it gave, so the numbers are too low rather than too high.
    """
    total = dict(own)
    for answer, probability in others:
        if answer is not None:
            total[answer] = total.get(answer, 0.0) + probability
    likeliest = sorted(total.items(), key=lambda pair: -pair[1])
    return {answer: value / (1 + len(others)) for answer, value in likeliest}


def agreement(answer: str, others: Sequence[Given]) -> float:
    """Share of the other orders that get this answer."""
    return sum(other == answer for other, _ in others) / len(others)


def greedy(
    answerer: Answerer,
    texts: Sequence[str],
    sources: Sequence[str],
    questions: Sequence[str],
    max_new_tokens: int,
    size: int,
) -> list[Given]:
    """Each likeliest answer as canonical SMILES; None where it is none, or what is asked is too long or large.

    texts: SMILES of the molecules in any order. sources: the same, for the graphs.
    """
    ids = answerer.ids([format_question(*pair) for pair in zip(texts, questions, strict=True)])
    limit = answerer.max_question_tokens(max_new_tokens)
    fits = [i for i, tokens in enumerate(ids) if len(tokens) <= limit and not is_too_large(sources[i])]
    found: list[Given] = [(None, 0.0)] * len(texts)
    if fits:
        graphs = answerer.featurizer.read_smiles([sources[i] for i in fits])
        answers = answerer.answer([ids[i] for i in fits], graphs, max_new_tokens=max_new_tokens, batch_size=size)
        for i, (answer,) in zip(fits, answers, strict=True):
            found[i] = canonical(answer.text) if answer.ended else None, math.exp(answer.score)
    return found
