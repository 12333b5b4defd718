"""A molecule as a small SVG that takes its colours from the page.

RDKit writes one path for each half bond and each letter, 20 kB for a drug. Here paths of one colour and width become
one path, a fifth of that, and colours become CSS classes (`.e-n`, `.e-o` ...; `.stroke`, `.fill`), so that the page can
change them in dark mode.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import DeviceError, error_text
from .molecules import parse_smiles

WIDTH, HEIGHT = 150, 96  # pixels
DISC = 0.42  # radius of the disc round an atom, in bonds
MORE, LESS = (47, 111, 222), (230, 126, 34)  # blue and orange, which colour-blind eyes tell apart
STYLE = (  # of a drawing without a page
    "<style>.weights .stroke{stroke:#222;fill:none;stroke-width:1.3}.weights .fill{fill:#222}"
    f".weights .more{{fill:rgb{MORE}}}.weights .less{{fill:rgb{LESS}}}"
    ".weights circle{fill-opacity:.75}</style>"
    '<rect width="100%" height="100%" fill="#fff"/>'
)
BOND, LARGE_BOND = 17, 30  # pixels; a molecule that does not fit is drawn smaller
# Class -> atomic numbers; what is not listed is drawn like carbon.
ELEMENTS = {"n": (7,), "o": (8,), "s": (16,), "p": (15,), "h": (9, 17), "b": (35, 53)}
_NO_LAYOUT = "RDKit cannot lay out this molecule"
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
    drawing = _render(molecule, (WIDTH, HEIGHT), BOND)
    return None if drawing is None else _as_svg(drawing.paths, (WIDTH, HEIGHT))


def draw_weights(molecule: Any, weights: Sequence[float], size: tuple[int, int], styled: bool = False) -> str:
    """`<svg class="molecule weights" ...>` with a disc behind each atom, of class `more` or `less` by the sign.

    The largest weight, up or down, has the full colour, others have less of it.
    molecule: `rdkit.Chem.Mol`. weights: one for each atom. size: in pixels.
    styled: with colours of its own, for a file or a notebook; otherwise they come from the page.
    Raises `DeviceError` when nothing can be drawn.
    """
    drawing = _render(molecule, size, LARGE_BOND)
    if drawing is None:
        raise DeviceError(drawing_problem() or _NO_LAYOUT)
    largest = max(map(abs, weights), default=0.0) or 1.0
    discs = "".join(
        f'<circle class="{"more" if weight > 0 else "less"}" cx="{x:.1f}" cy="{y:.1f}" r="{drawing.radius:.1f}" '
        f'opacity="{abs(weight) / largest:.2f}"/>'
        for weight, (x, y) in zip(weights, drawing.positions, strict=True)
        if abs(weight) >= 0.01 * largest
    )
    label = "structure with contributions of atoms"
    svg = _as_svg(f"{STYLE * styled}{discs}{drawing.paths}", size, "molecule weights", label)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) if styled else svg


def draw_weights_png(molecule: Any, weights: Sequence[float], size: tuple[int, int]) -> bytes:
    """The same picture as a PNG, on white. Raises `DeviceError` when nothing can be drawn."""
    if drawing_problem():
        raise DeviceError(drawing_problem())
    from rdkit.Chem.Draw import rdMolDraw2D

    largest = max(map(abs, weights), default=0.0) or 1.0
    shares = [weight / largest for weight in weights]
    colours = {i: _tint(share) for i, share in enumerate(shares) if abs(share) >= 0.01}
    drawer = rdMolDraw2D.MolDraw2DCairo(*size)
    options: Any = drawer.drawOptions()
    options.useBWAtomPalette()
    options.includeMetadata = False  # a mol block, which RDKit cannot write of every molecule
    options.highlightRadius, options.fillHighlights = DISC, True
    discs = {"highlightAtoms": list(colours), "highlightAtomColors": colours, "highlightBonds": []}
    if not _draw_on(drawer, molecule, discs):
        raise DeviceError(_NO_LAYOUT)
    return drawer.GetDrawingText()


def _tint(share: float) -> tuple[float, float, float]:
    """The colour of a disc on white, for a share of -1 to 1 of the largest weight."""
    red, green, blue = MORE if share > 0 else LESS
    return tuple(1 - abs(share) * (1 - part / 255) for part in (red, green, blue))  # type: ignore[return-value]


class _Drawing(NamedTuple):
    """paths: of bonds and letters, as SVG. positions: of the atoms, in pixels. radius: of a disc round one."""

    paths: str
    positions: list[tuple[float, float]]
    radius: float


def _render(molecule: Any, size: tuple[int, int], bond: float) -> _Drawing | None:
    """None where RDKit cannot draw it."""
    if drawing_problem():
        return None
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DSVG(*size)
    _set_options(drawer.drawOptions(), bond)
    if not _draw_on(drawer, molecule, {}):
        return None
    points = [drawer.GetDrawCoords(i) for i in range(molecule.GetNumAtoms())]
    positions = [(point.x, point.y) for point in points]
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    lengths = [math.dist(positions[a], positions[b]) for a, b in ends]
    radius = DISC * sorted(lengths)[len(lengths) // 2] if lengths else DISC * bond
    return _Drawing(_shrink(drawer.GetDrawingText()), positions, radius)


def _draw_on(drawer: Any, molecule: Any, discs: dict[str, Any]) -> bool:
    """Draw, and finish; False for a molecule that RDKit reads, but cannot lay out."""
    from rdkit import rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    try:
        with rdBase.BlockLogs():
            rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule, **discs)
    except (ValueError, RuntimeError):
        return False
    drawer.FinishDrawing()
    return True


def _as_svg(content: str, size: tuple[int, int], css_class: str = "molecule", label: str = "structure") -> str:
    width, height = size
    return (
        f'<svg class="{css_class}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{content}</svg>'
    )


@functools.cache
def drawing_problem() -> str:
    """Why RDKit cannot draw here, in one line; empty when it can. Small systems lack libraries of X11 that it loads."""
    try:
        from rdkit.Chem.Draw import rdMolDraw2D  # noqa: F401
    except ImportError as error:
        return f"structures are not drawn: {error_text(error)}; on Debian and Ubuntu: apt install libxrender1 libxext6"
    return ""


def _set_options(options: Any, bond: float) -> None:
    options.clearBackground = False
    options.fixedBondLength = bond
    options.bondLineWidth = 1.3
    options.scaleBondWidth = False
    options.minFontSize = 7
    options.padding = 0.04
    # Colours that `_shrink` turns into classes.
    placeholders = {z: (0, 0, i / 255) for i, numbers in enumerate(ELEMENTS.values(), 1) for z in numbers}
    options.setAtomPalette({-1: (0, 0, 0), **placeholders})


def _shrink(svg: str) -> str:
    """The paths of a picture, one for each class and line width."""
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
    return "".join(
        f'<path class="{css_class}"{f""" stroke-width="{width}" """.rstrip() if width else ""} d="{"".join(d)}"/>'
        for (css_class, width), d in shapes.items()
    )


def _terse(shape: str) -> str:
    """SVG path data without what is redundant: `M 1.0,2.5 L 3.0,4.0` -> `M1 2.5L3 4`."""
    shape = re.sub(r"\.0\b", "", shape.replace(",", " "))
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(shape.split()))
