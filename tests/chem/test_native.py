"""The native reader against RDKit: an answer is RDKit's, atom by atom, or there is none."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_texts import GROUPED, HARD, TOKENS, assembled, bracketed, mutated, respelled
from rdkit import Chem, rdBase

from mora_lite.chem import native
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.native import PROBES
from mora_lite.chem.standardize import COMPANIONS, SALT_METALS

compiled = pytest.mark.skipif(
    "not compiled" in native.note(), reason="the C extension was not compiled when the package was installed"
)
needs_compiler = os.environ.get("MORA_LITE_NEEDS_NATIVE")


@pytest.fixture
def fresh_switch() -> Iterator[None]:
    native.note.cache_clear()
    yield
    native.note.cache_clear()


def share(texts: list[str]) -> float:
    return float(native.read(texts, "parent").certain.mean())


def check(texts: list[str], ways: Sequence[str] = native.STANDARDIZE) -> None:
    with rdBase.BlockLogs():
        assert native.first_difference(texts, ways) is None, f"RDKit {rdBase.rdkitVersion}"


def test_it_is_compiled_where_a_compiler_was_promised() -> None:
    if not needs_compiler:
        pytest.skip("MORA_LITE_NEEDS_NATIVE is not set")
    assert native.note() == ""


@compiled
def test_the_probes_agree_and_are_nearly_all_answered() -> None:
    check(list(PROBES))
    assert share(list(PROBES)) > 0.98


@compiled
def test_molecules_of_the_tests_agree_in_every_spelling(molecules: list[str]) -> None:
    texts = [text for text in molecules if Chem.MolFromSmiles(text)]
    spellings = [spelling for text in texts for spelling in respelled(text, random.Random(1), 6)]
    check(spellings)
    assert share(spellings) > 0.95


@compiled
def test_hard_molecules_agree_in_every_spelling() -> None:
    check([spelling for text in HARD for spelling in respelled(text, random.Random(2), 5)])


@compiled
def test_twenty_thousand_molecules_agree() -> None:
    """A sample of what people have. benchmarks/native.py compares millions that are not in this repository."""
    dice = random.Random(6)
    texts = [assembled(dice) for _ in range(20_000)]
    for start in range(0, len(texts), 2000):
        check(texts[start : start + 2000], ["parent"])
    assert share(texts) > 0.9  # of those that RDKit reads too all but a few in a thousand


@compiled
def test_groups_of_configurations_after_a_smiles_change_nothing() -> None:
    dice = random.Random(7)
    marked = [text for text in [*PROBES, *HARD] if "@" in text and Chem.MolFromSmiles(text)]

    def group() -> str:
        numbers = ",".join(str(dice.randrange(9)) for _ in range(dice.randrange(1, 4)))
        return f"{dice.choice(['a', '&1', '&2', 'o1', 'o2', '&0', 'o', 'b', '&01', 'w'])}:{numbers}"

    tails = [",".join(group() for _ in range(dice.randrange(1, 4))) for _ in range(1500)]
    texts = [f"{dice.choice(marked)}{dice.choice([' ', '  '])}|{tail}|" for tail in tails]
    check(texts)
    assert share(texts) > 0.1
    check(GROUPED)
    assert native.read(GROUPED, "none").certain.all()


@compiled
@pytest.mark.parametrize("tail", ["|", "||", "|&1:1", "&1:1|", "|&1:9|", "|&1:1,1|", "|$R1$|", "|&1:1| name", "name"])
def test_any_other_extension_and_names_are_left_to_rdkit(tail: str) -> None:
    assert not native.read([f"C[C@H](F)Cl {tail}"], "none").certain[0]


@compiled
def test_ions_and_dummy_atoms_agree() -> None:
    dice = random.Random(8)
    elements = re.findall("[A-Z*][a-z]?", "CNOSPFClIBSiSeAsNaMgAlFeCuZnRuAgSnSbHgTlPbGaGePt*H")
    charges, hydrogens = ["", "", "+", "-", "-", "+2", "-2", "+3", "-4"], ["", "", "H", "H2", "H3"]

    def atom() -> str:
        return f"[{dice.choice(elements)}{dice.choice(hydrogens)}{dice.choice(charges)}]"

    places = ["{}C", "{}(C)C", "{}(Cl)Cl", "{}{}", "{}=C", "C{}C[O-]", "c1cc({})ccc1", "{}.{}C(=O)[O-]"]
    places += ["C[N+](C)(C)CC({})C(=O)[O-]", "[O-]C(=O)C{}C{}"]
    texts = [dice.choice(places).replace("{}", atom(), 1).replace("{}", atom()) for _ in range(4000)]
    check(texts)
    assert share(texts) > 0.2


@compiled
def test_atoms_in_brackets_agree() -> None:
    dice = random.Random(5)
    check([bracketed(dice) for _ in range(4000)])


@compiled
@pytest.mark.parametrize("text", ["[00C]", "[012CH4]", "[CH3:01]", "C%00CC%00", "C1CC%01", "C%01CC%01"])
def test_numbers_with_zeros_in_front_are_left_to_rdkit_which_refuses_them(text: str) -> None:
    assert not native.read([text], "none").certain[0]


@compiled
def test_mixtures_agree() -> None:
    """The parent among fragments of like size; the bonds of what is left are perceived anew."""
    dice = random.Random(4)
    pieces = [text for text in [*PROBES, *HARD] if "." not in text and Chem.MolFromSmiles(text)]
    by_size: dict[int, list[str]] = {}
    for text in pieces:
        by_size.setdefault(Chem.AddHs(Chem.MolFromSmiles(text)).GetNumAtoms(), []).append(text)
    pairs = [dice.sample(same, 2) for same in by_size.values() for _ in range(8) if len(same) > 1]
    check([".".join(pair) for pair in [*pairs, *(dice.sample(pieces, 3) for _ in range(300))]])


@compiled
def test_what_gives_way_to_other_fragments_agrees() -> None:
    """Each counter-ion and solvent beside a smaller fragment, itself, a metal, and others of its kind."""
    names, dice = COMPANIONS.split(), random.Random(5)
    texts = [f"{name}.{other}" for name in names for other in ("C", "[CH3-].[Na+]", name, "[K+]", dice.choice(names))]
    check(texts)
    assert share([f"{name}.Cl.O" for name in names]) == 1


@compiled
def test_bonds_to_the_metals_of_salts_are_left_to_rdkit() -> None:
    texts = [text.format(metal) for metal in SALT_METALS for text in ("CC(=O)O[{}]", "CS[{}]", "C[{}]", "CCO.[{}]")]
    check(texts)
    assert native.read(texts, "parent").certain.tolist() == [False, False, False, True] * len(SALT_METALS)


@compiled
def test_mutated_texts_agree(molecules: list[str]) -> None:
    dice = random.Random(3)
    check([mutated([*molecules, *PROBES, *HARD], dice) for _ in range(1500)])


@compiled
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=25).map("".join))
def test_texts_of_any_tokens_agree(text: str) -> None:
    check([text])


@compiled
@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_agrees(text: str) -> None:
    check([text])


@compiled
@pytest.mark.parametrize(
    "text", ["", " ", "C" * 401, "C" * 1200, "C1" * 300, "(" * 500, "[" * 900, "C(" * 450, "\0", "C\0C"]
)
def test_texts_that_are_too_long_or_too_deep_are_left_to_rdkit(text: str) -> None:
    assert not native.read([text], "parent").certain[0]


@compiled
def test_a_column_is_read_as_a_list_is() -> None:
    texts = ["CCO", "nonsense", "", "c1ccccc1", "C[C@H](N)C(=O)[O-].[Na+]"]
    padded = "??" + "".join(texts) + "??"
    offsets = np.cumsum([2, *map(len, texts)]).astype(np.int32)
    by_column, by_list = native.read_column(padded.encode(), offsets, "parent"), native.read(texts, "parent")
    assert by_column.certain.tolist() == [True, False, False, True, True]
    for name in ("atoms", "bonds", "bond_endpoints", "atom_ptr", "bond_ptr"):
        assert np.array_equal(getattr(by_column.graphs, name), getattr(by_list.graphs, name))
    assert np.array_equal(by_column.fingerprints, by_list.fingerprints)
    assert len(native.read([], "none").graphs) == 0


@compiled
@pytest.mark.parametrize("offsets", [[0, 4], [-1, 2], [2, 1], [0, 2, 1, 3]])
def test_offsets_outside_the_text_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        native.read_column(b"CCO", np.array(offsets), "none")


@compiled
def test_threads_may_read_at_once(molecules: list[str]) -> None:
    texts = [*PROBES, *HARD, *molecules] * 20
    expected = native.read(texts, "parent")
    answers: list[native.Reading] = []
    threads = [threading.Thread(target=lambda: answers.append(native.read(texts, "parent"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(answer.graphs.atoms, expected.graphs.atoms) for answer in answers)
    assert len(answers) == 4


@compiled
def test_a_featurizer_reads_what_is_not_certain_by_rdkit() -> None:
    texts = ["CCO", "[H]/C(C)=C/C", "*1ccccc1", "C[C@@H](N)F", "CC(=O)[O-].[Na+]"]
    assert 0 < share(texts) < 1
    featurizer = Featurizer()
    graphs, plain = featurizer.read_smiles(texts), featurizer.graphs([featurizer.parse_smiles(t).mol for t in texts])
    assert np.array_equal(graphs.atoms, plain.atoms)
    assert np.array_equal(graphs.bonds, plain.bonds)
    assert np.array_equal(graphs.atom_ptr, plain.atom_ptr)


@compiled
@pytest.mark.usefixtures("fresh_switch")
def test_an_rdkit_with_other_rules_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = native.graph_codes

    def other_rules(molecules: list[Chem.Mol], version: int, *, plain: bool) -> object:
        graphs = codes(molecules, version, plain=plain)
        graphs.atoms[graphs.atoms[:, 9] == 3, 9] = 2  # as if rings were counted in another way
        return graphs

    monkeypatch.setattr(native, "graph_codes", other_rules)
    assert "is off, as RDKit" in native.note()
    assert not native.is_used()
    assert not Featurizer().is_native
    assert len(Featurizer().read_smiles(["c1ccccc1"])) == 1


@pytest.mark.usefixtures("fresh_switch")
def test_without_the_extension_there_is_a_note_and_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError

    monkeypatch.setattr(native, "_extension", missing)
    assert "not compiled" in native.note()
    assert Featurizer().read_smiles(["CCO"]).n_atoms.tolist() == [3]


@pytest.mark.skipif(sys.platform == "win32", reason="needs CC")
def test_where_no_compiler_works_the_extension_is_left_out(tmp_path: Path) -> None:
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("the setuptools here is older than pyproject.toml asks for")
    setup = [sys.executable, "-c", "import setuptools; setuptools.setup()"]
    options = ["-q", "build_ext", "-b", str(tmp_path), "-t", str(tmp_path / "objects")]
    environment = os.environ | {"CC": "/nonexistent/cc"}
    root = Path(__file__).parents[2]
    run = subprocess.run([*setup, *options], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.rglob("_native*"))
