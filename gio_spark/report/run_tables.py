"""Tables and examples of a run's report, of bounded size and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gio_spark.report.example_rows import id_hash
from gio_spark.report.report_data import ReportData
from gio_spark.report.text_format import (
    clean_text,
    clusters_text,
    count_text,
    duration_text,
    location_text,
    number_text,
    percent_text,
)
from gio_spark.report.thumbnails import thumbnail
from gio_spark.settings.redact import flatten

MAX_PLAN_ROWS = 40
MAX_SOURCES = 30
MAX_REASONS = 30
MAX_SETTINGS = 250
MAX_CLUSTERS_SHOWN = 8
MAX_EXAMPLES = 12
TEXT_LENGTH = 240
FEW_ROWS = 1000  # with fewer rows, a rate mostly measures the start of the stage
_GROUPS = {"pool": "pool", "random": "random rows", "selected": "selection", "target": "target"}


@dataclass(frozen=True)
class TableText:
    """Table as text; `numeric` marks right-aligned columns, and `note` is shown below the table.

    A row with one entry, in a table of several columns, is a heading for the rows after it.
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
    """Example row as text and thumbnail; `id_hash` is that of the whole id."""

    id: str
    id_hash: str
    text: str
    image: str | None
    is_image: bool
    facts: str


@dataclass(frozen=True)
class ClusterExamples:
    """Examples of one cluster: rows that were taken and rows that were not."""

    heading: str
    facts: str
    taken: list[ExampleText] = field(default_factory=list)
    not_taken: list[ExampleText] = field(default_factory=list)


def run_tables(data: ReportData) -> list[TableText]:
    """Tables that have rows, in the order of the page."""
    tables = [
        _inputs(data),
        _quarantine(data),
        gate_table(data.gate),
        _metrics(data),
        _sources(data),
        _strategies(data),
        _plan(data),
        _stages(data),
        _pairs("Where the tables are", data.tables, location_text, "tables"),
        _settings(data),
        _pairs("Versions", data.versions, clean_text, "versions"),
    ]
    return [table for table in tables if table is not None and table.rows]


def _inputs(data: ReportData) -> TableText:
    rows = [
        [
            clean_text(source.name, 60),
            location_text(source.location),
            clean_text(source.format, 20),
            clean_text(source.version, 40),
            clean_text(source.columns, 160),
            count_text(source.rows),
            count_text(source.unusable),
        ]
        for source in data.inputs
    ]
    columns = ["input", "where", "format", "version", "columns", "usable rows", "quarantined"]
    numeric = [False] * 5 + [True] * 2
    if not any(source.columns for source in data.inputs):
        columns.pop(4)
        numeric.pop(4)
        for row in rows:
            row.pop(4)
    return TableText("What was read", columns, rows, numeric, id="inputs")


def _quarantine(data: ReportData) -> TableText:
    entries = [
        (count, clean_text(input_name, 40), clean_text(reason, 120))
        for input_name, reasons in data.quarantine.items()
        for reason, count in reasons.items()
        if count
    ]
    entries.sort(key=lambda item: (-item[0], item[1], item[2]))
    rows = [
        [input_name, reason, count_text(count)]
        for count, input_name, reason in entries[:MAX_REASONS]
    ]
    note = f"All of them: {location_text(data.quarantine_table)}" if data.quarantine_table else ""
    return TableText(
        "Quarantined rows", ["input", "reason", "rows"], rows, [False, False, True], note,
        id="quarantine",
    )  # fmt: skip


def _metrics(data: ReportData) -> TableText | None:
    """Table of metrics with one column per group; of duplicates the first value counts."""
    table = data.metrics
    if table is None or not len(table):
        return None
    groups = [group for group in _GROUPS if (table["group"] == group).any()]
    keys = ["metric"] + [column for column in ("unit", "direction") if column in table.columns]
    in_groups = table[table["group"].isin(groups)].drop_duplicates(["metric", "group"])
    rows, unmeasured = [], []
    for name, part in in_groups.groupby("metric", sort=False):
        values = dict(zip(part["group"], part["value"], strict=True))
        if part["value"].isna().all():
            unmeasured.append(clean_text(name, 60))
            continue
        first = part.iloc[0]
        attributes = [_text_or_empty(first.get(column)) for column in keys[1:]]
        rows.append(
            [
                clean_text(name, 60),
                *(number_text(values.get(group)) for group in groups),
                *attributes,
            ]
        )
    columns = ["metric", *(_GROUPS[group] for group in groups)]
    columns += [{"direction": "better"}.get(column, column) for column in keys[1:]]
    numeric = [False] + [True] * len(groups) + [False] * (len(keys) - 1)
    note = ""
    if unmeasured:
        note = f"Not measured, since the columns they need are not named: {', '.join(unmeasured)}."
    return TableText("Information metrics", columns, rows, numeric, note, id="metrics")


def gate_table(checks: pd.DataFrame | None) -> TableText | None:
    """Table of thresholds: required bounds, values of the selection and verdicts."""
    if checks is None:
        return None
    rows = []
    for check in checks.to_dict("records"):
        sign = "at most" if check["direction"] == "less" else "at least"
        bound_text = f"{sign} {number_text(check['bound'])}"
        if check["upper"] is not None and not np.isnan(check["upper"]):
            bound_text = f"{number_text(check['bound'])} to {number_text(check['upper'])}"
        rows.append(
            [
                clean_text(check["metric"], 60),
                number_text(check["value"]),
                bound_text,
                clean_text(check["kind"], 20),
                "pass" if check["passed"] else "FAIL",
            ]
        )
    return TableText(
        "Gate", ["metric", "selection", "asked for", "threshold", "verdict"], rows,
        [False, True, False, False, False], id="gate",
    )  # fmt: skip


def _text_or_empty(value: Any) -> str:
    return (
        "" if value is None or (isinstance(value, float) and np.isnan(value)) else clean_text(value)
    )


def _sources(data: ReportData) -> TableText | None:
    table = data.sources
    if table is None:
        return None
    groups = [column for column in ("pool", "selected", "target") if column in table.columns]
    counts = table[groups].fillna(0).astype(float)
    totals = counts.sum()
    shares = counts / totals.where(totals > 0, 1.0)
    order = np.argsort(-counts["pool"].to_numpy(), kind="stable")
    rows = []
    for i in order[:MAX_SOURCES]:
        row = [clean_text(table["source"].iloc[i], 80) or "(none)"]
        for group in groups:
            row += [count_text(counts[group].iloc[i]), percent_text(shares[group].iloc[i])]
        rows.append(row)
    names = {"selected": "selection"}
    columns = ["source"]
    for group in groups:
        columns += [f"{names.get(group, group)}, rows", "share"]
    note = f"The largest {MAX_SOURCES} of {len(table):,}." if len(table) > MAX_SOURCES else ""
    return TableText(
        "Sources", columns, rows, [False] + [True] * (2 * len(groups)), note, id="sources"
    )


def _plan(data: ReportData) -> TableText:
    plan = data.plan
    repeats = "copies" in plan.columns
    take, trained, target_mass, available = (
        _floats(plan[column])
        for column in ("take", "copies" if repeats else "take", "target_mass", "rows")
    )
    total, target = max(trained.sum(), 1e-300), max(target_mass.sum(), 1e-300)
    has_labels = "label" in plan.columns
    order = np.argsort(-trained, kind="stable")[:MAX_PLAN_ROWS]
    rows = []
    for i in order:
        row = [clean_text(plan["cluster"].iloc[i], 20)]
        if has_labels:
            row.append(_text_or_empty(plan["label"].iloc[i]))
        row += [
            count_text(available[i]),
            count_text(take[i]),
            percent_text(take[i] / available[i] if available[i] else None),
            *([count_text(trained[i])] if repeats else []),
            percent_text(trained[i] / total),
            percent_text(target_mass[i] / target),
        ]
        rows.append(row)
    columns = ["cluster", *(["about"] if has_labels else [])]
    columns += ["rows there", "taken", "part taken", *(["with repeats"] if repeats else [])]
    columns += ["share of selection", "share of target"]
    note = (
        f"The {len(order):,} that give most rows, of "
        f"{clusters_text(len(plan), int((take > 0).sum()))}. All of them: plan.csv beside this "
        "page."
    )
    numeric = [False] + [False] * has_labels + [True] * (5 + repeats)
    return TableText("Plan", columns, rows, numeric, note, open=len(plan) <= 12, id="plan")


def _strategies(data: ReportData) -> TableText | None:
    """Candidate strategies: gains in percent of the loss of random rows."""
    if data.strategies is None:
        return None
    rows = [
        [
            clean_text(one["name"], 40),
            _gain_text(one["gain"], one["gain_error"]),
            _gain_text(one["over_random"], one["over_random_error"]),
            number_text(one["seconds"], 2),
            _text_or_empty(one["problem"]),
        ]
        for one in data.strategies.to_dict("records")
    ]
    note = (
        "Gains on target rows that no candidate has seen, in percent of the loss of random rows, "
        "with their standard errors; seconds of a selection from the sample."
    )
    columns = ["strategy", "gain over the default", "over random rows", "seconds", "left out"]
    return TableText(
        "Strategies", columns, rows, [False, True, True, True, False], note, id="strategies"
    )


def _gain_text(value: float, error: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:+.1f} ± {100 * error:.1f} %"


# Seconds; shorter stages have no rate (their rows were written with those of another stage).
_MIN_SECONDS = 0.01


def _stages(data: ReportData) -> TableText:
    rows = []
    for stage in data.stages:
        has_rate = (
            (stage.rows or 0) >= FEW_ROWS and stage.seconds > _MIN_SECONDS and not stage.skipped
        )
        rate = stage.rows / stage.seconds if stage.rows and has_rate else None
        rows.append(
            [
                clean_text(stage.name, 40),
                "up to date" if stage.skipped else duration_text(stage.seconds),
                count_text(stage.rows) if stage.rows is not None else "",
                count_text(rate) if rate is not None else "",
                clean_text(stage.note, 120),
            ]
        )
    if rows:
        total_seconds = sum(stage.seconds for stage in data.stages if not stage.skipped)
        rows.append(["all", duration_text(total_seconds), "", "", ""])
    return TableText(
        "Stages", ["stage", "time", "rows", "rows a second", "note"], rows,
        [False, True, True, True, False], id="stages",
    )  # fmt: skip


def _settings(data: ReportData) -> TableText:
    entries = list(flatten(data.settings).items())
    rows = [
        [clean_text(name, 120), clean_text(value, 300)] for name, value in entries[:MAX_SETTINGS]
    ]
    note = f"{len(entries) - len(rows):,} more are left out." if len(entries) > len(rows) else ""
    columns = ["setting", "value"]
    return TableText("Settings", columns, rows, [False, False], note, open=False, id="settings")


def _pairs(title: str, pairs: Any, format_value: Any, anchor: str) -> TableText:
    rows = [
        [clean_text(name, 80), format_value(value)]
        for name, value in list(pairs.items())[:MAX_SETTINGS]
    ]
    return TableText(title, ["name", "value"], rows, [False, False], open=False, id=anchor)


def cluster_examples(data: ReportData) -> list[ClusterExamples]:
    """Examples by cluster, taken and not taken."""
    clusters: list[int] = []
    for example in data.examples:
        if example.cluster not in clusters:
            clusters.append(example.cluster)
    plan = data.plan.set_index(data.plan["cluster"].astype(str))
    sections = []
    for cluster in clusters[:MAX_CLUSTERS_SHOWN]:
        examples_of_cluster = [example for example in data.examples if example.cluster == cluster]
        examples_by_taken = {
            taken: [_example(example) for example in examples_of_cluster if example.taken is taken][
                :MAX_EXAMPLES
            ]
            for taken in (True, False)
        }
        heading, facts = f"Cluster {cluster}", ""
        if str(cluster) in plan.index:
            row = plan.loc[[str(cluster)]].iloc[0]
            facts = f"{count_text(row['take'])} of {count_text(row['rows'])} rows taken"
            if "label" in plan.columns and _text_or_empty(row["label"]):
                heading += f": {_text_or_empty(row['label'])}"
        sections.append(
            ClusterExamples(heading, facts, examples_by_taken[True], examples_by_taken[False])
        )
    return sections


def _example(example: Any) -> ExampleText:
    facts = [
        clean_text(fact, 60) for fact in (example.source, example.label) if fact not in (None, "")
    ]
    if example.log_ratio is not None and np.isfinite(example.log_ratio):
        facts.append(f"log ratio {example.log_ratio:+.2f}")
    return ExampleText(
        id=clean_text(example.id, 60),
        id_hash=id_hash(example.id),
        text=clean_text(example.text, TEXT_LENGTH),
        image=thumbnail(example.image),
        is_image=example.image is not None,
        facts=" · ".join(facts),
    )


def _floats(column: pd.Series) -> np.ndarray:
    return np.nan_to_num(np.asarray(column, dtype=np.float64))
