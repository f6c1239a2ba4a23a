"""Mergeable partial states from one pass over a DataFrame: the Spark side of the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import hash53, map_arrow, row_hash
from gio_spark.errors import InputError
from gio_spark.gime.metric_profile import Constants, Profile
from gio_spark.gime.metric_state import State, merge
from gio_spark.gime.row_batch import Rows, from_arrow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

STATE_SCHEMA = "group string, partition string, metric string, version string, bytes binary"

NO_GROUP = "(none)"
_SEPARATOR = "\x1f"
_COMPACT = 8
_TIME_PARTS = {"year": "yyyy", "month": "yyyy-MM", "day": "yyyy-MM-dd"}

Loader = Callable[[], Constants]


def role_columns(profile: Profile, present: Sequence[str], columns: Any = None) -> dict[str, str]:
    """Column of each role that the data have.

    Args:
        profile: The profile, which names its roles.
        present: Columns of the data.
        columns: A `settings.columns.Columns`, a mapping role -> column, or None: columns that are
            named like the roles.

    Raises:
        InputError: A named column is not in the data.
    """
    named: dict[str, str] = {}
    if columns is not None:
        all_roles = columns.model_dump() if hasattr(columns, "model_dump") else dict(columns)
        single_columns = {role: name for role, name in all_roles.items() if isinstance(name, str)}
        column_lists = {r: n for r, n in all_roles.items() if isinstance(n, (list, tuple))}
        missing = {role: name for role, name in single_columns.items() if name not in present}
        missing |= {n: n for names in column_lists.values() for n in names if n not in present}
        # Roles of the configuration may name columns that are not in a table of few columns.
        if missing and not hasattr(columns, "model_dump"):
            raise InputError(
                f"Columns {sorted(missing.values())} are not in the data; it has {sorted(present)}."
            )
        named = {r: c for r, c in single_columns.items() if c in present and r in profile.roles}
        for stem in (role[:-1] for role in profile.roles if role.endswith("*")):
            column_list = column_lists.get(stem, ())
            named.update({f"{stem}:{name}": name for name in column_list if name in present})
    for role in profile.roles:
        if role in present:
            named.setdefault(role, role)
    stems = {role[:-1] for role in profile.roles if role.endswith("*")}
    for name in present:
        # Columns that are named as roles already: "numeric:age".
        if ":" in name and name.split(":")[0] in stems:
            named.setdefault(name, name)
    if "content" in profile.roles and "content_hash" in present:
        named.setdefault("content", "content_hash")
    return named


def _expression(df: DataFrame, name: str, kind: str) -> Column:
    from pyspark.sql import functions as F

    column = F.col(_quoted(name))
    if kind == "key":
        return F.when(column.isNotNull(), row_hash(df, column.cast("string")))
    if kind == "whole":
        return column.cast("bigint")
    if kind == "real":
        return column.cast("double")
    if kind == "time":
        return F.unix_micros(column.cast("timestamp"))
    return column


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def group_expression(
    by: str | Sequence[str] | None, present: Sequence[str], event_time: str | None
) -> Column:
    """Group of a row as one string; several columns are joined by ' | '.

    Args:
        by: Columns; `year`, `month` and `day` are taken from the event time where no column has
            that name. None puts all rows into the group "all".
        present: Columns of the data.
        event_time: Column of the event time, if there is one.

    Raises:
        InputError: A column does not exist.
    """
    from pyspark.sql import functions as F

    names = [by] if isinstance(by, str) else list(by or ())
    if not names:
        return F.lit("all")
    parts = []
    for name in names:
        if name in present:
            part = F.col(_quoted(name)).cast("string")
        elif name in _TIME_PARTS and event_time is not None:
            moment = F.col(_quoted(event_time)).cast("timestamp")
            part = F.date_format(moment, _TIME_PARTS[name])
        else:
            raise InputError(
                f"Cannot group by {name!r}: no such column; the data have {sorted(present)}."
            )
        parts.append(F.coalesce(part, F.lit(NO_GROUP)))
    return parts[0] if len(parts) == 1 else F.concat_ws(" | ", *parts)


def partition_expression(
    present: Sequence[str], batch: str | None, chunks: int, id_column: str = "id"
) -> Column:
    """Partition of a row: its refresh batch and the hash chunk of its id.

    It depends on the row alone, never on the engine's partitions, so that the partition of a
    deleted row is known and can be recomputed.

    Raises:
        InputError: There is no such batch column, or no id for the chunks.
    """
    from pyspark.sql import functions as F

    if batch is not None and batch not in present:
        raise InputError(f"No column {batch!r} to tell refresh batches by.")
    if chunks > 1 and id_column not in present:
        raise InputError(f"States in {chunks} chunks need the column {id_column!r}.")
    chunk = F.lit("0")
    if chunks > 1:
        chunk = (hash53(id_column, "gime-partition") % F.lit(chunks)).cast("string")
    if batch is None:
        return chunk
    name = F.coalesce(F.col(_quoted(batch)).cast("string"), F.lit(NO_GROUP))
    return F.concat_ws("/", name, chunk)


def accumulate(
    batches: Iterable[pa.RecordBatch],
    profile: Profile,
    kinds: Mapping[str, str],
    constants: Constants,
) -> Iterator[dict[str, list[Any]]]:
    """States of batches of (_group, _partition, roles), one dict of columns per group.

    Args:
        batches: Arrow batches.
        profile: Profile with the accumulators.
        kinds: Role -> kind of the role columns present.
        constants: Codebook, probes and so on.
    """
    versions = profile.versions(constants)
    states_of_group: dict[str, dict[str, list[State]]] = {}
    for batch in batches:
        if batch.num_rows == 0:
            continue
        rows = from_arrow(batch, kinds, constants.get("dimension"))
        if profile.prepare is not None:
            rows = profile.prepare(rows, constants)
        for key, part in _by_group(batch, rows):
            states = states_of_group.setdefault(key, {})
            for accumulator in profile.accumulators:
                if not all(n in part or constants.get(n) is not None for n in accumulator.needs):
                    continue
                of_accumulator = states.setdefault(accumulator.name, [])
                of_accumulator.append(
                    accumulator.state(part, constants, versions[accumulator.name])
                )
                if len(of_accumulator) >= _COMPACT:
                    states[accumulator.name] = [merge(of_accumulator, accumulator.merges)]
    for key, states in states_of_group.items():
        group, partition = key.split(_SEPARATOR)
        merged = [merge(parts, profile.accumulator(n).merges) for n, parts in states.items()]
        yield {
            "group": [group] * len(merged),
            "partition": [partition] * len(merged),
            "metric": [s.name for s in merged],
            "version": [s.version for s in merged],
            "bytes": [s.to_bytes() for s in merged],
        }


def _by_group(batch: pa.RecordBatch, rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Rows of a batch by (group, partition), each part contiguous."""
    joined = pc.binary_join_element_wise(
        batch.column("_group"), batch.column("_partition"), _SEPARATOR
    ).dictionary_encode()
    keys = joined.dictionary.to_pylist()
    if len(keys) == 1:
        yield keys[0], rows
        return
    codes = joined.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    sorted_rows = rows.take(order)
    edges = np.searchsorted(codes[order], np.arange(len(keys) + 1))
    for code, key in enumerate(keys):
        yield key, sorted_rows.slice(int(edges[code]), int(edges[code + 1]))


def as_roles(
    df: DataFrame,
    profile: Profile,
    *,
    by: str | Sequence[str] | None = None,
    columns: Any = None,
    batch: str | None = None,
    chunks: int = 1,
    extra_columns: Sequence[str | Column] = (),
) -> tuple[DataFrame, dict[str, str]]:
    """Rename columns to their roles; keys become hashes, times microseconds.

    Args:
        df: Rows.
        profile: Profile with the roles.
        by: Grouping columns, joined to `_group`.
        columns: Roles.
        batch: Column with the refresh batch of a row, part of `_partition`.
        chunks: Hash chunks of the id, part of `_partition`.
        extra_columns: Further columns, which are not changed.

    Returns:
        The rows, and role -> kind.
    """
    present = df.columns
    roles = role_columns(profile, present, columns)
    kinds = {role: profile.kind(role) for role in roles}
    prepared = df.select(
        group_expression(by, present, roles.get("event_time")).alias("_group"),
        partition_expression(present, batch, chunks).alias("_partition"),
        *(_expression(df, name, kinds[role]).alias(role) for role, name in roles.items()),
        *extra_columns,
    )
    return prepared, kinds


def scan(
    df: DataFrame,
    profile: Profile,
    load: Loader,
    *,
    by: str | Sequence[str] | None = None,
    columns: Any = None,
    batch: str | None = None,
    chunks: int = 1,
    only: Sequence[str] | None = None,
    batch_rows: int | None = None,
) -> DataFrame:
    """Partial states from one map over the data, several rows per (group, partition, metric).

    Args:
        df: Rows.
        profile: Profile with the accumulators.
        load: Function that returns the constants on a worker.
        by: Grouping columns.
        columns: Roles.
        batch: Column with the refresh batch of a row.
        chunks: Hash chunks of the id.
        only: Partitions to compute; None computes all.
        batch_rows: Rows per Arrow batch; by default 8,192 with vectors (batches of engines, so
            none is copied to be joined), else 65,536.
    """
    prepared, kinds = as_roles(df, profile, by=by, columns=columns, batch=batch, chunks=chunks)
    if only is not None:
        from pyspark.sql import functions as F

        prepared = prepared.where(F.col("_partition").isin([str(p) for p in only]))
    if batch_rows is None:
        batch_rows = 8192 if "vector" in kinds.values() else 65_536

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, list[Any]]]:
        return accumulate(batches, profile, kinds, load())

    return map_arrow(prepared, run, STATE_SCHEMA, batch_rows=batch_rows)
