"""A column of cells becomes numbers; what is no number is counted by kind, with what to do about it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.errors import InputError
from mora_lite.tables.numbers import NumberColumn, decimal_mark


def read(*cells: str) -> tuple[list[float | None], list[str]]:
    """The values, None where there is none, and the notes."""
    column = NumberColumn("pIC50", "a.csv", range(2, len(cells) + 2))
    values = column.values(cells)
    return [None if np.isnan(value) else value for value in values.tolist()], column.notes


@given(st.lists(st.floats(-1e30, 1e30) | st.integers(-(10**9), 10**9)))
def test_numbers_as_python_writes_them_come_back(numbers: list[float]) -> None:
    assert read(*map(str, numbers)) == ([float(number) for number in numbers], [])


@pytest.mark.parametrize("cell", [" 1.5 ", "+1.5", "1.5e0", "15E-1", "1.50", "001.5"])
def test_spellings_of_a_number(cell: str) -> None:
    assert read(cell) == ([1.5], [])


@pytest.mark.parametrize("cell", ["NA", "n/a", "#N/A", "null", "None", "n.d.", "-", "?", "#DIV/0!", " NA "])
def test_words_for_no_value_are_missing_and_counted(cell: str) -> None:
    values, notes = read("1", cell, "2", cell, "nan", "")
    assert values == [1, None, 2, None, None, None]
    assert notes == [
        f"column 'pIC50': 2 cells have no value and are taken as missing; the first is {cell!r} in row 2 (line 3)"
    ]


def test_decimal_commas_are_read_where_they_are_beyond_doubt() -> None:
    values, notes = read("0,5", "-1,25", "3", "12,5", "1,234")
    assert values == [0.5, -1.25, 3, 12.5, 1.234]
    assert notes == [
        "column 'pIC50': 4 cells have a decimal comma and are read as decimals; the first is '0,5' in row 1 (line 2)"
    ]


def test_percentages_are_the_numbers_before_their_signs_where_all_have_one() -> None:
    values, notes = read("95%", "0,5 %", "", "NA", "100%")
    assert values == [95, 0.5, None, None, 100]
    assert notes[0] == (
        "column 'pIC50': 3 cells have a percent sign and are read as the number before it; "
        "the first is '95%' in row 1 (line 2)"
    )
    with pytest.raises(InputError, match="1 with text behind the number such as '95%'; write the number alone"):
        read("95%", "0.5")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1,234", "2,345"], "2 with a comma such as '1,234'; write a decimal comma as a point"),
        (["0,5", "1.5"], "1 with a comma such as '0,5'"),
        (["1,234.5"], "1 with a comma such as '1,234.5'"),
        ([">10", "<5", "7"], "2 of 3 cells are no numbers: 2 with a bound such as '>10'; leave the cells blank"),
        (["≥ 3"], "1 with a bound such as '≥ 3'"),
        (["1_000"], "1 with an underscore such as '1_000'; write their digits alone"),
        (["3 uM"], "1 with text behind the number such as '3 uM'; write the number alone, and its unit"),
        (["5%", ">3", "4 nM"], "2 with text behind the number such as '5%', 1 with a bound such as '>3'"),
        (["inf"], "1 infinite such as 'inf'"),
        (["1e99"], "1 too large such as '1e99'"),
        (["low", "high", "mid", "low"], "4 of 4 cells are 3 words: if they are classes, write 0 and 1"),
        (["٣"], "got '٣', expected a number or a blank"),
    ],
)
def test_what_is_no_number_is_counted_with_a_hint(cells: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        read("1", *cells[:0], *cells)
    message = str(caught.value)
    assert message.startswith("a.csv, line 3: row 2, column 'pIC50': got ")
    assert words.replace(f"of {len(cells)} cells", f"of {len(cells) + 1} cells") in message
    assert "\n" not in message


def test_what_is_wrong_beside_decimal_commas_is_told_without_them() -> None:
    with pytest.raises(InputError, match=r"got '<1', .*; 1 of 3 cells are no numbers: 1 with a bound"):
        read("-0,5", "<1", "1,5")


@given(st.text(max_size=12))
def test_any_cell_is_a_value_missing_or_one_error(cell: str) -> None:
    try:
        values, _ = read(cell)
    except InputError:
        return
    assert values[0] is None or values[0] in (0, 1) or float(cell.replace(",", ".")) == values[0]


@pytest.mark.parametrize(
    ("columns", "mark"),
    [
        (["CCO CCC", "0,85 -1,2"], ","),
        (["0,85 n/a", "1 2"], ","),
        (["0,85 1,2", "0.85 1"], "."),
        (["0.85 1.2"], "."),
        (["<0,5 >1,2 ~3"], ","),
        (["1,234 2,345"], ""),  # or thousands
        (["1,234 2,5"], ","),
        (["0,85 a,b"], ""),  # names
        (["1 2", "CCO CCC"], ""),
        (["- nan"], ""),
        ([], ""),
    ],
)
def test_the_decimal_mark_of_a_table_is_that_of_its_numbers(columns: list[str], mark: str) -> None:
    assert decimal_mark(list(zip(*map(str.split, columns), strict=True)))[0] == mark


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["a b", "1,4 12,7"], ("", -1)),
        (["1,4 2,3", "0,85 1,2"], (",", 1)),
        (["1,4 -2,3"], (",", 0)),
        (["1,4 2,35"], (",", 0)),
        (["1,4 2,3e5"], (",", 0)),
        (["0,85 1,25", "1,4 2.5", "1.5 2"], (".", 2)),
    ],
)
def test_pairs_of_numbers_are_no_decimals(columns: list[str], expected: tuple[str, int]) -> None:
    assert decimal_mark(list(zip(*map(str.split, columns), strict=True)), pairs=True) == expected
