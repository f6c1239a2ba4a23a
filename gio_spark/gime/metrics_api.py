"""Metrics of a DataFrame: states from one pass, merged by group, converted to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gio_spark.engine import bounded, broadcast_arrays, decode_vectors, group_arrow, hash_sample
from gio_spark.errors import InputError
from gio_spark.gime.mergeable_sums import on_grid
from gio_spark.gime.metric_profile import Constants, Profile, get_profile
from gio_spark.gime.metric_state import State, merge
from gio_spark.gime.partial_states import (
    STATE_SCHEMA,
    Loader,
    partition_expression,
    role_columns,
    scan,
)
from gio_spark.settings.gime import GimeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

METRIC_SCHEMA = (
    "group string, metric string, form string, value double, unit string, direction string, "
    "exactness string, error double, rows bigint, nulls bigint, caveat string, version string"
)


def metrics(
    df: DataFrame,
    profile: str | Profile = "text",
    by: str | Sequence[str] | None = None,
    target: DataFrame | Mapping[str, State] | None = None,
    columns: Any = None,
    *,
    codebook: NDArray[np.float32] | None = None,
    codebook_version: str | None = None,
    clusters: int | None = None,
    probes: NDArray[np.float32] | None = None,
    settings: GimeSettings | None = None,
    constants: Constants | None = None,
) -> DataFrame:
    """Compute the metrics of each group of rows in one pass.

    Args:
        df: Assignments (id, cluster, distance, tokens, source, ...), or embeddings with a vector
            column (clusters are then assigned in the same pass, with `codebook`).
        profile: Registered name of a profile, or a profile.
        by: Columns to group by; `year`, `month`, `day` come from the event time. None: one group.
        target: The target's rows (same kind of columns), or its states from `target_states`.
        columns: Roles (settings.columns.Columns or a mapping); None: columns named like roles.
        codebook: Centroids (K, d).
        codebook_version: Name of the codebook, for assignments made elsewhere; the hash of
            `codebook` by default.
        clusters: K; known from the codebook if that is given.
        probes: Target rows (P, d) whose coverage is measured; a hash sample of the target's
            vectors by default.
        settings: Sketch sizes, tau and so on.
        constants: From `freeze`, in place of codebook, clusters, probes and settings.

    Returns:
        DataFrame(group, metric, form, value, unit, direction, exactness, error, rows, nulls,
        caveat, version). Per group and metric one row of form "robust", one "literal", and
        further forms by name. A value that cannot be computed is null, with its caveat. Units and
        directions are columns of the table; docs/gime.md defines each metric.

    Raises:
        ConfigError: The profile is unknown.
        InputError: A column is missing, or codebook, probes and K contradict one another.
    """
    resolved = get_profile(profile)
    settings = settings or GimeSettings()
    frozen = constants or freeze(
        df,
        resolved,
        target=None if isinstance(target, Mapping) else target,
        columns=columns,
        codebook=codebook,
        codebook_version=codebook_version,
        clusters=clusters,
        probes=probes,
        settings=settings,
    )
    target_metric_states: Mapping[str, State] | None
    if target is None or isinstance(target, Mapping):
        target_metric_states = target
    else:
        target_metric_states = target_states(target, resolved, constants=frozen, columns=columns)
    partial = scan(df, resolved, _loader(df.sparkSession, frozen), by=by, columns=columns)
    return values(partial, resolved, target=target_metric_states, constants=frozen)


def states(
    df: DataFrame,
    profile: str | Profile = "text",
    by: str | Sequence[str] | None = None,
    columns: Any = None,
    *,
    constants: Constants | None = None,
    batch: str | None = None,
    only: Sequence[str] | None = None,
    settings: GimeSettings | None = None,
) -> DataFrame:
    """Compute the states of each (group, partition), to be stored and merged later.

    Args:
        df: Rows, with an `id` column.
        profile: Registered name of a profile, or a profile.
        by: Columns to group by.
        columns: Roles.
        constants: From `gime.freeze`; store it with the states, whose versions depend on it.
        batch: Column with the refresh batch of a row; a partition is then "batch/chunk".
        only: Partitions to compute (after deletes: the touched ones).
        settings: Number of chunks and so on.

    Returns:
        DataFrame(group, partition, metric, version, bytes); `metric` is the accumulator's name.
    """
    resolved = get_profile(profile)
    settings = settings or GimeSettings()
    frozen = constants or freeze(df, resolved, columns=columns, settings=settings)
    partial = scan(
        df,
        resolved,
        _loader(df.sparkSession, frozen),
        by=by,
        columns=columns,
        batch=batch,
        chunks=settings.partitions,
        only=only,
    )
    return merge_states(partial, resolved)


def merge_states(states: DataFrame, profile: str | Profile = "text") -> DataFrame:
    """Merge states to one per (group, partition, metric).

    Refresh: `merge_states(old.unionByName(states(new_rows, ...)))`. States of different versions
    refuse to merge.
    """
    resolved = get_profile(profile)

    def run(table: pa.Table) -> dict[str, list[Any]]:
        merged = _merge_table(table, resolved)[table.column("metric")[0].as_py()]
        return {
            "group": [table.column("group")[0].as_py()],
            "partition": [table.column("partition")[0].as_py()],
            "metric": [merged.name],
            "version": [merged.version],
            "bytes": [merged.to_bytes()],
        }

    return group_arrow(states, ["group", "partition", "metric"], run, STATE_SCHEMA)


def replace_partitions(states: DataFrame, fresh: DataFrame, partitions: Sequence[str]) -> DataFrame:
    """Replace the states of some partitions by recomputed ones (after deletes or updates).

    Args:
        states: Stored states.
        fresh: Current states of the touched partitions (`states(df, only=partitions)`); a group
            without rows in them has none.
        partitions: The touched partitions.
    """
    from pyspark.sql import functions as F

    touched = [str(p) for p in partitions]
    return states.where(~F.col("partition").isin(touched)).unionByName(fresh)


def partitions_of(
    df: DataFrame, *, batch: str | None = None, settings: GimeSettings | None = None
) -> list[str]:
    """Partitions of some rows (deleted or updated ones), sorted.

    Args:
        df: Rows with `id`, and the batch column if the states have one.
        batch: Column with the refresh batch of a row.
        settings: Settings of the states.
    """
    chunks = (settings or GimeSettings()).partitions
    named = df.select(partition_expression(df.columns, batch, chunks).alias("partition"))
    table = bounded(named.distinct(), 1_000_000, "touched partitions")
    return sorted(table.column("partition").to_pylist())


def values(
    states: DataFrame,
    profile: str | Profile = "text",
    *,
    target: Mapping[str, State] | None = None,
    constants: Constants | None = None,
) -> DataFrame:
    """Compute metric values from states, one set per group; see `metrics` for the columns.

    Args:
        states: Rows of (group, partition, metric, version, bytes), partial states as well.
        profile: Profile of the states.
        target: The target's states, from `target_states`.
        constants: Constants of the states.
    """
    resolved = get_profile(profile)
    frozen = constants or Constants()
    load = _loader(states.sparkSession, frozen)
    packed = {name: one.to_bytes() for name, one in (target or {}).items()}

    def run(table: pa.Table) -> dict[str, list[Any]]:
        target_metric_states = {name: State.from_bytes(content) for name, content in packed.items()}
        merged = _merge_table(table, resolved)
        return _figures(
            table.column("group")[0].as_py(), merged, target_metric_states or None, resolved, load()
        )

    return group_arrow(states, "group", run, METRIC_SCHEMA)


def target_states(
    target: DataFrame,
    profile: str | Profile = "text",
    *,
    constants: Constants,
    columns: Any = None,
) -> dict[str, State]:
    """Compute the states of an entire target on the driver (some megabytes).

    Raises:
        InputError: The target has no rows.
    """
    resolved = get_profile(profile)
    partial = scan(target, resolved, _loader(target.sparkSession, constants), columns=columns)
    merged = group_arrow(
        partial, "metric", lambda table: _one_row(table, resolved), "metric string, bytes binary"
    )
    table = bounded(merged, len(resolved.accumulators), "the target's states")
    if table.num_rows == 0:
        raise InputError("The target has no rows, so nothing can be compared with it.")
    states = (State.from_bytes(content) for content in table.column("bytes").to_pylist())
    return {state.name: state for state in states}


def freeze(
    df: DataFrame,
    profile: str | Profile = "text",
    *,
    target: DataFrame | None = None,
    columns: Any = None,
    codebook: NDArray[np.float32] | None = None,
    codebook_version: str | None = None,
    clusters: int | None = None,
    probes: NDArray[np.float32] | None = None,
    settings: GimeSettings | None = None,
) -> Constants:
    """Build the constants that states depend on, so that states of any date can merge.

    Args:
        df: Rows with the columns that states will be computed from.
        profile: Registered name of a profile, or a profile.
        target: Rows whose hash sample serves as probes, where they have vectors.
        columns: Roles.
        codebook: Centroids (K, d).
        codebook_version: Name of the codebook.
        clusters: K.
        probes: Target rows (P, d).
        settings: Sketch sizes and so on.

    Raises:
        InputError: Codebook, probes and K contradict one another.
    """
    resolved = get_profile(profile)
    settings = settings or GimeSettings()
    constants: dict[str, Any] = {
        **resolved.defaults,
        "sketch_log_size": settings.sketch_log_size,
        "bucket_microseconds": round(settings.bucket_hours * 3_600_000_000),
        "tau": settings.tau,
        "clusters": clusters,
        "codebook_version": codebook_version,
    }
    if codebook is not None:
        codebook = np.ascontiguousarray(codebook, np.float32)
        if clusters not in (None, len(codebook)):
            raise InputError(f"The codebook has {len(codebook)} rows, and clusters={clusters}.")
        constants["clusters"] = len(codebook)
        constants["codebook"] = codebook
        if codebook_version is None:
            constants["codebook_version"] = Constants({"codebook": codebook}).digest(["codebook"])
    roles = role_columns(resolved, df.columns, columns)
    constants["fields"] = tuple(role for role in roles if ":" in role)
    vector = roles.get("vector")
    if vector is not None:
        dimension = codebook.shape[1] if codebook is not None else _dimension(df, vector)
        if probes is None and target is not None:
            probes = _probes(target, resolved, columns, settings.probes, dimension)
        constants["dimension"] = dimension
        constants["basis"] = _basis(dimension, settings.directions, codebook)
        if probes is not None:
            constants["probes"] = probes
            if probes.ndim != 2 or probes.shape[1] != dimension:
                raise InputError(
                    f"Probes of shape {probes.shape} do not fit vectors of {dimension} numbers."
                )
            constants["probe_grid"] = on_grid(probes)
    return Constants(constants)


def _dimension(df: DataFrame, vector: str) -> int:
    """Length of the vectors, from the first row with one."""
    table = df.select(vector).where(df[vector].isNotNull()).limit(1).toArrow()
    if table.num_rows == 0:
        return 1
    return int(decode_vectors(table.column(0)).shape[1])


def _probes(
    target: DataFrame, profile: Profile, columns: Any, rows: int, dimension: int
) -> NDArray[np.float32] | None:
    name = role_columns(profile, target.columns, columns).get("vector")
    if name is None or "id" not in target.columns:
        return None
    usable = target.where(target[name].isNotNull()).select("id", name)
    count = usable.count()
    if count == 0:
        return None
    table = hash_sample(usable, rows, "gime-probes", total=count)
    return np.array(decode_vectors(table.column(name), dimension))


def _basis(
    dimension: int, directions: int, codebook: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Directions on the grid: the codebook's leading ones, completed by fixed random ones."""
    if dimension <= directions:
        return None
    lead = np.zeros((0, dimension))
    if codebook is not None and len(codebook) > 1:
        wide = codebook.astype(np.float64)
        lead = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)[2][:directions]
    filler = np.random.default_rng(0).standard_normal((directions, dimension))
    orthonormal, _ = np.linalg.qr(np.vstack([lead, filler])[:directions].T)
    return on_grid(orthonormal.T)


def _loader(spark: SparkSession, constants: Constants) -> Loader:
    """Build a function that returns the constants on a worker; arrays are broadcast."""
    arrays = {k: v for k, v in constants.values.items() if isinstance(v, np.ndarray)}
    scalars = {k: v for k, v in constants.values.items() if not isinstance(v, np.ndarray)}
    if not arrays:
        return lambda: Constants(scalars)
    broadcast = broadcast_arrays(spark, arrays)
    return lambda: Constants({**scalars, **broadcast.load()})


def _merge_table(table: pa.Table, profile: Profile) -> dict[str, State]:
    """Merge the states of one group, in an order that does not depend on their arrival."""
    order = [("metric", "ascending"), ("partition", "ascending")]
    parts: dict[str, list[State]] = {}
    for content in table.sort_by(order).column("bytes").to_pylist():
        state = State.from_bytes(content)
        parts.setdefault(state.name, []).append(state)
    return {name: merge(states, profile.accumulator(name).merges) for name, states in parts.items()}


def _one_row(table: pa.Table, profile: Profile) -> dict[str, list[Any]]:
    ((name, state),) = _merge_table(table, profile).items()
    return {"metric": [name], "bytes": [state.to_bytes()]}


def _figures(
    group: str,
    merged: Mapping[str, State],
    target: Mapping[str, State] | None,
    profile: Profile,
    constants: Constants,
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {field.split()[0]: [] for field in METRIC_SCHEMA.split(", ")}
    rows = merged["volume"].number("rows") if "volume" in merged else None
    for metric in profile.metrics:
        used = {n for s in metric.states for n in profile.accumulator(s).uses}
        version = f"{profile.name}/{metric.name}@{metric.version}#{constants.digest(used)}"
        for value in metric.value(merged, target, constants):
            record = {
                "group": group,
                "metric": metric.name,
                "form": value.form,
                "value": None if value.value is None else float(value.value),
                "unit": value.unit,
                "direction": value.direction,
                "exactness": "exact" if value.error == 0 else f"sketch, error {value.error:.2%}",
                "error": float(value.error),
                "rows": rows,
                "nulls": int(value.nulls),
                "caveat": value.caveat,
                "version": version,
            }
            for name, entry in record.items():
                columns[name].append(entry)
    return columns
