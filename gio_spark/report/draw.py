"""Draw with matplotlib: one look for all figures, for the page (SVG) and as files (PNG).

A figure in the page is inline SVG. Its text stays text and its neutral colours are the page's own
(CSS variables), so it is sharp in print and follows light and dark. Clouds of points are rasterised
inside it, which keeps the page small. No pyplot, so nothing global is left behind.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gio_spark.report.text import clean

# Told apart by people with any colour vision, on white and on dark; marks differ as well.
POOL = "#8a929c"
TARGET = "#d9661f"
SELECTION = "#2b87c4"
RANDOM = "#9467b0"
SERIES = (SELECTION, TARGET, RANDOM, "#3a9d78", "#c2527a", "#a08420", "#5b6fd0", POOL)

INK = "#0a0b0c"  # stand-ins that become CSS variables in the page
GRID = "#d1d2d3"
_VARIABLES = {INK: "var(--ink)", GRID: "var(--line)"}
_PRINTED = {INK: "#24292f", GRID: "#d8dce0"}
_PNG_DPI = 144

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "path.simplify": True,
    "figure.dpi": 100,
    "savefig.dpi": 100,
}


@dataclass(frozen=True)
class Drawn:
    """A finished figure: its name, what it shows in one sentence, as SVG and as PNG bytes."""

    name: str
    caption: str
    svg: str
    png: bytes


def draw(
    name: str,
    caption: str,
    paint: Callable[..., None],
    *,
    panels: int = 1,
    width: float = 5.2,
    height: float = 3.4,
) -> Drawn:
    """Draw one figure twice, for the page and as a file.

    Args:
        name: file name without ending.
        caption: what it shows, for readers who cannot see it.
        paint: draws on the axes it is given, as many as there are panels.
        panels: panels side by side, with shared scales.
        width: inches; the page shows 100 dots an inch.
        height: inches.

    Returns:
        Both pictures; equal input gives equal bytes (on one version of matplotlib and fonts).
    """
    salt = hashlib.sha256(name.encode()).hexdigest()[:8]
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        # names in scripts that the font lacks show as boxes in the PNG; that is no error
        warnings.simplefilter("ignore")
        svg_file, png_file = io.StringIO(), io.BytesIO()
        figure = _figure(paint, panels, width, height)
        FigureCanvasSVG(figure).print_svg(svg_file, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # all has its place: it need not be found a second time
        for artist in figure.findobj():
            _recolour(artist)
        figure.set_facecolor("white")
        figure.patch.set_alpha(1.0)  # a file is seen on whatever page it is put
        figure.set_dpi(_PNG_DPI)
        FigureCanvasAgg(figure).print_png(png_file, metadata={"Software": None})
    return Drawn(name, caption, _inline(svg_file.getvalue(), salt, caption), png_file.getvalue())


def _figure(paint: Callable[..., None], panels: int, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    grid = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    for axes in grid:
        axes.patch.set_alpha(0.0)
    paint(*grid)
    return figure


def _recolour(artist: Any) -> None:
    """Replace the page's stand-in colours by fixed ones for a white background."""
    for kind in ("color", "edgecolor", "facecolor"):
        getter, setter = (getattr(artist, f"{d}_{kind}", None) for d in ("get", "set"))
        if getter is None or setter is None:
            continue
        value = getter()
        if isinstance(value, str) and value.lower() in _PRINTED:
            setter(_PRINTED[value.lower()])
        elif isinstance(value, tuple) and len(value) == 4 and value[3] > 0:
            as_hex = mpl.colors.to_hex(value)
            if as_hex in _PRINTED:
                setter(_PRINTED[as_hex])


def _inline(svg: str, salt: str, caption: str) -> str:
    """Make a whole SVG file into an element of a page: own ids, page's colours, no metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="f{salt}-', svg)
    svg = svg.replace("url(#", f"url(#f{salt}-")
    svg = re.sub(r'(xlink:)?href="#', f'href="#f{salt}-', svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = svg.replace("'DejaVu Sans'", "var(--font)").replace('width="', 'data-width="', 1)
    svg = re.sub(r'<svg height="[^"]*"', "<svg", svg, count=1)
    svg = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{_attribute(caption)}"', 1)


def _attribute(text: str) -> str:
    swaps = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"))
    text = clean(text, 400)
    for plain, escaped in swaps:
        text = text.replace(plain, escaped)
    return text
