"""`gio-spark score`: the frozen plan of a run applied to the rows of any table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gio_spark.cli.options import (
    EngineOption,
    JsonOption,
    Overrides,
    QuietOption,
    clear_errors,
    load_settings,
    out,
)
from gio_spark.errors import ConfigError

if TYPE_CHECKING:
    from gio_spark.pipeline.commands.score_table import ScoredTable


def register_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command()(score)


def score(
    config: Annotated[
        str,
        typer.Argument(
            help="YAML file with the settings of the run, or URI of a registered model "
            "(models:/NAME/VERSION)."
        ),
    ],
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Path or name of the rows to score.")
    ],
    output: Annotated[
        str, typer.Option(help="Path or schema.name of the Delta table to write; it must be new.")
    ],
    overrides: Overrides = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write cluster, score, threshold and decision for each row of any table, by a run's plan."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        from gio_spark.settings.inputs import InputSettings

        rows = InputSettings(location=table)
        if config.startswith(("models:/", "runs:/")):
            if overrides:
                raise ConfigError(f"{config} has its own settings: {overrides} cannot change them.")
            from gio_spark.pipeline.commands.score_table import score_by_model

            scored = score_by_model(config, rows, output, engine=engine or "auto")
        else:
            settings = load_settings(Path(config), overrides, engine)
            from gio_spark.pipeline.commands.score_table import score_table

            scored = score_table(settings, rows, output)
        _print_scores(scored)
        facts.update(asdict(scored))


def _print_scores(scored: ScoredTable) -> None:
    number = f", refresh {scored.refresh}" if scored.refresh else ""
    out.print(f"plan: {scored.run}{number}", markup=False)
    out.print(f"table: {scored.table} at {scored.version[:32]}", markup=False)
    out.print(f"scores: {scored.output}, {scored.rows:,} rows", markup=False)
    out.print(f"the plan takes {scored.passing:,} of them", markup=False)
    if scored.unusable:
        out.print(f"{scored.unusable:,} cannot be embedded and have no cluster", markup=False)
    if scored.without_id:
        out.print(
            f"{scored.without_id:,} without an id, or with that of another row, are left out",
            markup=False,
        )
