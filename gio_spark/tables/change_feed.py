"""Delta's change data feed: ids of the rows that changed between two versions of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from gio_spark.engine import bounded, capabilities
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.errors import DataFileError, GioSparkError
from gio_spark.tables import delta
from gio_spark.tables.identifiers import kind_of, quoted, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.tables.inputs import Input

_PROPERTY = "delta.enableChangeDataFeed"
# Commits that change rows and say which, or change none. After any other one (RESTORE, REPLACE,
# RENAME COLUMN, SET TBLPROPERTIES, which may switch the feed off and on) all rows are compared.
_OPERATIONS = frozenset(
    {
        "ADD COLUMNS", "COMPUTE STATS", "COPY INTO", "DELETE", "MERGE", "OPTIMIZE", "REORG",
        "STREAMING UPDATE", "TRUNCATE", "UPDATE", "VACUUM END", "VACUUM START", "WRITE",
    }
)  # fmt: skip
_MOST_VERSIONS = 10_000
# Commits after the pinned version that the history may begin with.
_LATER_VERSIONS = 1_000
# With these, an engine leaves out changes whose files are gone.
_LENIENT = ("spark.sql.files.ignoreMissingFiles", "spark.sql.files.ignoreCorruptFiles")


def changed_ids(
    spark: SparkSession, source: Input, since: int | None, most: int
) -> tuple[DataFrame | None, str]:
    """Ids of the rows that were inserted, updated or deleted after a version, once each.

    What became of them is for the caller to compare: the present rows are the last event of each
    id, and of a delete and an insert in one version, as INSERT OVERWRITE leaves them, the table has
    the insert.

    Args:
        spark: The session.
        source: The input at its version.
        since: Earlier version of the same table; None where that was another one.
        most: Ids above which none are returned.

    Returns:
        Ids, and ""; or None, and why the feed does not give them, "" where there is no feed.
    """
    if source.format != "delta" or not capabilities(spark).change_feed:
        return None, ""
    try:
        with engine_errors(location=source.location):
            if not _has_feed(spark, source.location):
                return None, ""
            if since is None:
                return None, "the version before is that of another table, or from before a purge"
            until = int(source.version)
            why = _obstacle(spark, source.location, since, until)
            if why:
                return None, why
            events = _events(spark, source.location, since, until)
            own = events.select(*map(quoted_column, source.own_columns))
            ids = source.with_ids(own).select("id").where(F.col("id").isNotNull()).distinct()
            count = int(ids.limit(most + 1).count())
    except DataFileError:
        return None, "files of it cannot be read; VACUUM removes them in time"
    except (GioSparkError, PySparkException) as error:
        return None, str(error).splitlines()[0][:200]
    return (ids, "") if count <= most else (None, f"more than {most:,} rows were written")


def _has_feed(spark: SparkSession, location: str) -> bool:
    detail = spark.sql(f"DESCRIBE DETAIL {delta.sql_name(spark, location)}").first()
    return detail is not None and (detail["properties"] or {}).get(_PROPERTY) == "true"


def _events(spark: SparkSession, location: str, since: int, until: int) -> DataFrame:
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", since + 1).option("endingVersion", until)
    if kind_of(location) == "table":
        return reader.table(quoted(location))
    return reader.load(location)


def _obstacle(spark: SparkSession, location: str, since: int, until: int) -> str:
    """Why the feed between two versions cannot be relied on, or ""."""
    if not 0 < until - since <= _MOST_VERSIONS:
        return f"version {until} is not a later one than {since}, or too far from it"
    lenient = [name for name in _LENIENT if _is_on(spark, name)]
    if lenient:
        return f"{lenient[0]} is set"
    name = delta.sql_name(spark, location)
    limit = until - since + _LATER_VERSIONS
    history = spark.sql(f"DESCRIBE HISTORY {name} LIMIT {limit}").select("version", "operation")
    commits = history.where(F.col("version").between(since + 1, until))
    operations = {
        int(row["version"]): str(row["operation"])
        for row in bounded(commits, _MOST_VERSIONS, "commits").to_pylist()
    }
    if len(operations) < until - since:
        return f"the log has {len(operations):,} of the {until - since:,} commits since {since}"
    others = [(v, o) for v, o in sorted(operations.items()) if o not in _OPERATIONS]
    return f"version {others[0][0]} is {others[0][1]}" if others else ""


def _is_on(spark: SparkSession, name: str) -> bool:
    try:
        return spark.conf.get(name, "false") == "true"
    except PySparkException:  # a platform that does not show it does not let it be set either
        return False
