"""`gio-spark explain`, `diff` and `runs`: why rows were selected, what two selections differ in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gio_spark.cli.options import (
    Config,
    EngineOption,
    Overrides,
    clear_errors,
    load_settings,
    out,
)
from gio_spark.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.pipeline.commands.diff_selections import SelectionDiff
    from gio_spark.pipeline.commands.explain_rows import Explanation

# Rows that are printed in full, and lines of a table for a terminal.
_IN_FULL = 5
_MOST_LINES = 50
_MOST_GROUPS = 15

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
OutputOption = Annotated[
    str | None, typer.Option(help="Folder that the results are written to; it must be new.")
]
FormatOption = Annotated[str, typer.Option("--format", help="Of written rows: parquet or csv.")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command()(explain)
    app.command()(diff)
    app.command()(runs)


def explain(
    config: Config,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ROW_ID", help="Ids of rows of the pool.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Table or file with a column `id`, instead of ids.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="Run; none: the newest of these settings.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Setting that overrides the file: budget=0.2")
    ] = None,
    output: OutputOption = None,
    file_format: FormatOption = "parquet",
    as_json: JsonOption = False,
    engine: EngineOption = None,
) -> None:
    """Say of rows of the pool whether they are selected, and by which rule."""
    with clear_errors():
        settings = load_settings(config, changes, engine)
        from gio_spark.pipeline.commands.explain_rows import explain_rows, explain_table

        if (table is None) == (not ids):
            raise ConfigError("Give ids of rows, or --table with a column `id`.")
        if table is not None:
            explanation = explain_table(
                settings, table, output=output, file_format=file_format, run_id=run_id
            )
        elif output is not None:
            raise ConfigError("--output is for --table; of single ids use --json.")
        else:
            explanation = explain_rows(settings, ids or [], run_id=run_id)
        if as_json:
            print_json(explanation.plain())
        else:
            print_explanation(out, explanation)


def diff(
    config: Config,
    a: Annotated[str, typer.Argument(metavar="A", help="Run, NAME@3, or number of a publish.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What A is compared with.")],
    overrides: Overrides = None,
    output: OutputOption = None,
    file_format: FormatOption = "parquet",
    as_json: JsonOption = False,
    engine: EngineOption = None,
) -> None:
    """Compare two selections: rows in and out, by cluster and source, and means of columns."""
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.pipeline.commands.diff_selections import diff_selections

        difference = diff_selections(settings, a, b, output=output, file_format=file_format)
        if as_json:
            print_json(difference.plain())
        else:
            print_diff(out, difference)


def runs(
    place: Annotated[
        str, typer.Argument(metavar="WORKSPACE", help="Workspace, or the YAML file of a run.")
    ],
    engine: EngineOption = None,
) -> None:
    """List the finished runs of a workspace, as `show` does."""
    with clear_errors():
        from gio_spark.cli.show import print_runs
        from gio_spark.engine import session
        from gio_spark.pipeline.commands.run_history import history

        if place.endswith((".yml", ".yaml")):
            settings = load_settings(Path(place), None, engine)
            place, engine = settings.workspace, settings.engine
        print_runs(out, history(session(engine or "auto"), place))  # type: ignore[arg-type]


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout; a number that JSON lacks is null."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    is_infinite = isinstance(value, float) and value - value != 0
    return None if is_infinite else value


def print_explanation(console: Console, explanation: Explanation) -> None:
    """Print why rows are in or out: few in full, more as a table with a bounded number of lines."""
    from gio_spark.cli.show import text_table
    from gio_spark.report.text_format import clean_text

    selection = explanation.selection
    number = f", refresh {selection.refresh}" if selection.refresh else ""
    publish = (
        f"{selection.published_name}@{selection.publish}"
        + (" (current)" if selection.is_current else "")
        if selection.publish
        else "not published"
    )
    console.print(f"selection: {selection.run}{number}, {publish}", markup=False)
    console.print(f"pool: {selection.pool} at {selection.pool_version}", markup=False)
    embedder = " ".join((selection.embedder, selection.embedder_revision)).strip()
    console.print(f"embedder: {embedder}", markup=False)
    if selection.strategy:
        console.print(f"strategy: {selection.strategy}", markup=False)
    if 0 < len(explanation.rows) <= _IN_FULL:
        for row in explanation.rows:
            _print_row(console, row)
        return
    if explanation.rows:
        table = text_table("Rows", "id", "taken", "rule", "cluster")
        for row in explanation.rows[:_MOST_LINES]:
            cluster = "" if row["cluster"] is None else str(row["cluster"])
            taken = "yes" if row["taken"] else "no"
            table.add_row(_escaped(clean_text(row["id"], 60)), taken, row["rule"], cluster)
        console.print(table)
        if len(explanation.rows) > _MOST_LINES:
            console.print(f"{len(explanation.rows) - _MOST_LINES:,} more; --json prints all.")
    counts = text_table("Rules", "rule", "rows")
    for rule, count in explanation.counts.items():
        counts.add_row(rule, f"{count:,}")
    console.print(counts)
    if explanation.output:
        console.print(f"rows: {explanation.output}", markup=False)


def _print_row(console: Console, row: dict[str, Any]) -> None:
    from gio_spark.report.text_format import clean_text, count_text, number_text, percent_text

    verdict = "taken" if row["taken"] else f"left out ({row['rule']})"
    console.print(f"{clean_text(row['id'], 120)}: {verdict}", markup=False, style="bold")
    lines = {"why": clean_text(row["why"], 400)}
    if (row["repeat"] or 1) > 1:
        lines["counts"] = f"{row['repeat']} times (gio_repeat)"
    if row["source"]:
        lines["source"] = clean_text(row["source"], 120)
    if row["cluster"] is not None:
        lines["cluster"] = (
            f"{row['cluster']}: {count_text(row['cluster_take'])} of "
            f"{count_text(row['cluster_rows'])} rows taken, "
            f"{percent_text(row['cluster_target_mass'])} of the target"
        )
    if row["log_ratio"] is not None:
        lines["log density ratio"] = number_text(row["log_ratio"], 4)
    if row["rank_score"] is not None:
        threshold = row["rank_threshold"]
        bound = "all or none" if threshold is None else number_text(threshold, 6)
        lines["rank score"] = f"{number_text(row['rank_score'], 6)}, threshold {bound}"
    if row["source_take"] is not None:
        lines["its source there"] = (
            f"{count_text(row['source_take'])} of {count_text(row['source_rows'])} rows taken"
            + ("; limits of sources decided" if row["decided_by_source"] else "")
        )
    for name, text in lines.items():
        console.print(f"  {name}: {text}", markup=False)


def print_diff(console: Console, difference: SelectionDiff) -> None:
    """Print counts, the clusters and sources in which most differs, and means."""
    from gio_spark.cli.metrics import print_text_table
    from gio_spark.report.diff_page import diff_tables

    for label, one in (("A", difference.a), ("B", difference.b)):
        console.print(f"{label}: {one.label}, {one.place}", markup=False)
    for table in diff_tables(
        difference.counts, difference.clusters, difference.sources, difference.means, _MOST_GROUPS
    ):
        print_text_table(console, table)
    if difference.clusters is None:
        console.print("The codebooks differ, so that clusters do not compare.")
    if difference.page is not None:
        console.print(f"page: {difference.page}", markup=False)
    if difference.output:
        console.print(f"rows: {difference.output}", markup=False)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
