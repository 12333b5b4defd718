"""The small language of conditions and formulas over columns."""

from __future__ import annotations

import contextlib
import operator

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.errors import InputError
from mora_lite.scoring.tasks import Task
from mora_lite.screening.expression import CONDITION, NUMBER, parse_expression

NAN = float("nan")
TASKS = [
    Task("logS", "log mol/L", "", -3.0, 2.0),
    Task("BBB", "", "", 0.5, 1.0, "class"),
    Task("NR-AR", "", "", -3.0, 1.0, "class"),
    Task("NR-AR-LBD", "", "", -3.0, 1.0, "class"),
    Task("5-HT2A", "", "", 6.0, 1.0),
    Task("min", "", "", 6.0, 1.0),
]
TABLE = {
    "row": np.array([0, 1, 2, 3]),
    "name": np.array(["a", "b", "c", "d"], dtype=object),
    "logS [log mol/L]": np.array([-1, -3, -5, NAN], dtype=np.float32),
    "logS_lo": np.array([-2, -4, -6, NAN], dtype=np.float32),
    "logS_hi": np.array([0, -2, -4, NAN], dtype=np.float32),
    "BBB": np.array([0.9, 0.25, 0.5, NAN], dtype=np.float32),
    "NR-AR": np.array([0.125, 0.5, 0.75, NAN], dtype=np.float32),
    "NR-AR-LBD": np.array([0.5, 0.25, 1, NAN], dtype=np.float32),
    "5-HT2A": np.array([5, 6, 7, NAN], dtype=np.float32),
    "min": np.array([1, 2, 3, NAN], dtype=np.float32),
    "similarity": np.array([0.25, 0.5, 1, NAN], dtype=np.float32),
    "in_domain": np.array([True, False, True, False]),
}


def evaluate(text, table=TABLE):
    table = pyarrow.table(table) if isinstance(table, dict) else table
    return parse_expression(text, TASKS, list(TABLE)).evaluate(table).tolist()


def refusal(text, columns=tuple(TABLE)):
    with pytest.raises(InputError) as caught:
        parse_expression(text, TASKS, columns)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logS > -4", [True, True, False, False]),
        ("-4 < logS < -2", [False, True, False, False]),
        ("0.2<=BBB<=0.5", [False, True, True, False]),
        ("BBB == 0.5", [False, False, True, False]),
        ("BBB != 0.5", [True, True, False, False]),  # not of NaN either
        ("not BBB > 0.5", [False, True, True, True]),  # but `not` of a comparison that NaN made false
        ("in_domain", [True, False, True, False]),
        ("in_domain and BBB > 0.6 or logS < -4", [True, False, True, False]),
        ("in_domain and (BBB > 0.6 or logS < -4)", [True, False, True, False]),
        ("in_domain & BBB > 0.6 | logS < -4", [True, False, True, False]),  # no tighter than the words
        ("in_domain AND BBB > 0.6 Or logS < -4", [True, False, True, False]),
        ("not in_domain and not BBB > 0.6", [False, True, False, True]),
        ("similarity >= 0.5", [False, True, True, False]),
    ],
)
def test_conditions(text, expected):
    expression = parse_expression(text, TASKS, list(TABLE))
    assert expression.kind == CONDITION
    found = expression.evaluate(pyarrow.table(TABLE))
    assert found.dtype == bool
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logS", [-1, -3, -5]),
        ("logS + 2 * 5-HT2A", [9, 9, 9]),
        ("(logS + 2) * 2", [2, -2, -6]),
        ("logS_hi - logS_lo", [2, 2, 2]),
        ("1 - 2 - 3", [-4, -4, -4]),
        ("8 / 4 / 2", [1, 1, 1]),
        ("-2 ** 2", [-4, -4, -4]),
        ("2 ** -1", [0.5, 0.5, 0.5]),
        ("2 ** 3 ** 2", [512, 512, 512]),
        ("--logS", [-1, -3, -5]),
        ("abs(logS)", [1, 3, 5]),
        ("min(logS, -2, 0)", [-2, -3, -5]),
        ("max(0.5, NR-AR)", [0.5, 0.5, 0.75]),
        ("log10(100) + sqrt(4) + exp(0) + log(1)", [5, 5, 5]),
        ("1e1 + .5 + 2.", [12.5, 12.5, 12.5]),
    ],
)
def test_formulas(text, expected):
    expression = parse_expression(text, TASKS, list(TABLE))
    assert expression.kind == NUMBER
    found = expression.evaluate(pyarrow.table(TABLE))
    assert found.dtype == np.float64
    assert found[:3].tolist() == expected
    assert not expression.columns or np.isnan(found[3]) or text == "max(0.5, NR-AR)"


@pytest.mark.parametrize("text", ["BBB ** 0", "1 ** BBB", "max(0.5, BBB)", "BBB * 0", "abs(BBB)"])
def test_what_is_not_there_stays_not_a_number(text):
    assert np.isnan(evaluate(text)[3])


@pytest.mark.parametrize("text", ["1 / (logS + 1)", "log(logS)", "exp(9999)", "sqrt(logS)", "10 ** 10 ** 10"])
def test_impossible_arithmetic_is_silently_not_finite(text, recwarn):
    assert not np.isfinite(evaluate(text)[0])
    assert not recwarn


def test_the_longest_known_name_is_found_first():
    assert evaluate("NR-AR-LBD - NR-AR")[:3] == [0.375, -0.25, 0.25]
    assert evaluate("NR-AR-1")[:3] == [-0.875, -0.5, -0.25]  # a task less one
    assert evaluate("5-HT2A - 5")[:3] == [0, 1, 2]  # a name may begin with a digit


def test_names_are_found_in_any_case_where_one_fits():
    assert evaluate("bbb + NR-ar") == pytest.approx(evaluate("BBB + NR-AR"), nan_ok=True)
    tasks = [Task("IC50", "", "", 0, 1), Task("ic50", "", "", 0, 1)]
    columns = ["IC50", "ic50"]
    assert parse_expression("IC50", tasks, columns).columns == ("IC50",)
    assert parse_expression("ic50", tasks, columns).columns == ("ic50",)
    with pytest.raises(InputError, match="'Ic50' may be"):
        parse_expression("Ic50", tasks, columns)


def test_backquotes_take_any_name_as_it_is():
    assert evaluate("`NR-AR` - `logS`")[:3] == [1.125, 3.5, 5.75]
    assert evaluate("`logS [log mol/L]`")[:3] == [-1, -3, -5]  # the header of the column
    assert evaluate("`min` + min(1, 2)")[:3] == [2, 3, 4]  # a task named like a function


def test_an_expression_tells_which_columns_it_reads():
    expression = parse_expression("logS > -4 and BBB > 0.5 and logS < logS_hi", TASKS, list(TABLE))
    assert expression.columns == ("logS [log mol/L]", "BBB", "logS_hi")


def test_an_arrow_table_gives_the_same_with_nulls_for_what_is_missing():
    arrays = {name: pyarrow.array(column, mask=np.array([False, False, False, True])) for name, column in TABLE.items()}
    table = pyarrow.table(arrays)
    chunked = pyarrow.concat_tables([table.slice(0, 1), table.slice(1)])
    for text in ["logS + BBB", "in_domain and logS < 0", "not in_domain", "BBB != 0.5"]:
        assert evaluate(text, table) == pytest.approx(evaluate(text), nan_ok=True)
        assert evaluate(text, chunked) == pytest.approx(evaluate(text), nan_ok=True)


def test_a_column_without_any_value_has_no_type_in_csv():
    nothing = pyarrow.table({"BBB": pyarrow.nulls(2), "in_domain": pyarrow.nulls(2)})
    assert np.isnan(evaluate("BBB", nothing)).all()
    assert evaluate("in_domain or BBB > 0", nothing) == [False, False]


def test_a_table_of_no_rows():
    assert evaluate("BBB + 1", {name: column[:0] for name, column in TABLE.items()}) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \t", "empty"),
        ("BBX > 1", "unknown name 'BBX': did you mean BBB?"),
        ("NR-ARX > 1", "unknown name 'NR-ARX': did you mean NR-AR"),
        ("name == 1", "unknown name 'name'"),
        ("`NR AR`", "unknown name 'NR AR': did you mean NR-AR"),
        ("logS = 1", "unexpected '=' at character 6; write =="),
        ("logS [log mol/L] > 1", "unexpected '[' at character 6; leave out the unit"),
        ("logS ; BBB", "unexpected ';' at character 6"),
        ("logS >", "got the end, expected a number"),
        ("logS > > 1", "got '>' at character 8, expected a number"),
        ("(logS > 1", "got the end, expected ')'"),
        ("logS > 1)", "got ')' at character 9, expected an operator or the end"),
        ("2 logS", "got 'logS' at character 3, expected an operator or the end"),
        ("logS > -4,5", "got ',' at character 10, expected an operator or the end; decimals have a point"),
        ("`BBB", "backquote at character 1 is not closed"),
        ("log 2", "got '2' at character 5, expected '('"),
        ("min", "got the end, expected '('"),
        ("min(1)", "got 1 numbers, expected two or more"),
        ("abs(1, 2)", "got 2 numbers, expected one"),
        ("logS and BBB > 1", "'and' at character 6 got a number, expected a condition"),
        ("in_domain + 1", "'+' at character 11 got a condition, expected a number"),
        ("in_domain == 1", "'==' at character 11 got a condition, expected a number"),
        ("not BBB", "'not' at character 1 got a number, expected a condition"),
        ("abs(BBB > 1)", "'abs' at character 1 got a condition, expected a number"),
        ("(BBB < 1) < 2", "'<' at character 11 got a condition"),
        ("__import__('os')", "unexpected"),
        ("BBB.real", "'.real'"),
        ("[1][0]", "unexpected '[' at character 1"),
    ],
)
def test_refusals_are_one_line_with_the_place_or_the_nearest_names(text, words):
    message = refusal(text)
    assert words in message or (words == "'.real'" and "'.' at character 4" in message)


def test_a_number_where_a_condition_is_needed_and_the_other_way_round():
    number, condition = (parse_expression(text, TASKS, list(TABLE)) for text in ("BBB", "BBB > 0.5"))
    assert number.must_be(NUMBER, "--top") is number
    with pytest.raises(InputError, match=r"--where: got the number 'BBB', expected a condition such as"):
        number.must_be(CONDITION, "--where")
    with pytest.raises(InputError, match=r"--top: got the condition 'BBB > 0.5', expected a number such as"):
        condition.must_be(NUMBER, "--top")


def test_a_pack_without_calibration_has_no_domain_to_ask_for():
    for text in ("in_domain", "similarity > 0.3", "logS_lo > -4"):
        assert "calibrate it first" in refusal(text, ["logS [log mol/L]", "BBB"])


def test_a_class_has_no_interval():
    assert "unknown name 'BBB_lo'" in refusal("BBB_lo > 0.5")


def test_limits_of_length_and_depth():
    assert evaluate("+".join(["1"] * 500)) == [500] * 4  # long is not deep
    assert "got 1,001 characters" in refusal("1" * 1001)
    assert evaluate("(" * 50 + "1" + ")" * 50) == [1] * 4
    for text in ("(" * 51 + "1" + ")" * 51, "-" * 60 + "1", "not " * 60 + "in_domain", "2**" * 60 + "1"):
        assert "nested more than 50 deep" in refusal(text)


def numbers():
    """Texts of arithmetic over BBB and constants, each with what it comes to."""
    values = np.array([0.5, 2.0, -3.0])
    leaves = st.sampled_from([("BBB", values), ("2", np.full(3, 2.0)), ("0.25", np.full(3, 0.25))])

    def grow(inner):
        operators = {"+": operator.add, "-": operator.sub, "*": operator.mul}
        pairs = st.tuples(inner, st.sampled_from(sorted(operators)), inner)
        joined = pairs.map(lambda p: (f"({p[0][0]}{p[1]}{p[2][0]})", operators[p[1]](p[0][1], p[2][1])))
        return joined | inner.map(lambda p: (f"-{p[0]}", -p[1])) | inner.map(lambda p: (f"abs( {p[0]} )", abs(p[1])))

    return st.recursive(leaves, grow, max_leaves=8)


@given(left=numbers(), right=numbers(), third=numbers())
def test_arithmetic_and_chains_are_those_of_numpy(left, right, third):
    table = {"BBB": np.array([0.5, 2.0, -3.0])}
    text = f"{left[0]}<={right[0]} < {third[0]}"
    assert evaluate(text, table) == ((left[1] <= right[1]) & (right[1] < third[1])).tolist()
    assert evaluate(f"{left[0]} - {right[0]}", table) == (left[1] - right[1]).tolist()


@given(st.text(alphabet="BNR-AlogSminabsexp()<>=!&|+*/.,`0123456789 andot_\u00e9\x00", max_size=60))
def test_any_text_gives_an_expression_or_a_refusal(text):
    with contextlib.suppress(InputError):
        assert evaluate(text) is not None
