"""Inputs of a run: frames written as snapshots, versions pinned, the run named after both."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import ahead, bounded, capabilities
from gio_spark.engine.info import is_connect
from gio_spark.errors import ConfigError, InputError
from gio_spark.gio import objectives
from gio_spark.pipeline.stage_runner import fingerprint
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.run import RunSettings, parse_budget
from gio_spark.tables import (
    Input,
    Pin,
    Workspace,
    frame_digest,
    open_input,
    pin_input,
    quoted,
    quoted_column,
)
from gio_spark.tables.delta import is_readable_otherwise

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.gime import GimeSettings

# Settings that change how a run is done, shown or recorded, not what it selects.
OUTSIDE = frozenset(
    {
        "tracking", "report", "engine", "workspace", "evaluate", "chunk_rows", "inputs", "name",
        "publish", "retention", "concurrency",
    }
)  # fmt: skip
# How inputs are pinned says nothing of what was read; their versions do.
_PINNING: dict[str, Any] = {
    "pool": {"verify"},
    "target": {"__all__": {"verify"}},
    "held_out": {"__all__": {"verify"}},
}
# Columns that `selected` has beside the pool's own.
_ADDED = frozenset(
    ("gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_run", "gio_input_version")
)
_ODD = frozenset(" ,;{}()\n\t=")
_SNAPSHOT = "snapshot"
# Vectors whose length is looked at before a run.
_LOOKED_AT = 100


def identity(settings: RunSettings) -> dict[str, Any]:
    """Settings that decide what a run selects, as plain values."""
    outside = {**dict.fromkeys(OUTSIDE, True), **_PINNING}
    return settings.model_dump(mode="json", exclude=outside)


def run_id(settings: RunSettings, pins: dict[str, Pin], embedder: str) -> str:
    """Name a run after its settings and the versions it reads: the same again is the same run."""
    versions = {name: (pin.table_id, pin.version) for name, pin in pins.items()}
    return "run-" + fingerprint("run", identity(settings), versions, embedder)[:12]


def names(settings: RunSettings) -> dict[str, InputSettings]:
    """Return pool and targets under the names they have in tables and messages."""
    several = len(settings.target) > 1
    targets = {
        f"target-{i + 1}" if several else "target": one for i, one in enumerate(settings.target)
    }
    held = {f"held-out-{i + 1}": one for i, one in enumerate(settings.held_out)}
    return {"pool": settings.pool, **targets, **held}


def pin_all(spark: SparkSession, settings: RunSettings) -> dict[str, Pin]:
    """Pin every input.

    Raises:
        ConfigError: Settings contradict one another; before anything is read.
    """
    check_choices(settings)
    return {name: pin_input(spark, one, name) for name, one in names(settings).items()}


def open_all(spark: SparkSession, settings: RunSettings, pins: dict[str, Pin]) -> dict[str, Input]:
    """Open every input at its pin, check columns and types, count rows.

    Raises:
        InputError: An input or the budget cannot be used; before any expensive work.
    """

    def begin(name: str, one: InputSettings) -> Callable[[], Input]:
        columns = one.columns or settings.columns
        return ahead(spark, lambda: open_input(spark, one, columns, name, pins[name]))

    begun = {name: begin(name, one) for name, one in names(settings).items()}
    opened = {name: found() for name, found in begun.items()}
    check_pool_columns(spark, settings, opened["pool"])
    check_sizes(settings, opened["pool"].count)
    if settings.embed.name in ("auto", "vectors"):
        check_dimensions(opened)
    return opened


def open_targets(
    spark: SparkSession, workspace: Workspace, settings: RunSettings
) -> dict[str, Input]:
    """Open the targets as they are now, by name."""
    resolved = pin_views(spark, workspace, settings)
    found = {n: one for n, one in names(resolved).items() if n.startswith("target")}
    return {
        n: open_input(spark, one, one.columns or settings.columns, n, pin_input(spark, one, n))
        for n, one in found.items()
    }


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
    check_profiles(settings.gime, columns.source)


def check_profiles(settings: GimeSettings, source: str | None) -> None:
    """Load what registers profiles, and refuse unknown ones and sources that no column tells.

    Args:
        settings: Of the metrics.
        source: The column of sources, where there is one.

    Raises:
        ConfigError: With what to set.
    """
    for name in settings.modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"gime.modules: cannot import {name!r} ({error}).") from error
    used = (settings.profile, *settings.profiles.values())
    roles = {role for profile in used for role in gime.get_profile(profile).roles}
    unknown = sorted(set(settings.columns) - {r for r in roles if not r.endswith("*")})
    if unknown:
        raise ConfigError(
            f"gime.columns: no profile of this run has the role {unknown[0]!r}. Roles are "
            f"{', '.join(sorted(roles))}."
        )
    if settings.profiles and source is None:
        raise ConfigError(
            "gime.profiles needs columns.source, the column with the source of a row."
        )


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


def as_location(
    spark: SparkSession, workspace: Workspace, value: Any, name: str
) -> str | dict[str, Any] | list[Any]:
    """Return what settings accept for an input; a frame is written once as a snapshot.

    Args:
        spark: Session.
        workspace: Where snapshots go.
        value: Path, table name, mapping, Spark or pandas DataFrame, Arrow table, or a list of
            those.
        name: Pool or target, for messages.
    """
    if isinstance(value, list | tuple):
        return [as_location(spark, workspace, v, f"{name}-{i + 1}") for i, v in enumerate(value)]
    if isinstance(value, str | dict):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    frame = value
    if not hasattr(frame, "mapInArrow"):
        try:
            frame = spark.createDataFrame(value)
        except Exception as error:
            if hasattr(value, "__len__") and len(value) == 0:
                raise InputError(f"{name}: the {type(value).__name__} has no rows.") from error
            raise InputError(
                f"{name}: cannot read a {type(value).__name__}. Give a path, a table's name, a "
                "Spark or pandas DataFrame or an Arrow table."
            ) from error
    elif is_connect(spark) != type(frame).__module__.startswith("pyspark.sql.connect"):
        raise InputError(f"{name}: the frame belongs to another session; pass spark=frame's own.")
    return snapshot(workspace, frame)


def pin_views(spark: SparkSession, workspace: Workspace, settings: RunSettings) -> RunSettings:
    """Write views and other tables without versions as snapshots; give settings that read those.

    What a view shows may change while a run reads it, so it is read once.
    """

    def fixed(one: InputSettings) -> InputSettings:
        if not is_readable_otherwise(spark, one.location):
            return one
        frame = spark.read.table(quoted(one.location))
        place = snapshot(workspace, frame)
        return one.model_copy(update={"location": place, "format": "delta", "version": None})

    return settings.model_copy(
        update={
            "pool": fixed(settings.pool),
            "target": tuple(fixed(t) for t in settings.target),
            "held_out": tuple(fixed(h) for h in settings.held_out),
        }
    )


def snapshot(workspace: Workspace, frame: DataFrame) -> str:
    """Write a frame once into the workspace, known by its content, and return its place."""
    stored = _stored_snapshot(workspace, frame_digest(frame))
    if stored:
        return stored
    table = workspace.write_snapshot(frame)
    # What was written is what counts: a view may show other rows by now.
    rows = workspace.read_table(table)
    digest = frame_digest(rows)
    stored = _stored_snapshot(workspace, digest)
    if stored:
        workspace.store.drop(table)
        return stored
    workspace.record(
        run="", stage=_SNAPSHOT, fingerprint=digest, table=table, rows=int(rows.count()),
        seconds=0.0, only=(),
    )  # fmt: skip
    return workspace.place(table)


def _stored_snapshot(workspace: Workspace, digest: str) -> str:
    for record in reversed(workspace.recorded(_SNAPSHOT, digest)):
        if workspace.store.exists(record.table, look=True):
            return workspace.place(record.table)
    return ""
