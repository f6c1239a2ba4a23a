"""Drift of metrics over refreshes, groups compared, and one verdict over several sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gio_spark.errors import InputError
from gio_spark.gime.metric_gate import Verdict

MIN_HISTORY = 5


def drift(series: pd.DataFrame, *, limit: float = 4.0) -> pd.DataFrame:
    """Compare the metrics of each refresh with those of the one before and of all before.

    Args:
        series: Columns refresh (sortable), metric, value; robust values of one group.
        limit: Robust z score from which a value counts as drifted.

    Returns:
        The rows in order of refresh with change (to the refresh before), z (distance from the
        median of all before, in units of 1.4826 times their median absolute deviation; NaN below
        five refreshes of history) and drifted.

    Raises:
        InputError: A column is missing, or a refresh has two values for one metric.
    """
    missing = {"refresh", "metric", "value"} - set(series.columns)
    if missing:
        raise InputError(f"A series of metrics needs the columns {sorted(missing)}.")
    if series.duplicated(["refresh", "metric"]).any():
        raise InputError("A refresh has two values for one metric: pass one group and one form.")
    drifts = []
    for _, group in series.sort_values("refresh").groupby("metric", sort=True):
        values = group["value"].to_numpy(float)
        z = np.full(values.size, np.nan)
        for index in range(MIN_HISTORY, values.size):
            before = values[:index][np.isfinite(values[:index])]
            if before.size < MIN_HISTORY:
                continue
            median = float(np.median(before))
            width = 1.4826 * float(np.median(np.abs(before - median)))
            # A metric that has been constant: any real change is a drift.
            width = max(width, 1e-9 * max(1.0, abs(median)))
            z[index] = (values[index] - median) / width
        change = np.r_[np.nan, np.diff(values)]
        drifts.append(group.assign(change=change, z=z, drifted=np.abs(z) > limit))
    return pd.concat(drifts, ignore_index=True) if drifts else series.assign(drifted=False)


def compare_groups(figures: pd.DataFrame, group: str, baseline: str) -> pd.DataFrame:
    """Compare the robust metrics of a group with those of another of the same size.

    Set-like and histogram metrics depend on the number of rows, so a selection is compared with a
    random draw of as many rows.

    Args:
        figures: A `metrics` table.
        group: The group to judge ("selected").
        baseline: The group to compare with ("random").

    Returns:
        Columns metric, unit, value, baseline, excess, better (None where the direction is unknown
        or a value is missing).

    Raises:
        InputError: The table has no such group.
    """
    groups = []
    for name in (group, baseline):
        metrics = figures[(figures["group"] == name) & (figures["form"] == "robust")]
        if metrics.empty:
            raise InputError(f"No group {name!r}; there are {sorted(set(figures['group']))}.")
        groups.append(metrics.set_index("metric"))
    selected, baseline_metrics = groups
    comparison = selected[["unit", "direction", "value"]].assign(baseline=baseline_metrics["value"])
    comparison["excess"] = comparison["value"] - comparison["baseline"]
    sign = comparison["direction"].map({"more": 1, "less": -1})
    is_comparable = (sign.notna() & comparison["excess"].notna()).to_numpy()
    better = (comparison["excess"] * sign > 0).to_numpy()
    comparison["better"] = [
        bool(b) if k else None for b, k in zip(better, is_comparable, strict=True)
    ]
    return comparison.drop(columns="direction").reset_index()


def joint_verdict(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Join the verdicts of several sources, each judged by its own profile, to one.

    Args:
        verdicts: Name of the source (text, images, tables) -> its verdict.

    Raises:
        InputError: There is no verdict.
    """
    if not verdicts:
        raise InputError("There is no verdict to join.")
    checks, notes = [], []
    for source, verdict in verdicts.items():
        for check in verdict.checks:
            named = vars(check) | {
                "metric": f"{source}/{check.metric}",
                "why": f"{source}: {check.why}",
            }
            checks.append(type(check)(**named))
        notes += [f"{source}: {note}" for note in verdict.notes]
    return Verdict(
        all(v.passed for v in verdicts.values()),
        tuple(checks),
        tuple(notes),
        sum(v.tries for v in verdicts.values()),
    )
