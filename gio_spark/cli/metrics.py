"""`gio-spark metrics`: the information metrics of a run's workspace, or of any table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.markup import escape
from rich.table import Table

from gio_spark.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from rich.console import Console

    from gio_spark.report.run_tables import TableText

MOST_COLUMNS = 6


def parse_columns(words: list[str] | None) -> dict[str, Any]:
    """Read `text=body,tokens=n,numeric=age,hours` to role -> column, or columns.

    A word without an equals sign is one more column of the role before it.

    Raises:
        ConfigError: A word cannot be read, or a role is given twice.
    """
    found: dict[str, list[str]] = {}
    role = ""
    for word in (w.strip() for text in words or () for w in text.split(",")):
        name, equals, column = word.partition("=")
        if equals:
            role = name.strip()
            if role in found and role not in ("numeric", "categorical"):
                raise ConfigError(f"--columns gives the role {role!r} twice.")
        else:
            column = word
        if not role or not column.strip():
            raise ConfigError(
                f"Cannot read {word!r} in --columns: write role=column, such as text=body,tokens=n."
            )
        found.setdefault(role, []).append(column.strip())
    several = ("numeric", "categorical", "chat_roles")
    for name, columns in found.items():
        if len(columns) > 1 and name not in several:
            raise ConfigError(f"The role {name!r} takes one column, not {', '.join(columns)}.")
    return {r: tuple(c) if r in several else c[0] for r, c in found.items()}


def gime_settings(by: list[str] | None, profile: str | None, words: list[str] | None) -> Any:
    """Settings of metrics from options and `gime.key=value` (or `key=value`) words.

    Modules that `modules=[...]` names are imported first.

    Raises:
        ConfigError: A word is no setting of the metrics.
    """
    from pydantic import ValidationError

    from gio_spark.registry import load_modules
    from gio_spark.settings.gime import GimeSettings

    given: dict[str, Any] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"Cannot read {word!r}: write key=value, such as gime.tau=0.7.")
        given[key.strip().removeprefix("gime.")] = yaml.safe_load(value)
    modules = given.pop("modules", ())
    load_modules([modules] if isinstance(modules, str) else modules)
    groups = [g.strip() for text in by or () for g in text.split(",") if g.strip()]
    if groups:
        given["by"] = tuple(groups)
    if profile is not None:
        given["profile"] = profile
    try:
        return GimeSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(GimeSettings.model_fields)
        raise ConfigError(f"gime.{name}: {first['msg']}. Settings are: {known}.") from None


def metrics_of_table(
    out: Console,
    location: str,
    words: list[str] | None,
    *,
    by: list[str] | None,
    profile: str | None,
    columns: list[str] | None,
    target: str | None,
    clusters: int | None,
    workspace: str | None,
    folder: Path,
    track: bool,
    engine: str,
    forms: bool,
) -> None:
    """Measure a table, print its metrics and write its page."""
    from gio_spark.cli.options import start_session
    from gio_spark.pipeline.commands.table_metrics import measure_table
    from gio_spark.report.metrics_page import render_metrics
    from gio_spark.settings.inputs import InputSettings
    from gio_spark.settings.tracking import TrackingSettings
    from gio_spark.tables import Workspace

    settings = gime_settings(by, profile, words)
    roles = parse_columns(columns)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot write to {folder}: {error.strerror}.") from error
    spark = start_session(engine)
    found = measure_table(
        spark,
        InputSettings(location=location),
        settings=settings,
        columns=roles,
        target=None if target is None else InputSettings(location=target),
        clusters=clusters,
        workspace=None if workspace is None else Workspace(spark, workspace),
        tracking=TrackingSettings(enabled=True) if track else None,
        folder=folder / "tracking",
    )
    page = render_metrics(
        found.figures,
        folder,
        title=f"Information metrics of {Path(location).name}",
        facts=found.facts,
    )
    print_metrics(out, found.figures, forms=forms)
    if found.skipped:
        out.print("Nothing was left to do: the workspace held these metrics.")
    for name, where in found.tables.items():
        out.print(f"{name}: {where}", markup=False)
    out.print(f"page: {page}", markup=False)
    if found.problem:
        out.print(f"tracking: {found.problem}", markup=False)


def metrics_of_run(
    out: Console,
    config: Path,
    words: list[str] | None,
    *,
    by: list[str] | None,
    profile: str | None,
    engine: str | None,
    forms: bool,
    only_tables: Mapping[str, Any],
) -> None:
    """Run a configuration up to its metrics, print them and write their page."""
    from gio_spark.cli.options import load_settings
    from gio_spark.pipeline import run
    from gio_spark.pipeline.stages.measure import metrics_of, metrics_page

    for name, value in only_tables.items():
        if value is not None:
            raise ConfigError(
                f"{name} is for a table; a configuration names its own columns, target, clusters "
                "and workspace."
            )
    given = list(words or [])
    if by:
        given.append(f"gime.by=[{', '.join(by)}]")
    if profile:
        given.append(f"gime.profile={profile}")
    settings = load_settings(config, given, engine)
    curation = run(settings, until="metrics")
    figures = metrics_of(settings, curation.run_id)
    print_metrics(out, figures, forms=forms)
    out.print(f"page: {metrics_page(settings, curation.run_id, figures)}", markup=False)


def print_metrics(out: Console, figures: pd.DataFrame, *, forms: bool = False) -> None:
    """Print metrics by group: robust forms, or all; as many groups as the terminal is wide."""
    from gio_spark.report.metrics_page import metric_table

    most = max(3, min(MOST_COLUMNS, (out.width - 47) // 11))
    print_text_table(out, metric_table(figures, most))
    if forms:
        other = figures[figures["form"] != "robust"]
        for form, part in other.groupby("form", sort=False):
            shown = metric_table(part.assign(form="robust"), most)
            print_text_table(out, replace(shown, title=f"Form: {form}"))


def print_text_table(out: Console, shown: TableText, columns: Sequence[str] = ()) -> None:
    """Print a table of a page, or some of its columns."""
    kept = [i for i, name in enumerate(shown.columns) if not columns or name in columns]
    table = Table(
        title=escape(shown.title), title_justify="left", box=None, pad_edge=False,
        title_style="bold",
    )  # fmt: skip
    longest = max((len(row[kept[0]]) for row in shown.rows), default=0) if kept else 0
    for i in kept:
        table.add_column(
            escape(shown.columns[i]), justify="right" if shown.numeric[i] else "left",
            no_wrap=i > 0, min_width=min(28, max(13, longest)) if i == 0 else None, overflow="fold",
        )  # fmt: skip
    for row in shown.rows:
        table.add_row(*(escape(row[i].replace(" + ", " +\n")) for i in kept))
    out.print(table)
    if shown.note and not columns:
        out.print(shown.note, markup=False)
