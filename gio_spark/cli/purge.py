"""`gio-spark purge`: rows that become unreadable for good in every place of a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gio_spark.cli.options import (
    Config,
    EngineOption,
    JsonOption,
    Overrides,
    QuietOption,
    clear_errors,
    err,
    load_settings,
    out,
    start_session,
)
from gio_spark.errors import ConfigError

if TYPE_CHECKING:
    from gio_spark.pipeline.commands.purge_rows import Purge, PurgeForecast


def register_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command()(purge)


def purge(
    config: Config,
    overrides: Overrides = None,
    ids: Annotated[
        str | None, typer.Option(help="Table or files with a column `id`: the rows to purge.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on columns of the pool: the rows to purge.")
    ] = None,
    deleted_upstream: Annotated[
        bool, typer.Option("--deleted-upstream", help="Purge rows that the inputs have lost.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Complete an earlier purge; no further rows.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the forecast alone, even with --yes.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Purge; without it, only the forecast is printed.")
    ] = False,
    include_pinned: Annotated[
        bool, typer.Option("--include-pinned", help="Purge rows of pinned publishes too.")
    ] = False,
    max_share: Annotated[
        float,
        typer.Option(help="Share of an input's rows above which --deleted-upstream stops."),
    ] = 0.2,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make rows unreadable for good in all tables, versions, models and pages of a workspace."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        ways = [ids is not None, where is not None, deleted_upstream, resume]
        if sum(ways) != 1:
            raise ConfigError(
                "Name the rows to purge by one of --ids, --where and --deleted-upstream, or "
                "complete an earlier purge with --resume."
            )
        from gio_spark.pipeline.commands.purge_ids import PurgeRequest
        from gio_spark.pipeline.commands.purge_rows import purge_rows

        def say(step: str) -> None:
            if not quiet:
                err.print(f"  {step}", markup=False)

        result = purge_rows(
            settings,
            PurgeRequest(ids, where, deleted_upstream, max_share),
            confirmed=yes and not dry_run,
            include_pinned=include_pinned,
            spark=start_session(settings.engine),
            say=say,
        )
        _print_forecast(result.forecast)
        _print_outcome(result)
        facts.update(_purge_facts(result))


def _print_forecast(forecast: PurgeForecast) -> None:
    from gio_spark.cli.show import text_table

    table = text_table("Rows to purge", "place", "rows", "of", "about MB")
    for one in forecast.tables:
        table.add_row(one.table, f"{one.rows:,}", f"{one.total:,}", f"{one.bytes / 1e6:,.2f}")
    for publish in forecast.publishes:
        state = f" ({publish.state})" if publish.state else ""
        table.add_row(
            f"publish {publish.name}@{publish.number}{state}", f"{publish.rows:,}", "", ""
        )
    for page in forecast.pages:
        table.add_row(page.place, f"{page.rows:,}", "", "")
    if forecast.details:
        table.add_row("details in quarantine", f"{forecast.details:,}", "", "")
    if forecast.models:
        table.add_row("vectors in models", f"{forecast.models:,}", "", "")
    for name in forecast.dropped_snapshots:
        table.add_row(f"{name} (dropped: no column of ids is known)", "all", "", "")
    out.print(table)
    listed = f", {forecast.listed:,} purged before" if forecast.listed else ""
    out.print(f"{forecast.ids:,} ids{listed}, {forecast.rows:,} rows", markup=False)
    for location, rows in forecast.still_in.items():
        if rows:
            out.print(
                f"{location} still has {rows:,} of them: later runs leave them out; delete them "
                "there as well.",
                markup=False,
            )
    for problem in forecast.unread:
        out.print(f"Whether an input still has such rows is not known: {problem}", markup=False)
    for version in forecast.registered:
        out.print(
            f"The registered model {version} may hold such vectors and stays as it is: delete it "
            "in MLflow.",
            markup=False,
        )
    for name in forecast.unsearched:
        out.print(f"{name}: the condition cannot be applied to its columns", markup=False)


def _print_outcome(result: Purge) -> None:
    forecast = result.forecast
    if not result.did_work:
        any_ids = forecast.ids or forecast.listed
        what = "--yes purges these rows." if any_ids else "There is no row to purge."
        out.print(f"Nothing was changed. {what}", markup=False)
        return
    files = sum(p.files for p in result.proof)
    versions = sum(p.versions for p in result.proof)
    rows = sum(p.rows for p in result.proof)
    searched = f"{files:,} files" if files or not versions else f"{versions:,} versions"
    out.print(
        f"Purged. Searched {searched} of {len(result.proof):,} tables ({rows:,} rows) and "
        f"{result.pages:,} pages: no purged row is left.",
        markup=False,
    )


def _purge_facts(result: Purge) -> dict[str, Any]:
    """Forecast and proof as plain values."""
    return {
        "did_work": result.did_work,
        "forecast": result.forecast.plain(),
        "proof": [vars(one) for one in result.proof],
        "pages": result.pages,
    }
