"""The compiled part gives RDKit's graphs the codes, order and fingerprints that plain Python gives them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_texts import HARD, TOKENS, assembled, respelled
from rdkit import rdBase

from mora_lite.chem import circular, extension
from mora_lite.chem.codes import graph_codes
from mora_lite.chem.graph import Graphs
from mora_lite.chem.molecules import parse_smiles
from mora_lite.chem.native import PROBES
from mora_lite.chem.stereo import Elements

compiled = pytest.mark.skipif(not extension.is_compiled(), reason="the package was installed without a compiler")
NAMES = ("atoms", "bonds", "bond_endpoints", "atom_ptr", "bond_ptr")


def check(texts: list[str]) -> int:
    with rdBase.BlockLogs():
        parsed = [parse_smiles(text, version=2, standardize="parent").mol for text in texts]
    molecules = [mol for mol in parsed if mol is not None]
    plain, fast = graph_codes(molecules, 2, plain=True), graph_codes(molecules, 2)
    for name in NAMES:
        assert np.array_equal(getattr(plain, name), getattr(fast, name)), name
    assert np.array_equal(circular.fingerprints(plain, plain=True), circular.fingerprints(fast))
    return len(molecules)


def without_elements(n: int = 0) -> Elements:
    numbers = np.zeros(n, np.int64)
    return Elements(numbers, numbers, numbers.astype(bool), np.zeros((n, 2, 4), np.int64), numbers.astype(bool))


def chain(n_atoms: int) -> Graphs:
    """Atoms in a row."""
    ends = np.stack([np.arange(n_atoms - 1), np.arange(1, n_atoms)], axis=1).astype(np.uint16)
    atoms, bonds = np.ones((n_atoms, 10), np.uint8), np.zeros(n_atoms - 1, np.uint8)
    return Graphs(atoms, bonds, ends, np.array([0, n_atoms]), np.array([0, n_atoms - 1]))


@compiled
def test_molecules_agree_in_every_spelling(molecules: list[str]) -> None:
    dice = random.Random(1)
    texts = [spelling for text in [*PROBES, *HARD, *molecules] for spelling in respelled(text, dice, 3)]
    assert check(texts) > 1000


@compiled
def test_molecules_with_many_marks_agree() -> None:
    dice = random.Random(2)
    texts = [text for text in (assembled(dice) for _ in range(3000)) if "@" in text or "/" in text]
    assert check(texts) > 300
    assert check(["", "nonsense"]) == 0


@compiled
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=12).map("".join), max_size=4))
def test_any_molecules_agree(texts: list[str]) -> None:
    check(texts)


@compiled
def test_what_is_too_large_is_done_in_python() -> None:
    assert extension.finish(chain(401), without_elements()) is None
    assert extension.fingerprints(chain(401)) is None
    assert extension.finish(chain(400), without_elements()) is not None
    assert circular.fingerprints(chain(401)).shape == (1, 128)
    many = replace(without_elements(200), groups=np.full((200, 2, 4), -1))
    assert extension.finish(chain(300), many) is None


@compiled
def test_arrays_that_do_not_fit_are_refused_or_left_to_python() -> None:
    graph = chain(5)
    with pytest.raises(ValueError, match="graphs"):
        extension.fingerprints(replace(graph, atom_ptr=np.array([0, 6])))
    with pytest.raises(ValueError, match="graphs"):
        extension.finish(replace(graph, bonds=graph.bonds[:3]), without_elements())
    elsewhere = replace(graph, bond_endpoints=graph.bond_endpoints + np.uint16(3))
    assert extension.fingerprints(elsewhere) is None
    unknown = replace(graph, atoms=np.full_like(graph.atoms, 200))
    assert extension.fingerprints(unknown) is None
    assert extension.finish(unknown, without_elements()) is None
    assert np.array_equal(circular.fingerprints(unknown), circular.fingerprints(unknown, plain=True))
    beyond = replace(without_elements(1), owner=np.array([5]))
    assert extension.finish(graph, beyond) is None


def test_without_it_the_plain_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "is_compiled", lambda: False)
    assert extension.finish(chain(2), without_elements()) is None
    assert circular.fingerprints(chain(2)).any()
    assert check(["C[C@H](N)C(=O)O"]) == 1
