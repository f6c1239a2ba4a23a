"""What all commands share: options, consoles, exit codes, and how errors are shown."""

from __future__ import annotations

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

Config = Annotated[Path, typer.Argument(help="YAML file with the settings of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that override the file: budget=0.2 quantize.clusters=500"),
]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="auto, embedded, spark or cluster.")
]

WorkspaceOption = Annotated[str, typer.Option(help="Workspace: a folder, or catalog.schema.")]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print one clear message for errors that are meant for people, and set the exit code."""
    try:
        yield
    except NoVerdictError as error:
        err.print(f"no verdict: {error}", style="yellow", markup=False)
        raise typer.Exit(GATE_FAILED) from error
    except EmptySelectionError as error:
        err.print(f"nothing selected: {error}", style="yellow", markup=False)
        raise typer.Exit(NOTHING_SELECTED) from error
    except (ConfigError, InputError) as error:
        err.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(BAD_INPUT) from error
    except ModuleNotFoundError as error:
        missing = missing_spark(error)
        if missing is None:
            raise
        err.print(f"error: {missing}", style="red", markup=False)
        raise typer.Exit(FAILED) from error
    except GioSparkError as error:
        err.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(FAILED) from error
    except Exception as error:
        mapped = _engine_error(error)
        if mapped is None:
            raise
        err.print(f"error: {mapped}", style="red", markup=False)
        code = BAD_INPUT if isinstance(mapped, (ConfigError, InputError)) else FAILED
        raise typer.Exit(code) from error


def _engine_error(error: Exception) -> GioSparkError | None:
    """gio_spark error for an engine's error, None where its cause is unknown."""
    from gio_spark.engine.engine_errors import translated_error

    return translated_error(error)


def load_settings(config: Path, overrides: list[str] | None, engine: str | None) -> RunSettings:
    """Read a configuration file with overrides from the command line."""
    from gio_spark.settings.load import load

    given = list(overrides or [])
    if engine is not None:
        given.append(f"engine={engine}")
    return load(config, given)
