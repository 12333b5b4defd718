"""Rows that nobody would call molecules, and some that nearly are: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from rdkit import Chem

from mora_lite.tables.records import Record

GOOD = [
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C[C@H](N)C(=O)O",
    "O=C(O)c1ccccc1OC(C)=O",
    "F/C=C/F",
    "[Na+].[Cl-]",
    "c1ccc2c(c1)[nH]c1ccccc12",
]
BLOCKS = [Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)) for smiles in GOOD]
BLOCKS += [Chem.MolToV3KMolBlock(Chem.MolFromSmiles(smiles)) for smiles in GOOD[:2]]
ALPHABET = "CNOSPFIBclnosp123456789%()[]=#$:/\\.+-@*&<>{}|~^,;'\"\t !?_" + "éλ中\u202e\U0001f9ea\x00\x01\x7f"


def _bytes(r: random.Random) -> str:
    return r.randbytes(r.randrange(1, 80)).decode("utf-8", "surrogateescape")


def _letters(r: random.Random) -> str:
    return "".join(r.choices(ALPHABET, k=r.randrange(1, 120)))


def _cut(r: random.Random) -> str:
    text = r.choice(GOOD)
    start = r.randrange(len(text))
    return text[start : r.randrange(start, len(text)) + 1]


def _mutated(r: random.Random) -> str:
    text = list(r.choice(GOOD))
    for _ in range(r.randrange(1, 4)):
        text[r.randrange(len(text))] = r.choice(ALPHABET)
    return "".join(text)


def _ring(r: random.Random) -> str:
    n = r.choice([3, 8, 60, 350, 401, 3000])
    return f"{r.choice('CNS')}1{'C' * n}1" if r.random() < 0.7 else f"c1{'c' * n}1"


def _cage(r: random.Random) -> str:
    """Rings closed at random: what the search for the smallest set of rings likes least."""
    n = r.randrange(4, 100)
    ends = r.sample(range(n), n // 2 * 2)
    closures: dict[int, str] = {}
    for number, (a, b) in enumerate(zip(ends[::2], ends[1::2], strict=True), 1):
        for atom in (a, b):
            closures[atom] = closures.get(atom, "") + (f"%{number:02}" if number < 100 else "")
    return "".join(f"C{closures.get(atom, '')}" for atom in range(n))


def _brackets(r: random.Random) -> str:
    n = r.choice([2, 50, 500, 4000])
    return r.choice(["(" * n, "C" + "(" * n, "C(" * n + ")" * n, "[" * n, "[" * n + "C" + "]" * n, "C(" * n, ")" * n])


def _long(r: random.Random) -> str:
    unit = r.choice(["C", "CC(=O)N", "c1ccccc1", "C1CC1", "[C@@H](F)", "[2H]", "x", "N(", "C%10", "=", "é", "O.", "\\"])
    return (unit * 20_000)[: r.choice([999, 1001, 5000, 5000, 20_001])]


def _components(r: random.Random) -> str:
    return ".".join(r.choices(["C", "[Na+]", "[Cl-]", "O", "", "CC", "[H][H]"], k=r.choice([2, 100, 399, 401, 3000])))


def _atom(r: random.Random) -> str:
    isotope = r.choice(["", "0", "2", "13", "999", "1000000000", "99999999999999999999", "-1"])
    element = r.choice(["C", "H", "Uuo", "Og", "Xx", "*", "#6", "#0", "#200", "c", "se", "te", "Fe"])
    chirality = r.choice(["", "@", "@@", "@TH3", "@OH30", "@SP9", "@@@"])
    charge = r.choice(["", "+", "-", "+15", "-16", "++++", "+999999999999", "+-"])
    hydrogens = r.choice(["", "H", "H0", "H9", "H99", "h"])
    number = r.choice(["", ":1", ":999999", ":-1", ":"])
    return f"{r.choice(['', 'C', 'N('])}[{isotope}{element}{chirality}{hydrogens}{charge}{number}]"


def _block(r: random.Random) -> str:
    """A mol block cut off, or with a line or a character that is another."""
    text = r.choice(BLOCKS)
    lines = text.split("\n")
    kind = r.randrange(5)
    if kind == 0:
        return text[: r.randrange(1, len(text))] + "\n"
    if kind == 1:
        del lines[r.randrange(len(lines))]
    elif kind == 2:
        lines.insert(r.randrange(len(lines)), r.choice([*lines, _letters(r), "M  CHG  9", "999999  V2000"]))
    elif kind == 3:
        i = r.randrange(len(lines))
        lines[i] = "".join(r.choice("0123456789 -.XC") if r.random() < 0.1 else c for c in lines[i])
    else:
        lines[3] = r.choice(
            ["999999  0  0  0  0  0  0  0  0999 V2000", " -1 -1  0 V2000", "  0  0  0 V3000", "V2000", ""]
        )
    return "\n".join(lines) + "\n"


def _good(r: random.Random) -> str:
    return r.choice([*GOOD, *BLOCKS])


KINDS: tuple[Callable[[random.Random], str], ...] = (
    _bytes,
    _letters,
    _cut,
    _mutated,
    _ring,
    _cage,
    _brackets,
    _long,
    _components,
    _atom,
    _block,
    _good,
)


def fuzz_rows(n: int, seed: int = 0) -> list[Record]:
    """`n` rows, kinds by turns, names of any bytes."""
    r = random.Random(seed)
    return [
        Record(_bytes(r) if i % 7 == 0 else f"{KINDS[i % len(KINDS)].__name__} {i}", KINDS[i % len(KINDS)](r), "")
        for i in range(n)
    ]
