"""What Python hands over as molecules, as one column of SMILES: a text, a list, a column or table of any library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..errors import InputError
from .columns import SAMPLE_ROWS, WantedColumns, choose_smiles_column

EXPECTED = "a SMILES, an RDKit molecule, a list of them, or a column or table (pandas, Arrow, Polars)"


@dataclass(frozen=True)
class MoleculeColumn:
    """smiles: a text for each molecule, empty where one is missing. index: of the pandas object; None for others.

    columns: names of the table that they are from, smiles_index: which of them is theirs; a table of this one column
    where they are from none.
    """

    smiles: list[str]
    index: Any = None
    columns: Sequence[str] = ("smiles",)
    smiles_index: int = 0
    _parts: Sequence[Any] = field(default=(), repr=False, compare=False)  # of the table, as they came

    def cells(self) -> list[tuple[str, ...]]:
        """All cells of each row as texts, empty where one is missing."""
        parts = [_texts(part.to_pylist() if hasattr(part, "to_pylist") else part) for part in self._parts]
        return list(zip(*parts or [self.smiles], strict=True))


def read_molecules(molecules: Any, smiles_column: str | None = None, *, expected: Sequence[str] = ()) -> MoleculeColumn:
    """Read a SMILES, an RDKit molecule, an iterable of them, a pandas, Arrow or Polars column, or such a table.

    Missing values of any kind (None, NaN, pandas.NA, nulls) are rows of their own. An RDKit molecule becomes its
    canonical SMILES.
    smiles_column: of a table; None finds it by its name, else by its content. expected: as of `WantedColumns`.

    Raises `InputError` for anything else, and when no column of a table fits, or several do.
    """
    if isinstance(molecules, MoleculeColumn):
        return molecules
    if isinstance(molecules, os.PathLike) or (isinstance(molecules, str) and _is_file(molecules)):
        advice = "read it first, for instance with pandas.read_csv; mora-lite predict and mora_lite.screen take files"
        raise InputError(f"molecules: got the file {molecules}, expected {EXPECTED}: {advice}")
    if molecules is None or isinstance(molecules, str) or _is_molecule(molecules):
        return MoleculeColumn([_as_text(molecules)])
    pandas = sys.modules.get("pandas")  # where nobody has imported it, nothing is of it
    if pandas is not None and isinstance(molecules, pandas.DataFrame):
        columns = [molecules.iloc[:, i] for i in range(molecules.shape[1])]
        names = [str(name) for name in molecules.columns]
        at = _find_column(names, columns, smiles_column, expected)
        return MoleculeColumn(_texts(columns[at]), molecules.index, names, at, columns)
    if pandas is not None and isinstance(molecules, pandas.Series):
        return MoleculeColumn(_texts(molecules), molecules.index)
    if hasattr(molecules, "__arrow_c_stream__") or hasattr(molecules, "__arrow_c_array__"):
        return _read_arrow(molecules, smiles_column, expected)
    unfit = isinstance(molecules, (bytes, Mapping)) or getattr(molecules, "ndim", 1) != 1
    if unfit or not isinstance(molecules, Iterable):
        raise InputError(f"molecules: got {_kind(molecules)}, expected {EXPECTED}")
    return MoleculeColumn(_texts(molecules))


def _read_arrow(given: Any, smiles_column: str | None, expected: Sequence[str]) -> MoleculeColumn:
    """Of an object with one of the Arrow C interfaces: an array, a stream of arrays, or either of a table."""
    import pyarrow

    if isinstance(given, pyarrow.ChunkedArray):  # older versions of pyarrow crash as they export one of string views
        column = given
    elif hasattr(given, "__arrow_c_stream__"):
        column = pyarrow.chunked_array(given)
    else:
        column = pyarrow.chunked_array([pyarrow.array(given)])
    if not pyarrow.types.is_struct(column.type):
        return MoleculeColumn(_texts(column.to_pylist()))
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    columns = pyarrow.Table.from_batches(
        [pyarrow.RecordBatch.from_struct_array(chunk) for chunk in column.chunks], pyarrow.schema(list(column.type))
    ).columns
    heads = [part.slice(0, SAMPLE_ROWS).to_pylist() for part in columns]
    at = _find_column(names, heads, smiles_column, expected)
    return MoleculeColumn(_texts(columns[at].to_pylist()), None, names, at, columns)


def _find_column(names: list[str], columns: list[Any], requested: str | None, expected: Sequence[str]) -> int:
    """The number, from 0, of the column with the SMILES. columns: cells of each, of which the first are looked at."""
    heads = [_texts(islice(column, SAMPLE_ROWS)) for column in columns]  # a slice of pandas before 3 goes by its index
    wanted = WantedColumns(None if requested is None else str(requested), expected=expected)  # pandas has 0, 1, ...
    try:
        rows = list(zip(*heads, strict=True))
        return choose_smiles_column(names, rows, wanted, "the table").smiles_index
    except InputError as error:
        raise InputError(str(error).replace("--smiles-column", "smiles_column=")) from None


def _texts(cells: Iterable[Any]) -> list[str]:
    return [cell if isinstance(cell, str) else _as_text(cell) for cell in cells]


def _as_text(cell: object) -> str:
    """A cell as SMILES text; missing values are empty."""
    if _is_molecule(cell):
        from rdkit import Chem

        return Chem.MolToSmiles(cell)
    if isinstance(cell, bytes):  # as HDF5 files give them
        return cell.decode("utf-8", "surrogateescape")
    text = "" if cell is None else str(cell)
    return "" if text in ("nan", "<NA>", "NaT") and not isinstance(cell, str) else text


def _is_file(text: str) -> bool:
    return bool(os.path.splitext(text)[1]) and os.path.isfile(text)


def _is_molecule(cell: object) -> bool:
    return type(cell).__module__.startswith("rdkit.") and hasattr(cell, "GetNumAtoms")


def _kind(given: object) -> str:
    dimensions = getattr(given, "ndim", 1)
    return f"{type(given).__name__}{f' of {dimensions} dimensions' if dimensions != 1 else ''}"
