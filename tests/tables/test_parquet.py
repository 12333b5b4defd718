"""Texts as Arrow columns, and files that are no Parquet."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mora_lite.errors import InputError
from mora_lite.tables.library import open_library
from mora_lite.tables.parquet import from_texts, to_texts, valid_texts


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("texts", [[], [""], ["ok"] * 5, ["ok", "unparsable"], ["é"] * 3, ["CO", "", "CO"]])
def test_texts_are_kept_whether_they_differ_or_not(texts: list[str], large: bool) -> None:
    column = from_texts(texts, large)
    assert column.to_pylist() == texts
    assert column.type == (pa.large_string() if large else pa.string())
    assert column.null_count == 0


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([uuid.UUID(int=0xFF).bytes, None], pa.uuid()), ["00000000-0000-0000-0000-0000000000ff", ""]),
        (pa.array([b"a\xff", None], pa.binary(2)), ["a\udcff", ""]),
        (pa.array([1, None], pa.int8()).cast(pa.bool8()), ["1", ""]),
        (pa.array([[1], None]), ["[1]", ""]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_column_of_any_type_is_text(column: pa.Array, texts: list[str]) -> None:
    assert to_texts(column) == texts


@pytest.mark.parametrize("texts", [["\udcff"] * 3, ["C", "\udcff"]])
def test_bytes_that_are_not_utf_8_come_out_as_they_were(texts: list[str]) -> None:
    found = from_texts(texts).view(pa.binary()).to_pylist()
    assert found == [text.encode("utf-8", "surrogateescape") for text in texts]


def test_rows_for_parquet_have_replacement_characters_for_such_bytes() -> None:
    texts = from_texts(["caf\udce9", "é", ""])
    nulls = pa.array([None, "C", None])
    found = valid_texts(pa.record_batch([texts, nulls, pa.array([1, 2, 3])], ["a", "b", "c"]))
    found.validate(full=True)
    assert found.to_pydict() == {"a": ["caf\N{REPLACEMENT CHARACTER}", "é", ""], "b": [None, "C", None], "c": [1, 2, 3]}
    assert valid_texts(found) is found


def test_views_of_text_are_read_as_text(tmp_path: Path) -> None:
    columns = {"smiles": pa.array(["CCO", None], pa.string_view()), "id": pa.array(["a", "b"], pa.string_view())}
    pq.write_table(pa.table(columns), tmp_path / "a")
    with open_library(tmp_path / "a", cells=True) as library:
        assert library.smiles_index == 0
        assert next(library.windows(2)).cells == [("CCO", "a"), ("", "b")]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"x" * 100)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as Parquet after 0 rows"):
        open_library(tmp_path / "a.parquet")
    pq.write_table(pa.table({"smiles": [1, 2]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"column 'smiles' holds int64, not SMILES"):
        open_library(tmp_path / "b.parquet")
