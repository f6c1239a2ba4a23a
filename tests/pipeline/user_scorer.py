"""A scorer and a method of a user, as a module of theirs registers them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark import register

tables: list[pa.Table] = []


@register("scorer", "high-and-wide")
def high_and_wide(rows, seed):
    """Mean height and width of the rows."""
    tables.append(rows)
    return pc.mean(rows["height"]).as_py() + pc.mean(rows["width"]).as_py()


@register("method", "upper-rows", needs=("target_vectors",), weighted=True)
def upper_rows(dataset, budget, seed):
    """Take the widest rows of the upper half."""
    width = np.where(dataset.vectors[:, 1] > 0, np.abs(dataset.vectors[:, 2]), -1)
    return width.argsort(kind="stable")[-budget:]
