"""What all commands share: options, consoles, exit codes, results as JSON, and errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gio_spark.errors import (
    ConfigError,
    EmptySelectionError,
    GioSparkError,
    InputError,
    NoVerdictError,
    missing_spark,
)

if TYPE_CHECKING:
    from gio_spark.settings.run import RunSettings

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# Exit codes, for schedulers: what kind of thing went wrong.
FAILED = 1
BAD_INPUT = 2
NOTHING_SELECTED = 3
GATE_FAILED = 4

PROGRESS_VARIABLE = "GIO_SPARK_PROGRESS"

# Why a command ended, in the JSON result.
_REASONS = {
    0: "done",
    FAILED: "failed",
    BAD_INPUT: "wrong input",
    NOTHING_SELECTED: "nothing selected",
    GATE_FAILED: "a check or the gate failed",
}

Config = Annotated[Path, typer.Argument(help="YAML file with the settings of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that override the file: budget=0.2 quantize.clusters=500"),
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="auto, embedded, spark or cluster.")
]

WorkspaceOption = Annotated[str, typer.Option(help="Workspace: a folder, or catalog.schema.")]

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print the result alone, no progress.")]


@dataclass(frozen=True)
class _Failure:
    """How an error is shown: exit code, word before the message, color."""

    code: int
    word: str
    style: str
    error: Exception


@contextmanager
def clear_errors(*, as_json: bool = False, quiet: bool = False) -> Iterator[dict[str, Any]]:
    """Print one clear message for errors that are meant for people, and set the exit code.

    Args:
        as_json: Print one JSON object on stdout when the block ends, however it ends; what the
            block prints goes to stderr.
        quiet: Show no progress; with `as_json`, not what the block prints either.

    Yields:
        Facts of the JSON object, which the block adds to.
    """
    facts: dict[str, Any] = {}
    code, stdout = FAILED, sys.stdout
    try:
        with _streams(as_json=as_json, quiet=quiet):
            yield facts
        code = 0
    except typer.Exit as end:
        code = end.exit_code
        raise
    except Exception as error:
        failure = _failure(error)
        if as_json:
            from gio_spark.cli.json_result import error_facts

            facts["error"] = error_facts(error if failure is None else failure.error)
        if failure is None:
            raise
        err.print(f"{failure.word}: {failure.error}", style=failure.style, markup=False)
        code = failure.code
        raise typer.Exit(code) from error
    finally:
        if as_json:
            from gio_spark.cli.json_result import json_text

            reason = _REASONS.get(code, "failed")
            stdout.write(json_text({"exit_code": code, "exit_reason": reason, **facts}) + "\n")
            stdout.flush()


@contextmanager
def _streams(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Streams and progress display while a command runs; see `clear_errors`."""
    earlier = os.environ.get(PROGRESS_VARIABLE)
    with ExitStack() as stack:
        if quiet:
            stack.callback(_set_variable, PROGRESS_VARIABLE, earlier)
            os.environ[PROGRESS_VARIABLE] = "silent"
        if as_json:
            stack.enter_context(redirect_stdout(io.StringIO() if quiet else sys.stderr))
        yield


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _failure(error: Exception) -> _Failure | None:
    """How an error is shown; None where it is none of gio_spark's and its cause is unknown."""
    if isinstance(error, NoVerdictError):
        return _Failure(GATE_FAILED, "no verdict", "yellow", error)
    if isinstance(error, EmptySelectionError):
        return _Failure(NOTHING_SELECTED, "nothing selected", "yellow", error)
    if isinstance(error, (ConfigError, InputError)):
        return _Failure(BAD_INPUT, "error", "red", error)
    if isinstance(error, ModuleNotFoundError):
        error = missing_spark(error) or error
    if isinstance(error, GioSparkError):
        return _Failure(FAILED, "error", "red", error)
    if isinstance(error, ModuleNotFoundError):  # engines are not asked about their own absence
        return None
    translated = _engine_error(error)
    return None if translated is None else _failure(translated)


def _engine_error(error: Exception) -> GioSparkError | None:
    """gio_spark error for an engine's error, None where its cause is unknown."""
    from gio_spark.engine.engine_errors import translated_error

    return translated_error(error)


def start_session(engine: str | None) -> Any:
    """Session of a command without a configuration; the engine is named beside the progress."""
    from gio_spark.engine import describe, session
    from gio_spark.engine.progress import Progress

    spark = session(engine or "auto")  # type: ignore[arg-type]
    Progress().say(describe(spark).line())
    return spark


def load_settings(config: Path, overrides: list[str] | None, engine: str | None) -> RunSettings:
    """Read a configuration file with overrides from the command line."""
    from gio_spark.settings.load import load

    given = list(overrides or [])
    if engine is not None:
        given.append(f"engine={engine}")
    return load(config, given)
