"""Reason of selection of a row, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.explode.row_copies import copies_in_words, has_copies
from gio_spark.settings.explode import ExplodeSettings

REQUIRED_REASON = "holds an extreme of the pool's times, always kept"


def append_ratio(reason: pa.Array, ratio: pa.Array) -> pa.Array:
    """Reasons with the log density ratio of each row."""
    filled = pc.fill_null(ratio.cast(pa.float64()), 0.0)
    # Adding 0.0 turns -0.0, which would print as -0.0, into 0.0.
    ratio_text = pc.cast(pc.add(pc.round(filled, ndigits=2), 0.0), pa.string())
    return pc.binary_join_element_wise(reason, pa.scalar("; log density ratio "), ratio_text, "")


def reasons(plan: pd.DataFrame, settings: ExplodeSettings, *, biased: bool = False) -> list[str]:
    """Reason of selection of each cluster of the plan, one sentence each."""
    manner = {
        "hash_share": "drawn at random" if biased else "drawn at random (about this many)",
        "exact_count": "drawn at random",
        "density_ratio": "those most like the target"
        if settings.temperature == 0
        else "mostly those most like the target",
    }[settings.within_cluster]
    if biased:
        manner += ", pulled towards the metrics that are held"
    has_mass = "target_mass" in plan and float(plan["target_mass"].sum()) > 0
    total = float(plan["target_mass"].sum()) if has_mass else 1.0
    target_share = (
        plan["target_mass"].to_numpy(np.float64) / total if has_mass else np.zeros(len(plan))
    )
    copies_of_cluster = plan["copies"] if has_copies(plan) else plan["take"]
    sentences = []
    for cluster, rows, take, copies, share in zip(
        plan["cluster"], plan["rows"], plan["take"], copies_of_cluster, target_share, strict=True
    ):
        place = f"cluster {int(cluster)}"
        if has_mass:
            place += f" holds {100 * share:.3g} % of the target"
        count = int(np.rint(take))
        taken_rows = (
            f"all {int(rows):,} rows" if count >= rows else f"{count:,} of {int(rows):,} rows"
        )
        sentences.append(
            f"{place}: {taken_rows} taken"
            + ("" if count >= rows else f", {manner}")
            + copies_in_words(count, int(copies))
        )
    return sentences
