"""The frame and the style of a page of results, and numbers as people read them.

A page is one file that asks for nothing: its style is inside, and it forbids all scripts but its own (by its hash).
Names and SMILES are untrusted: whoever makes a page passes every text through `as_html`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Mapping
from importlib import resources

from ..scoring.tasks import Task

_LONG_TEXT = 40  # characters; a longer text gets a line to itself
# Control characters, and surrogates, which stand for bytes that are not UTF-8.
_NO_TEXT = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(9), *range(11, 32), 127, *range(0xD800, 0xE000))}


def page(title: str, body: str, *, style: str = "", script: str = "") -> bytes:
    """The whole page, in UTF-8; its bytes depend on nothing but the arguments.

    body: what is in `<main>`. style: rules beside those of `report_style`. script: JavaScript, of the program's own.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = hashlib.sha256(script.encode()).digest()
        policy += f"; script-src 'sha256-{base64.b64encode(digest).decode()}'"
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{as_html(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{report_style()}{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        f"{f'<script>{script}</script>' if script else ''}</body>\n</html>\n"
    )
    return text.encode("utf-8", "replace")


def report_style() -> str:
    """The style sheet of all reports."""
    return resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def facts(metadata: Mapping[str, str]) -> str:
    """A list of labels and texts, in their order (pack, input, machine, command ...)."""
    return f'<dl class="facts">{"".join(_labelled(label, text) for label, text in metadata.items())}</dl>'


def _labelled(label: str, text: str) -> str:
    wide, code = len(text) > _LONG_TEXT, label.lower() == "command"
    classes = " ".join(["wide"] * wide + ["code"] * code)
    return f'<div class="{classes}"><dt>{as_html(label)}</dt><dd>{as_html(text)}</dd></div>'


def tiles(content: Iterable[tuple[str, str, str]]) -> str:
    """Large figures: what each is, the figure, and words below it."""
    return "".join(
        f'<div class="tile"><h3>{name}</h3><p class="figure">{figure}</p><p>{words}</p></div>'
        for name, figure, words in (map(as_html, texts) for texts in content)
    )


def as_html(text: object) -> str:
    """Text for HTML, safe also inside a quoted attribute."""
    return html.escape(str(text).translate(_NO_TEXT), quote=True)


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
