"""Every text gets a molecule or a reason; nothing is raised and nothing is printed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from mora_lite.chem.molecules import MAX_ATOMS, MAX_CHARACTERS, parse_molblock, parse_smiles

CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"


@pytest.mark.parametrize(
    "smiles",
    [
        "C",
        CAFFEINE,
        "CC(=O)[O-].[Na+]",  # a salt
        "CCO.CCN.O",  # a mixture
        "*c1ccccc1",  # a wildcard
        "[U](F)(F)(F)(F)(F)F",
        "[H][H]",
        "[NH3]->[Pt](<-[NH3])(Cl)Cl",
        " CCO ",
        "CCO ethanol",  # a name, as in .smi files
        "C" * MAX_ATOMS,
    ],
)
def test_a_molecule_is_ok(smiles):
    parsed = parse_smiles(smiles)
    assert parsed.status == "ok"
    assert parsed.mol.GetNumAtoms() > 0
    assert parsed.reason == ""


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", "empty", "no SMILES"),
        (" \t", "empty", "no SMILES"),
        ("C1CC", "unparsable", "unclosed ring"),
        ("CC(C)(C)(C)C", "unparsable", "valence for atom # 1 C"),
        ("c1cccc1", "unparsable", "kekulize"),
        ("CC&", "unparsable", "syntax error near character 3"),
        ("aspirin", "unparsable", "not a SMILES but a word; names of molecules are not read"),
        ("InChI=1S/C2H6O/c1-2-3/h3H", "unparsable", "not a SMILES but an InChI"),
        ("LFQSCWFLJHTTHZ-UHFFFAOYSA-N", "unparsable", "not a SMILES but an InChIKey"),
        ("PEPTIDE1{A.R.G.[dF]}$$$$", "unparsable", "not a SMILES but HELM"),
        ("CCO.triethylamine.CC", "unparsable", "triethylamine: not a SMILES but a word"),
        ("cccc", "unparsable", "aromatic"),
        ("CC>>CO", "unparsable", "a reaction, not a molecule"),
        ("C[N]->[Cu]->>C", "unparsable", "syntax error"),
        ("nan", "unparsable", ""),
        ("C\0C", "unparsable", "NUL"),
        ("CCé", "unparsable", "character 3 (U+00E9)"),
        ("CCO |$é;;$| é", "unparsable", "character 7 (U+00E9)"),
        ("CC(=O)\N{NO-BREAK SPACE}O", "unparsable", "character 7 (U+00A0)"),
        ("CC\udcff", "unparsable", "byte 0xFF"),
        ("C" * 500, "too_large", "500 atoms, more than 400"),
        ("*" * 500, "too_large", "500 atoms"),
        ("C.O" * 2000, "too_large", "atoms"),
        ("C" * (MAX_CHARACTERS + 1), "too_large", "20,001 characters"),
        ("C(" * 5000, "unparsable", ""),
    ],
)
def test_a_bad_text_gets_a_status_and_a_one_line_reason(text, status, words):
    parsed = parse_smiles(text)
    assert parsed.mol is None
    assert parsed.status == status
    assert words in parsed.reason
    assert parsed.reason
    assert "\n" not in parsed.reason


def test_the_limit_can_be_lowered():
    assert parse_smiles("CCCC", max_atoms=3).status == "too_large"


def mol_block(smiles, **options):
    from rdkit import Chem

    return Chem.MolToMolBlock(Chem.MolFromSmiles(smiles, sanitize=False), kekulize=False, **options)


@pytest.mark.parametrize("v3000", [False, True])
def test_a_mol_block_is_a_molecule(v3000):
    from rdkit import Chem

    parsed = parse_molblock(mol_block("CC[C@H](N)O", forceV3000=v3000))
    assert parsed.status == "ok"
    assert Chem.MolToSmiles(parsed.mol) == "CC[C@H](N)O"
    with_hydrogens = Chem.MolToMolBlock(Chem.AddHs(parsed.mol))
    assert parse_molblock(f"caf\udce9{with_hydrogens}").mol.GetNumAtoms() == 5


@pytest.mark.parametrize(
    ("block", "status", "words"),
    [
        (" \n", "empty", "no mol block"),
        (mol_block(""), "empty", "no atoms"),
        ("CCO\n", "unparsable", "does not end with 'M  END'"),
        (mol_block("CCO")[:150], "unparsable", "does not end"),
        (mol_block("CC(C)(C)(C)C"), "unparsable", "valence for atom # 1 C"),
        (mol_block("CCO").replace(" O ", " Zz"), "unparsable", "not a valid mol block"),
        (mol_block("CCO").replace("  3  2", "  x  2"), "unparsable", "not a valid mol block"),
        (mol_block("CCO").replace("  2  3", "  2  9"), "unparsable", "not a valid mol block"),
        (mol_block("CCO") + "\0", "unparsable", "NUL"),
        (mol_block("C" * 500), "too_large", "500 atoms, more than 400"),
    ],
)
def test_a_bad_mol_block_gets_a_status_and_a_one_line_reason(block, status, words, capfd):
    parsed = parse_molblock(block)
    assert (parsed.mol, parsed.status) == (None, status)
    assert words in parsed.reason
    assert "\n" not in parsed.reason
    assert capfd.readouterr() == ("", "")


@given(st.data())
def test_any_damage_to_a_mol_block_gets_an_answer(data):
    block = mol_block("C/C=C/C(N)=O")
    place = data.draw(st.integers(0, len(block)))
    width = data.draw(st.integers(0, 30))
    parsed = parse_molblock(block[:place] + data.draw(st.text(max_size=5)) + block[place + width :])
    assert (parsed.mol is None) == (parsed.status != "ok") == bool(parsed.reason)


def test_rdkit_stays_silent(capfd):
    for text in ["C1CC", "c1cccc1", "CC(C)(C)(C)C", "[H]", "C[C@@](C)(C)C", "x", "C |bad|"]:
        parse_smiles(text)
    assert capfd.readouterr() == ("", "")


def test_rdkit_speaks_again_afterwards(capfd):
    from rdkit import Chem

    parse_smiles("C1CC")
    Chem.MolFromSmiles("C1CC")
    assert "unclosed ring" in capfd.readouterr().err


@given(
    st.text(alphabet=st.characters(max_codepoint=0x2FF), max_size=40) | st.text("CNOc1()[]=#+-@%.*/\\ ", max_size=30)
)
def test_any_text_gets_an_answer(text):
    parsed = parse_smiles(text)
    assert (parsed.mol is None) == (parsed.status != "ok") == bool(parsed.reason)


def test_parsing_costs_little_more_than_rdkit():
    from rdkit import Chem

    def seconds(parse):
        best = 9.0
        for _ in range(3):
            started = time.process_time()
            for _ in range(1000):
                parse(CAFFEINE)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(parse_smiles) < 1.5 * seconds(Chem.MolFromSmiles)


@pytest.mark.parametrize("text", ["[#200]", "C[#999]", "[#200+]"])
def test_what_rdkit_raises_is_a_reason(text: str) -> None:
    """Not an error of ours that would stop a whole library."""
    parsed = parse_smiles(text)
    assert (parsed.mol, parsed.status) == (None, "unparsable")
    assert parsed.reason
    assert "\n" not in parsed.reason


# --- what follows a SMILES


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CC(=O)N\nC1CC1", "a line end at character 8, within the SMILES"),
        ("c1ccccc1\r\nO", "a line end at character 9, within the SMILES"),
        ("CC(=O)O c1ccccc1", "a blank at character 8, and what follows it reads as more of the SMILES"),
        ("c1ccccc1 C(=O)O", "a blank at character 9, and what follows it reads as more of the SMILES"),
        ("CCO |w:1,x|", "the SMILES is valid, but the extension after it is not: |w:1,x|"),
    ],
)
def test_a_smiles_that_is_broken_or_badly_extended_is_unparsable(text: str, reason: str) -> None:
    assert parse_smiles(text)[1:3] == ("unparsable", reason)


@pytest.mark.parametrize(
    "text", ["CCO ethanol", "CCO\tE-12", "CCO |$;;OH$| β", "CCO C is carbon", " CCO ", "CCO \udce9thanol"]
)
def test_a_name_or_an_extension_after_a_smiles_is_none_of_it(text: str) -> None:
    assert Chem.MolToSmiles(parse_smiles(text, version=2).mol, isomericSmiles=False) == "CCO"


def test_bonds_of_an_extension_are_read() -> None:
    assert parse_smiles("N[Pt+2](N)([Cl-])[Cl-] |C:0.0,2.1,3.2,4.3| cis", version=2).status == "ok"


@given(cut=st.integers(1, 20), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_wrapped_smiles_is_never_its_first_piece(cut: int, end: str) -> None:
    smiles = "CC(C)Cc1ccc(cc1)C(C)C(=O)O"
    assert parse_smiles(smiles[:cut] + end + smiles[cut:]).reason == (
        f"a line end at character {cut + 1}, within the SMILES"
    )
