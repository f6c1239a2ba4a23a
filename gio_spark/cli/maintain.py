"""`gio-spark maintain`: retention, compaction and removal of dead files, as a scheduled job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import typer

    from gio_spark.tables import Maintenance


def register_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command()(maintain)


def maintain(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Apply retention to a workspace, compact its tables, delete dead files; print the sizes."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.pipeline.commands.run_history import history
        from gio_spark.tables import Workspace
        from gio_spark.tables import maintain as maintain_workspace

        spark = start_session(settings.engine)
        history(spark, settings.workspace)  # a workspace that is not there is refused, not made
        workspace = Workspace(spark, settings.workspace)

        def say(table: str) -> None:
            if not quiet:
                err.print(f"  {table}", markup=False)

        done = maintain_workspace(workspace, settings.retention, say)
        _print_maintenance(done)
        facts.update(_maintenance_facts(workspace.location, done))


def _print_maintenance(done: Maintenance) -> None:
    from gio_spark.cli.publishing import print_pruned_rows
    from gio_spark.cli.show import text_table

    table = text_table("Tables", "table", "files", "then", "MB", "then")
    for one in done.tables:
        after = one.after
        table.add_row(
            one.table,
            f"{one.before.files:,}",
            "dropped" if after is None else f"{after.files:,}",
            f"{one.before.bytes / 1e6:,.2f}",
            "" if after is None else f"{after.bytes / 1e6:,.2f}",
        )
    out.print(table)
    print_pruned_rows(out, done.pruned)
    out.print(
        f"{done.bytes_before / 1e6:,.2f} MB before, {done.bytes_after / 1e6:,.2f} MB now",
        markup=False,
    )


def _maintenance_facts(location: str, done: Maintenance) -> dict[str, Any]:
    """Sizes and removed rows as plain values."""
    return {
        "workspace": location,
        "tables": {
            one.table: {
                "files_before": one.before.files,
                "bytes_before": one.before.bytes,
                "files_after": None if one.after is None else one.after.files,
                "bytes_after": None if one.after is None else one.after.bytes,
            }
            for one in done.tables
        },
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
        "dropped": list(done.pruned.tables),
        "attempts_deleted": dict(done.pruned.attempts),
    }
