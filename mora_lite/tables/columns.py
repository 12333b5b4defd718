"""Which columns of a table hold the SMILES and the molecules' names.

SMILES: the column that the user names, else one with a typical name, else the one that reads as SMILES; where none or
several do, one with a name that the caller expects. Where it expects reactions, one that reads as such goes before all
but the names of `_NAMES`. Names: the column that the user names, else the first with a typical name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import InputError, did_you_mean, shortened

SAMPLE_ROWS = 50  # read to recognise a column by its content
_MAX_TITLES = 20  # rows that may stand above a header
_MIN_SHARE = 0.8  # of the sample's cells must be SMILES
_MIN_ATOMS = 3  # "C", "CO" and "NO" are molecules and words; at least half of a column must be longer

# Names of SMILES columns, letters and digits only, in order of preference.
_NAMES = (
    "smiles",
    "canonicalsmiles",
    "isosmiles",
    "isomericsmiles",
    "cansmiles",
    "standardsmiles",
    "rdkitsmiles",
    "smilesstring",
    "smi",
    "smile",
)
# Names that other things have too: taken only when the cells read as SMILES.
_VAGUE_NAMES = ("mol", "molecule", "structure", "compound", "drug", "ligand")
# Names of columns with the molecules' names, letters and digits only.
_NAMES_OF_NAMES = {
    "id",
    "name",
    "title",
    "identifier",
    "catalogid",
    "catalognumber",
    "chemblid",
    "cid",
    "cmpdid",
    "compoundid",
    "compoundname",
    "compoundno",
    "compoundnumber",
    "drugid",
    "drugname",
    "enamineid",
    "idnumber",
    "mculeid",
    "moleculechemblid",
    "moleculeid",
    "moleculename",
    "molid",
    "molname",
    "molportid",
    "pubchemcid",
    "zincid",
}


# A SMILES by its letters, right or wrong, with something in it that words do not have; and words, as headers have them.
_ATOMS = r"(?:Br?|Cl?|N|O|P|S|F|I|b|c|n|o|p|s|\*|\[[^\[\]\s]+\])"
_SYMBOL = rf"(?:{_ATOMS}|[-=#$:/\\.()]|%?\d)"
_SMILES_SHAPE = re.compile(rf"(?=.*[()\[\]=#@]|.{{4}}.*\d|.*\d.{{3}}){_SYMBOL}+")
_SIDE = re.compile(rf"(?:{_SYMBOL}|->)*")  # of a reaction reactants>reagents>product
ARROW = re.compile("(?<!-)>")  # of a reaction; that of a bond to a metal is ->
_WORDS = re.compile(r"[^\W\d][\w .()/%-]*")


class WantedColumns(NamedTuple):
    """What is wanted of the columns of a file; what nobody names is found.

    smiles, name: the columns that the user names, or their numbers from 1.
    recorded: the SMILES column that a pack or a task names, of tables only; the user's goes before it.
    expected: further names of SMILES columns, the likeliest first, where the table may hold reactions. One of them is
        taken where neither the typical names nor the cells decide it.
    """

    smiles: str | None = None
    name: str | None = None
    recorded: str | None = None
    expected: Sequence[str] = ()

    @property
    def of_table(self) -> str | None:
        """The SMILES column that a table must have; None where it is to be found."""
        return self.recorded if self.smiles is None else self.smiles


@dataclass
class ColumnChoice:
    """The columns of a table, and which of them holds the SMILES.

    columns: their names, in order, repeated ones as they are. has_header: whether the first record holds them.
    smiles_index: the SMILES column, counted from 0. notes: lines for the user.
    """

    columns: list[str]
    smiles_index: int
    has_header: bool = True
    notes: list[str] = field(default_factory=list)


def count_titles(rows: Sequence[Sequence[str]], requested: str | None = None) -> int:
    """How many rows, as `Project 7`, stand above the header; 0 unless a row below the first names the SMILES column.

    No row with a molecule is a title. requested: the name of the column, where the user gives one.
    """
    if not rows or _names_smiles(rows[0], rows[1:], requested):
        return 0
    for i, row in enumerate(rows[: _MAX_TITLES + 1]):
        if any(reads_as_smiles([cell]) for cell in row):
            return 0
        if i and _names_smiles(row, rows[i + 1 :], requested):
            return i
    return 0


def _names_smiles(row: Sequence[str], below: Sequence[Sequence[str]], requested: str | None) -> bool:
    """Whether a row has a cell that is the name of a SMILES column, as headers have."""
    if requested is not None and not requested.isdecimal():
        return any(plain_name(cell) == plain_name(requested) for cell in row)
    vague = (i for i, cell in enumerate(row) if _letters(cell) in _VAGUE_NAMES)
    return any(map(is_smiles_name, row)) or any(reads_as_smiles(_column(below, i)) for i in vague)


def title_note(source: str, place: str) -> str:
    """What to say of titles. place: of the header, as `line 4`."""
    return f"{source}: {place} is read as the header, and what stands above it is left out"


def choose_smiles_column(
    header: Sequence[str], rows: Sequence[Sequence[str]], wanted: WantedColumns, source: str
) -> ColumnChoice:
    """Choose among the columns of `header` with the help of the first `rows`. source: the table's name, for messages.

    Raises `InputError` when no column fits, or several do.
    """
    if wanted.of_table is not None:
        chosen, by_name = _find_requested(header, wanted.of_table, "--smiles-column", source)
        is_molecule = not by_name and _is_molecule(header[chosen])  # where a header would stand
        below = _column(rows, chosen)
        if is_molecule and (not rows or reads_as_smiles(below) or reads_as_reactions(below)):
            return _without_header(len(header), chosen, source)
        return _with_header(header, chosen)
    index = _find_reactions(header, rows, wanted, source) if wanted.expected else None
    index = _find_by_name(header, rows, wanted, source) if index is None else index
    is_named = index is not None
    index = _find_by_content(header, rows, wanted, source) if index is None else index
    if _is_molecule(header[index]):
        return _without_header(len(header), index, source)
    choice = _with_header(header, index)
    choice.notes += note_others(header, index)
    if not is_named and not _WORDS.fullmatch(header[index].strip()):
        choice.notes.append(
            f"{source}: the first line is taken as the header, and its column {index + 1}, {header[index]!r}, as the "
            "SMILES column by what is below it"
        )
    return choice


def choose_name_column(choice: ColumnChoice, wanted: WantedColumns, source: str) -> int | None:
    """The column with the molecules' names, counted from 0; None when none is wanted and no name is typical.

    source: the table's name, for messages. Raises `InputError` when there is no such column.
    """
    columns, smiles = choice.columns, choice.smiles_index
    if wanted.name is not None:
        return _find_requested(columns, wanted.name, "--name-column", source)[0]
    if len(columns) == 2 and not choice.has_header:
        return 1 - smiles
    likely = (i for i, name in enumerate(columns) if i != smiles and _letters(name) in _NAMES_OF_NAMES)
    return next(likely, None)


def plain_name(name: str) -> str:
    """A column's name as names are compared, in which case and surrounding blanks do not matter."""
    return name.strip().lower()


def find_column(columns: Sequence[str], name: str, source: str) -> int:
    """The column called `name`, from 0: exactly, or else ignoring case and surrounding blanks.

    Raises `InputError` when there is none, or when several have that name.
    """
    matches = _called(columns, name)
    if not matches:
        hint = did_you_mean(name, {column for column in columns if column.strip()})
        raise InputError(f"{source} has no column {name!r}: {hint}")
    if len(matches) > 1:
        numbers = " and ".join(str(i + 1) for i in matches)
        raise InputError(f"{source}: columns {numbers} are all called {name!r}; give each a name of its own")
    return matches[0]


def _called(columns: Sequence[str], name: str) -> list[int]:
    exact = [i for i, column in enumerate(columns) if column == name]
    return exact or [i for i, column in enumerate(columns) if plain_name(column) == plain_name(name)]


def is_smiles_name(name: str) -> bool:
    """Whether a column of this name holds SMILES."""
    return _letters(name) in _NAMES


def note_others(columns: Sequence[str], index: int) -> list[str]:
    """A line for the user where columns beside the one of number `index`, from 0, have typical names of SMILES too."""
    others = dict.fromkeys(name for name in columns if is_smiles_name(name) and name != columns[index])
    if not others:
        return []
    named = ", ".join(map(repr, others))
    return [f"{columns[index]!r} is read as SMILES, not {named}: choose with --smiles-column"]


def _find_requested(columns: Sequence[str], requested: str, option: str, source: str) -> tuple[int, bool]:
    """The column called `requested`, exactly or else ignoring case and surrounding blanks, or that number from 1.

    Returns its number from 0, and whether it was found by name. Raises `InputError` when there is no such column.
    """
    if named := _called(columns, requested):
        return named[0], True
    if requested.isdecimal() and 1 <= int(requested) <= len(columns):
        return int(requested) - 1, False
    hint = did_you_mean(requested, {name for name in columns if name.strip()})
    raise InputError(f"{source}: no column {requested!r} for {option}; {hint}")


def _letters(name: str) -> str:
    """The letters and digits of a column's name, in lower case."""
    return "".join(char for char in name.lower() if char.isalnum())


def stem_of(name: str) -> str:
    """What is left of a column's name without the word SMILES, a plural, and all but letters and digits."""
    return _letters(name).replace("smiles", "").removesuffix("s")


def _find_by_name(
    header: Sequence[str], rows: Sequence[Sequence[str]], wanted: WantedColumns, source: str
) -> int | None:
    plain = [_letters(name) for name in header]
    for name in _NAMES:
        if name in plain:
            return plain.index(name)
    some = [i for i, name in enumerate(plain) if "smiles" in name]
    some = [i for i in _find_expected(header, wanted) if i in some][:1] or some
    if len({header[i] for i in some}) > 1:
        names = ", ".join(repr(header[i]) for i in some)
        raise InputError(f"{source}: several SMILES columns: {names}; choose one with --smiles-column")
    if some:
        return some[0]
    vague = [i for i, name in enumerate(plain) if name in _VAGUE_NAMES and reads_as_smiles(_column(rows, i))]
    return vague[0] if len(vague) == 1 else None


def _find_by_content(header: Sequence[str], rows: Sequence[Sequence[str]], wanted: WantedColumns, source: str) -> int:
    """The column that reads as SMILES; where none or several do, one whose name is expected."""
    found = [i for i in range(len(header)) if reads_as_smiles(_column(rows, i))]
    if not found:
        # Of a short list without a header, one bad molecule is a large share; then the first line speaks too.
        found = [
            i
            for i, cell in enumerate(header)
            if reads_as_smiles([cell]) and (not rows or reads_as_smiles(_column(rows, i), 0.5))
        ]
    if len(found) != 1:
        found = _find_expected(header, wanted)[:1] or found
    if len(found) > 1:
        names = ", ".join(repr(header[i]) for i in found)
        raise InputError(f"{source}: several columns read as SMILES: {names}; choose one with --smiles-column")
    if not found:
        raise InputError(f"{source}: no SMILES column among {_list_names(header)}; name it with --smiles-column")
    return found[0]


def _find_expected(header: Sequence[str], wanted: WantedColumns) -> list[int]:
    return [i for name in wanted.expected for i, column in enumerate(header) if stem_of(column) == stem_of(name)]


def _find_reactions(
    header: Sequence[str], rows: Sequence[Sequence[str]], wanted: WantedColumns, source: str
) -> int | None:
    """The column that reads as reactions; of several one whose name is expected. A column called SMILES goes before."""
    if any(map(is_smiles_name, header)):
        return None
    found = [i for i, name in enumerate(header) if reads_as_reactions(_column(rows, i) or [name])]
    chosen = [i for i in _find_expected(header, wanted) if i in found] or found
    if len(found) > 1 and chosen == found:
        names = ", ".join(repr(header[i]) for i in found)
        raise InputError(f"{source}: several columns read as reactions: {names}; choose one with --smiles-column")
    return chosen[0] if chosen else None


def reads_as_reactions(cells: Sequence[str]) -> bool:
    """Whether these cells of a column look like reactions `reactants>reagents>product`."""
    distinct = {cell.strip() for cell in cells} - {""}
    return 0 < _MIN_SHARE * len(distinct) <= sum(map(_is_reaction, distinct))


def _is_reaction(cell: str) -> bool:
    """Whether a cell without blanks at its start is one, some of whose sides may be empty, and what may follow it."""
    sides = ARROW.split(cell.split(None, 1)[0])
    return len(sides) == 3 and any(sides) and all(map(_SIDE.fullmatch, sides))


def _with_header(header: Sequence[str], index: int) -> ColumnChoice:
    notes = []
    if list(header).count(header[index]) > 1:
        notes.append(f"several columns are called {header[index]!r}: the first, column {index + 1}, is read as SMILES")
    return ColumnChoice(list(header), index, True, notes)


def _without_header(width: int, index: int, source: str) -> ColumnChoice:
    columns = [f"column_{i + 1}" for i in range(width)]
    columns[index] = "smiles"
    return ColumnChoice(columns, index, False, [f"{source} has no header: column {index + 1} is called 'smiles'"])


def _column(rows: Sequence[Sequence[str]], index: int) -> list[str]:
    return [row[index] for row in rows if index < len(row)]


def reads_as_smiles(cells: Sequence[str], share: float = _MIN_SHARE) -> bool:
    """Whether these cells of a column look like SMILES: such a share is, and half have three atoms or more."""
    distinct = {cell.strip() for cell in cells} - {""}
    sizes = [_n_atoms(cell) for cell in distinct]
    readable = sum(size > 0 for size in sizes)
    return (
        readable > 0
        and readable >= share * len(sizes)
        and sum(size >= _MIN_ATOMS for size in sizes) >= 0.5 * len(sizes)
    )


def _is_molecule(cell: str) -> bool:
    """Whether a cell that may be a header is a SMILES or a reaction, or would be one without a mistake in it."""
    text = cell.strip()
    return _n_atoms(cell) > 0 or bool(text and (_SMILES_SHAPE.fullmatch(text) or _is_reaction(text)))


def _n_atoms(cell: str) -> int:
    """Atoms of a cell that is one SMILES and perhaps its extension; 0 for any other. "C is carbon" is prose."""
    from ..chem.molecules import parse_smiles

    words = cell.split()
    if len(words) != 1 and not (len(words) > 1 and words[1].startswith("|")):
        return 0
    mol = parse_smiles(cell).mol
    return 0 if mol is None else mol.GetNumAtoms()


def _list_names(header: Sequence[str], n: int = 12) -> str:
    names = ", ".join(map(shortened, header[:n]))
    return f"{names} and {len(header) - n} more" if len(header) > n else names
