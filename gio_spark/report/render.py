"""Write a run's report: one HTML file that needs nothing else, its figures as PNG, the plan as CSV.

The page asks for nothing over the network and has no script; a content security policy in it says
so to the browser as well. All user data passes `clean` and the template's escaping.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gio_spark.report import words
from gio_spark.report.data import ReportData
from gio_spark.report.draw import Drawn
from gio_spark.report.figures import figures
from gio_spark.report.tables import examples, tables
from gio_spark.report.text import clean, place

PAGE = "report.html"
MAX_CAUTIONS = 30


def render(data: ReportData, folder: Path) -> Path:
    """Write the report into a folder, made if need be.

    Args:
        data: what to show.
        folder: local folder; `report.html`, `plan.csv` and one PNG per figure are replaced there.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures(data)
    save_figures(drawn, folder)
    if len(data.plan):
        write(folder / "plan.csv", data.plan.to_csv(index=False).encode())
    links = [(clean(k, 80), place(v, 300)) for k, v in {**data.links, **data.extra}.items()]
    return save_page(
        folder / PAGE,
        "run.html",
        title=clean(data.title, 120),
        run=[
            ("run", clean(data.run_id, 80)),
            ("engine", clean(data.engine, 200).removeprefix("engine: ")),
            ("started (UTC)", clean(data.started, 40)),
            ("finished (UTC)", clean(data.finished, 40)),
            ("objective", _named(data.objective)),
            ("within a cluster", _named(data.within_cluster)),
            *links,
        ],
        summary=words.summary(data),
        cautions=[
            (clean(c.name, 80), clean(c.text, 600), clean(c.action, 400))
            for c in data.cautions[:MAX_CAUTIONS]
        ],
        more_cautions=max(0, len(data.cautions) - MAX_CAUTIONS),
        tiles=words.tiles(data),
        constraints=[clean(c, 300) for c in data.constraints[:30]],
        figures=inline(drawn),
        examples=examples(data),
        tables=tables(data),
    )


def _named(setting: str) -> str:
    """Name of a rule as words."""
    return clean(setting, 80).replace("_", " ").replace(" kl", " KL")


def inline(drawn: list[Drawn]) -> list[dict[str, Any]]:
    """Figures as the template takes them; the SVG is ours and needs no escaping."""
    return [
        {"name": d.name, "caption": d.caption, "svg": Markup(d.svg)}  # noqa: S704
        for d in drawn
    ]


def save_figures(drawn: list[Drawn], folder: Path) -> None:
    """Write each figure as a PNG file beside the page."""
    for figure in drawn:
        write(folder / f"{figure.name}.png", figure.png)


def save_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template of this package and write it."""
    environment = Environment(
        loader=PackageLoader("gio_spark.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    write(path, page.encode("utf-8", errors="replace"))
    return path


def write(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all, so that a reader never meets half a page."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
