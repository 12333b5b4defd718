"""How near answers are to the right ones: exact match, edit distance, BLEU, ROUGE, METEOR, similarity of molecules.

Molecule texts are compared after RDKit has made them canonical; an answer that RDKit refuses counts as wrong, its edit
distance and BLEU are taken from its text as it is, and it has no fingerprints, as in the tables of MolT5
(arXiv 2204.11817).

METEOR matches words and, where the package snowballstemmer is installed, their stems by Porter; synonyms of WordNet
are NOT covered, so it is not the metric of implementations that have them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from ..chem.smiles import canonical

WORD = re.compile(r"\w+|[^\w\s]")  # a word, or one mark


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's: the least number of characters put in, taken out or exchanged."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def bleu(answers: Sequence[Sequence[str]], targets: Sequence[Sequence[str]], n: int = 4) -> float:
    """BLEU of a whole set with one target each, unsmoothed, 0 to 1: runs of 1 to `n` items, characters or words."""
    matched, total = [0] * n, [0] * n
    for answer, target in zip(answers, targets, strict=True):
        for size in range(1, n + 1):
            got, expected = _runs(answer, size), _runs(target, size)
            matched[size - 1] += sum((got & expected).values())
            total[size - 1] += sum(got.values())
    if not all(matched):
        return 0.0
    length, expected_length = sum(map(len, answers)), sum(map(len, targets))
    brevity = min(0.0, 1 - expected_length / length)
    return math.exp(brevity + sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / n)


def _runs(items: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[i : i + size]) for i in range(len(items) - size + 1))


def rouge_l(answer: Sequence[str], target: Sequence[str]) -> float:
    """F1 of the longest common subsequence, 0 to 1."""
    if not answer or not target:
        return 0.0
    row = [0] * (len(target) + 1)
    for a in answer:
        before = 0
        for j, b in enumerate(target, 1):
            before, row[j] = row[j], before + 1 if a == b else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(answer) + len(target))


def rouge_n(answer: Sequence[str], target: Sequence[str], n: int) -> float:
    """F1 of the runs of `n` items that both have, 0 to 1; a run counts as often as both have it."""
    got, expected = _runs(answer, n), _runs(target, n)
    total = got.total() + expected.total()
    return 2 * (got & expected).total() / total if total else 0.0


def meteor(answer: Sequence[str], target: Sequence[str]) -> float:
    """METEOR of Banerjee and Lavie (2005) with its own weights, 0 to 1: recall counts nine times as much as precision
    in their harmonic mean, and half the cube of chunks / matches is taken off.

    answer, target: words in lower case. Equal words are matched first, then, if there is a stemmer, words of equal
    stem. A chunk is a run of matches in the same order in both; matches are made by the longest runs first, which
    leaves few chunks.
    """
    pairs = _match(answer, target)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(answer), len(pairs) / len(target)
    chunks = sum((i - 1, j - 1) not in pairs for i, j in pairs)
    mean = 10 * precision * recall / (recall + 9 * precision)
    return mean * (1 - 0.5 * (chunks / len(pairs)) ** 3)


def meteor_name() -> str:
    """What the metric is called here: `meteor_exact` without a stemmer."""
    return "meteor" if _stemmer() else "meteor_exact"


def _match(answer: Sequence[str], target: Sequence[str]) -> set[tuple[int, int]]:
    """Positions of the words that are matched, each at most once."""
    stages = [(answer, target)]
    if stemmer := _stemmer():
        stages.append((stemmer.stemWords(answer), stemmer.stemWords(target)))
    pairs: set[tuple[int, int]] = set()
    for one, other in stages:
        left = [i for i in range(len(one)) if all(i != pair[0] for pair in pairs)]
        right = [j for j in range(len(other)) if all(j != pair[1] for pair in pairs)]
        while run := _longest_run(one, other, left, right):
            pairs |= run
            left = [i for i in left if all(i != pair[0] for pair in run)]
            right = [j for j in right if all(j != pair[1] for pair in run)]
    return pairs


def _longest_run(one: Sequence[str], other: Sequence[str], left: list[int], right: list[int]) -> set[tuple[int, int]]:
    """Positions of the longest run of items that both have, among `left` and `right`; the first of several."""
    best, end = 0, (0, 0)
    lengths: dict[int, int] = {}
    before = -2
    for i in left:
        # Runs go on only from the position just before, in both.
        last = lengths if i == before + 1 else {}
        lengths = {j: last.get(j - 1, 0) + 1 for j in right if one[i] == other[j]}
        for j, length in lengths.items():
            if length > best:
                best, end = length, (i, j)
        before = i
    return {(end[0] - k, end[1] - k) for k in range(best)}


@cache
def _stemmer() -> Any:
    """Porter's stemmer for English, or None where it is not installed (extra `text`)."""
    try:
        import snowballstemmer
    except ImportError:
        return None
    return snowballstemmer.stemmer("porter")


def molecule_metrics(answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Metrics of answers that should be the canonical SMILES `targets`.

    exact, valid: shares of all rows. levenshtein: mean, characters. bleu: of characters. morgan, maccs, rdk: mean
    Tanimoto similarity over the valid answers, NaN when there is none.
    """
    assert len(answers) == len(targets) > 0
    read = [canonical(answer) for answer in answers]
    written = [answer if smiles is None else smiles for answer, smiles in zip(answers, read, strict=True)]
    near = [
        fingerprint_similarity(smiles, target)
        for smiles, target in zip(read, targets, strict=True)
        if smiles is not None
    ]
    mean = np.mean(near, axis=0) if near else [math.nan] * 3
    n = len(answers)
    return {
        "exact": sum(smiles == target for smiles, target in zip(read, targets, strict=True)) / n,
        "valid": sum(smiles is not None for smiles in read) / n,
        "levenshtein": sum(map(edit_distance, written, targets)) / n,
        "bleu": bleu(written, targets),
        **dict(zip(("morgan", "maccs", "rdk"), map(float, mean), strict=True)),
    }


def text_metrics(answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Metrics of descriptions, by words in lower case: bleu2, bleu4 of the whole set; rouge_1, rouge_2, rouge_l and
    meteor (`meteor_name`), means; exact, share.
    """
    assert len(answers) == len(targets) > 0
    got, expected = ([WORD.findall(text.lower()) for text in texts] for texts in (answers, targets))
    n = len(answers)
    return {
        "exact": sum(map(str.__eq__, answers, targets)) / n,
        "bleu2": bleu(got, expected, 2),
        "bleu4": bleu(got, expected, 4),
        "rouge_1": sum(rouge_n(*pair, 1) for pair in zip(got, expected, strict=True)) / n,
        "rouge_2": sum(rouge_n(*pair, 2) for pair in zip(got, expected, strict=True)) / n,
        "rouge_l": sum(map(rouge_l, got, expected)) / n,
        meteor_name(): sum(map(meteor, got, expected)) / n,
    }


def fingerprint_similarity(one: str, other: str) -> tuple[float, float, float]:
    """Tanimoto similarity by Morgan (radius 2, 2048 bits), MACCS and RDKit (2048 bits) fingerprints."""
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint
    with rdBase.BlockLogs():
        a, b = Chem.MolFromSmiles(one), Chem.MolFromSmiles(other)
        pairs = [(make(a), make(b)) for make in (morgan, rdMolDescriptors.GetMACCSKeysFingerprint, Chem.RDKFingerprint)]
    first, second, third = (DataStructs.TanimotoSimilarity(*pair) for pair in pairs)
    return first, second, third


def metrics_by_table(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics as rows of a table: of all held-out rows first, then of each data table where there are several."""
    tables = [key.removeprefix("rows_") for key in metrics if key.startswith("rows_")]
    single = {f"{kind}_{name}" for name in tables for kind in ("exact", "rows")}
    total = {name: value for name, value in metrics.items() if name not in single}
    if len(tables) < 2:
        return [total]
    rows = [{"table": name, "rows": metrics[f"rows_{name}"], "exact": metrics[f"exact_{name}"]} for name in tables]
    return [{"table": "all", **total}, *rows]
