"""Counts and histograms of a library, whatever its split into shards."""

from __future__ import annotations

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library_summary import summarize

from mora_lite.scoring.tasks import Task
from mora_lite.screening.summary import Histogram

TASKS = (Task("logS", "log mol/L", "", -3.0, 2.0), Task("BBB", "", "", 0.5, 1.0, "class"))


def shard(*rows):
    """row, logS, BBB, similarity, in_domain, outside, status, error -> table."""
    names = ["row", "logS [log mol/L]", "BBB", "similarity", "in_domain", "outside", "status", "error"]
    types = ["int64", "float32", "float32", "float32", "bool", "string", "string", "string"]
    columns = [[row[i] for row in rows] for i in range(len(names))]
    return pyarrow.table({n: pyarrow.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})


GOOD = [
    (1, -3.0, 0.5, 0.9, True, "", "ok", ""),
    (2, -30.0, 0.25, 0.4, False, "BBB", "ok", ""),
    (4, 20.0, 1.0, 0.1, False, "logS BBB", "ok", ""),
]
BAD = [
    (5, None, None, None, None, "", "unparsable", "later"),
    (3, None, None, None, None, "", "unparsable", "sooner"),
    (6, None, None, None, None, None, "timeout", None),
]


def test_the_domain_is_counted_overall_and_by_task():
    summary = summarize([shard(*GOOD, *BAD)], TASKS)
    assert summary.is_calibrated
    assert summary.n_inside == 1
    assert summary.n_inside_task == {"logS": 2, "BBB": 1}
    assert summary.similarity.mean == pytest.approx((0.9 + 0.4 + 0.1) / 3)


def test_values_beyond_the_bins_are_in_the_last_ones():
    scores = summarize([shard(*GOOD)], TASKS).scores["logS"]
    assert (scores.edges[0], scores.edges[-1], len(scores.counts)) == (-13, 7, 60)
    assert scores.counts[[0, 30, 59]].tolist() == [1, 1, 1]
    assert (scores.n, scores.low, scores.high) == (3, -30, 20)
    assert scores.mean == pytest.approx(-13 / 3)


def test_half_or_more_counts_a_probability_of_exactly_one_half():
    scores = summarize([shard(*GOOD)], TASKS).scores["BBB"]
    assert scores.share_from(0.5) == pytest.approx(2 / 3)


def test_a_pack_without_calibration_tells_nothing_of_its_domain():
    summary = summarize([shard(*GOOD).drop_columns(["similarity", "in_domain", "outside"])], TASKS)
    assert not summary.is_calibrated
    assert summary.scores["BBB"].n == 3


def test_nothing_at_all_is_a_summary_too():
    for shards in ([], [shard()], [shard(*BAD)]):
        summary = summarize(shards, TASKS)
        assert summary.scores["logS"].n == summary.n_inside == 0
        assert np.isnan(summary.scores["logS"].mean)


@given(st.lists(st.lists(st.floats(-2, 3, width=32) | st.just(float("nan")), max_size=20), max_size=5))
def test_a_histogram_is_that_of_all_parts_together(parts):
    histogram = Histogram(0, 1, 50)
    for part in parts:
        histogram.add(np.array(part, np.float32))
    whole = np.array([n for part in parts for n in part if not np.isnan(n)])
    expected, _ = np.histogram(np.clip(whole, 0, 1), histogram.edges)
    assert histogram.counts.tolist() == expected.tolist()
    if len(whole):
        assert (histogram.low, histogram.high) == (whole.min(), whole.max())
        assert histogram.mean == pytest.approx(whole.mean(), abs=1e-9)


def test_values_on_a_logarithmic_scale_have_logarithmic_bins():
    scores = summarize([], [Task("IC50", "nM", "", 2.0, 0.4, scale="log")]).scores["IC50"]
    assert scores.log
    assert scores.edges[[0, 30, 60]] == pytest.approx([1, 100, 1e4])
