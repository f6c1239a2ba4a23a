"""Rendering of plots with matplotlib in one style, as inline SVG for the page and as PNG files.

In the SVG, text stays text and neutral colors are CSS variables of the page, so that plots are
sharp in print and follow light and dark mode. Point clouds are rasterized, which keeps the page
small. Without pyplot, no global state of matplotlib changes.
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

from gio_spark.report.text_format import clean_text

# Distinct for all kinds of color vision, on white and on dark; markers differ as well.
POOL = "#8a929c"
TARGET = "#d9661f"
SELECTION = "#2b87c4"
RANDOM = "#9467b0"
SERIES = (SELECTION, TARGET, RANDOM, "#3a9d78", "#c2527a", "#a08420", "#5b6fd0", POOL)

INK = "#0a0b0c"  # stand-ins that become CSS variables in the page
GRID = "#d1d2d3"
_CSS_VARIABLES = {INK: "var(--ink)", GRID: "var(--line)"}
_PNG_COLORS = {INK: "#24292f", GRID: "#d8dce0"}
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
class Plot:
    """Rendered plot: its name, its caption of one sentence, inline SVG and PNG bytes."""

    name: str
    caption: str
    svg: str
    png: bytes


def render_plot(
    name: str,
    caption: str,
    paint: Callable[..., None],
    *,
    panels: int = 1,
    width: float = 5.2,
    height: float = 3.4,
) -> Plot:
    """Plot as inline SVG and as PNG.

    Args:
        name: File name without suffix.
        caption: Description, which also serves readers who cannot see the plot.
        paint: Function that draws on its axes arguments, one per panel.
        panels: Number of panels side by side, with shared scales.
        width: Width in inches; the page shows 100 dots per inch.
        height: Height in inches.

    Returns:
        Plot; equal input gives equal bytes with the same versions of matplotlib and fonts.
    """
    salt = hashlib.sha256(name.encode()).hexdigest()[:8]
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        # Characters that the font lacks are boxes in the PNG, which matplotlib warns about.
        warnings.simplefilter("ignore")
        svg_file, png_file = io.StringIO(), io.BytesIO()
        figure = _paint_figure(paint, panels, width, height)
        FigureCanvasSVG(figure).print_svg(svg_file, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # keep the layout of the SVG
        for artist in figure.findobj():
            _recolor(artist)
        figure.set_facecolor("white")
        figure.patch.set_alpha(1.0)  # a PNG file must be opaque
        figure.set_dpi(_PNG_DPI)
        FigureCanvasAgg(figure).print_png(png_file, metadata={"Software": None})
    return Plot(name, caption, _inline_svg(svg_file.getvalue(), salt, caption), png_file.getvalue())


def _paint_figure(paint: Callable[..., None], panels: int, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    grid = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    for axes in grid:
        axes.patch.set_alpha(0.0)
    paint(*grid)
    return figure


def _recolor(artist: Any) -> None:
    """Replace the placeholder colors of the page by fixed colors for a white background."""
    for attribute in ("color", "edgecolor", "facecolor"):
        getter, setter = (
            getattr(artist, f"{prefix}_{attribute}", None) for prefix in ("get", "set")
        )
        if getter is None or setter is None:
            continue
        value = getter()
        if isinstance(value, str) and value.lower() in _PNG_COLORS:
            setter(_PNG_COLORS[value.lower()])
        elif isinstance(value, tuple) and len(value) == 4 and value[3] > 0:
            as_hex = mpl.colors.to_hex(value)
            if as_hex in _PNG_COLORS:
                setter(_PNG_COLORS[as_hex])


def _inline_svg(svg: str, salt: str, caption: str) -> str:
    """SVG element for a page: unique ids, CSS variables as colors, no metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="f{salt}-', svg)
    svg = svg.replace("url(#", f"url(#f{salt}-")
    svg = re.sub(r'(xlink:)?href="#', f'href="#f{salt}-', svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    for stand_in, variable in _CSS_VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = svg.replace("'DejaVu Sans'", "var(--font)").replace('width="', 'data-width="', 1)
    svg = re.sub(r'<svg height="[^"]*"', "<svg", svg, count=1)
    svg = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{_attribute(caption)}"', 1)


def _attribute(text: str) -> str:
    replacements = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"))
    text = clean_text(text, 400)
    for plain, escaped in replacements:
        text = text.replace(plain, escaped)
    return text
