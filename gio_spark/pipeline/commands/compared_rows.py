"""Rows of two selections below one another, and what is counted of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import bounded
from gio_spark.pipeline.commands.find_selections import SelectionRef, run_summary
from gio_spark.pipeline.stages.select_rows import GIO_COLUMNS, REPEAT_COLUMNS
from gio_spark.settings.columns import Columns
from gio_spark.tables import Workspace, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MOST_GROUPS = 1_000
"""Clusters, and sources, that are counted: those with the most rows in or out."""
_MOST_COLUMNS = 200


@dataclass(frozen=True)
class SideRows:
    """Rows of both selections: side, id, is_shared, cluster, source, n0, n1, ...

    Attributes:
        rows: The rows.
        has_sources: Whether both have a column of sources.
        numbers: Numeric columns that both have; n0 is the first of them.
    """

    rows: DataFrame
    has_sources: bool
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, workspace: Workspace, a: SelectionRef, b: SelectionRef) -> SideRows:
        """Open two selections."""
        tables = [workspace.read_table(one.table) for one in (a, b)]
        columns = [_columns_of(workspace, one.run) for one in (a, b)]
        sources = [
            one.source if one.source in table.columns else None
            for one, table in zip(columns, tables, strict=True)
        ]
        has_sources = None not in sources
        ids = {one.id for one in columns}
        numbers = tuple(n for n in _shared_numbers(tables) if n not in ids)[:_MOST_COLUMNS]
        sides = []
        for side, table, source, other in zip("ab", tables, sources, tables[::-1], strict=True):
            other_ids = other.select("gio_id", F.lit(1).alias("in_other"))
            side_rows = table.select(
                "gio_id",
                F.col("gio_cluster").alias("cluster"),
                _source(source).alias("source"),
                *[_number(n).alias(f"n{i}") for i, n in enumerate(numbers)],
            )
            joined = side_rows.join(other_ids, "gio_id", "left").withColumn("side", F.lit(side))
            sides.append(joined.withColumn("is_shared", F.col("in_other").isNotNull()))
        rows = sides[0].unionByName(sides[1]).drop("in_other")
        return cls(rows.withColumnRenamed("gio_id", "id"), has_sources, numbers)

    def counts(self) -> dict[tuple[str, bool], int]:
        """Rows by side and whether the other side has them."""
        counted = self.rows.groupBy("side", "is_shared").agg(F.count(F.lit(1)).alias("rows"))
        table = bounded(counted, 4, "sides").to_pylist()
        zero = {(side, shared): 0 for side in "ab" for shared in (True, False)}
        return {**zero, **{(r["side"], r["is_shared"]): int(r["rows"]) for r in table}}

    def by_group(self, column: str) -> pd.DataFrame:
        """Counts by cluster or source, those with the most differing rows first."""
        in_a, alone = F.col("side") == F.lit("a"), ~F.col("is_shared")
        conditions = {
            "rows_a": in_a, "rows_b": ~in_a, "rows_in": ~in_a & alone, "rows_out": in_a & alone,
        }  # fmt: skip
        counted = self.rows.groupBy(column).agg(
            *[F.sum(F.when(c, 1).otherwise(0)).alias(n) for n, c in conditions.items()]
        )
        order = ((F.col("rows_in") + F.col("rows_out")).desc(), F.col(column).asc_nulls_first())
        most = counted.orderBy(*order).limit(MOST_GROUPS)
        table = bounded(most, MOST_GROUPS, f"rows by {column}").to_pandas()
        table["differing"] = table["rows_in"] + table["rows_out"]
        table = table.sort_values(["differing", column], ascending=[False, True])
        return table.drop(columns="differing").reset_index(drop=True)

    def means(self) -> pd.DataFrame:
        """Means of numeric columns of A, B, rows in and rows out; NaN where none has a value."""
        names = ("column", "mean_a", "mean_b", "mean_in", "mean_out")
        if not self.numbers:
            return pd.DataFrame(columns=list(names))
        parts: list[Column] = []
        for i in range(len(self.numbers)):
            parts += [F.sum(f"n{i}").alias(f"sum{i}"), F.count(f"n{i}").alias(f"count{i}")]
        summed = self.rows.groupBy("side", "is_shared").agg(*parts)
        table = bounded(summed, 4, "sides").to_pandas()
        in_a, alone = table["side"] == "a", ~table["is_shared"].astype(bool)
        lines = []
        for i, name in enumerate(self.numbers):
            groups = {
                "mean_a": table[in_a],
                "mean_b": table[~in_a],
                "mean_in": table[~in_a & alone],
                "mean_out": table[in_a & alone],
            }
            means = {
                label: _mean(group[f"sum{i}"].sum(), group[f"count{i}"].sum())
                for label, group in groups.items()
            }
            lines.append({"column": name, **means})
        return pd.DataFrame(lines, columns=list(names))

    def changes(self) -> DataFrame:
        """Ids that differ: id and change (in or out), ordered by id."""
        change = F.when(F.col("side") == F.lit("a"), F.lit("out")).otherwise(F.lit("in"))
        differing = self.rows.where(~F.col("is_shared"))
        return differing.select("id", change.alias("change")).orderBy("id")


def _columns_of(workspace: Workspace, run: str) -> Columns:
    """Roles of the pool's columns in a run; none where it has not finished."""
    summary = run_summary(workspace, run)
    if summary is None:
        return Columns()
    named = summary.settings["pool"].get("columns") or summary.settings["columns"]
    return Columns.model_validate(named)


def _shared_numbers(tables: Sequence[DataFrame]) -> list[str]:
    """Names of the pool's numeric columns in both tables, the log ratio, and repeats."""
    names = [
        {f.name for f in t.schema.fields if isinstance(f.dataType, T.NumericType)} for t in tables
    ]
    own = [n for n in tables[0].columns if n in names[0] & names[1] and n not in GIO_COLUMNS]
    return [*own, "gio_log_ratio", *(n for n in REPEAT_COLUMNS if n in names[0] & names[1])]


def _number(name: str) -> Column:
    value = F.col(quoted_column(name)).cast("double")
    return F.when(~F.isnan(value), value)


def _source(name: str | None) -> Column:
    if name is None:
        return F.lit(None).cast("string")
    return F.coalesce(F.col(quoted_column(name)).cast("string"), F.lit(""))


def _mean(total: float, count: float) -> float:
    """Mean to six digits: sums of floats differ in the last ones with the order of the rows."""
    return float(f"{total / count:.6g}") if count else float("nan")
