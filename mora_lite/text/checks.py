"""What can be checked of an answer about a reaction without knowing the right one.

`balanced`: no atom of the product comes from nowhere. `round_trip`: the reactants, asked for their product, give it
back. `agreement`: the share of other orders of the question that get the same answer.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence

from rdkit import Chem, rdBase

from ..chem.smiles import canonical, reorder
from .answerer import Answerer
from .pairs import format_question


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
    seed = int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:8], "big")
    return reorder(smiles, random.Random(seed), n)


def round_trips(
    answerer: Answerer, reactants: Sequence[str], products: Sequence[str], question: str, max_new_tokens: int, size: int
) -> list[bool]:
    """Whether the greedy answer about each set of reactants is its product, which is not among them itself.

    All are canonical SMILES.
    """
    answers = greedy(answerer, reactants, reactants, [question] * len(reactants), max_new_tokens, size)
    rows = zip(answers, products, reactants, strict=True)
    return [answer == product and product not in source.split(".") for answer, product, source in rows]


def agreements(
    answerer: Answerer,
    sources: Sequence[str],
    questions: Sequence[str],
    answers: Sequence[str],
    n: int,
    max_new_tokens: int,
    size: int,
) -> list[float]:
    """Share of `n` other orders of each source that get the same answer. sources, answers: canonical SMILES."""
    texts = [order for source in sources for order in other_orders(source, n)]
    wide = [[each for each in column for _ in range(n)] for column in (sources, questions)]
    found = greedy(answerer, texts, wide[0], wide[1], max_new_tokens, size)
    same = [found[i * n : (i + 1) * n].count(answer) for i, answer in enumerate(answers)]
    return [count / n for count in same]


def greedy(
    answerer: Answerer,
    texts: Sequence[str],
    sources: Sequence[str],
    questions: Sequence[str],
    max_new_tokens: int,
    size: int,
) -> list[str | None]:
    """The canonical SMILES of each likeliest answer; None where it is no molecule, or the question is too long.

    texts: SMILES of the molecules in any order. sources: the same, for the graphs.
    """
    ids = answerer.ids([format_question(*pair) for pair in zip(texts, questions, strict=True)])
    limit = answerer.max_question_tokens(max_new_tokens)
    fits = [i for i, tokens in enumerate(ids) if len(tokens) <= limit]
    found: list[str | None] = [None] * len(texts)
    if fits:
        graphs = answerer.featurizer.read_smiles([sources[i] for i in fits])
        answers = answerer.answer([ids[i] for i in fits], graphs, max_new_tokens=max_new_tokens, batch_size=size)
        for i, (answer,) in zip(fits, answers, strict=True):
            found[i] = canonical(answer.text)
    return found
