"""Copies of selected rows: how many times each row of a cluster repeats, and its weight.

A plan with a column `copies` spreads them over the `take` rows of a cluster: each has
`copies // take`, and the `copies % take` rows with the largest keys have one more. A second
threshold per cluster (`extra_threshold`, `extra_tie`) decides which, so that the copies of a row
depend on its key and on the plan alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from gio_spark.errors import InputError
from gio_spark.explode.rank_keys import TAKE_NONE, TIE_ALL, IntArray, passes_threshold

COPIES_SCHEMA = "repeat int, weight double"
"""Columns that a plan with copies adds to the selected rows."""


def has_copies(plan: pd.DataFrame) -> bool:
    """Whether rows of the plan repeat."""
    return "copies" in plan


def extra_rows(plan: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Rows of each cluster that have one copy more than the others, float64 (K,).

    Raises:
        InputError: A cluster has fewer copies than rows, or copies without rows.

    Example:
        >>> extra_rows(pd.DataFrame({"take": [10, 4, 0], "copies": [25, 4, 0]})).tolist()
        [5.0, 0.0, 0.0]
    """
    take, copies = plan["take"].to_numpy(np.int64), plan["copies"].to_numpy(np.int64)
    if ((copies < take) | ((take == 0) & (copies > 0))).any():
        raise InputError("The plan has fewer copies than rows to take in a cluster.")
    return (copies % np.maximum(take, 1)).astype(np.float64)


def copies_arrays(plan: pd.DataFrame, clusters: int) -> dict[str, np.ndarray]:
    """Arrays (clusters,) that `copies_of_rows` reads; empty for a plan without copies."""
    if not has_copies(plan):
        return {}
    take = np.maximum(plan["take"].to_numpy(np.int64), 1)
    copies = plan["copies"].to_numpy(np.int64)
    fractional = plan["fractional"] if "fractional" in plan else plan["copies"]
    values = {
        "repeat": (copies // take, 0),
        "weight": (fractional.to_numpy(np.float64) / take, 0.0),
        "extra_threshold": (plan["extra_threshold"].to_numpy(np.int64), TAKE_NONE),
        "extra_tie": (plan["extra_tie"].to_numpy(np.int64), TIE_ALL),
    }
    arrays = {}
    for name, (of_plan, elsewhere) in values.items():
        arrays[name] = np.full(clusters, elsewhere, dtype=of_plan.dtype)
        arrays[name][plan["cluster"].to_numpy(np.int64)] = of_plan
    return arrays


def copies_of_rows(
    arrays: dict[str, Any], cluster: IntArray, keys: IntArray, ties: IntArray
) -> dict[str, Any]:
    """Columns `repeat` and `weight` of selected rows; none where the plan has no copies."""
    if "repeat" not in arrays:
        return {}
    extra = passes_threshold(
        keys, ties, arrays["extra_threshold"][cluster], arrays["extra_tie"][cluster]
    )
    return {
        "repeat": (arrays["repeat"][cluster] + extra).astype(np.int32),
        "weight": pa.array(arrays["weight"][cluster]),
    }


def copies_in_words(take: int, copies: int) -> str:
    """Phrase about the copies of a cluster's rows, "" where none repeats.

    Example:
        >>> copies_in_words(10, 25), copies_in_words(10, 10)
        ('; 25 copies, each row 2 or 3 times', '')
    """
    if copies <= take or not take:
        return ""
    least, extra = divmod(copies, take)
    times = f"{least} times" if not extra else f"{least} or {least + 1} times"
    return f"; {copies:,} copies, each row {times.replace('1 times', 'once', 1)}"
