"""Text to RDKit molecule, or the reason why not.

A bad molecule is data, not an exception: nothing here raises. RDKit writes its complaints to stderr; they are blocked
while it works, and for a molecule that fails they are read once more for the reason.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

from rdkit import Chem, rdBase

from ..status import EMPTY, OK, REASONS, TOO_LARGE, UNPARSABLE
from .standardize import may_have_parent, parent_of

MAX_ATOMS = 400  # nodes of the molecule's graph; packs are made for organic molecules of a few dozen atoms
MAX_CHARACTERS = 20_000  # longer text is not looked at
STANDARDIZE = ("parent", "none")
_NUMBERED = re.compile(r"\[\d|:\d+\]")  # an isotope or an atom map
_EXTENSION = re.compile(r"\|[^|]*\|")  # of a CXSMILES, after the blank
_LINE_END = re.compile(r"[\n\r\v\f\x1c-\x1e]")
_OTHERS = {  # what stands in columns of structures besides
    re.compile("[A-Za-z][a-z]{3,}"): "a word; names of molecules are not read",
    re.compile("InChI=.+"): "an InChI",
    re.compile("[A-Z]{14}-[A-Z]{10}-[A-Z]"): "an InChIKey",
    re.compile(r"(PEPTIDE|RNA|CHEM|BLOB)\d+\{.+"): "HELM",
}
_BLOCK_MARKS = ("V2000", "V3000", "M  END")
_LONG_TEXT = 1_000  # from here on atoms are counted before the costly part of parsing (rings, aromaticity)

Arguments = ParamSpec("Arguments")


class Parsed(NamedTuple):
    """A molecule, or why there is none.

    mol: `rdkit.Chem.Mol`, or None when `status` is not `ok`.
    status: `ok`, `empty`, `unparsable` or `too_large`.
    reason: one line for people; empty when `status` is `ok`.
    drawn: of a mol block the molecule before isotopes were forgotten and a parent taken; None for a SMILES.
    """

    mol: Any
    status: str
    reason: str
    drawn: Any = None


def _without_raising(parse: Callable[Arguments, Parsed]) -> Callable[Arguments, Parsed]:
    """`parse`, with whatever it raises as a status."""

    @functools.wraps(parse)
    def parsed(*arguments: Arguments.args, **options: Arguments.kwargs) -> Parsed:
        # RDKit violates its invariants for atoms like [#200], and its exceptions have no common base class.
        try:
            return parse(*arguments, **options)
        except MemoryError:
            raise
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            return Parsed(None, UNPARSABLE, lines[1] if len(lines) > 1 and lines[0].endswith("Violation") else lines[0])

    return parsed


@_without_raising
def parse_smiles(text: str, max_atoms: int = MAX_ATOMS, *, version: int = 1, standardize: str = "none") -> Parsed:
    """Read one SMILES. Salts and mixtures (dots) and wildcard atoms (`*`) are molecules like any other.

    Blanks round the text are ignored, and so is a name after the SMILES, as in `.smi` files (`CCO ethanol`); an
    extension between the two is read (`CCO |...| ethanol`). A SMILES that is broken by a blank or a line end is
    unparsable: its first piece would be another molecule.
    Atoms are the nodes of RDKit's graph, so hydrogens count only where RDKit keeps them as atoms.
    version: of the graph codes that the molecule is read for (`featurizer.Featurizer`). 1 is as RDKit does by default;
        2 forgets isotopes and atom maps first, and keeps the marks of configuration as they are written.
    standardize: `none`, or `parent` (`standardize.parent_of`).
    """
    whole = text.strip()
    text, extension, name = split_smiles(whole)
    failure = _check_text(whole, len(whole) - len(name))
    if failure is not None:
        return failure
    if name and (problem := name_problem(text, extension, name)):
        return Parsed(None, UNPARSABLE, problem)
    bare, text = text, f"{text} {extension}" if extension else text
    with rdBase.BlockLogs():
        if len(text) > _LONG_TEXT:
            n_atoms = _count_heavy_atoms(text)
            if n_atoms > max_atoms:
                return _too_large(n_atoms, max_atoms)
        mol = Chem.MolFromSmiles(text) if version == 1 else _read_smiles(text)
        if mol is None and extension and Chem.MolFromSmiles(bare) is not None:
            return Parsed(None, UNPARSABLE, f"the SMILES is valid, but the extension after it is not: {extension[:60]}")
        if mol is None:
            return Parsed(None, UNPARSABLE, _explain(bare))
        if standardize == "parent" and may_have_parent(text):
            mol = parent_of(mol)
    return _check_size(mol, max_atoms)


def split_smiles(text: str) -> tuple[str, str, str]:
    """A SMILES, the extension `|...|` of a CXSMILES, and the name after it; those that are missing are empty."""
    words = text.split(None, 1)
    if len(words) < 2:
        return text.strip(), "", ""
    smiles, rest = words[0], words[1].strip()
    extension = _EXTENSION.match(rest)
    return (smiles, extension[0], rest[extension.end() :].strip()) if extension else (smiles, "", rest)


def is_mol_block(text: str) -> bool:
    """Whether a text is an MDL mol block, perhaps a damaged one; records of an SDF end with a line end."""
    return "\n" in text and (text.endswith("\n") or any(mark in text for mark in _BLOCK_MARKS))


def name_problem(smiles: str, extension: str, name: str) -> str:
    """Why what follows a SMILES may be more of it, and no name; empty when it is a name."""
    if extension:
        return ""
    with rdBase.BlockLogs():
        pieces = [_is_piece(smiles, word) for word in name.split()[:4]]
    if not all(pieces):
        return ""
    return f"a blank at character {len(smiles) + 1}, and what follows it reads as more of the SMILES"


def _is_piece(smiles: str, word: str) -> bool:
    """Whether a word after a SMILES is one itself, or goes on with it."""
    if not word.isascii() or len(smiles) + len(word) > _LONG_TEXT or Chem.MolFromSmiles(smiles, sanitize=False) is None:
        return False
    return any(Chem.MolFromSmiles(text, sanitize=False) is not None for text in (word, smiles + word))


def _read_smiles(text: str) -> Chem.Mol | None:
    """A molecule without isotopes and atom maps, its marks of configuration as they are written."""
    mol = Chem.MolFromSmiles(text, _unsanitized())
    if mol is None:
        return None
    if _NUMBERED.search(text):
        _forget_numbers(mol)
    try:
        mol = Chem.RemoveHs(mol)  # sanitises too; the isotopes are gone before, so that deuterium is removed as well
    except ValueError:
        return None
    Chem.SetBondStereoFromDirections(mol)
    return mol


@functools.cache
def _unsanitized() -> Any:
    options: Any = Chem.SmilesParserParams()
    options.sanitize = False
    options.removeHs = False
    return options


def _is_numbered(atom: Chem.Atom) -> bool:
    return bool(atom.GetIsotope() or atom.GetAtomMapNum())


def _forget_numbers(mol: Chem.Mol) -> None:
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)


@_without_raising
def parse_molblock(text: str, max_atoms: int = MAX_ATOMS, *, version: int = 1, standardize: str = "none") -> Parsed:
    """Read one MDL mol block, V2000 or V3000, under the same limits. Hydrogens become part of their atoms, and
    stereochemistry is taken from the drawing, as RDKit does by default. version, standardize: as in `parse_smiles`.
    """
    if not text.strip():
        return Parsed(None, EMPTY, "no mol block in this record")
    if "\0" in text:
        return Parsed(None, UNPARSABLE, f"NUL byte at character {text.index(chr(0)) + 1}")
    text = text.encode("ascii", "replace").decode()  # titles may hold anything; atoms and bonds are ASCII
    with rdBase.BlockLogs():
        drawn = mol = Chem.MolFromMolBlock(text)
        if mol is not None and version > 1 and any(map(_is_numbered, mol.GetAtoms())):
            mol = Chem.Mol(mol)
            _forget_numbers(mol)
            mol = Chem.RemoveHs(mol)
        if mol is not None:
            mol = parent_of(mol) if standardize == "parent" else mol
            return _check_size(mol, max_atoms)._replace(drawn=drawn)
        reason = _chemistry_problem(Chem.MolFromMolBlock(text, sanitize=False))
    damage = "not a valid mol block" if "\nM  END" in text else "the mol block does not end with 'M  END'"
    return Parsed(None, UNPARSABLE, reason or damage)


def _check_size(mol: Chem.Mol, max_atoms: int) -> Parsed:
    n_atoms = mol.GetNumAtoms()
    if n_atoms == 0:
        return Parsed(None, EMPTY, "no atoms")
    if n_atoms > max_atoms:
        return _too_large(n_atoms, max_atoms)
    return Parsed(mol, OK, "")


def _check_text(text: str, length: int) -> Parsed | None:
    """Why a text is no SMILES, as far as that shows without RDKit; None if it may be one.

    length: of what is before a name, which may hold letters that are not ASCII.
    """
    if not text:
        return Parsed(None, EMPTY, REASONS[EMPTY])
    if len(text) > MAX_CHARACTERS:
        return Parsed(None, TOO_LARGE, f"{len(text):,} characters, more than {MAX_CHARACTERS:,}")
    if "\0" in text:
        return Parsed(None, UNPARSABLE, f"NUL byte at character {text.index(chr(0)) + 1}")
    line_end = _LINE_END.search(text)
    if line_end is not None:
        return Parsed(None, UNPARSABLE, f"a line end at character {line_end.start() + 1}, within the SMILES")
    if not text[:length].isascii():
        index, char = next((i, c) for i, c in enumerate(text) if not c.isascii())
        code = ord(char)
        # Bytes that are not UTF-8 arrive as surrogates U+DC80..U+DCFF.
        what = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
        return Parsed(None, UNPARSABLE, f"character {index + 1} ({what}) is not ASCII")
    return None


def _too_large(n_atoms: int, max_atoms: int) -> Parsed:
    return Parsed(None, TOO_LARGE, f"{n_atoms:,} atoms, more than {max_atoms:,}")


def _count_heavy_atoms(text: str) -> int:
    """Atoms that are not hydrogen, wildcards included; 0 when the text cannot be read."""
    mol = Chem.MolFromSmiles(text, sanitize=False)
    return 0 if mol is None else sum(atom.GetAtomicNum() != 1 for atom in mol.GetAtoms())


def _explain(text: str) -> str:
    """Why RDKit refused `text`, in one line. Costs about two more parses, so it is for failures only."""
    if text.count(">") - text.count("->") >= 2:
        return "a reaction, not a molecule"
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text, sanitize=False)
        problem = _chemistry_problem(mol)
        if problem:
            return problem
        if mol is None and (other := _other_than_smiles(text)):
            return other
        capture = getattr(rdBase, "CaptureErrorLog", None)  # newer RDKit only
        if capture is None or len(text) > _LONG_TEXT:  # RDKit takes seconds to write of 20,000 characters
            return REASONS[UNPARSABLE]
        with capture() as log:
            Chem.MolFromSmiles(text)
    return _summarize_log(log.messages)


def _other_than_smiles(text: str) -> str:
    """What it is, or the first of its pieces between dots that is no SMILES; empty where that is not known."""
    for piece in dict.fromkeys([text, *text.split(".")]):
        for form, what in _OTHERS.items():
            if form.fullmatch(piece):
                return f"{'' if piece == text else f'{piece[:60]}: '}not a SMILES but {what}"
    return ""


def _chemistry_problem(mol: Chem.Mol | None) -> str:
    """RDKit's first complaint about a molecule that was read without checks; empty when there is none."""
    problems = [] if mol is None else Chem.DetectChemistryProblems(mol)
    return " ".join(str(problems[0].Message()).split()) if problems else ""


def _summarize_log(log: str) -> str:
    """Summarise RDKit's log lines (`[12:00:00] SMILES Parse Error: ... for input: '...'`) in a few words."""
    lines = [line.split("] ", 1)[-1].removeprefix("SMILES Parse Error: ") for line in log.splitlines()]
    if not lines:
        return REASONS[UNPARSABLE]
    position = next((line for line in lines if line.startswith("check for mistakes around position")), None)
    if position is not None:
        return f"syntax error near character {position.rstrip(':').rsplit(' ', 1)[-1]}"
    return lines[0].split(" for input: ", 1)[0].split(" while parsing: ", 1)[0].strip()


def scaffold_of(smiles: str) -> str:
    """SMILES of the Bemis-Murcko scaffold, the ring systems and what links them, without chirality.

    All molecules without a ring share the empty scaffold. Another RDKit version may write the text differently, which
    matters only where that changes which molecules share one. smiles: must be readable.
    """
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles  # slow to import; prediction needs none

    with rdBase.BlockLogs():
        return MurckoScaffoldSmiles(mol=parse_smiles(smiles).mol, includeChirality=False)
