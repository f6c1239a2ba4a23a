"""Data of the report, read from the tables of a finished run; all of it is bounded."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gio
from gio_spark.engine import bounded, decode_vectors, describe, hash_sample, hash_samples
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import CandidateFacts
from gio_spark.pipeline.run_state import Dataset, RunState
from gio_spark.pipeline.stage_runner import Stage
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.report import (
    Calibration,
    Certificate,
    Divergence,
    Example,
    InputSummary,
    Points,
    ReportData,
    ReportRows,
    project,
)
from gio_spark.tables import STAGE_TABLES, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables import Input

_MAX_SOURCES = 200
_EXAMPLE_CLUSTERS = 6
_MAX_TEXT = 400


def report_row_stages(targets: Sequence[str]) -> list[Stage]:
    """Queries of the report: bounded samples of rows, none of which waits for the metrics.

    Args:
        targets: Names of the targets.
    """
    vectors = ("embeddings.pool", *(f"embeddings.{name}" for name in targets))
    return [
        Stage(
            "report samples",
            query=_samples,
            inputs=vectors,
            reads=("datasets",),
            outputs=("report_samples",),
            settings=("report.sample", "seed"),
        ),
        Stage(
            "report rows",
            query=_report_rows,
            inputs=("selection", "plan", "report_samples", "assignments.pool"),
            reads=("datasets", *(f"assignments.{name}" for name in targets)),
            outputs=("report_rows",),
            settings=("report", "seed"),
        ),
    ]


def _report_rows(ctx: RunContext, state: RunState) -> ReportRows:
    points = _points(ctx, state) if ctx.settings.report.plots else None
    return ReportRows(_sources(ctx, state), points, _examples(ctx, state))


def report_data(ctx: RunContext, state: RunState) -> ReportData:
    """Collect the data of the report."""
    plan, facts, selection = state.plan, state.plan.facts, state.selection
    order = plan.table[plan.table["order"] >= 0].sort_values("order")
    certificate = facts.certificate
    rows = state.report_rows()
    return ReportData(
        title=ctx.settings.report.title or "Training-data selection",
        run_id=ctx.run,
        engine=describe(ctx.spark).line(),
        started=ctx.started.strftime("%Y-%m-%d %H:%M:%S"),
        finished=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
        inputs=tuple(_input(one, state.quarantined[one.name]) for one in state.datasets),
        quarantine={name: reasons for name, reasons in state.quarantined.items() if reasons},
        quarantine_table=ctx.workspace.place("quarantine"),
        budget_asked=str(ctx.settings.budget),
        budget_met=selection.spent,
        budget_unit=facts.unit,
        rows_pool=state.pool_rows,
        rows_selected=selection.count,
        copies_selected=selection.copies,
        rows_target=state.datasets.target_rows,
        objective=facts.objective,
        within_cluster=ctx.settings.explode.within_cluster,
        strategy=state.strategy.line if state.has("strategy") else "",
        strategies=_strategies(state),
        certificate=(
            Certificate(primal=certificate[0], dual=certificate[1], gap=certificate[2])
            if certificate
            else None
        ),
        constraints=facts.binding,
        unreached=facts.lost_mass,
        mixture_share=state.mixture.share if state.has("mixture") else None,
        divergence=Divergence(
            name="KL divergence from the target, over clusters",
            pool=facts.divergences["pool"],
            random=facts.divergences["random"],
            selection=facts.divergences["selection"],
            path_rows=np.cumsum(plan.trained_rows[order.index].to_numpy()),
            path=gio.divergence_path(
                plan.table["target_mass"].to_numpy(),
                plan.trained_rows.to_numpy(),
                order["cluster"].to_numpy(),
            ),
        ),
        plan=plan.table.drop(
            columns=["threshold", "tie", "extra_threshold", "extra_tie"], errors="ignore"
        ),
        sources=rows.sources,
        points=rows.points,
        examples=rows.examples,
        metrics=state.metrics,
        calibration=_calibration(state),
        error_curve=state.codebook.error_curve,
        warnings=tuple(ctx.warnings),
        stages=tuple(ctx.stages),
        settings=ctx.settings.model_dump(mode="json"),
        versions=versions(ctx, state.embedder.revision),
        tables={t: ctx.workspace.place(t) for t in STAGE_TABLES if ctx.workspace.exists(t)},
        links={"tracked run": ctx.tracker.location} if ctx.tracker.location else {},
    )


def _strategies(state: RunState) -> pd.DataFrame | None:
    """Figures of the candidate strategies, and reasons of those that are none."""
    if not state.has("strategy"):
        return None
    facts = state.strategy
    rows = [one.plain() for one in facts.candidates]
    rows += [{"name": name, "problem": reason} for name, reason in facts.dropped.items()]
    return pd.DataFrame(rows, columns=[*CandidateFacts.model_fields])


def _input(dataset: Dataset, reasons: dict[str, int]) -> InputSummary:
    source = dataset.source
    roles = {**source.settings_columns.named()}
    if source.columns.numeric:
        roles["numeric"] = ", ".join(source.columns.numeric)
    if source.columns.categorical:
        roles["categorical"] = ", ".join(source.columns.categorical)
    return InputSummary(
        name=dataset.name,
        location=source.location,
        format=source.format,
        version=source.version,
        rows=source.count,
        unusable=sum(reasons.values()),
        columns=", ".join(f"{k}={v}" for k, v in roles.items()),
    )


def _sources(ctx: RunContext, state: RunState) -> pd.DataFrame | None:
    """Count rows per source: of the pool's most frequent, and of the targets' most frequent."""
    if state.inputs["pool"].columns.source is None:
        return None
    ws = ctx.workspace
    taken = state.selection.rows.select(F.col("gio_id").alias("id"), F.lit(1).alias("taken"))
    pool = ws.read("assignments", state.assignments["pool"]).select("id", "source")
    tops = _top(pool.join(taken, "id", "left"), "pool")
    for target in state.datasets.targets:
        rows = ws.read("assignments", state.assignments[target.name])
        rows = rows.select("source", F.lit(None).alias("taken"))
        tops = tops.unionByName(_top(rows, target.name))
    top_sources = bounded(tops, _MAX_SOURCES * len(state.assignments), "sources").to_pandas()
    top_sources["side"] = top_sources["side"].where(top_sources["side"] == "pool", "target")
    counts = top_sources.groupby(["source", "side"])[["rows", "taken"]].sum().unstack(fill_value=0)
    table = pd.DataFrame(
        {
            "pool": counts["rows", "pool"],
            "selected": counts["taken", "pool"],
            "target": counts["rows"].get("target", 0),
        }
    )
    return table.reset_index().sort_values(["pool", "source"], ascending=[False, True])


def _top(rows: DataFrame, dataset: str) -> DataFrame:
    named = rows.select(F.coalesce("source", F.lit("(none)")).alias("source"), "taken")
    counted = named.groupBy("source").agg(
        F.count(F.lit(1)).alias("rows"), F.count("taken").alias("taken")
    )
    top = counted.orderBy(F.desc("rows"), "source").limit(_MAX_SOURCES)
    return top.withColumn("side", F.lit(dataset))


def _samples(ctx: RunContext, state: RunState) -> dict[str, pa.Table]:
    """Bring a hash sample of pool and targets, by one job from the skinny vector table."""
    most, pool, targets = ctx.settings.report.sample, state.datasets.pool, state.datasets.targets
    parts = {
        "pool": (_vectors(ctx, pool), most, pool.usable),
        **{s.name: (_vectors(ctx, s), most // len(targets), s.usable) for s in targets},
    }
    return hash_samples(parts, f"report-{ctx.settings.seed}")


def _vectors(ctx: RunContext, dataset: Dataset) -> DataFrame:
    return vectors_of(ctx, dataset).select("id", "vector")


def _points(ctx: RunContext, state: RunState) -> Points:
    """Project the samples of pool and targets, and one of the selection."""
    ids = state.selection.rows.select(F.col("gio_id").alias("id"))
    selected_sample = hash_sample(
        _vectors(ctx, state.datasets.pool).join(ids, "id", "left_semi"),
        ctx.settings.report.sample,
        f"report-{ctx.settings.seed}",
        total=state.selection.count,
    )
    samples = state.report_samples()
    pool = decode_vectors(samples["pool"]["vector"])
    dimension = pool.shape[1]
    targets = [
        decode_vectors(samples[one.name]["vector"], dimension) for one in state.datasets.targets
    ]
    return project(
        np.concatenate(targets),
        pool,
        decode_vectors(selected_sample.sort_by("id")["vector"], dimension),
    )


def _calibration(state: RunState) -> Calibration | None:
    if not state.has("ratio_model"):
        return None
    facts = state.ratio_model.facts
    table = facts.table
    return Calibration(
        predicted=np.asarray(table["predicted_target_share"]),
        observed=np.asarray(table["observed_target_share"]),
        rows=np.asarray(table["target_rows"]) + np.asarray(table["pool_rows"]),
        auc=facts.auc,
    )


def _examples(ctx: RunContext, state: RunState) -> tuple[Example, ...]:
    """Sample a few selected and unselected rows of the clusters that have both."""
    each = ctx.settings.report.examples
    columns = state.inputs["pool"].columns
    content = columns.text or columns.image
    if each == 0 or content is None or not ctx.settings.report.show_content:
        return ()
    plan = state.plan.table.assign(left=lambda p: p["rows"] - p["take"])
    plan = plan[(plan["take"] > 0) & (plan["left"] > 0)]
    largest = plan.sort_values(["target_mass", "cluster"], ascending=[False, True])
    clusters = [int(c) for c in largest["cluster"].head(_EXAMPLE_CLUSTERS)]
    if not clusters:
        return ()
    ws = ctx.workspace
    rows = ws.read("assignments", state.assignments["pool"])
    rows = rows.where(F.col("cluster").isin(clusters))
    selected_rows = state.selection.rows.select(
        F.col("gio_id").alias("id"),
        F.col("gio_log_ratio").alias("log_ratio"),
        F.lit(True).alias("taken"),
    )
    marked = rows.select("id", "cluster", "source", "label").join(selected_rows, "id", "left")
    total = int(state.plan.table["rows"].sum())
    sample = hash_sample(
        marked,
        200 * len(clusters),
        f"examples-{ctx.settings.seed}",
        total=min(total, int(plan[plan["cluster"].isin(clusters)]["rows"].sum())),
    ).to_pandas()
    sample["taken"] = sample["taken"].notna()
    few = sample.groupby(["cluster", "taken"], sort=True).head(each)
    contents = _contents(ctx, state.inputs["pool"], content, few["id"].tolist())
    examples = []
    for row in few.sort_values(["cluster", "taken", "id"]).to_dict("records"):
        value = contents.get(row["id"])
        if value is None:
            continue
        is_text = columns.text is not None
        ratio = row["log_ratio"]
        examples.append(
            Example(
                cluster=int(row["cluster"]),
                taken=bool(row["taken"]),
                id=str(row["id"]),
                text=str(value)[:_MAX_TEXT] if is_text else None,
                image=None if is_text else _image(value),
                source=row["source"],
                label=row["label"],
                log_ratio=None if ratio is None or pd.isna(ratio) else float(ratio),
            )
        )
    return tuple(examples)


def _contents(ctx: RunContext, source: Input, column: str, ids: list[str]) -> Mapping[str, Any]:
    id_rows = ctx.workspace.frame(pa.table({"id": pa.array(ids, pa.string())}))
    picked = F.col(quoted_column(column))
    if source.columns.text == column:
        picked = F.substring(picked, 1, _MAX_TEXT)
        if source.columns.output is not None:
            halves = (picked, F.col(quoted_column(source.columns.output)))
            picked = F.concat_ws("\n", *[F.substring(half, 1, _MAX_TEXT // 2) for half in halves])
    rows = source.rows.select("id", picked.alias("content")).join(
        F.broadcast(id_rows), "id", "left_semi"
    )
    table = bounded(rows, len(ids), "examples")
    return dict(zip(table["id"].to_pylist(), table["content"].to_pylist(), strict=True))


def _image(value: Any) -> Any:
    """Encoded bytes as they are, and a square of pixels as an array."""
    if isinstance(value, bytes):
        return value
    pixels = np.asarray(value, dtype=np.float64)
    edge = round(float(np.sqrt(pixels.size)))
    return pixels.reshape(edge, edge) if edge * edge == pixels.size else None


def versions(ctx: RunContext, revision: str) -> dict[str, str]:
    """The versions that a run depends on."""
    package_versions = {"python": platform.python_version(), "embedder": revision}
    for name in (
        "gio-spark",
        "pyspark",
        "pyspark-client",
        "pysail",
        "delta-spark",
        "deltalake",
        "pyarrow",
        "numpy",
        "scikit-learn",
        "mlflow-skinny",
    ):
        try:
            package_versions[name] = version(name)
        except PackageNotFoundError:
            continue
    package_versions["spark"] = str(ctx.spark.version)
    return package_versions
