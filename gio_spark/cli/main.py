"""Commands of `gio-spark`. Each parses, calls the pipeline and prints; nothing is decided here."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gio_spark.cli import explain, maintain, publishing, purge, score
from gio_spark.cli.options import (
    GATE_FAILED,
    Config,
    EngineOption,
    JsonOption,
    Overrides,
    QuietOption,
    WorkspaceOption,
    clear_errors,
    err,
    load_settings,
    out,
    start_session,
)
from gio_spark.errors import ConfigError
from gio_spark.interruption import end_on_signals
from gio_spark.version import __version__

app = typer.Typer(
    name="gio-spark",
    help="Choose the rows of a pool that are worth training on for a target.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        out.print(f"gio-spark {__version__}", markup=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Choose the rows of a pool that are worth training on for a target."""


@app.command()
def init(
    pool: Annotated[
        str | None, typer.Argument(help="Path or table of the pool; none: an example of all keys.")
    ] = None,
    target: Annotated[str | None, typer.Argument(help="Path or table of the target.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    engine: EngineOption = None,
) -> None:
    """Write a configuration for a pool and a target; of all settings where none are named."""
    with clear_errors():
        if target is None and pool is not None:
            if output is not None or not pool.endswith((".yml", ".yaml")):
                raise ConfigError(
                    "Name pool and target: gio-spark init POOL TARGET -o curate.yml. One name "
                    "alone is the file (.yml) that an example of all settings goes to."
                )
            output = Path(pool)
        file = output or Path("gio-spark.yml")
        if file.exists() and not force:
            raise ConfigError(f"{file} exists already; use --force to overwrite it.")
        if pool is None or target is None:
            from gio_spark.settings.example import example

            text, following = example(), "set pool, target and columns, then "
        else:
            from gio_spark.pipeline.commands.init_config import init_config

            text, following = init_config(start_session(engine), pool, target, file), ""
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"Cannot write {file}: {error.strerror}.") from error
    out.print(f"Wrote {file}. Next: {following}gio-spark validate {file}", markup=False)


@app.command()
def validate(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check file, tables, columns and types, and print plan and forecast without running."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.json_result import forecast_facts
        from gio_spark.cli.show import print_forecast
        from gio_spark.engine import describe, session
        from gio_spark.engine.environment_check import environment_problems
        from gio_spark.pipeline.commands.forecast import validate as check

        warnings = environment_problems()
        for text in warnings:
            err.print(f"warning: {text}", style="yellow", markup=False)
        spark = session(settings.engine)
        if not quiet:
            out.print(describe(spark).line())
        made, inputs, embedder = check(settings, spark)
        print_forecast(out, settings, made, inputs, embedder)
        facts["engine"] = describe(spark).line().removeprefix("engine: ")
        facts.update(forecast_facts(made, inputs, embedder, list(warnings)))


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which stages would be run, and run none.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run all stages; what is complete already is not done again."""
    if not dry_run:
        _run(config, overrides, engine, None, json_output=json_output, quiet=quiet)
        return
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.json_result import planned_facts
        from gio_spark.cli.show import print_planned_stages
        from gio_spark.pipeline.run import plan_run

        stages = plan_run(settings)
        print_planned_stages(out, stages)
        facts.update(planned_facts(stages))


def _run(
    config: Path,
    overrides: list[str] | None,
    engine: str | None,
    until: str | None,
    *,
    json_output: bool,
    quiet: bool,
) -> None:
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.json_result import curation_facts
        from gio_spark.cli.publishing import print_publication
        from gio_spark.cli.show import print_curation
        from gio_spark.pipeline import run as run_pipeline

        curation = run_pipeline(settings, until=until)
        print_curation(out, curation, until)
        facts.update(curation_facts(curation))
        if not print_publication(out, curation.publication):
            raise typer.Exit(GATE_FAILED)


def _stage_command(stage: str, what: str) -> None:
    def command(
        config: Config,
        overrides: Overrides = None,
        engine: EngineOption = None,
        json_output: JsonOption = False,
        quiet: QuietOption = False,
    ) -> None:
        _run(config, overrides, engine, stage, json_output=json_output, quiet=quiet)

    command.__doc__ = f"Run up to and including {what}."
    app.command(name=stage)(command)


for _name, _what in (
    ("embed", "the embeddings: rows to vectors, unusable rows to quarantine"),
    ("quantize", "the clusters: fit, assignment, figures per cluster"),
    ("select", "the plan: how much to take of each cluster"),
    ("explode", "the selected rows"),
):
    _stage_command(_name, _what)


@app.command()
def metrics(
    what: Annotated[str, typer.Argument(help="YAML file of a run, or any table: path or name.")],
    overrides: Overrides = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Column to group by; also year, month, day.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="text, tabular, spatiotemporal, or your own.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="Roles of a table: text=body,tokens=n,numeric=age,pay")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Table that coverage and mismatch are measured against.")
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(help="Cells to fit for a table's vectors; 0: none.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Keep states and values of a table as Delta tables here.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of a table's page.")] = Path("gio-metrics"),
    track: Annotated[bool, typer.Option(help="Record a table's metrics with MLflow.")] = False,
    forms: Annotated[bool, typer.Option(help="Also print literal and further forms.")] = False,
    engine: EngineOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compute the eleven information metrics of a run's pool and selection, or of any table."""
    from gio_spark.cli.metrics import metrics_of_run, metrics_of_table

    with clear_errors(quiet=quiet):
        if what.endswith((".yml", ".yaml")):
            metrics_of_run(
                out,
                Path(what),
                overrides,
                by=by,
                profile=profile,
                engine=engine,
                forms=forms,
                only_tables={
                    "--columns": columns,
                    "--target": target,
                    "--clusters": clusters,
                    "--workspace": workspace,
                },
            )
        else:
            metrics_of_table(
                out,
                what,
                overrides,
                by=by,
                profile=profile,
                columns=columns,
                target=target,
                clusters=clusters,
                workspace=workspace,
                folder=output,
                track=track,
                engine=engine or "auto",
                forms=forms,
            )


@app.command()
def sensitivity(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn which metrics models follow on this data, and what thresholds to hold them to."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.json_result import sensitivity_facts
        from gio_spark.cli.sensitivity import sensitivity_of_run

        facts.update(sensitivity_facts(sensitivity_of_run(out, settings)))


@app.command()
def gate(
    config: Config,
    overrides: Overrides = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="Run to judge; none: the newest of these settings.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Give the verdict left by the run or last refresh.")
    ] = False,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge a selection by its thresholds; the exit code is 4 where it fails."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.gate import print_gate
        from gio_spark.cli.json_result import gate_facts

        verdict = print_gate(out, settings, run_id, compare=not stored)
        facts.update(gate_facts(verdict))
        if not verdict.passed:
            raise typer.Exit(GATE_FAILED)


@app.command()
def show(
    what: Annotated[
        str | None, typer.Argument(help="Run or published name; none: list runs and names.")
    ] = None,
    publish: Annotated[int | None, typer.Option(help="Publish of a name; none: current.")] = None,
    workspace: WorkspaceOption = "gio-workspace",
    engine: EngineOption = None,
) -> None:
    """Say what a run did or a name shows, or list the runs and names of a workspace."""
    with clear_errors():
        from gio_spark.cli.publishing import print_publishes
        from gio_spark.cli.show import print_run, print_runs
        from gio_spark.pipeline.commands.run_history import history
        from gio_spark.tables import PublishLog, Workspace

        spark = start_session(engine)
        records = history(spark, workspace)
        tables = Workspace(spark, workspace, writable=False)
        names = PublishLog(tables).names()
        if what is None:
            print_runs(out, records)
            if names:
                out.print(f"published names: {', '.join(names)}", markup=False)
        elif what in names and not any(r.run == what for r in records):
            print_publishes(out, tables, what, publish)
        else:
            print_run(out, records, what)


@app.command()
def refresh(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what has changed and what it costs; do nothing.")
    ] = False,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring a selection up to date with a pool that has changed, by the models of its run."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        if dry_run:
            from gio_spark.cli.json_result import planned_refresh_facts
            from gio_spark.cli.refresh_output import print_planned_refresh
            from gio_spark.pipeline.commands.plan_refresh import plan_refresh

            planned = plan_refresh(settings)
            print_planned_refresh(out, planned)
            facts.update(planned_refresh_facts(planned))
            return
        from gio_spark.cli.json_result import refresh_facts
        from gio_spark.cli.publishing import print_publication
        from gio_spark.cli.refresh_output import print_refresh
        from gio_spark.pipeline.refresh import refresh as refresh_pipeline

        refreshed = refresh_pipeline(settings)
        print_refresh(out, refreshed)
        facts.update(refresh_facts(refreshed))
        if not print_publication(out, refreshed.publication):
            raise typer.Exit(GATE_FAILED)


@app.command()
def check(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    json_output: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge the method on your own data: consistency, reach, coverage of the target's modes."""
    with clear_errors(as_json=json_output, quiet=quiet) as facts:
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.json_result import check_facts
        from gio_spark.cli.show import print_checks
        from gio_spark.pipeline.commands.check import check as check_pipeline

        done = check_pipeline(settings)
        held = print_checks(out, done.checks)
        facts.update(check_facts(done))
        out.print(f"pictures: {done.page}", markup=False)
        if not held:
            raise typer.Exit(GATE_FAILED)


@app.command()
def evaluate(
    config: Config,
    overrides: Overrides = None,
    engine: EngineOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compare selection methods on your own data: is this better than random, at what cost?"""
    with clear_errors(quiet=quiet):
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.evaluate import print_evaluation
        from gio_spark.evaluate import evaluate as evaluate_methods

        print_evaluation(out, evaluate_methods(settings))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where data and results go.")] = Path("demo-output"),
    engine: EngineOption = None,
) -> None:
    """Curate real images and texts that are on this machine, and compare with random rows."""
    with clear_errors():
        from gio_spark.demo import run as run_demo

        run_demo(engine=engine or "auto", folder=folder)


publishing.register_commands(app)
explain.register_commands(app)
score.register_commands(app)
maintain.register_commands(app)
purge.register_commands(app)


def main() -> None:
    """Entry point of the console script and of jobs."""
    logging.basicConfig(
        level=os.environ.get("GIO_SPARK_LOG", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    with end_on_signals(_close):
        app()


def _close() -> None:
    """Close what an interrupted run has open; what was not imported is not open."""
    tracking = sys.modules.get("gio_spark.tracking")
    if tracking is not None:
        tracking.end_open_records()
    local_spark = sys.modules.get("gio_spark.engine.local_spark")
    if local_spark is not None:
        local_spark.silence_jvm()
