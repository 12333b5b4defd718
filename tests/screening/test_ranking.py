"""The best rows of many shards are those of a plain sort."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.scoring.tasks import Task
from mora_lite.screening.expression import parse_expression
from mora_lite.screening.ranking import rank

TASKS = [Task("logS", "log mol/L", "", -3.0, 2.0), Task("BBB", "", "", 0.5, 1.0, "class")]
SCHEMA = pyarrow.schema(
    [
        ("row", pyarrow.int64()),
        ("name", pyarrow.string()),
        ("logS [log mol/L]", pyarrow.float32()),
        ("BBB", pyarrow.float32()),
        ("status", pyarrow.string()),
    ]
)


def expression(text):
    return parse_expression(text, TASKS, SCHEMA.names)


def shard(*rows):
    """row, logS, BBB, status -> table."""
    columns = [[r[0] for r in rows], [f"m{r[0]}" for r in rows], *([r[i] for r in rows] for i in (1, 2, 3))]
    return pyarrow.table([pyarrow.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def test_the_best_come_first_and_equal_ones_by_row():
    shards = [
        shard((0, -1, 0.5, "ok"), (1, -5, 0.9, "ok"), (2, None, None, "unparsable")),
        shard((4, -1, 0.9, "ok"), (3, -1, 0.1, "ok")),
    ]
    found = rank(shards, expression("logS"), 3)
    assert found.to_pydict() == {
        "rank": [1, 2, 3],
        "row": [0, 3, 4],
        "name": ["m0", "m3", "m4"],
        "logS [log mol/L]": [-1, -1, -1],
        "BBB": [np.float32(0.5), np.float32(0.1), np.float32(0.9)],
        "status": ["ok"] * 3,
    }
    assert found.schema.field("rank").type == pyarrow.int64()
    assert found.schema.names == ["rank", *SCHEMA.names]
    assert rank(shards, expression("logS"), 1, ascending=True)["row"].to_pylist() == [1]
    assert rank(shards, expression("logS + BBB"), 9, expression("BBB > 0.2"))["row"].to_pylist() == [4, 0, 1]


def test_rows_whose_order_is_not_finite_are_left_out():
    table = shard((0, 0, 0.5, "ok"), (1, -1, 0.5, "ok"), (2, 1, None, "ok"))
    assert rank([table], expression("BBB / logS"), 5)["row"].to_pylist() == [1]


def test_nothing_found_is_an_empty_table_of_the_same_columns():
    found = rank([shard((0, 1, 1, "ok"))], expression("logS"), 5, expression("BBB > 2"))
    assert (found.num_rows, found.column_names) == (0, ["rank", *SCHEMA.names])


few = st.sampled_from([None, float("nan"), -1.0, 0.0, 0.5, 1.0, float("inf")])  # many ties
statuses = st.sampled_from(["ok", "ok", "ok", "timeout"])


@given(
    values=st.lists(st.tuples(few, few, statuses), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    n=st.integers(1, 12),
    ascending=st.booleans(),
    shuffled=st.randoms(use_true_random=False),
)
def test_any_split_into_shards_gives_what_a_plain_sort_gives(values, cuts, n, ascending, shuffled):
    rows = [(row, *value) for row, value in enumerate(values)]
    shuffled.shuffle(rows)
    places = [0, *sorted(cuts), len(rows)]
    shards = [shard(*rows[a:b]) for a, b in itertools.pairwise(places)]

    good = [r for r in rows if r[3] == "ok" and r[1] is not None and math.isfinite(r[1])]
    good = [r for r in good if r[2] is not None and r[2] >= 0]
    expected = sorted(good, key=lambda r: (r[1] if ascending else -r[1], r[0]))[:n]

    found = rank(iter(shards), expression("logS"), n, expression("BBB >= 0"), ascending)
    assert found["row"].to_pylist() == [r[0] for r in expected]
    assert found["rank"].to_pylist() == list(range(1, len(expected) + 1))
