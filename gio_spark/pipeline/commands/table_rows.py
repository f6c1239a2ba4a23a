"""Tables that are measured outside of a run: opening, checks and clusters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark import quantize
from gio_spark.errors import ConfigError, GioSparkError, InputError
from gio_spark.gime import get_profile
from gio_spark.settings.columns import Columns
from gio_spark.tables import PinnedInput, pin_input, quoted, quoted_column
from gio_spark.tables.content_expressions import (
    TEXT_COLUMN,
    content_expression,
    with_text_column,
)
from gio_spark.tables.content_paths import is_expression
from gio_spark.tables.delta import is_readable_otherwise, read
from gio_spark.tables.duplicate_ids import free_name
from gio_spark.tables.parquet_files import parquet_rows, uncarried_columns_of
from gio_spark.tables.text_casts import BAD, LINE
from gio_spark.tables.text_files import read_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.gime.metric_profile import Profile
    from gio_spark.settings.gime import GimeSettings
    from gio_spark.settings.inputs import InputSettings

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
EXTRA = ("id", "text", "chat_roles")


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a table that one profile measures: all, or those of a source.

    Attributes:
        source: The source; None for all rows.
        profile: Its profile.
        roles: Role -> column, those that the profile reads.
        rows: The rows.
        target: Those of the target, where it has any of this source.
    """

    source: str | None
    profile: Profile
    roles: dict[str, Any]
    rows: DataFrame
    target: DataFrame | None

    def named(self, metric: str) -> str:
        """Name of a metric of these rows."""
        return metric if self.source is None else f"{self.source}/{metric}"


def check_roles(roles: Mapping[str, Any], profiles: Sequence[Profile]) -> None:
    """Refuse roles that no profile has."""
    known = sorted({role.rstrip("*") for p in profiles for role in p.roles} | set(EXTRA))
    names = ", ".join(dict.fromkeys(repr(p.name) for p in profiles))
    for role in roles:
        if role not in known:
            near = difflib.get_close_matches(role, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}."
            raise ConfigError(f"The profile {names} has no role {role!r}: {hint}")


def parts_of(
    df: DataFrame,
    target: DataFrame | None,
    roles: Mapping[str, Any],
    settings: GimeSettings,
    where: tuple[str, str],
) -> list[Part]:
    """Split a table by profile: all rows first, then the sources with a profile.

    Args:
        df: The table.
        target: Rows that it is compared with.
        roles: Role -> column.
        settings: `profile`, `profiles`.
        where: Names of both, for messages.

    Raises:
        InputError: A column cannot be used, or a source has no row.
    """
    column = roles.get("source", "source")
    parts = []
    for source, name in [(None, settings.profile), *settings.profiles.items()]:
        profile = get_profile(name)
        stems = {role.rstrip("*") for role in profile.roles}
        mine = {r: c for r, c in roles.items() if r in stems or r in EXTRA}
        rows, theirs = df, target
        if source is not None:
            rows = _of_source(df, column, source, where[0])
            if rows.limit(1).count() == 0:
                raise InputError(
                    f"gime.profiles names the source {source!r}, but {where[0]} has no row of it."
                )
            # A target without sources is that of every source.
            if target is not None and column in target.columns:
                theirs = _of_source(target, column, source, where[1])
                theirs = theirs if theirs.limit(1).count() else None
        rows = usable(rows, mine, profile, where[0])
        theirs = None if theirs is None else usable(theirs, mine, profile, where[1])
        parts.append(Part(source, profile, mine, rows, theirs))
    return parts


def _of_source(df: DataFrame, column: str, source: str, where: str) -> DataFrame:
    if column not in df.columns:
        raise InputError(
            f"gime.profiles needs the column of sources, and {where} has no {column!r}: name it "
            "with --columns source=..."
        )
    return df.where(F.coalesce(F.col(quoted_column(column)).cast("string"), F.lit("")) == source)


def find_pin(spark: SparkSession, one: InputSettings, name: str) -> PinnedInput | None:
    """Find an input and its version; None for a view, which has none."""
    if is_readable_otherwise(spark, one.location):
        return None
    return pin_input(spark, one, name)


@dataclass(frozen=True)
class OpenTable:
    """A table that is measured.

    Attributes:
        rows: Its rows.
        location: Where it was read from.
        json_messages: As for `tables.text_files.LineRows`.
    """

    rows: DataFrame
    location: str
    json_messages: bool = False


def open_table(
    spark: SparkSession,
    one: InputSettings,
    pinned: PinnedInput | None,
    roles: Mapping[str, Any],
    name: str,
) -> OpenTable:
    """Open a table at its pin."""
    if pinned is None:
        return OpenTable(spark.read.table(quoted(one.location)), one.location)
    if pinned.format == "delta":
        return OpenTable(read(spark, one.location, int(pinned.version)), one.location)
    if pinned.files is None:
        raise InputError(f"{name}: the pin of {one.location} has no list of files.")
    if pinned.format == "parquet":
        dropped = uncarried_columns_of(pinned.files)
        try:
            df = parquet_rows(spark, name, one.location, pinned.files, dropped).rows
            _ = df.schema
        except GioSparkError:
            raise
        except Exception as error:
            first = str(error).splitlines()[0][:200]
            raise InputError(f"{name}: cannot read Parquet files at {one.location}: {first}") from (
                error
            )
        return OpenTable(df, one.location)
    lines = read_lines(spark, pinned.files, pinned.format, _columns(roles), one.csv)
    rows = lines.rows.where(F.col(BAD).isNull()).drop(BAD, LINE)
    return OpenTable(rows, one.location, lines.json_messages)


def _columns(roles: Mapping[str, Any]) -> Columns:
    return Columns.model_validate({k: v for k, v in roles.items() if k in Columns.model_fields})


def with_text(
    tables: Sequence[OpenTable], roles: Mapping[str, Any]
) -> tuple[list[DataFrame], dict[str, Any]]:
    """Rows of tables with the text that the role `text` stands for, and the roles then.

    Args:
        tables: A table, and one that it may be compared with.
        roles: Role -> column; `text` may be an expression, or name chat messages.

    Raises:
        ConfigError: The expression cannot be read.
        InputError: It does not fit the columns.
    """
    rows = [table.rows for table in tables]
    named = {role: column for role, column in roles.items() if role != "chat_roles"}
    text = named.get("text")
    missing = [t for t in rows if text not in t.columns and not is_expression(str(text), t.columns)]
    if text is None or missing:
        return rows, named  # a missing column is refused where all roles are checked
    expressions = [
        content_expression(
            one.location, one.rows.schema, _columns(roles), json_messages=one.json_messages
        )
        for one in tables
    ]
    if not any(expressions):
        return rows, named
    name = free_name(TEXT_COLUMN, [column for one in rows for column in one.columns])
    named["text"] = name
    with_texts = [
        one.withColumn(name, F.col(quoted_column(text)))
        if expression is None
        else with_text_column(one, name, expression)
        for one, expression in zip(rows, expressions, strict=True)
    ]
    return with_texts, named


def usable(df: DataFrame, roles: Mapping[str, Any], profile: Profile, where: str) -> DataFrame:
    """Check columns and types, and add the roles of the profile that have no column."""
    present = {f.name: f.dataType for f in df.schema.fields}
    for role, named in roles.items():
        for column in [named] if isinstance(named, str) else named:
            if column not in present:
                near = difflib.get_close_matches(str(column), list(present), n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                names_text = ", ".join(list(present)[:20]) + (", ..." if len(present) > 20 else "")
                raise InputError(
                    f"{where} lacks the column {column!r} (role {role}): {hint}"
                    f"It has: {names_text}."
                )
            _check_type(role, str(column), present[column], profile, where)
    text = roles.get("text")
    added = {}
    if text is not None:
        content = F.col(quoted_column(text))
        derived = {
            "content": content,
            "bytes": F.octet_length(content).cast("bigint"),
            "tokens": F.size(F.split(F.trim(content), r"\s+")).cast("bigint"),
        }
        added = {
            r: c
            for r, c in derived.items()
            if r in profile.roles and r not in roles and r not in present
        }
    identity = roles.get("id")
    if identity is not None and identity != "id":
        added["id"] = F.col(quoted_column(identity)).cast("string")
    elif "id" in present:
        added["id"] = F.col("id").cast("string")
    return df.withColumns(added) if added else df


def _check_type(role: str, column: str, kind: T.DataType, profile: Profile, where: str) -> None:
    accepted: tuple[type, ...]
    if role == "id":
        accepted, words = (T.StringType, *_NUMBERS[:4]), "a string or an integer"
    elif role == "text":
        accepted, words = (T.StringType,), "a string"
    else:
        stem = role if role in profile.roles else f"{role}*"
        accepted, words = _KINDS.get(profile.roles[stem], ((), ""))
    if accepted and not isinstance(kind, accepted):
        raise InputError(
            f"{where}: column {column!r} is {kind.simpleString()}, but the role {role} of the "
            f"profile {profile.name!r} must be {words}."
        )


def fit_codebook(
    df: DataFrame,
    profile: Profile,
    roles: Mapping[str, Any],
    clusters: int | None,
    seed: int,
) -> tuple[NDArray[Any] | None, dict[str, str]]:
    """Fit clusters for vectors that have none."""
    vector = roles.get("vector", "vector")
    has_clusters = "cluster" in roles or "cluster" in df.columns
    if "vector" not in profile.roles or vector not in df.columns or has_clusters or clusters == 0:
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
