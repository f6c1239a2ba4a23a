"""Checks of settings and inputs that are made before any expensive work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded, capabilities
from gio_spark.errors import ConfigError, InputError, TooManyBadRowsError
from gio_spark.gio import objectives
from gio_spark.settings.run import parse_budget
from gio_spark.tables import quoted_column
from gio_spark.tables.content_expressions import SAMPLED_ROWS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Input

# Columns that `selected` has beside the pool's own.
_ADDED = frozenset(
    ("gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_run", "gio_input_version")
)
_ODD = frozenset(" ,;{}()\n\t=")
# Vectors whose length is looked at before a run.
_LOOKED_AT = 100


def check_choices(settings: RunSettings) -> None:
    """Refuse an unknown objective, and budgets and caps that lack their column.

    Raises:
        ConfigError: With what to set.
    """
    if settings.select.objective not in objectives():
        raise ConfigError(
            f"No objective is called {settings.select.objective!r}. "
            f"Known: {', '.join(objectives())}."
        )
    columns = settings.pool_columns()
    # Texts without a column of tokens are counted in words.
    counted = columns.tokens is not None or columns.text is not None
    if parse_budget(settings.budget)[0] == "tokens" and not counted:
        raise ConfigError(
            f"The budget {settings.budget!r} counts tokens, so columns.tokens must name the pool's "
            "column with the tokens of a row."
        )
    if (settings.select.source_caps or settings.select.source_floors) and columns.source is None:
        raise ConfigError(
            "select.source_caps and select.source_floors need columns.source, the pool's column "
            "with the source of a row."
        )
    gime.check_profiles(settings.gime, columns.source)


def check_pool_columns(spark: SparkSession, settings: RunSettings, pool: Input) -> None:
    """Refuse a pool whose own columns cannot stand in a selection on this engine.

    Raises:
        InputError: With the columns.
    """
    check_own_columns(pool)
    if settings.explode.output == "copy" and not capabilities(spark).any_column_names:
        check_plain_names(pool)


def check_own_columns(pool: Input) -> None:
    """Refuse a pool whose own columns have names that the selection needs.

    Raises:
        InputError: With the columns, as where the pool is the selection of an earlier run.
    """
    taken = [c for c in pool.own_columns if c.lower() in _ADDED]
    if taken:
        raise InputError(
            f"{pool.name}: {pool.location} has columns named {', '.join(taken)}, which a selection "
            "adds itself (is it the selection of an earlier run?). Rename them or leave them out."
        )


def check_plain_names(pool: Input) -> None:
    """Refuse a pool with columns that Delta on Spark would not write into the selection.

    Raises:
        InputError: With the columns; otherwise they would be found out after all the work.
    """
    odd = [c for c in pool.own_columns if set(c) & _ODD]
    if odd:
        raise InputError(
            f"{pool.name}: Delta tables on Spark take no blank, comma, semicolon, bracket or '=' "
            f"in the name of a column, and {pool.location} has {', '.join(map(repr, odd))}. Rename "
            "them, or set explode.output: ids, which leaves the pool's own columns out."
        )


def check_dimensions(opened: dict[str, Input]) -> None:
    """Refuse ready-made vectors of pool and target that differ in length, from a few rows of each.

    Raises:
        InputError: With both lengths.
    """
    found: dict[str, int] = {}
    for name, one in opened.items():
        column = one.columns.vector
        if column is None:
            continue
        vector = F.col(quoted_column(column))
        is_bytes = dict(one.rows.dtypes)[column] == "binary"
        length = F.length(vector) / 4 if is_bytes else F.size(vector)
        rows = one.rows.where(vector.isNotNull()).select(length.cast("int").alias("n"))
        lengths = bounded(rows.limit(_LOOKED_AT), _LOOKED_AT, "lengths")["n"].to_pylist()
        if lengths:
            found[name] = max(sorted(set(lengths)), key=lengths.count)
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in found.items())
        raise InputError(
            f"Vectors have different dimensions ({told}): pool and target must come from the same "
            "embedder."
        )


def warn_of_unusual_roles(ctx: RunContext, opened: dict[str, Input]) -> None:
    """Warn of messages of unknown roles, which are not part of the text of their rows."""
    for name, one in opened.items():
        if not one.unusual_roles:
            continue
        roles = ", ".join(f"{role} ({n:,})" for role, n in one.unusual_roles.items())
        ctx.caution(
            "messages left out",
            f"{name}: messages of these roles are no part of the text; in the first "
            f"{SAMPLED_ROWS:,} rows: {roles}.",
            "Name the roles that are in columns.chat_roles, which is "
            f"[{', '.join(one.columns.chat_roles)}].",
        )


def check_ids(settings: RunSettings, opened: dict[str, Input]) -> None:
    """Refuse an input of which too many rows have no id or that of another row, before any work.

    Raises:
        TooManyBadRowsError: Their share is above `quarantine.max_share`.
    """
    most = settings.quarantine.max_share
    for name, one in opened.items():
        if one.columns.id is not None and one.put_aside > most * one.count:
            raise TooManyBadRowsError(
                f"{name}: {one.put_aside:,} of the {one.count:,} rows of {one.location} have no id "
                f"or the id of another row (columns.id = {one.columns.id!r}). That is above "
                f"quarantine.max_share = {most:g}. Name another column, or none (then a hash of "
                "the content is the id), or allow a larger share."
            )


def check_sizes(settings: RunSettings, pool_rows: int) -> None:
    """Refuse a budget above the pool and more clusters than rows.

    Raises:
        InputError: With the largest value that works.
    """
    unit, amount = parse_budget(settings.budget)
    if unit == "rows" and amount > pool_rows:
        raise InputError(
            f"The budget of {amount:,.0f} rows is above the pool, which has {pool_rows:,}: "
            f"ask for at most {pool_rows:,}."
        )
    clusters = settings.quantize.clusters
    if isinstance(clusters, int) and clusters > pool_rows:
        raise InputError(
            f"{clusters:,} clusters are more than the pool's {pool_rows:,} rows: "
            f"set clusters to at most {pool_rows:,}, or to auto."
        )
