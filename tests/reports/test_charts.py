"""Histograms and plots: axes, what is drawn, and that many molecules make no large picture."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mora_lite.reports.charts import MAX_DOTS, MAX_SPANS, Plot, decades, histogram_svg, parity_svg, span_of, ticks
from mora_lite.screening.summary import Histogram


def test_a_logarithmic_chart_has_powers_of_ten():
    histogram = Histogram(0.01, 1e4, 6, log=True)
    histogram.add(np.array([0.5, 2, 20]))
    assert histogram.counts.tolist() == [0, 1, 1, 1, 0, 0]
    chart = histogram_svg(histogram, "IC50")
    bars = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart)
    assert len({width for _, width in bars}) == 1, "a decade is as wide as another"
    assert re.findall(r"<text[^>]*>([^<]*)</text>", chart) == ["0.01", "0.1", "1", "10", "100", "1000", "1e+04"]
    assert decades(3, 8) == ticks(3, 8)
    assert decades(1e-9, 1e9) == [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6, 1e9]


def test_ticks_are_round():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(-6.4, 0.3) == [-6, -4, -2, 0]
    for start, stop in [(0, 1e-9), (-1e6, 3e7), (99.1, 99.7)]:
        found = ticks(start, stop)
        assert 3 <= len(found) <= 7
        assert start <= found[0] <= found[-1] <= stop * (1 + 1e-9)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("numbers", [[], [3.0], [2.0, 2.0], [0.0], [-1.0, 5.0], [1e-30, 1e30], [np.nan, np.inf, 4.0]])
def test_any_numbers_have_an_axis(numbers: list[float], log: bool) -> None:
    low, high = span_of(np.array(numbers), log=log)
    assert low < high
    assert low > 0 or not log
    shown = [n for n in numbers if np.isfinite(n) and (n > 0 or not log)]
    assert all(low <= n <= high for n in shown)
    plot = Plot((low, high), (low, high), log=log)
    plot.dots(np.array(shown), np.array(shown))
    ElementTree.fromstring(plot.svg("any", "x", "y"))


def test_every_molecule_is_a_dot_and_those_outside_of_their_interval_are_crosses() -> None:
    measured, predicted = np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.1, 5.0])
    chart, words = parity_svg(measured, predicted, predicted - 1, predicted + 1, "title")
    assert [len(re.findall("M", path)) for path in re.findall(r'class="(?:dots|misses)" d="([^"]*)"', chart)] == [2, 1]
    assert len(re.findall("M", re.search(r'class="spans" d="([^"]*)"', chart)[1])) == 3
    assert words == "Each dot is a molecule, its line the interval; crosses lie outside of theirs."
    chart, words = parity_svg(measured, predicted, None, None, "title")
    assert words == "Each dot is a molecule."
    assert "misses" not in chart


def test_infinite_intervals_are_not_drawn_and_nothing_lies_outside_of_them() -> None:
    numbers, endless = np.array([0.0, 1.0]), np.array([np.inf, np.inf])
    chart, words = parity_svg(numbers, numbers, -endless, endless, "title")
    assert words == "Each dot is a molecule."
    assert "inf" not in chart
    assert "nan" not in chart


def test_of_many_intervals_some_are_drawn_and_the_sentence_says_how_many() -> None:
    numbers = np.linspace(0, 1, 600)
    chart, words = parity_svg(numbers, numbers, numbers - 1, numbers + 1, "title")
    n_drawn = len(re.findall("M", re.search(r'class="spans" d="([^"]*)"', chart)[1]))
    assert n_drawn <= MAX_SPANS
    assert f"drawn for {n_drawn} of the 600" in words


def test_of_very_many_molecules_the_picture_stays_small_and_counts_them_all() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100_000)
    chart, words = parity_svg(truth, truth + rng.normal(size=100_000), truth - 1, truth + 1, "title")
    assert len(chart) < 60_000
    assert "The 100,000 molecules are counted in squares" in words
    assert len(re.findall('class="cells"', chart)) == 5, "shades"
    few, _ = parity_svg(truth[:MAX_DOTS], truth[:MAX_DOTS], None, None, "title")
    assert len(few) < 40_000
    same = np.zeros(MAX_DOTS + 1)
    ElementTree.fromstring(parity_svg(same, same, None, None, "title")[0])


def test_logarithmic_axes_leave_out_what_has_no_logarithm() -> None:
    measured, predicted = np.array([0.0, 1.0, 100.0]), np.array([1.0, 0.0, 10.0])
    chart, _ = parity_svg(measured, predicted, predicted / 2, predicted * 2, "title", log=True, unit="nM")
    ElementTree.fromstring(chart)
    assert "measured, nM" in chart


def test_texts_of_a_chart_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    plot = Plot((0, 1), (0, 1))
    plot.bars([(0, 1)], [1], [evil])
    plot.texts([0.5], [0.5], [evil])
    assert "<script>" not in plot.svg(evil, evil, evil)


def test_shares_have_ticks_up_to_all_of_them() -> None:
    chart = Plot((0, 1), (0.5, 1.08), shares=True).svg("title", "x", "y")
    assert re.findall(r">(\d+ %)<", chart) == ["50 %", "60 %", "70 %", "80 %", "90 %", "100 %"]
