"""Bounded hash samples of datasets with vectors and content, as arrays on the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from gio_spark.engine import bounded, decode_vectors, hash53, hash_sample
from gio_spark.engine.arrow import take_rows
from gio_spark.engine.sampling import HASH_RANGE
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.tables import quoted_column

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame

    from gio_spark.pipeline.run_state import Dataset
    from gio_spark.settings.columns import Columns

CATEGORY = "_category:"
"""Prefix of the categorical columns of a sample."""


@dataclass(frozen=True)
class DatasetPart:
    """Rows of a dataset, or a part of them by hash of the group, or of the id without groups.

    Attributes:
        ctx: The run.
        dataset: Whose rows.
        share: Share of the rows that is set apart; 0: there are no parts.
        set_apart: Whether these are the rows of that share, or all others.
        salt: Purpose of the parts.
    """

    ctx: RunContext
    dataset: Dataset
    share: float = 0.0
    set_apart: bool = False
    salt: str = ""

    def rows(self) -> DataFrame:
        """The rows: id, vector and what is carried."""
        rows = vectors_of(self.ctx, self.dataset)
        if self.share == 0.0:
            return rows
        bound, key = F.lit(round(self.share * HASH_RANGE)), "id"
        source = self.dataset.source
        if source.columns.group is not None:
            key = "_group"
            groups = source.rows.select("id", group_of_row(source.columns).alias(key))
            rows = rows.join(groups, "id")
        hashed = hash53(key, self.salt)
        return rows.where(hashed < bound if self.set_apart else hashed >= bound).drop("_group")

    @property
    def row_count(self) -> int:
        """Expected number of rows, at least one."""
        share = 1.0 if self.share == 0.0 else self.share if self.set_apart else 1.0 - self.share
        return max(1, round(self.dataset.usable * share))


def group_of_row(columns: Columns) -> Column:
    """Group of each row as a string; a row without a group is one of its own."""
    return F.coalesce(F.col(quoted_column(str(columns.group))).cast("string"), F.col("id"))


def sample_parts(
    parts: Sequence[DatasetPart],
    weights: Sequence[float],
    limit: int,
    salt: str,
    *,
    characters: int | None = None,
) -> pa.Table:
    """Sample of several datasets in proportion to their weights: id, vector, label, content, group.

    Args:
        parts: The datasets.
        weights: Weight of each; a dataset of few rows bounds the rows of the others.
        limit: Most rows of the sample.
        salt: Purpose of the sample.
        characters: Characters of a text that are read; None: all.
    """
    total_weight = sum(weights)
    shares = [weight / total_weight for weight in weights]
    rows = min(
        limit, *(int(part.row_count / share) for part, share in zip(parts, shares, strict=True)),
        limit,
    )  # fmt: skip
    tables = []
    for part, share in zip(parts, shares, strict=True):
        part_rows = max(1, round(rows * share))
        sample = hash_sample(
            part.rows().select("id", "vector", "label"), part_rows, salt, total=part.row_count
        )
        tables.append(with_content(part.ctx, part.dataset, sample, characters=characters))
    common = set.intersection(*(set(table.column_names) for table in tables))
    return pa.concat_tables(table.select(sorted(common)) for table in tables)


def add_columns(ctx: RunContext, sample: pa.Table, other: DataFrame) -> pa.Table:
    """Sample with the columns of another table, joined by id; the ids are broadcast."""
    ids = ctx.spark.createDataFrame(pa.table({"id": sample["id"].cast(pa.string())}))
    matches = bounded(other.join(F.broadcast(ids), "id", "inner"), sample.num_rows, "sampled rows")
    position = pc.index_in(sample["id"].cast(pa.string()), matches["id"].cast(pa.string()))
    columns = take_rows(matches, position)
    for name in columns.column_names:
        if name != "id":
            sample = sample.append_column(name, columns[name])
    return sample


def with_content(
    ctx: RunContext, dataset: Dataset, sample: pa.Table, *, characters: int | None = None
) -> pa.Table:
    """Sample with text, categorical columns and group, where inputs have them."""
    columns = dataset.source.columns
    content = []
    if columns.text is not None:
        text = F.col(quoted_column(columns.text))
        content = [(text if characters is None else F.substring(text, 1, characters)).alias("text")]
    content += [
        F.col(quoted_column(name)).cast("string").alias(f"{CATEGORY}{name}")
        for name in columns.categorical
    ]
    if columns.group is not None:
        content.append(group_of_row(columns).alias("group"))
    if not content:
        return sample
    return add_columns(ctx, sample, dataset.source.rows.select("id", *content))


def in_hash_order(sample: pa.Table) -> pa.Table:
    """Sample in the order of its column `_draw` (53-bit hash), equal ones by id."""
    order = pc.sort_indices(sample, sort_keys=[("_draw", "ascending"), ("id", "ascending")])
    return take_rows(sample, order)


def hashes_of(sample: pa.Table) -> NDArray[np.uint64]:
    """The column `_draw` as 64-bit hashes."""
    hashes: NDArray[np.uint64] = sample["_draw"].to_numpy().astype(np.uint64) << np.uint64(11)
    return hashes


def matrix_of(table: pa.Table, dimension: int) -> NDArray[np.float32]:
    """The column `vector`, (n, d)."""
    return np.array(decode_vectors(table["vector"], dimension), dtype=np.float32)


def texts_of(table: pa.Table) -> pa.Array:
    """The column `text`; null counts as empty."""
    return pc.fill_null(table["text"].cast(pa.large_string()), "").combine_chunks()


def strings_or_none(table: pa.Table, name: str) -> NDArray[Any] | None:
    """Column of strings, null as empty; None where all are null or there is no such column."""
    if name not in table.column_names:
        return None
    column = table[name]
    if column.null_count == len(column):
        return None
    return np.asarray(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=str)


def tokens_or_none(table: pa.Table) -> NDArray[np.int64] | None:
    """The column `tokens`, null as 0; None where all are null."""
    column = table["tokens"]
    if column.null_count == len(column):
        return None
    return pc.fill_null(column.cast(pa.int64()), 0).to_numpy()  # type: ignore[no-any-return]


def label_codes(columns: Sequence[pa.ChunkedArray]) -> list[NDArray[Any]]:
    """Labels without nulls as class codes of all columns, or as numbers if any has a fraction."""
    texts = [np.asarray(one.cast(pa.string()).to_pylist(), dtype=str) for one in columns]
    try:
        numbers: list[NDArray[Any]] = [labels.astype(np.float64) for labels in texts]
    except ValueError:
        numbers = []
    if numbers and any((labels % 1 != 0).any() for labels in numbers):
        return numbers
    codes = np.unique(np.concatenate(texts), return_inverse=True)[1].astype(np.int64)
    return np.split(codes, np.cumsum([len(labels) for labels in texts])[:-1])
