"""Commands of `gio-spark`. Each parses, calls the pipeline and prints; nothing is decided here."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gio_spark.errors import (
    ConfigError,
    EmptySelectionError,
    GioSparkError,
    InputError,
)

if TYPE_CHECKING:
    from gio_spark.settings.run import RunSettings

app = typer.Typer(
    name="gio-spark",
    help="Choose the rows of a pool that are worth training on for a target.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# Exit codes, for schedulers: what kind of thing went wrong.
FAILED = 1
BAD_INPUT = 2
NOTHING_SELECTED = 3
GATE_FAILED = 4

Config = Annotated[Path, typer.Argument(help="YAML file with the settings of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that override the file: budget=0.2 quantize.clusters=500"),
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="auto, embedded, spark or cluster.")
]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print one clear message for errors that are meant for people, and set the exit code."""
    try:
        yield
    except EmptySelectionError as error:
        err.print(f"nothing selected: {error}", style="yellow", markup=False)
        raise typer.Exit(NOTHING_SELECTED) from error
    except (ConfigError, InputError) as error:
        err.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(BAD_INPUT) from error
    except GioSparkError as error:
        err.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(FAILED) from error


def load_settings(config: Path, overrides: list[str] | None, engine: str | None) -> RunSettings:
    """Read a configuration file with overrides from the command line."""
    from gio_spark.settings.load import load

    given = list(overrides or [])
    if engine is not None:
        given.append(f"engine={engine}")
    return load(config, given)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("gio-spark.yml"),
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented example configuration."""
    from gio_spark.settings.example import example

    with clear_errors():
        if path.exists() and not force:
            raise ConfigError(f"{path} exists already; use --force to overwrite it.")
        try:
            path.write_text(example(), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"Cannot write {path}: {error.strerror}.") from error
    out.print(f"Wrote {path}. Next: set pool, target and columns, then gio-spark validate {path}")


@app.command()
def validate(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
    """Check file, tables, columns and types, and print plan and forecast without running."""
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.show import print_forecast
        from gio_spark.engine import describe, session
        from gio_spark.engine.doctor import complaints
        from gio_spark.pipeline.forecast import validate as check

        for text in complaints():
            err.print(f"warning: {text}", style="yellow", markup=False)
        spark = session(settings.engine)
        out.print(describe(spark).line())
        made, inputs, embedder = check(settings, spark)
        print_forecast(out, settings, made, inputs, embedder)


@app.command()
def run(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
    """Run all stages; what is complete already is not done again."""
    _run(config, overrides, engine, None)


def _run(config: Path, overrides: list[str] | None, engine: str | None, until: str | None) -> None:
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.engine import session
        from gio_spark.engine.load import OF_A_RUN

        # Before the pipeline is imported: that goes on while a JVM starts.
        spark = session(settings.engine, load=OF_A_RUN)
        from gio_spark.cli.show import print_curation
        from gio_spark.pipeline import run as run_pipeline

        print_curation(out, run_pipeline(settings, spark=spark, until=until), until)


def _stage_command(stage: str, what: str) -> None:
    def command(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
        _run(config, overrides, engine, stage)

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
) -> None:
    """Compute the eleven information metrics of a run's pool and selection, or of any table."""
    from gio_spark.cli.metrics import metrics_of_run, metrics_of_table

    with clear_errors():
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
def sensitivity(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
    """Learn which metrics models follow on this data, and what thresholds to hold them to."""
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.sensitivity import sensitivity_of_run

        sensitivity_of_run(out, settings)


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
) -> None:
    """Judge a selection by its thresholds; the exit code is 4 where it fails."""
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.gate import print_gate

        if not print_gate(out, settings, run_id, compare=not stored):
            raise typer.Exit(GATE_FAILED)


@app.command()
def show(
    run_id: Annotated[str | None, typer.Argument(help="Run; none: list the runs.")] = None,
    workspace: Annotated[str, typer.Option(help="Workspace of the run.")] = "gio-workspace",
    engine: EngineOption = None,
) -> None:
    """Say what a run did, or list the runs of a workspace."""
    with clear_errors():
        from gio_spark.cli.show import print_run, print_runs
        from gio_spark.engine import session
        from gio_spark.pipeline.history import history

        spark = session(engine or "auto")  # type: ignore[arg-type]
        records = history(spark, workspace)
        if run_id is None:
            print_runs(out, records)
        else:
            print_run(out, records, run_id)


@app.command()
def refresh(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
    """Bring a selection up to date with a pool that has grown, by the frozen plan."""
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.show import print_refresh
        from gio_spark.pipeline.refresh import refresh as refresh_pipeline

        print_refresh(out, refresh_pipeline(settings))


@app.command()
def check(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
    """Judge the method on your own data: consistency, reach, coverage of the target's modes."""
    with clear_errors():
        settings = load_settings(config, overrides, engine)
        from gio_spark.cli.show import print_checks
        from gio_spark.pipeline.check import check as check_pipeline

        done = check_pipeline(settings)
        held = print_checks(out, done.checks)
        out.print(f"pictures: {done.page}", markup=False)
        if not held:
            raise typer.Exit(GATE_FAILED)


@app.command()
def evaluate(config: Config, overrides: Overrides = None, engine: EngineOption = None) -> None:
    """Compare selection methods on your own data: is this better than random, at what cost?"""
    with clear_errors():
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


def main() -> None:
    """Entry point of the console script and of jobs."""
    logging.basicConfig(
        level=os.environ.get("GIO_SPARK_LOG", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # At the end of the process all memory goes at once: to look through the half a million objects
    # that a run imports, for those that could be freed, would take a second.
    atexit.register(gc.freeze)
    app()
