"""One self-contained page about answers: each row's molecules drawn, its answers, their probabilities and checks.

The page needs no network, no other file and no script. Every text is escaped where it is inserted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..chem.drawing import draw, drawing_problem
from ..machine.files import replacing
from ..reports.page import as_html, facts, page
from ..status import OK, StatusCounts, counted
from .stream import Answered

MAX_ROWS = 200  # drawn; the table of answers has all
MAX_DRAWN = 8  # molecules of one side of a reaction
_OWN_STYLE = """
.answers td { vertical-align: middle; }
.side { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 8px; }
.side code { max-width: 30em; overflow-wrap: anywhere; color: var(--soft); }
.arrow { font-size: 22px; color: var(--soft); }
.no { color: var(--rust); font-weight: 600; }
"""


class AnswersReport:
    """The page, once it is written. path: None for no page."""

    def __init__(self, path: Path | None):
        self.path = path
        self._rows: list[Answered] = []

    def add(self, rows: Sequence[Answered]) -> None:
        """Take the next rows of the table, of which the first `MAX_ROWS` are drawn."""
        self._rows += rows[: MAX_ROWS - len(self._rows)]

    def write(self, metadata: Mapping[str, str], summary: StatusCounts) -> None:
        """Write the page, whole or not at all. Raises `OutputError`.

        metadata: label -> text (pack, input ...). summary: of the whole table.
        """
        if self.path is None:
            return
        shown, n_rows = self._rows, summary.n_rows
        note = f"{counted(n_rows, 'row')}, {summary.n_ok:,} ok"
        note += f"; the first {len(shown)} are shown" if n_rows > len(shown) else ""
        if problem := drawing_problem():
            note += f"; {problem}"
        lines = "".join(_lines(number, row) for number, row in enumerate(shown, 1))
        body = (
            f'<header><div><p class="brand">mora-lite</p><h1>Answers</h1></div></header>{facts(metadata)}'
            f'<section><p class="note">{as_html(note)}</p><div class="scroll"><table class="answers">'
            f"<thead><tr>{_HEADS}</tr></thead>"
            f"<tbody>{lines}</tbody></table></div></section>\n"
        )
        with replacing(self.path) as file:
            file.write(page("Answers", body, style=_OWN_STYLE))


_HEADS = "".join(
    f'<th scope="col"{css}>{name}</th>'
    for name, css in (
        ("Row", ' class="num"'),
        ("Question", ""),
        ("", ""),
        ("Answer", ""),
        ("Probability", ' class="num"'),
        ("Checks", ""),
    )
)


def _lines(number: int, row: Answered) -> str:
    """The lines of a row: one for each answer, or one that says why there is none."""
    n = max(len(row.answers), 1)
    asked = f"<small>{as_html(row.question)}</small>" if row.question else ""
    head = f'<td class="num" rowspan="{n}">{number}</td><td rowspan="{n}">{_molecules(row.source)}{asked}</td>'
    if not row.answers:
        reason = row.error if row.status != OK else ""
        return f'<tr>{head}<td></td><td colspan="3"><code>{as_html(row.status)}</code> {as_html(reason)}</td></tr>'
    arrow = '<td class="arrow">\N{RIGHTWARDS DOUBLE ARROW}</td>' if row.direction == "retro" else _ARROW
    lines = []
    for i, (answer, probability) in enumerate(zip(row.answers, row.probabilities, strict=True)):
        found = _molecules(answer) if row.direction else as_html(answer)
        checks = "<br>".join(_words(name, values[i]) for name, values in row.checks.items())
        if i == 0 and row.agreement is not None:
            checks += f"<br>agreement {row.agreement:.0%}"
        tail = f'{arrow}<td>{found}</td><td class="num">{probability:.3f}</td><td>{checks}</td>'
        lines.append(f"<tr>{head if i == 0 else ''}{tail}</tr>")
    return "".join(lines)


_ARROW = '<td class="arrow">\N{RIGHTWARDS ARROW}</td>'


def _words(name: str, value: bool) -> str:
    word = name.replace("_", " ")
    return word if value else f'<span class="no">not {word}</span>'


def _molecules(smiles: str) -> str:
    """A set of molecules side by side; those that cannot be drawn, and those beyond `MAX_DRAWN`, as SMILES."""
    parts = smiles.split(".") if smiles else []
    drawn = [draw(part) or f"<code>{as_html(part)}</code>" for part in parts[:MAX_DRAWN]]
    drawn += [f"<code>{as_html('.'.join(parts[MAX_DRAWN:]))}</code>"] if len(parts) > MAX_DRAWN else []
    return f'<div class="side" title="{as_html(smiles)}">{"<span>+</span>".join(drawn)}</div>'
