"""Metrics over refreshes: how each drifts, and one gate over several kinds of data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gio_spark.errors import InputError
from gio_spark.gime.gate import Verdict

MIN_HISTORY = 5


def drift(series: pd.DataFrame, *, limit: float = 4.0) -> pd.DataFrame:
    """Compare each refresh's metrics with the one before and with all before.

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
    parts = []
    for _, part in series.sort_values("refresh").groupby("metric", sort=True):
        values = part["value"].to_numpy(float)
        z = np.full(values.size, np.nan)
        for at in range(MIN_HISTORY, values.size):
            before = values[:at][np.isfinite(values[:at])]
            if before.size < MIN_HISTORY:
                continue
            middle = float(np.median(before))
            width = 1.4826 * float(np.median(np.abs(before - middle)))
            # A metric that never moved: any real move is a drift.
            width = max(width, 1e-9 * max(1.0, abs(middle)))
            z[at] = (values[at] - middle) / width
        change = np.r_[np.nan, np.diff(values)]
        parts.append(part.assign(change=change, z=z, drifted=np.abs(z) > limit))
    return pd.concat(parts, ignore_index=True) if parts else series.assign(drifted=False)


def beside(figures: pd.DataFrame, group: str, baseline: str) -> pd.DataFrame:
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
        InputError: A group is not there.
    """
    parts = []
    for name in (group, baseline):
        part = figures[(figures["group"] == name) & (figures["form"] == "robust")]
        if part.empty:
            raise InputError(f"No group {name!r}; there are {sorted(set(figures['group']))}.")
        parts.append(part.set_index("metric"))
    mine, other = parts
    found = mine[["unit", "direction", "value"]].assign(baseline=other["value"])
    found["excess"] = found["value"] - found["baseline"]
    sign = found["direction"].map({"more": 1, "less": -1})
    known = (sign.notna() & found["excess"].notna()).to_numpy()
    better = (found["excess"] * sign > 0).to_numpy()
    found["better"] = [bool(b) if k else None for b, k in zip(better, known, strict=True)]
    return found.drop(columns="direction").reset_index()


def one_gate(verdicts: Mapping[str, Verdict]) -> Verdict:
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
