"""Charts as inline SVG: histograms, and plots with two axes.

Colours and type come from the page's CSS (`.bar`, `.axis`, `.tick`, `.dots` ...), so they follow its light or dark
scheme. A chart has a title for screen readers, which says what it shows. All text goes through `as_html`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .page import as_html, as_number

WIDTH, HEIGHT = 256, 104  # of a histogram, in pixels
PLOT, SQUARE = (320, 226), (320, 320)  # of a plot
_SIDE, _TOP, _FOOT = 12, 4, 28  # margins of a histogram: beside and below for the tick labels
_LEFT, _RIGHT, _HEAD, _BOTTOM = 44, 12, 24, 38  # margins of a plot: for its labels
_RUG = 5  # height of the marks below the foot
_MIN_BINS = 12  # shown, however few are filled
MAX_DOTS = 1500  # molecules that are a dot each; of more, squares show how many lie in them
MAX_SPANS = 250  # intervals that can be told apart
_GRID, _SHADES = 56, 5  # squares along an axis, and how many shades they have


class Bins(Protocol):
    """Counts int64 `[n]` of numbers between edges, float64 `[n + 1]`. log: whether they are equal in logarithms."""

    log: bool
    edges: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Axis:
    """Numbers `low..high` along the pixels `start..stop`; what lies beyond them is at the ends."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, numbers: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """Pixels, float64 of the same shape."""
        inside = np.clip(np.asarray(numbers, np.float64), self.low, self.high)
        low, high = self.low, self.high
        if self.log:
            inside, low, high = np.log10(inside), math.log10(low), math.log10(high)
        return self.start + (inside - low) / (high - low) * (self.stop - self.start)

    def ticks(self, most: float = math.inf) -> list[tuple[float, str]]:
        """Round numbers, up to `most`, and the pixel of each."""
        marks = [n for n in (decades if self.log else ticks)(self.low, self.high) if n <= most]
        return list(zip(marks, map(_terse, self.at(marks).tolist()), strict=True))


def decades(start: float, stop: float) -> list[float]:
    """Powers of ten in `start..stop`, every second or third of them where there are more than 7; `ticks` below 2."""
    first, last = math.ceil(math.log10(start) - 1e-9), math.floor(math.log10(stop) + 1e-9)
    if last <= first:
        return ticks(start, stop)
    return [10.0**i for i in range(first, last + 1, (last - first) // 7 + 1)]


def ticks(start: float, stop: float) -> list[float]:
    """About 6 round numbers in `start..stop`: steps of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (stop - start) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def span_of(*numbers: np.ndarray, log: bool = False) -> tuple[float, float]:
    """The least and the greatest of the finite numbers, with a margin, however few or equal they are.

    log: for a logarithmic axis; numbers that are not above 0 have no place on it.
    """
    every = np.concatenate([np.ravel(part) for part in numbers]).astype(np.float64)
    every = every[np.isfinite(every) & ((every > 0) | (not log))]
    if not len(every):
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = float(every.min()), float(every.max())
    if log:
        margin = max((high / low) ** 0.04, 1.05)
        return low / margin, high * margin
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def histogram_svg(
    histogram: Bins,
    title: str,
    *,
    unit: str = "",
    rug: Sequence[float] = (),
    trim: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """Bars over an axis with ticks, which is logarithmic where the histogram is.

    title: the chart's name for screen readers.
    rug: numbers that get a mark below the axis.
    trim: leave out the empty bins at both ends.
    size: width and height in pixels, where the page does not scale it.
    """
    width, height = size
    foot = height - _FOOT
    start, stop = _shown_bins(histogram) if trim else (0, len(histogram.counts))
    counts, edges = histogram.counts[start:stop], histogram.edges[start : stop + 1]
    x = Axis(float(edges[0]), float(edges[-1]), _SIDE, width - _SIDE, histogram.log)
    peak = max(1, int(counts.max()))
    at = x.at(edges).tolist()
    bars = []
    for i, count in enumerate(counts.tolist()):
        if not count:
            continue
        # No bar is invisible: one molecule in a million still has half a pixel.
        tall = max(0.5, (foot - _TOP) * count / peak)
        words = f"{as_number(edges[i])} to {as_number(edges[i + 1])} {unit}".strip()
        bars.append(_rect(at[i], foot - tall, at[i + 1] - at[i] - 0.6, tall, f"{words}: {count:,}"))
    marked = np.array([n for n in sorted(rug) if math.isfinite(n)])
    marks = "".join(f"M{_terse(n)} {foot + 2}v{_RUG}" for n in x.at(marked).tolist())
    positions = x.ticks()
    lines = "".join(f"M{position} {foot + 1}v3" for _, position in positions) if not marks else ""
    labels = "".join(f'<text x="{position}" y="{height - 8}">{as_number(tick)}</text>' for tick, position in positions)
    return _svg(
        size,
        title,
        f'<g class="bar">{"".join(bars)}</g>'
        f'<path class="axis" d="M{_SIDE} {foot + 0.5}H{width - _SIDE}{lines}"/>'
        f'<path class="rug" d="{marks}"/><g class="tick">{labels}</g>',
    )


class Plot:
    """Two axes, and what is drawn between them: layers, each above those before.

    x, y: the ranges of the axes. log: whether both are logarithmic. shares: whether y is in percent, to 100 % at most.
    whole: whether x has ticks at whole numbers only.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        log: bool = False,
        shares: bool = False,
        whole: bool = False,
        size: tuple[int, int] = PLOT,
    ):
        self.width, self.height, self.shares, self.whole = *size, shares, whole
        self.x = Axis(*x, _LEFT, self.width - _RIGHT, log)
        self.y = Axis(*y, self.height - _BOTTOM, _HEAD, log)
        self._layers: list[str] = []

    def line(self, x: np.ndarray | Sequence[float], y: np.ndarray | Sequence[float], css: str = "line") -> None:
        """Through points, float `[n]` each, in their order."""
        points = [f"{_terse(a)} {_terse(b)}" for a, b in zip(self.x.at(x).tolist(), self.y.at(y).tolist(), strict=True)]
        if points:
            self._layers.append(f'<path class="{css}" d="M{"L".join(points)}"/>')

    def dots(self, x: np.ndarray, y: np.ndarray, css: str = "dots") -> None:
        """A dot at each point, float `[n]`; with css `misses` a cross."""
        mark = "m-2.5-2.5l5 5m0-5l-5 5" if css == "misses" else "h0"
        points = zip(self.x.at(x).tolist(), self.y.at(y).tolist(), strict=True)
        self._path(css, (f"M{_terse(a)} {_terse(b)}{mark}" for a, b in points))

    def spans(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, css: str = "spans") -> None:
        """A vertical line at each x, float `[n]`."""
        ends = zip(*(axis.tolist() for axis in (self.x.at(x), self.y.at(low), self.y.at(high))), strict=True)
        self._path(css, (f"M{_terse(a)} {_terse(b)}V{_terse(c)}" for a, b, c in ends))

    def bars(self, edges: Sequence[tuple[float, float]], heights: Sequence[float], words: Sequence[str]) -> None:
        """Bars from the foot, with the words shown where the pointer rests."""
        foot, rects = self.y.start, []
        for (a, b), height, text in zip(edges, heights, words, strict=True):
            left, right, top = (float(n) for n in (self.x.at(a), self.x.at(b), self.y.at(height)))
            rects.append(_rect(left + 0.5, top, right - left - 1, foot - top, text))
        self._layers.append(f'<g class="bar">{"".join(rects)}</g>')

    def texts(self, x: Sequence[float], y: Sequence[float], texts: Sequence[str]) -> None:
        """Small texts above points."""
        places = zip(self.x.at(x).tolist(), self.y.at(y).tolist(), texts, strict=True)
        words = "".join(f'<text x="{_terse(a)}" y="{_terse(b - 4)}">{as_html(text)}</text>' for a, b, text in places)
        self._layers.append(f'<g class="tick small">{words}</g>')

    def cells(self, x: np.ndarray, y: np.ndarray) -> None:
        """Squares that are darker the more of the points, float `[n]`, lie in them, by the logarithm of the count."""
        side_x, side_y = (abs(axis.stop - axis.start) / _GRID for axis in (self.x, self.y))
        column, row = (
            np.minimum(abs(axis.at(n) - axis.start) // side, _GRID - 1).astype(int)
            for axis, n, side in ((self.x, x, side_x), (self.y, y, side_y))
        )
        counts = np.bincount(column * _GRID + row, minlength=_GRID**2)
        shades = np.ceil(np.log1p(counts) / max(math.log1p(counts.max(initial=1)), 1e-9) * _SHADES).astype(int)
        for shade in range(1, _SHADES + 1):
            squares = []
            for cell in np.flatnonzero(shades == shade).tolist():
                left, top = self.x.start + cell // _GRID * side_x, self.y.start - (cell % _GRID + 1) * side_y
                squares.append(f"M{_terse(left)} {_terse(top)}h{side_x:.2f}v{side_y:.2f}h-{side_x:.2f}z")
            self._path(f'cells" opacity="{shade / _SHADES:.1f}', squares)

    def _path(self, css: str, pieces: Iterable[str]) -> None:
        shape = "".join(pieces)
        if shape:
            self._layers.append(f'<path class="{css}" d="{shape}"/>')

    def svg(self, title: str, x_label: str, y_label: str) -> str:
        """The chart. title: what it shows, in words, for screen readers."""
        left, foot = self.x.start, self.y.start
        steps = [(n, p) for n, p in self.x.ticks() if not self.whole or n == round(n)]
        along = "".join(f'<text x="{p}" y="{foot + 15:g}">{as_number(n)}</text>' for n, p in steps)
        rungs = self.y.ticks(1.0 if self.shares else math.inf)
        up = "".join(
            f'<text class="y" x="{left - 5:g}" y="{float(p) + 4:g}">'
            f"{f'{100 * n:.0f} %' if self.shares else as_number(n)}</text>"
            for n, p in rungs
        )
        grid = "".join(f"M{left:g} {p}H{self.x.stop:g}" for _, p in rungs)
        marks = "".join(f"M{p} {foot:g}v4" for _, p in steps)
        return _svg(
            (self.width, self.height),
            title,
            f'<path class="grid" d="{grid}"/>{"".join(self._layers)}'
            f'<path class="axis" d="M{left:g} {foot:g}H{self.x.stop:g}{marks}"/><g class="tick">{along}{up}</g>'
            f'<g class="label"><text x="4" y="12">{as_html(y_label)}</text>'
            f'<text class="end" x="{self.x.stop:g}" y="{self.height - 6}">{as_html(x_label)}</text></g>',
        )


def parity_svg(
    measured: np.ndarray,
    predicted: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    title: str,
    *,
    log: bool = False,
    unit: str = "",
) -> tuple[str, str]:
    """Predictions over measurements, float `[n]`, with intervals; and a sentence that says how they are drawn.

    Crosses: measured values outside of their interval. log: both axes are logarithmic; what is not above 0 is left out.
    """
    if log:
        above = (measured > 0) & (predicted > 0)
        measured, predicted = measured[above], predicted[above]
        low, high = (None if bound is None else bound[above] for bound in (low, high))
    span = span_of(measured, predicted, log=log)
    plot = Plot(span, span, log=log, size=SQUARE)
    n, marks = len(measured), "Each dot is a molecule"
    if n > MAX_DOTS:
        plot.cells(measured, predicted)
        marks = f"The {n:,} molecules are counted in squares, darker where there are more"
    plot.line(span, span, "guide")
    if n <= MAX_DOTS:
        missed = np.zeros(n, bool)
        if low is not None and high is not None:
            missed = (measured < low) | (measured > high)
            bounded = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
            order = bounded[np.argsort(measured[bounded], kind="stable")]
            shown = order[:: -(-len(order) // MAX_SPANS)] if len(order) else order
            plot.spans(measured[shown], low[shown], high[shown])
            of = f", drawn for {len(shown):,} of the {n:,}" if len(shown) < n else ""
            marks += f", its line the interval{of}" if len(shown) else ""
            marks += "; crosses lie outside of theirs" if missed.any() else ""
        plot.dots(measured[~missed], predicted[~missed])
        plot.dots(measured[missed], predicted[missed], "misses")
    unit = f", {unit}" if unit else ""
    return plot.svg(title, f"measured{unit}", f"predicted{unit}"), f"{marks}."


def _rect(left: float, top: float, width: float, height: float, words: str) -> str:
    return (
        f'<rect x="{_terse(left)}" y="{_terse(top)}" width="{_terse(width)}" height="{_terse(height)}">'
        f"<title>{as_html(words)}</title></rect>"
    )


def _svg(size: tuple[int, int], title: str, content: str) -> str:
    """The frame of every chart. title: in words, for screen readers. content: SVG."""
    width, height = size
    frame = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{as_html(title)}">'
    return f"{frame}{content}</svg>"


def _shown_bins(histogram: Bins) -> tuple[int, int]:
    """First bin and the one after the last: those with any molecule, one more on each side, `_MIN_BINS` at least."""
    filled = np.flatnonzero(histogram.counts)
    n = len(histogram.counts)
    start, stop = (max(0, filled[0] - 1), min(n, filled[-1] + 2)) if len(filled) else (0, n)
    missing = max(0, _MIN_BINS - (stop - start))
    start = max(0, min(start - missing // 2, n - _MIN_BINS))
    return int(start), int(max(stop, start + _MIN_BINS))


def _terse(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
