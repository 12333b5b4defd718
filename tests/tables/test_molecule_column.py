"""Molecules from Python: whatever holds them, the same column of SMILES."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rdkit import Chem

from mora_lite.errors import InputError
from mora_lite.tables.molecule_column import read_molecules

SMILES = ["CCO", "c1ccccc1O", "CC(=O)O"]
FRAME = pd.DataFrame({"id": [1, 2, 3], "smiles": SMILES})
TABLE = pa.table({"id": [1, 2, 3], "smiles": SMILES})


class Foreign:
    """A column or table of some library of which nothing is known but Arrow's C interface."""

    def __init__(self, wrapped: Any):
        self.wrapped = wrapped

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.wrapped.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "given",
    [
        SMILES,
        tuple(SMILES),
        np.array(SMILES),
        np.array(SMILES, dtype="S"),
        [text.encode() for text in SMILES],
        FRAME,
        FRAME["smiles"],
        FRAME["smiles"].astype("category"),
        TABLE,
        TABLE["smiles"],
        TABLE["smiles"].combine_chunks(),
        TABLE["smiles"].dictionary_encode(),
        TABLE["smiles"].cast(pa.string_view()),
        TABLE.to_batches()[0],
        Foreign(TABLE),
        Foreign(TABLE["smiles"]),
        (text for text in SMILES),
    ],
    ids=lambda given: type(given).__name__,
)
def test_every_kind_of_column_is_the_same_texts(given: object) -> None:
    assert read_molecules(given).smiles == SMILES


def test_polars_columns_and_tables_are_read() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": [1, 2], "smiles": ["CCO", None]})
    assert read_molecules(frame).smiles == ["CCO", ""]
    assert read_molecules(frame["smiles"]).smiles == ["CCO", ""]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, ""])
def test_a_missing_molecule_is_an_empty_text(missing: object) -> None:
    assert read_molecules(["C", missing]).smiles == ["C", ""]


def test_rdkit_molecules_are_their_canonical_smiles() -> None:
    molecule = Chem.MolFromSmiles("OCC")
    assert read_molecules(molecule).smiles == ["CCO"]
    assert read_molecules([molecule, None, "C"]).smiles == ["CCO", "", "C"]
    assert read_molecules(pd.DataFrame({"id": [1], "structure": [Chem.MolFromSmiles("OCCC")]})).smiles == ["CCCO"]


def test_a_single_text_is_one_molecule() -> None:
    assert read_molecules("CCO").smiles == ["CCO"]
    assert read_molecules(None).smiles == [""]


def test_the_index_of_pandas_is_kept() -> None:
    assert list(read_molecules(FRAME.set_index("id")).index) == [1, 2, 3]
    assert read_molecules(SMILES).index is None


@pytest.mark.parametrize("index", [[1.5, 2.5, 1.5], [1000.0, 1001.0, 1002.0], ["a", "b", "a"]])
def test_a_table_may_have_any_index(index: list[object]) -> None:
    """That of pandas before 3 decides what a slice of a column is."""
    frame = FRAME.rename(columns={"smiles": "x"}).set_index(pd.Index(index))
    assert read_molecules(frame).smiles == SMILES


def test_a_column_can_be_named_and_is_never_guessed_where_two_fit() -> None:
    frame = FRAME.assign(other=SMILES[::-1]).rename(columns={"smiles": "one"})
    for name in ("other", "Other "):  # in any case, as elsewhere
        assert read_molecules(frame, name).smiles == SMILES[::-1]
    numbered: Any = 1
    assert read_molecules(pd.DataFrame([["a", text] for text in SMILES]), numbered).smiles == SMILES
    with pytest.raises(InputError, match="several columns read as SMILES: 'one', 'other'; choose one with smiles_col"):
        read_molecules(frame)
    with pytest.raises(InputError, match="no column 'othr' for smiles_column=; did you mean other"):
        read_molecules(pa.Table.from_pandas(frame), "othr")
    with pytest.raises(InputError, match="no SMILES column among 'id'"):
        read_molecules(FRAME[["id"]])


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_no_molecule(tmp_path: Path, kind: type) -> None:
    """As text it was one unparsable row."""
    (tmp_path / "a.csv").write_text("smiles\nCCO\n")
    with pytest.raises(InputError, match=r"got the file .*a\.csv, expected a SMILES.*: read it first, for instance"):
        read_molecules(kind(tmp_path / "a.csv"))
    assert read_molecules(str(tmp_path / "b.csv")).smiles == [str(tmp_path / "b.csv")]


@pytest.mark.parametrize("given", [5, b"CCO", {"smiles": SMILES}, np.array([SMILES])])
def test_anything_else_is_an_error_that_says_what_is_expected(given: object) -> None:
    with pytest.raises(InputError, match=r"molecules: got .*, expected a SMILES, an RDKit molecule, a list"):
        read_molecules(given)
