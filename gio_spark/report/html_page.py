"""HTML pages: the self-contained page of a run with its plots as PNG and its plan as CSV.

A page loads nothing over the network and has no script; its content security policy enforces this
in the browser. All user data passes `clean_text` and the escaping of the templates.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from gio_spark.report import run_summary
from gio_spark.report.plot_rendering import Plot
from gio_spark.report.report_data import ReportData
from gio_spark.report.run_plots import run_plots
from gio_spark.report.run_tables import cluster_examples, run_tables
from gio_spark.report.text_format import clean_text, location_text

PAGE = "report.html"
MAX_WARNINGS = 30


def render(data: ReportData, folder: Path, *, with_plots: bool = True) -> Path:
    """Write the report of a run into a folder.

    Args:
        data: Data of the report.
        folder: Local folder, created if missing; `report.html`, `plan.csv` and one PNG per plot are
            replaced.
        with_plots: Whether plots are drawn.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = run_plots(data) if with_plots else []
    save_plots(plots, folder)
    if len(data.plan):
        write_file(folder / "plan.csv", data.plan.to_csv(index=False).encode())
    links = [
        (clean_text(name, 80), location_text(location, 300))
        for name, location in {**data.links, **data.extra}.items()
    ]
    return save_page(
        folder / PAGE,
        "run.html",
        title=clean_text(data.title, 120),
        run=[
            ("run", clean_text(data.run_id, 80)),
            ("engine", clean_text(data.engine, 200).removeprefix("engine: ")),
            ("started (UTC)", clean_text(data.started, 40)),
            ("finished (UTC)", clean_text(data.finished, 40)),
            ("objective", _rule_name(data.objective)),
            ("within a cluster", _rule_name(data.within_cluster)),
            ("strategy", clean_text(data.strategy, 600)),
            *links,
        ],
        summary=run_summary.summary(data),
        warnings=[
            (
                clean_text(warning.name, 80),
                clean_text(warning.text, 600),
                clean_text(warning.action, 400),
            )
            for warning in data.warnings[:MAX_WARNINGS]
        ],
        more_warnings=max(0, len(data.warnings) - MAX_WARNINGS),
        tiles=run_summary.tiles(data),
        constraints=[clean_text(warning, 300) for warning in data.constraints[:30]],
        plots=inline_plots(plots),
        examples=cluster_examples(data),
        tables=run_tables(data),
    )


def _rule_name(setting: str) -> str:
    """Name of a rule with spaces between words."""
    return clean_text(setting, 80).replace("_", " ").replace(" kl", " KL")


def inline_plots(plots: list[Plot]) -> list[dict[str, Any]]:
    """Plots in the form of the templates; the SVG is trusted and not escaped."""
    return [
        {"name": plot.name, "caption": plot.caption, "svg": Markup(plot.svg)}  # noqa: S704
        for plot in plots
    ]


def save_plots(plots: list[Plot], folder: Path) -> None:
    """Write each plot as a PNG file into the folder of the page."""
    for plot in plots:
        write_file(folder / f"{plot.name}.png", plot.png)


def save_page(path: Path, template: str, **values: Any) -> Path:
    """Write a template of this package with its values."""
    environment = Environment(
        loader=PackageLoader("gio_spark.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    write_file(path, page.encode("utf-8", errors="replace"))
    return path


def write_file(path: Path, content: bytes) -> None:
    """Replace a file atomically, so that a reader never sees an incomplete page."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
