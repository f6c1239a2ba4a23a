"""Caps and floors per source."""

from __future__ import annotations

from numpy.typing import NDArray

from gio_spark.errors import ConfigError
from gio_spark.gio.problem import Notice, SelectionProblem, SelectionResult


def select_with_sources(
    problem: SelectionProblem,
    law: NDArray,
    lost: float,
    budget: float,
    notices: tuple[Notice, ...],
) -> SelectionResult:
    """Solve the budgeted KL under caps and floors per source."""
    raise ConfigError("Caps and floors per source are not available yet.")
