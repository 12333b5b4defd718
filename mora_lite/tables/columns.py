"""Which column of a table holds the SMILES: the one asked for, else the one so named, else the one that reads
as SMILES. And which holds the molecules' names: the one asked for, else the first with a name of names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError, did_you_mean

SAMPLE_ROWS = 50  # rows looked at to tell a column by its content
_MIN_SHARE = 0.8  # of the sample's cells must be SMILES
_MIN_ATOMS = 3  # "C", "CO" and "NO" are molecules and words; at least half of a column must be longer

# Names, letters and digits only, in order of preference.
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
# Columns of names, letters and digits only.
_NAMES_OF_NAMES = {
    "id",
    "name",
    "title",
    "identifier",
    "catalogid",
    "chemblid",
    "cid",
    "cmpdid",
    "compoundid",
    "compoundname",
    "drugname",
    "idnumber",
    "moleculechemblid",
    "moleculeid",
    "moleculename",
    "molid",
    "molname",
    "pubchemcid",
    "zincid",
}


@dataclass
class Choice:
    """`columns`: the names, in order, repeated ones as they are. `has_header`: the first record holds them.

    `smiles_index`: the SMILES column, counted from 0. `notes`: what the user should know about the choice.
    """

    columns: list[str]
    smiles_index: int
    has_header: bool = True
    notes: list[str] = field(default_factory=list)


def choose_smiles_column(
    header: Sequence[str], rows: Sequence[Sequence[str]], wanted: str | None, source: str
) -> Choice:
    """Choose among the columns of `header` with the help of the first `rows`; `source` is the table's name,
    for messages.

    wanted: a name, or a number counted from 1. Raises `InputError` when no column fits, or several do.
    """
    if wanted is not None:
        return _choose_wanted(header, rows, wanted, source)
    index = _find_by_name(header, rows, source)
    if index is not None:
        return _with_header(header, index)
    by_content = [i for i in range(len(header)) if _reads_as_smiles(_column(rows, i))]
    if not rows:
        # One record only: a header, or a single molecule without one.
        by_content = [i for i, cell in enumerate(header) if _reads_as_smiles([cell])]
    if len(by_content) > 1:
        names = ", ".join(repr(header[i]) for i in by_content)
        raise InputError(f"{source}: several columns read as SMILES: {names}; choose one with --smiles-column")
    if not by_content:
        raise InputError(f"{source}: no SMILES column among {_listed(header)}; name it with --smiles-column")
    index = by_content[0]
    if _n_atoms(header[index]) > 0:
        return _without_header(len(header), index, source)
    return _with_header(header, index)


def choose_name_column(columns: Sequence[str], wanted: str | None, smiles_index: int, source: str) -> int | None:
    """The column with the molecules' names, counted from 0; None when no column is called like that.

    wanted: a name, or a number counted from 1. Raises `InputError` when there is no such column.
    """
    if wanted is None:
        likely = (i for i, name in enumerate(columns) if i != smiles_index and _plain(name) in _NAMES_OF_NAMES)
        return next(likely, None)
    found = _find_wanted(columns, wanted)
    if found is not None:
        return found
    if wanted.isdecimal() and 1 <= int(wanted) <= len(columns):
        return int(wanted) - 1
    raise InputError(f"{source}: no column {wanted!r} for --name-column; {_hint(columns, wanted)}")


def _find_wanted(columns: Sequence[str], wanted: str) -> int | None:
    """The column called `wanted`, or so but for blanks around it and capitals."""
    exact = [i for i, name in enumerate(columns) if name == wanted]
    loose = [i for i, name in enumerate(columns) if name.strip().lower() == wanted.strip().lower()]
    return next(iter(exact + loose), None)


def _hint(columns: Sequence[str], wanted: str) -> str:
    return did_you_mean(wanted, {name for name in columns if name.strip()})


def _plain(name: str) -> str:
    """Its letters and digits, lower case."""
    return "".join(char for char in name.lower() if char.isalnum())


def _choose_wanted(header: Sequence[str], rows: Sequence[Sequence[str]], wanted: str, source: str) -> Choice:
    found = _find_wanted(header, wanted)
    if found is not None:
        return _with_header(header, found)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(header):
        index = int(wanted) - 1
        if _n_atoms(header[index]) > 0 and (not rows or _reads_as_smiles(_column(rows, index))):
            return _without_header(len(header), index, source)
        return _with_header(header, index)
    raise InputError(f"{source}: no column {wanted!r} for --smiles-column; {_hint(header, wanted)}")


def _find_by_name(header: Sequence[str], rows: Sequence[Sequence[str]], source: str) -> int | None:
    plain = [_plain(name) for name in header]
    for name in _NAMES:
        if name in plain:
            return plain.index(name)
    some = [i for i, name in enumerate(plain) if "smiles" in name]
    if len({header[i] for i in some}) > 1:
        names = ", ".join(repr(header[i]) for i in some)
        raise InputError(f"{source}: several SMILES columns: {names}; choose one with --smiles-column")
    if some:
        return some[0]
    vague = [i for i, name in enumerate(plain) if name in _VAGUE_NAMES and _reads_as_smiles(_column(rows, i))]
    return vague[0] if len(vague) == 1 else None


def _with_header(header: Sequence[str], index: int) -> Choice:
    notes = []
    if list(header).count(header[index]) > 1:
        notes.append(f"several columns are called {header[index]!r}: the first, column {index + 1}, is read as SMILES")
    return Choice(list(header), index, True, notes)


def _without_header(width: int, index: int, source: str) -> Choice:
    columns = [f"column_{i + 1}" for i in range(width)]
    columns[index] = "smiles"
    return Choice(columns, index, False, [f"{source} has no header: column {index + 1} is called 'smiles'"])


def _column(rows: Sequence[Sequence[str]], index: int) -> list[str]:
    return [row[index] for row in rows if index < len(row)]


def _reads_as_smiles(cells: Sequence[str]) -> bool:
    distinct = {cell.strip() for cell in cells} - {""}
    sizes = [_n_atoms(cell) for cell in distinct]
    readable = sum(size > 0 for size in sizes)
    return (
        readable > 0
        and readable >= _MIN_SHARE * len(sizes)
        and sum(size >= _MIN_ATOMS for size in sizes) >= 0.5 * len(sizes)
    )


def _n_atoms(cell: str) -> int:
    """Atoms of a cell that is one SMILES and nothing else; 0 when it is not. "C is carbon" is prose."""
    from ..chem.molecules import parse_smiles

    if len(cell.split()) != 1:
        return 0
    mol = parse_smiles(cell).mol
    return 0 if mol is None else mol.GetNumAtoms()


def _listed(header: Sequence[str], most: int = 12) -> str:
    names = ", ".join(repr(name) for name in header[:most])
    return f"{names} and {len(header) - most} more" if len(header) > most else names
