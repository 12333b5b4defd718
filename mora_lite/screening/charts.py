"""Histograms as inline SVG, and numbers as people read them.

Colours and type come from the page's CSS (`.bar`, `.axis`, `.tick`, `.rug`). Everything that is text goes through
`as_html`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

from ..scoring.tasks import Task
from .summary import Histogram

WIDTH, HEIGHT = 256, 104  # of a small chart, in pixels
_SIDE, _TOP, _FOOT = 12, 4, 28  # margins: beside and below for the tick labels
_RUG = 5  # height of the marks below the foot
_MIN_BINS = 12  # shown, however few are filled
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(9), *range(11, 32), 127)}


def as_html(text: object) -> str:
    """Text for HTML, safe also inside a quoted attribute."""
    return html.escape(str(text).translate(_CONTROLS), quote=True)


def as_number(number: float, decimals: int | None = None) -> str:
    """A number with a true minus sign; without `decimals`, to four significant digits."""
    if not math.isfinite(number):
        return "–" if math.isnan(number) else "∞" if number > 0 else "−∞"
    text = f"{number:.4g}" if decimals is None else f"{number:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def as_percent(share: float) -> str:
    """`0.5 %`; a share between none and all never reads as `0.0 %` or `100.0 %`."""
    if math.isnan(share):
        return "–"
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.{0 if share in (0, 1) else 1}f} %"


def decimals_for(task: Task) -> int | None:
    """Decimals that show a task's value to a hundredth of its deviation or so, and a probability to a thousandth.

    None where that would be a long number, and for a logarithmic scale, on which values differ by powers of ten.
    """
    if task.is_log:
        return None
    decimals = 3 if task.is_class else 2 - math.floor(math.log10(task.deviation) + 0.5)
    return max(0, decimals) if decimals <= 6 else None


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


def histogram_svg(
    histogram: Histogram,
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
    low, high = float(histogram.edges[start]), float(histogram.edges[stop])
    counts, edges = histogram.counts[start:stop], histogram.edges[start : stop + 1]
    along = math.log10 if histogram.log else float
    scale = (width - 2 * _SIDE) / (along(high) - along(low))
    peak = max(1, int(counts.max()))

    def x(number: float) -> float:
        return _SIDE + (along(min(max(number, low), high)) - along(low)) * scale

    bars = []
    for count, a, b in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if not count:
            continue
        # No bar is invisible: one molecule in a million still has half a pixel.
        tall = max(0.5, (foot - _TOP) * count / peak)
        words = f"{as_number(a)} to {as_number(b)} {unit}".strip()
        bars.append(
            f'<rect x="{_terse(x(a))}" y="{_terse(foot - tall)}" width="{_terse(x(b) - x(a) - 0.6)}" '
            f'height="{_terse(tall)}"><title>{as_html(words)}: {count:,}</title></rect>'
        )
    marks = "".join(f"M{_terse(x(n))} {foot + 2}v{_RUG}" for n in sorted(rug) if math.isfinite(n))
    positions = [(tick, _terse(x(tick))) for tick in (decades if histogram.log else ticks)(low, high)]
    lines = "".join(f"M{position} {foot + 1}v3" for _, position in positions) if not marks else ""
    labels = "".join(f'<text x="{position}" y="{height - 8}">{as_number(tick)}</text>' for tick, position in positions)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{as_html(title)}">'
        f'<g class="bar">{"".join(bars)}</g>'
        f'<path class="axis" d="M{_SIDE} {foot + 0.5}H{width - _SIDE}{lines}"/>'
        f'<path class="rug" d="{marks}"/><g class="tick">{labels}</g></svg>'
    )


def _shown_bins(histogram: Histogram) -> tuple[int, int]:
    """First bin and the one after the last: those with any molecule, one more on each side, `_MIN_BINS` at least."""
    filled = np.flatnonzero(histogram.counts)
    n = len(histogram.counts)
    start, stop = (max(0, filled[0] - 1), min(n, filled[-1] + 2)) if len(filled) else (0, n)
    missing = max(0, _MIN_BINS - (stop - start))
    start = max(0, min(start - missing // 2, n - _MIN_BINS))
    return int(start), int(max(stop, start + _MIN_BINS))


def _terse(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
