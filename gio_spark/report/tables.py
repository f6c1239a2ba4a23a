"""The tables of a report, bounded and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gio_spark.report.data import ReportData
from gio_spark.report.text import clean, percent, place, real, seconds, whole
from gio_spark.report.thumbnails import thumbnail
from gio_spark.settings.redact import flatten

MAX_PLAN_ROWS = 40
MAX_SOURCES = 30
MAX_REASONS = 30
MAX_SETTINGS = 250
MAX_CLUSTERS_SHOWN = 8
MAX_EXAMPLES_A_SIDE = 12
TEXT_LENGTH = 240
FEW_ROWS = 1000  # below this a rate says more about the start than about the work
_GROUPS = {"pool": "pool", "random": "random rows", "selected": "selection", "target": "target"}


@dataclass(frozen=True)
class TableText:
    """A table as text. `numeric` names the columns set to the right; `note` stands below.

    A row of one cell, in a table of several columns, is a heading over the rows after it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    note: str = ""
    open: bool = True
    id: str = ""


@dataclass(frozen=True)
class ExampleText:
    """One example row, ready to show."""

    id: str
    text: str
    image: str | None
    is_image: bool
    facts: str


@dataclass(frozen=True)
class ClusterExamples:
    """Examples of one cluster, taken and left."""

    heading: str
    facts: str
    taken: list[ExampleText] = field(default_factory=list)
    left: list[ExampleText] = field(default_factory=list)


def tables(data: ReportData) -> list[TableText]:
    """Tables that have rows, in the order of the page."""
    made = [
        _inputs(data),
        _quarantine(data),
        gate_table(data.gate),
        _metrics(data),
        _sources(data),
        _plan(data),
        _stages(data),
        _pairs("Where the tables are", data.tables, place, "tables"),
        _settings(data),
        _pairs("Versions", data.versions, clean, "versions"),
    ]
    return [table for table in made if table is not None and table.rows]


def _inputs(data: ReportData) -> TableText:
    rows = [
        [
            clean(i.name, 60),
            place(i.location),
            clean(i.format, 20),
            clean(i.version, 40),
            clean(i.columns, 160),
            whole(i.rows),
            whole(i.unusable),
        ]
        for i in data.inputs
    ]
    columns = ["input", "where", "format", "version", "columns", "usable rows", "put aside"]
    numeric = [False] * 5 + [True] * 2
    if not any(i.columns for i in data.inputs):
        columns.pop(4)
        numeric.pop(4)
        for row in rows:
            row.pop(4)
    return TableText("What was read", columns, rows, numeric, id="inputs")


def _quarantine(data: ReportData) -> TableText:
    found = [
        (count, clean(side, 40), clean(reason, 120))
        for side, reasons in data.quarantine.items()
        for reason, count in reasons.items()
        if count
    ]
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    rows = [[side, reason, whole(count)] for count, side, reason in found[:MAX_REASONS]]
    note = f"All of them: {place(data.quarantine_table)}" if data.quarantine_table else ""
    return TableText(
        "What was put aside", ["input", "reason", "rows"], rows, [False, False, True], note,
        id="quarantine",
    )  # fmt: skip


def _metrics(data: ReportData) -> TableText | None:
    """One line a metric, one column a group; duplicates keep the first value."""
    table = data.metrics
    if table is None or not len(table):
        return None
    groups = [g for g in _GROUPS if (table["group"] == g).any()]
    keys = ["metric"] + [c for c in ("unit", "direction") if c in table.columns]
    known = table[table["group"].isin(groups)].drop_duplicates(["metric", "group"])
    rows, unmeasured = [], []
    for name, part in known.groupby("metric", sort=False):
        values = dict(zip(part["group"], part["value"], strict=True))
        if part["value"].isna().all():
            unmeasured.append(clean(name, 60))
            continue
        first = part.iloc[0]
        facts = [_word(first.get(k)) for k in keys[1:]]
        rows.append([clean(name, 60), *(real(values.get(g)) for g in groups), *facts])
    columns = ["metric", *(_GROUPS[g] for g in groups)]
    columns += [{"direction": "better"}.get(k, k) for k in keys[1:]]
    numeric = [False] + [True] * len(groups) + [False] * (len(keys) - 1)
    note = ""
    if unmeasured:
        note = f"Not measured, since the columns they need are not named: {', '.join(unmeasured)}."
    return TableText("Information metrics", columns, rows, numeric, note, id="metrics")


def gate_table(checks: pd.DataFrame | None) -> TableText | None:
    """One line a threshold: what is asked for, what the selection has."""
    if checks is None:
        return None
    rows = []
    for check in checks.to_dict("records"):
        sign = "at most" if check["direction"] == "less" else "at least"
        wanted = f"{sign} {real(check['bound'])}"
        if check["upper"] is not None and not np.isnan(check["upper"]):
            wanted = f"{real(check['bound'])} to {real(check['upper'])}"
        rows.append(
            [
                clean(check["metric"], 60),
                real(check["value"]),
                wanted,
                clean(check["kind"], 20),
                "pass" if check["passed"] else "FAIL",
            ]
        )
    return TableText(
        "Gate", ["metric", "selection", "asked for", "threshold", "verdict"], rows,
        [False, True, False, False, False], id="gate",
    )  # fmt: skip


def _word(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else clean(value)


def _sources(data: ReportData) -> TableText | None:
    table = data.sources
    if table is None:
        return None
    sides = [c for c in ("pool", "selected", "target") if c in table.columns]
    counts = table[sides].fillna(0).astype(float)
    totals = counts.sum()
    shares = counts / totals.where(totals > 0, 1.0)
    order = np.argsort(-counts["pool"].to_numpy(), kind="stable")
    rows = []
    for i in order[:MAX_SOURCES]:
        row = [clean(table["source"].iloc[i], 80) or "(none)"]
        for side in sides:
            row += [whole(counts[side].iloc[i]), percent(shares[side].iloc[i])]
        rows.append(row)
    names = {"selected": "selection"}
    columns = ["source"]
    for side in sides:
        columns += [f"{names.get(side, side)}, rows", "share"]
    note = f"The largest {MAX_SOURCES} of {len(table):,}." if len(table) > MAX_SOURCES else ""
    return TableText(
        "Sources", columns, rows, [False] + [True] * (2 * len(sides)), note, id="sources"
    )


def _plan(data: ReportData) -> TableText:
    plan = data.plan
    take, mass, there = (_floats(plan[c]) for c in ("take", "target_mass", "rows"))
    total, target = max(take.sum(), 1e-300), max(mass.sum(), 1e-300)
    labels = "label" in plan.columns
    order = np.argsort(-take, kind="stable")[:MAX_PLAN_ROWS]
    rows = []
    for i in order:
        row = [clean(plan["cluster"].iloc[i], 20)]
        if labels:
            row.append(_word(plan["label"].iloc[i]))
        row += [
            whole(there[i]),
            whole(take[i]),
            percent(take[i] / there[i] if there[i] else None),
            percent(take[i] / total),
            percent(mass[i] / target),
        ]
        rows.append(row)
    columns = ["cluster", *(["about"] if labels else [])]
    columns += ["rows there", "taken", "part taken", "share of selection", "share of target"]
    note = (
        f"The {len(order):,} clusters that give most rows, of {len(plan):,}; "
        f"{int((take > 0).sum()):,} give any. All of them: plan.csv beside this page."
    )
    numeric = [False] + [False] * labels + [True] * 5
    return TableText("Plan", columns, rows, numeric, note, open=len(plan) <= 12, id="plan")


# Seconds: a rate over less says nothing (rows that were written with those of another stage).
_SHORTEST = 0.01


def _stages(data: ReportData) -> TableText:
    rows = []
    for s in data.stages:
        steady = (s.rows or 0) >= FEW_ROWS and s.seconds > _SHORTEST and not s.skipped
        rate = s.rows / s.seconds if s.rows and steady else None
        rows.append(
            [
                clean(s.name, 40),
                "up to date" if s.skipped else seconds(s.seconds),
                whole(s.rows) if s.rows is not None else "",
                whole(rate) if rate is not None else "",
                clean(s.note, 120),
            ]
        )
    if rows:
        spent = sum(s.seconds for s in data.stages if not s.skipped)
        rows.append(["all", seconds(spent), "", "", ""])
    return TableText(
        "Stages", ["stage", "time", "rows", "rows a second", "note"], rows,
        [False, True, True, True, False], id="stages",
    )  # fmt: skip


def _settings(data: ReportData) -> TableText:
    flat = list(flatten(data.settings).items())
    rows = [[clean(k, 120), clean(v, 300)] for k, v in flat[:MAX_SETTINGS]]
    note = f"{len(flat) - len(rows):,} more are left out." if len(flat) > len(rows) else ""
    columns = ["setting", "value"]
    return TableText("Settings", columns, rows, [False, False], note, open=False, id="settings")


def _pairs(title: str, pairs: Any, show: Any, anchor: str) -> TableText:
    rows = [[clean(k, 80), show(v)] for k, v in list(pairs.items())[:MAX_SETTINGS]]
    return TableText(title, ["name", "value"], rows, [False, False], open=False, id=anchor)


def examples(data: ReportData) -> list[ClusterExamples]:
    """Examples by cluster: rows taken beside rows left."""
    numbers: list[int] = []
    for e in data.examples:
        if e.cluster not in numbers:
            numbers.append(e.cluster)
    plan = data.plan.set_index(data.plan["cluster"].astype(str))
    shown = []
    for number in numbers[:MAX_CLUSTERS_SHOWN]:
        here = [e for e in data.examples if e.cluster == number]
        sides = {
            taken: [_example(e) for e in here if e.taken is taken][:MAX_EXAMPLES_A_SIDE]
            for taken in (True, False)
        }
        heading, facts = f"Cluster {number}", ""
        if str(number) in plan.index:
            row = plan.loc[[str(number)]].iloc[0]
            facts = f"{whole(row['take'])} of {whole(row['rows'])} rows taken"
            if "label" in plan.columns and _word(row["label"]):
                heading += f": {_word(row['label'])}"
        shown.append(ClusterExamples(heading, facts, sides[True], sides[False]))
    return shown


def _example(e: Any) -> ExampleText:
    facts = [clean(f, 60) for f in (e.source, e.label) if f not in (None, "")]
    if e.log_ratio is not None and np.isfinite(e.log_ratio):
        facts.append(f"log ratio {e.log_ratio:+.2f}")
    return ExampleText(
        id=clean(e.id, 60),
        text=clean(e.text, TEXT_LENGTH),
        image=thumbnail(e.image),
        is_image=e.image is not None,
        facts=" · ".join(facts),
    )


def _floats(column: pd.Series) -> np.ndarray:
    return np.nan_to_num(np.asarray(column, dtype=np.float64))
