"""`gio-spark metrics TABLE`: the metrics of any table by any grouping, outside of a run."""

from __future__ import annotations

import difflib
import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark import gime, quantize
from gio_spark.engine import bounded, describe
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError
from gio_spark.gime.scan import group_expression, role_columns
from gio_spark.pipeline.context import fingerprint
from gio_spark.settings.columns import Columns
from gio_spark.settings.gime import GimeSettings
from gio_spark.settings.inputs import InputSettings
from gio_spark.settings.tracking import TrackingSettings
from gio_spark.tables import Pin, Workspace, pin_input, quoted, quoted_column
from gio_spark.tables.aliases import engine_path
from gio_spark.tables.casts import BAD, LINE
from gio_spark.tables.delta import is_readable_otherwise, read
from gio_spark.tables.lines import read_lines
from gio_spark.tracking import NullTracker, TrackedInput, tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.gime.profile import Profile

MAX_FIGURES = 500_000
_MOST_LOGGED = 2_000
_NUMBERS = (
    T.ByteType,
    T.ShortType,
    T.IntegerType,
    T.LongType,
    T.FloatType,
    T.DoubleType,
    T.DecimalType,
    T.BooleanType,
)
_TIMES = (T.TimestampType, T.TimestampNTZType, T.DateType)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "whole": (_NUMBERS, "a number"),
    "real": (_NUMBERS, "a number"),
    "time": (_TIMES, "a timestamp or a date"),
    "vector": ((T.BinaryType, T.ArrayType), "binary or an array of numbers"),
}
# Roles of raw content: they give other roles where a profile does not know them itself.
_EXTRA = ("id", "text")


@dataclass(frozen=True)
class Measured:
    """Metrics of one table.

    Attributes:
        figures: Rows of (group, metric, form, value, unit, ...), see `gime.metrics`.
        facts: What was read and how, as text, in the order in which it is shown.
        tables: Stage table -> place, where a workspace was given.
        skipped: True when the workspace held these very figures already.
        problem: What was not recorded by the tracker, or "".
    """

    figures: pd.DataFrame
    facts: dict[str, str]
    tables: dict[str, str] = field(default_factory=dict)
    skipped: bool = False
    problem: str = ""


def load_modules(names: Sequence[str]) -> None:
    """Import the modules that register profiles.

    Raises:
        ConfigError: One cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"gime.modules: cannot import {name!r} ({error}).") from error


def measure_table(
    spark: SparkSession,
    table: InputSettings,
    *,
    settings: GimeSettings,
    columns: Mapping[str, Any] | None = None,
    target: InputSettings | None = None,
    clusters: int | None = None,
    seed: int = 0,
    workspace: Workspace | None = None,
    tracking: TrackingSettings | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Compute the metrics of each group of a table in one pass.

    Args:
        spark: Session.
        table: What to measure.
        settings: Profile, grouping, sketch sizes.
        columns: Role -> column, or several for `numeric` and `categorical`; beside the profile's
            roles `id`, and `text`, which gives content, bytes and (white space) tokens where no
            column does. Roles left out are taken from columns of that name.
        target: Rows that coverage and mismatch are measured against.
        clusters: Cells that vectors are put into where there is no column `cluster`; a codebook is
            then fitted on the table. None: from the number of rows; 0: no cells.
        seed: Seed of that fit.
        workspace: Where states and figures are kept, as `metric_states` and `metrics`.
        tracking: Where the run is recorded; None: nowhere.
        folder: Local folder of the tracker's own store.
        progress: Display.

    Raises:
        InputError: The table or a column cannot be used; before any pass over the rows.
        ConfigError: An unknown profile or role.
    """
    progress = progress or Progress()
    load_modules(settings.modules)
    profile = gime.get_profile(settings.profile)
    roles = dict(columns or {})
    _check_roles(roles, profile)
    watch = NullTracker() if tracking is None else tracker(tracking, folder or Path("tracking"))
    watch.check()
    pin = _pin(spark, table, "table")
    other = None if target is None else _pin(spark, target, "target")
    key = fingerprint(
        "metrics of a table",
        settings.model_dump(mode="json"),
        roles,
        clusters,
        seed,
        *[(p.table_id, p.version) if p else None for p in (pin, other)],
    )
    facts = {
        "table": table.location,
        "version": str(pin.version)[:32] if pin else "a view, as it is now",
        "profile": profile.name,
        "grouped by": ", ".join(settings.by) or "all rows in one group",
        "compared with": target.location if target else "no target",
        "engine": describe(spark).line().removeprefix("engine: "),
    }
    # A view has no version, so nothing can be known to be complete.
    done = workspace.complete("metrics of a table", key) if workspace and pin else None
    if workspace is not None and done is not None:
        found = _stored(workspace, key)
        return Measured(found, {**facts, **done.detail["facts"]}, _places(workspace), skipped=True)
    df = _usable(_open(spark, table, pin, roles, "table"), roles, profile, table.location)
    theirs = None
    if target is not None:
        theirs = _usable(
            _open(spark, target, other, roles, "target"), roles, profile, target.location
        )
    check_grouping(df, profile, roles, settings)
    watch.start(f"metrics of {Path(table.location).name}", {"gio.command": "metrics"})
    status = "FAILED"
    began = time.monotonic()
    try:
        with progress.stage("metrics", spark=spark) as shown:
            book, told = _codebook(df, profile, roles, clusters, seed)
            facts |= told
            figures = _figures(
                df, theirs, profile, roles, settings, book, workspace=workspace, key=key
            )
            shown.done(rows=_rows(figures))
        seconds = time.monotonic() - began
        facts |= {"rows": f"{_rows(figures):,}", "groups": f"{figures['group'].nunique():,}"}
        watch.params({"gime": settings.model_dump(mode="json"), "columns": roles})
        watch.inputs(
            TrackedInput(name=n, location=s.location, format=p.format, version=p.version, context=n)
            for n, s, p in (("table", table, pin), ("target", target, other))
            if s is not None and p is not None
        )
        watch.metrics({**named_values(figures), "seconds": seconds})
        if workspace is not None:
            kept = {k: facts[k] for k in ("rows", "groups", *told)}
            workspace.record(
                run=key[:12],
                stage="metrics of a table",
                fingerprint=key,
                table="metrics",
                rows=len(figures),
                seconds=seconds,
                detail={"facts": kept},
            )
        status = "FINISHED"
    finally:
        outcome = watch.end(status)
    places = {} if workspace is None else _places(workspace)
    return Measured(figures, facts, places, problem=outcome.problem or "")


def named_values(figures: pd.DataFrame) -> dict[str, float]:
    """Return group/metric -> robust value, for a tracker; at most 2,000 of them."""
    mine = figures[(figures["form"] == "robust") & figures["value"].notna()]
    pairs = zip(mine["group"], mine["metric"], mine["value"], strict=True)
    return {f"gime/{g}/{m}": float(v) for g, m, v in list(pairs)[:_MOST_LOGGED]}


def _rows(figures: pd.DataFrame) -> int:
    return int(figures.groupby("group")["rows"].max().sum())


def _places(workspace: Workspace) -> dict[str, str]:
    return {t: workspace.place(t) for t in ("metrics", "metric_states") if workspace.exists(t)}


def _stored(workspace: Workspace, key: str) -> pd.DataFrame:
    table = bounded(workspace.read("metrics", key), MAX_FIGURES, "metrics").to_pandas()
    return table.drop(columns="fingerprint").sort_values(["group"], kind="stable")


# ---- opening -----------------------------------------------------------------------------------


def _check_roles(roles: Mapping[str, Any], profile: Profile) -> None:
    """Refuse roles that the profile does not have."""
    known = sorted({role.rstrip("*") for role in profile.roles} | set(_EXTRA))
    for role in roles:
        if role not in known:
            near = difflib.get_close_matches(role, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}."
            raise ConfigError(f"The profile {profile.name!r} has no role {role!r}: {hint}")


def _pin(spark: SparkSession, one: InputSettings, name: str) -> Pin | None:
    """Find an input and its version; None for a view, which has none."""
    if is_readable_otherwise(spark, one.location):
        return None
    return pin_input(spark, one, name)


def _open(
    spark: SparkSession,
    one: InputSettings,
    pin: Pin | None,
    roles: Mapping[str, Any],
    name: str,
) -> DataFrame:
    if pin is None:
        return spark.read.table(quoted(one.location))
    if pin.format == "delta":
        return read(spark, one.location, int(pin.version))
    if pin.format == "parquet":
        try:
            df = spark.read.parquet(engine_path(spark, one.location))
            _ = df.schema
        except Exception as error:
            first = str(error).splitlines()[0][:200]
            raise InputError(f"{name}: cannot read Parquet files at {one.location}: {first}") from (
                error
            )
        return df
    if pin.files is None:
        raise InputError(f"{name}: the pin of {one.location} has no list of files.")
    typed = Columns.model_validate({k: v for k, v in roles.items() if k in Columns.model_fields})
    df, _names = read_lines(spark, pin.files, pin.format, typed)
    return df.where(F.col(BAD).isNull()).drop(BAD, LINE)


def _usable(df: DataFrame, roles: Mapping[str, Any], profile: Profile, where: str) -> DataFrame:
    """Check columns and types, and add what the profile reads but no column gives."""
    present = {f.name: f.dataType for f in df.schema.fields}
    for role, named in roles.items():
        for column in [named] if isinstance(named, str) else named:
            if column not in present:
                near = difflib.get_close_matches(str(column), list(present), n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                shown = ", ".join(list(present)[:20]) + (", ..." if len(present) > 20 else "")
                raise InputError(
                    f"{where} lacks the column {column!r} (role {role}): {hint}It has: {shown}."
                )
            _check_type(role, str(column), present[column], profile, where)
    text = roles.get("text")
    added = {}
    if text is not None:
        content = F.col(quoted_column(text))
        made = {
            "content": content,
            "bytes": F.octet_length(content).cast("bigint"),
            "tokens": F.size(F.split(F.trim(content), r"\s+")).cast("bigint"),
        }
        added = {
            r: c
            for r, c in made.items()
            if r in profile.roles and r not in roles and r not in present
        }
    identity = roles.get("id")
    if identity is not None and identity != "id":
        added["id"] = F.col(quoted_column(identity)).cast("string")
    elif "id" in present:
        added["id"] = F.col("id").cast("string")
    return df.withColumns(added) if added else df


def _check_type(role: str, column: str, kind: T.DataType, profile: Profile, where: str) -> None:
    wanted: tuple[type, ...]
    if role == "id":
        wanted, words = (T.StringType, *_NUMBERS[:4]), "a string or an integer"
    elif role == "text":
        wanted, words = (T.StringType,), "a string"
    else:
        stem = role if role in profile.roles else f"{role}*"
        wanted, words = _KINDS.get(profile.roles[stem], ((), ""))
    if wanted and not isinstance(kind, wanted):
        raise InputError(
            f"{where}: column {column!r} is {kind.simpleString()}, but the role {role} of the "
            f"profile {profile.name!r} must be {words}."
        )


def check_grouping(
    df: DataFrame, profile: Profile, roles: Mapping[str, Any], settings: GimeSettings
) -> None:
    """Refuse a grouping by columns that are not there.

    Raises:
        InputError: With the columns that are.
    """
    named = {k: v for k, v in roles.items() if k not in _EXTRA}
    found = role_columns(profile, df.columns, named)
    group_expression(list(settings.by), df.columns, found.get("event_time"))


def _codebook(
    df: DataFrame,
    profile: Profile,
    roles: Mapping[str, Any],
    clusters: int | None,
    seed: int,
) -> tuple[NDArray[Any] | None, dict[str, str]]:
    """Fit cells for vectors that have none."""
    vector = roles.get("vector", "vector")
    has_cells = "cluster" in roles or "cluster" in df.columns
    if "vector" not in profile.roles or vector not in df.columns or has_cells or clusters == 0:
        return None, {}
    if "id" not in df.columns:
        return None, {"cells": "none: vectors are put into cells where there is an id"}
    rows = df.select("id", F.col(quoted_column(vector)).alias("vector"))
    rows = rows.where(F.col("vector").isNotNull())
    count = rows.count()
    if count == 0:
        return None, {"cells": "none: no row has a vector"}
    if clusters is None:
        clusters = max(1, min(1_000, count // 20))
    model = quantize.MiniBatchKMeans(k=min(clusters, count), seed=seed).fit(rows, rows=count)
    return model.centroids, {"cells": f"{len(model.centroids):,}, fitted on this table"}


# ---- figures -----------------------------------------------------------------------------------


def _figures(
    df: DataFrame,
    target: DataFrame | None,
    profile: Profile,
    roles: Mapping[str, Any],
    settings: GimeSettings,
    book: NDArray[Any] | None,
    *,
    workspace: Workspace | None,
    key: str,
) -> pd.DataFrame:
    named = {k: v for k, v in roles.items() if k not in _EXTRA}
    by = list(settings.by) or None
    if workspace is None:
        found = gime.metrics(
            df, profile, by=by, target=target, columns=named, codebook=book, settings=settings
        )
        table = bounded(found, MAX_FIGURES, "metrics (use a coarser grouping)")
        return _sorted(table.to_pandas())
    chunks = settings if "id" in df.columns else settings.model_copy(update={"partitions": 1})
    frozen = gime.freeze(df, profile, target=target, columns=named, codebook=book, settings=chunks)
    known = None
    if target is not None:
        known = gime.target_states(target, profile, constants=frozen, columns=named)
    states = gime.states(df, profile, by=by, columns=named, constants=frozen, settings=chunks)
    workspace.write("metric_states", states, fingerprint=key, run=key[:12], stage="metrics")
    kept = workspace.read("metric_states", key).drop("fingerprint")
    found = gime.values(kept, profile, target=known, constants=frozen)
    table = bounded(found, MAX_FIGURES, "metrics (use a coarser grouping)")
    workspace.write_arrow("metrics", table, fingerprint=key, run=key[:12], stage="metrics")
    return _sorted(table.to_pandas())


def _sorted(figures: pd.DataFrame) -> pd.DataFrame:
    return figures.sort_values("group", kind="stable", ignore_index=True)
