"""A molecule as a small SVG that takes its colours from the page.

RDKit writes one path for each half bond and each letter, 20 kB for a drug. Here paths of one colour and width become
one path, a fifth of that, and colours become CSS classes (`.e-n`, `.e-o` ...; `.stroke`, `.fill`), so that the page can
change them in dark mode.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from ..errors import error_text
from .molecules import parse_smiles

WIDTH, HEIGHT = 150, 96  # pixels
BOND = 17  # pixels; a molecule that does not fit is drawn smaller
# Class -> atomic numbers; what is not listed is drawn like carbon.
ELEMENTS = {"n": (7,), "o": (8,), "s": (16,), "p": (15,), "h": (9, 17), "b": (35, 53)}
_PATH = re.compile(r"<path\b([^>]*?)/>")
_SHAPE = re.compile(r"\bd='([^']*)'")
_STROKE = re.compile(r"fill:none;.*?stroke:(#\w{6});stroke-width:([\d.]+)px")
_FILL = re.compile(r"fill[:=]'?(#\w{6})")


def draw(smiles: str) -> str | None:
    """`<svg class="molecule" ...>` of a SMILES, on one line and the same for the same text; None if it cannot be read
    or `drawing_problem` says why nothing can be drawn.

    The text itself is not in the drawing.
    """
    molecule = parse_smiles(smiles).mol
    if molecule is None or drawing_problem():
        return None
    from rdkit import rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    _set_options(drawer.drawOptions())
    try:
        with rdBase.BlockLogs():
            rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule)
    except (ValueError, RuntimeError):  # a molecule that RDKit reads but cannot lay out
        return None
    drawer.FinishDrawing()
    return _shrink(drawer.GetDrawingText())


@functools.cache
def drawing_problem() -> str:
    """Why RDKit cannot draw here, in one line; empty when it can. Small systems lack libraries of X11 that it loads."""
    try:
        from rdkit.Chem.Draw import rdMolDraw2D  # noqa: F401
    except ImportError as error:
        return f"structures are not drawn: {error_text(error)}; on Debian and Ubuntu: apt install libxrender1 libxext6"
    return ""


def _set_options(options: Any) -> None:
    options.clearBackground = False
    options.fixedBondLength = BOND
    options.bondLineWidth = 1.3
    options.scaleBondWidth = False
    options.minFontSize = 7
    options.padding = 0.04
    # Colours that `_shrink` turns into classes.
    placeholders = {z: (0, 0, i / 255) for i, numbers in enumerate(ELEMENTS.values(), 1) for z in numbers}
    options.setAtomPalette({-1: (0, 0, 0), **placeholders})


def _shrink(svg: str) -> str:
    """The same picture with one path for each class and line width."""
    names = {f"#0000{i:02X}": f"e-{name}" for i, name in enumerate(ELEMENTS, 1)}
    shapes: dict[tuple[str, str], list[str]] = {}
    for path in _PATH.finditer(svg):
        shape, stroke, fill = (pattern.search(path[1]) for pattern in (_SHAPE, _STROKE, _FILL))
        if shape is None or (stroke is None and fill is None):
            continue
        colour = stroke[1] if stroke is not None else fill[1] if fill is not None else ""
        css_class = " ".join(filter(None, [names.get(colour.upper()), "fill" if stroke is None else "stroke"]))
        width = stroke[2].removesuffix(".0") if stroke is not None and stroke[2] != "1.3" else ""
        shapes.setdefault((css_class, width), []).append(_terse(shape[1]))
    paths = "".join(
        f'<path class="{css_class}"{f""" stroke-width="{width}" """.rstrip() if width else ""} d="{"".join(d)}"/>'
        for (css_class, width), d in shapes.items()
    )
    return (
        f'<svg class="molecule" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="structure">{paths}</svg>'
    )


def _terse(shape: str) -> str:
    """SVG path data without what is redundant: `M 1.0,2.5 L 3.0,4.0` -> `M1 2.5L3 4`."""
    shape = re.sub(r"\.0\b", "", shape.replace(",", " "))
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(shape.split()))
