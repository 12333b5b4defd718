"""Predictions as a table: rows and columns by number and name, and how they look on a terminal and in a notebook."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import TASKS, scores

from mora_lite.chem.drawing import drawing_problem
from mora_lite.errors import InputError
from mora_lite.scoring.predictions import SHOWN_ROWS, WIDTH, Predictions
from mora_lite.scoring.scores import Scores
from mora_lite.scoring.tasks import Task


def table(n: int = 4, **options) -> Predictions:
    return Predictions(["C" * (i + 1) for i in range(n)], TASKS, scores([[0.9, 0.4, 0.7]] * n), **options)


# --- rows and columns


def test_a_row_is_a_dict_of_plain_numbers_with_the_names_of_the_tasks() -> None:
    row = table()[1]
    assert (row["smiles"], row["logS"], row["logS_lo"], row["in_domain"]) == ("CC", 1.0, 0.5, False)
    assert type(row["logS"]) is float
    assert table()[-1]["smiles"] == "CCCC"
    assert [each["smiles"] for each in table()] == ["C", "CC", "CCC", "CCCC"]
    with pytest.raises(IndexError):
        table()[4]


@pytest.mark.parametrize("key", [slice(1, 3), [1, 2], np.array([1, 2]), [False, True, True, False]])
def test_rows_are_a_table_of_their_own_with_their_index(key: object) -> None:
    part = table(index=np.array(["a", "b", "c", "d"]))[key]
    assert part.smiles == ["CC", "CCC"]
    assert part.scores.status == ["ok", "ok"]
    assert part.scores.low is not None
    assert part.to_pandas().index.tolist() == ["b", "c"]


def test_no_row_is_an_empty_table() -> None:
    assert len(table()[[]]) == len(table()[()]) == 0
    assert list(table()[[]].to_pandas()) == list(table().to_pandas())


def test_a_name_is_a_column_in_any_case() -> None:
    for name in ("logS", "logs", "logS [log mol/L]"):
        assert table()[name].tolist() == [1.0] * 4
    assert table()["status"].tolist() == ["ok"] * 4
    with pytest.raises(InputError, match="no task or column 'logD': did you mean logS"):
        table()["logD"]
    with pytest.raises(InputError, match=r"got 2 names of columns, expected one; to_pandas\(\) takes several"):
        table()[["logS", "status"]]


def test_other_libraries_take_it_by_arrows_interface() -> None:
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    assert pyarrow.table(table()).equals(table().to_arrow())
    assert polars.DataFrame(table())["logS [log mol/L]"].to_list() == [1.0] * 4


def test_arrow_has_nulls_where_a_molecule_failed_and_bytes_that_are_not_utf8() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    bad = Predictions(["CCO", "C\udcff"], TASKS, scores([[0.9, 0.1, 0.9], [0.9, 0.9, 0.9]], ["ok", "unparsable"]))
    found = bad.to_arrow()
    assert found["smiles"].cast(pyarrow.binary()).to_pylist() == [b"CCO", b"C\xff"]
    assert [found[name].null_count for name in ("BBB", "in_domain", "outside", "status")] == [1, 1, 1, 0]


# --- on a terminal


def test_the_terminal_shows_values_with_their_intervals() -> None:
    bad = Predictions(["CCO", "x"], TASKS[:2], scores([[0.9, 0.9, 0.9]] * 2, ["ok", "unparsable"]))
    assert repr(bad).splitlines() == [
        "   smiles  logS [log mol/L]  BBB  in_domain  status",
        "0  CCO       1 (0.5 to 1.5)    2  yes        ok",
        "1  x                                         unparsable",
        "[2 molecules, 1 ok; to_pandas() has every column]",
    ]


TEXTS = st.text(string.printable, max_size=60)


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, max_size=30), TEXTS, st.floats(-1e9, 1e9, width=32), st.booleans())
def test_it_fits_80_columns_and_names_what_is_left_out(
    smiles: list[str], label: str, value: float, calibrated: bool
) -> None:
    n = len(smiles)
    tasks = tuple(Task(f"a task number {i}", "ug/mL", "", 0.0, 1.0) for i in range(12))
    values = np.full((n, 12), value, np.float32)
    bounds = (values - 1, values + 1, values, values > 0) if calibrated else ()
    shown = repr(Predictions(smiles, tasks, Scores(values, ["ok"] * n, [""] * n, *bounds), [label] * n))
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert " ".join(shown.split("[")[-1].split()).startswith(f"{n} molecule")
    assert "other tasks" in " ".join(shown.split())


# --- in a notebook


def faint(page: str) -> list[str]:
    return re.findall(r'<span style="opacity: 0.45">(.*?)</span>', page)


def test_a_notebook_shows_values_outside_of_the_domain_faint() -> None:
    table = Predictions(
        ["C", "N", "not <i>"], TASKS, scores([[0.9, 0.4, 0.9], [0.4, 0.9, 0.9], [0, 0, 0]], 2 * ["ok"] + ["unparsable"])
    )
    page = table._repr_html_()
    assert faint(page) == ["2", "1", "0.5", "1.5"], "BBB of the first row; value and interval of logS of the second"
    assert "<i>" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_a_long_table_is_cut_in_a_notebook() -> None:
    page = Predictions(["C"] * 5000, TASKS, scores([[0.9, 0.9, 0.9]] * 5000))._repr_html_()
    assert page.count("<tr") == SHOWN_ROWS + 1
    assert "the first 20 of 5,000 rows" in page


def test_a_pack_without_calibration_has_nothing_faint() -> None:
    plain = Scores(np.ones((1, 3), np.float32), ["ok"], [""])
    assert (plain.similarity, plain.in_domain) == (None, None)
    assert faint(Predictions(["C"], TASKS, plain)._repr_html_()) == []


@pytest.mark.skipif(bool(drawing_problem()), reason=drawing_problem() or "drawn")
def test_a_notebook_draws_the_structures_that_can_be_read() -> None:
    page = Predictions(["CCO", "not <i>"], TASKS, scores([[0.9, 0.9, 0.9]] * 2, ["ok", "unparsable"]))._repr_html_()
    assert page.count("<svg") == 1
