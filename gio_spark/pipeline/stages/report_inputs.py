"""From the tables of a finished run to what its report shows; everything here is bounded."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import ahead, bounded, decode_vectors, describe, hash_sample, hash_samples
from gio_spark.pipeline.stage_runner import Context
from gio_spark.pipeline.stages.cluster import Codebook
from gio_spark.pipeline.stages.embed import Side, targets_of, vectors_of
from gio_spark.pipeline.stages.plan import Chosen, smoothed_path
from gio_spark.report import (
    Calibration,
    Certificate,
    Divergence,
    Example,
    InputSummary,
    Points,
    ReportData,
    project,
)
from gio_spark.tables import STAGE_TABLES, quoted_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SOURCES_SHOWN = 200
_EXAMPLE_CLUSTERS = 6
_TEXT_SHOWN = 400


@dataclass(frozen=True)
class Seen:
    """What the report shows of the rows themselves; each waits for its query."""

    sources: Callable[[], pd.DataFrame | None]
    points: Callable[[], Points]
    examples: Callable[[], tuple[Example, ...]]


def look_before(ctx: Context, sides: dict[str, Side]) -> Callable[[], dict[str, pa.Table]]:
    """Begin the report's query that needs no selection: vectors of some rows of each side."""
    return ahead(ctx.spark, lambda: _samples(ctx, sides))


def look(
    ctx: Context,
    sides: dict[str, Side],
    book: Codebook,
    chosen: Chosen,
    selected: DataFrame,
    rows: int,
    before: Callable[[], dict[str, pa.Table]],
) -> Seen:
    """Begin the report's other queries: small ones, which need not wait for one another."""
    return Seen(
        ahead(ctx.spark, lambda: _sources(ctx, sides, book, selected)),
        ahead(ctx.spark, lambda: _points(ctx, sides, selected, rows, before)),
        ahead(ctx.spark, lambda: _examples(ctx, sides, book, chosen, selected)),
    )


def report_data(
    ctx: Context,
    sides: dict[str, Side],
    book: Codebook,
    chosen: Chosen,
    seen: Seen,
    rows: int,
    metrics: pd.DataFrame,
    started: datetime,
    revision: str,
) -> ReportData:
    """Gather what the report shows."""
    facts = chosen.facts
    info = describe(ctx.spark)
    targets = targets_of(sides)
    found = facts["divergences"]
    order = chosen.plan[chosen.plan["order"] >= 0].sort_values("order")
    certificate = facts["certificate"]
    return ReportData(
        title=ctx.settings.report.title or "Training-data selection",
        run_id=ctx.run,
        engine=info.line(),
        started=started.strftime("%Y-%m-%d %H:%M:%S"),
        finished=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
        inputs=tuple(_input(s) for s in sides.values()),
        quarantine={n: s.bad for n, s in sides.items() if s.bad},
        quarantine_table=ctx.workspace.place("quarantine"),
        budget_asked=str(ctx.settings.budget),
        budget_met=float(facts["spent"]),
        budget_unit=facts["unit"],
        rows_pool=sides["pool"].usable,
        rows_selected=rows,
        rows_target=sum(s.usable for s in targets),
        objective=facts["objective"],
        within_cluster=ctx.settings.explode.within_cluster,
        certificate=(
            Certificate(primal=certificate[0], dual=certificate[1], gap=certificate[2])
            if certificate
            else None
        ),
        constraints=tuple(facts["binding"]),
        unreached=facts["lost_mass"],
        divergence=Divergence(
            name="KL divergence from the target, over clusters",
            pool=found["pool"],
            random=found["random"],
            selection=found["selection"],
            path_rows=np.cumsum(order["take"].to_numpy()),
            path=smoothed_path(
                chosen.plan["target_mass"].to_numpy(),
                chosen.plan["take"].to_numpy(),
                order["cluster"].to_numpy(),
            ),
        ),
        plan=chosen.plan.drop(columns=["threshold", "tie"], errors="ignore"),
        sources=seen.sources(),
        points=seen.points(),
        examples=seen.examples(),
        metrics=metrics,
        calibration=_calibration(chosen),
        error_curve=book.curve,
        cautions=tuple(ctx.cautions),
        stages=tuple(ctx.stages),
        settings=ctx.settings.model_dump(mode="json"),
        versions=versions(ctx, revision),
        tables={t: ctx.workspace.place(t) for t in STAGE_TABLES if ctx.workspace.exists(t)},
        links={"tracked run": ctx.tracker.location} if ctx.tracker.location else {},
    )


def _input(side: Side) -> InputSummary:
    source = side.source
    roles = {**source.columns.named()}
    if source.columns.numeric:
        roles["numeric"] = ", ".join(source.columns.numeric)
    if source.columns.categorical:
        roles["categorical"] = ", ".join(source.columns.categorical)
    return InputSummary(
        name=side.name,
        location=source.location,
        format=source.format,
        version=source.version,
        rows=source.count,
        unusable=sum(side.bad.values()),
        columns=", ".join(f"{k}={v}" for k, v in roles.items()),
    )


def _sources(
    ctx: Context, sides: dict[str, Side], book: Codebook, selected: DataFrame
) -> pd.DataFrame | None:
    """Count rows per source: of the pool's most frequent, and of the targets' most frequent."""
    if sides["pool"].source.columns.source is None:
        return None
    ws = ctx.workspace
    taken = selected.select(F.col("gio_id").alias("id"), F.lit(1).alias("taken"))
    pool = ws.read("assignments", book.assignments["pool"]).select("id", "source")
    tops = _top(pool.join(taken, "id", "left"), "pool")
    for name, key in book.assignments.items():
        if name.startswith("target"):
            rows = ws.read("assignments", key).select("source", F.lit(None).alias("taken"))
            tops = tops.unionByName(_top(rows, name))
    found = bounded(tops, _SOURCES_SHOWN * len(book.assignments), "sources").to_pandas()
    found["side"] = found["side"].where(found["side"] == "pool", "target")
    counts = found.groupby(["source", "side"])[["rows", "taken"]].sum().unstack(fill_value=0)
    table = pd.DataFrame(
        {
            "pool": counts["rows", "pool"],
            "selected": counts["taken", "pool"],
            "target": counts["rows"].get("target", 0),
        }
    )
    return table.reset_index().sort_values(["pool", "source"], ascending=[False, True])


def _top(rows: DataFrame, side: str) -> DataFrame:
    named = rows.select(F.coalesce("source", F.lit("(none)")).alias("source"), "taken")
    counted = named.groupBy("source").agg(
        F.count(F.lit(1)).alias("rows"), F.count("taken").alias("taken")
    )
    top = counted.orderBy(F.desc("rows"), "source").limit(_SOURCES_SHOWN)
    return top.withColumn("side", F.lit(side))


def _samples(ctx: Context, sides: dict[str, Side]) -> dict[str, pa.Table]:
    """Bring a hash sample of pool and targets, by one job from the skinny vector table."""
    most, targets = ctx.settings.report.sample, targets_of(sides)
    parts = {
        "pool": (_vectors(ctx, sides["pool"]), most, sides["pool"].usable),
        **{s.name: (_vectors(ctx, s), most // len(targets), s.usable) for s in targets},
    }
    return hash_samples(parts, f"report-{ctx.settings.seed}")


def _vectors(ctx: Context, side: Side) -> DataFrame:
    return vectors_of(ctx, side).select("id", "vector")


def _points(
    ctx: Context,
    sides: dict[str, Side],
    selected: DataFrame,
    rows: int,
    before: Callable[[], dict[str, pa.Table]],
) -> Points:
    """Project the samples of pool and targets, and one of the selection."""
    ids = selected.select(F.col("gio_id").alias("id"))
    kept = hash_sample(
        _vectors(ctx, sides["pool"]).join(ids, "id", "left_semi"),
        ctx.settings.report.sample,
        f"report-{ctx.settings.seed}",
        total=rows,
    )
    samples = before()
    pool = decode_vectors(samples["pool"]["vector"])
    dimension = pool.shape[1]
    targets = [decode_vectors(samples[s.name]["vector"], dimension) for s in targets_of(sides)]
    return project(
        np.concatenate(targets), pool, decode_vectors(kept.sort_by("id")["vector"], dimension)
    )


def _calibration(chosen: Chosen) -> Calibration | None:
    if chosen.ratio is None:
        return None
    facts = chosen.ratio.facts
    table = facts["table"]
    return Calibration(
        predicted=np.asarray(table["predicted_target_share"]),
        observed=np.asarray(table["observed_target_share"]),
        rows=np.asarray(table["target_rows"]) + np.asarray(table["pool_rows"]),
        auc=facts["auc"],
    )


def _examples(
    ctx: Context,
    sides: dict[str, Side],
    book: Codebook,
    chosen: Chosen,
    selected: DataFrame,
) -> tuple[Example, ...]:
    """Pick a few rows taken and left of the clusters where both are to be seen."""
    each = ctx.settings.report.examples
    columns = sides["pool"].source.columns
    content = columns.text or columns.image
    if each == 0 or content is None or not ctx.settings.report.show_content:
        return ()
    plan = chosen.plan.assign(left=lambda p: p["rows"] - p["take"])
    plan = plan[(plan["take"] > 0) & (plan["left"] > 0)]
    largest = plan.sort_values(["target_mass", "cluster"], ascending=[False, True])
    clusters = [int(c) for c in largest["cluster"].head(_EXAMPLE_CLUSTERS)]
    if not clusters:
        return ()
    ws = ctx.workspace
    rows = ws.read("assignments", book.assignments["pool"])
    rows = rows.where(F.col("cluster").isin(clusters))
    kept = selected.select(
        F.col("gio_id").alias("id"),
        F.col("gio_log_ratio").alias("log_ratio"),
        F.lit(True).alias("taken"),
    )
    marked = rows.select("id", "cluster", "source", "label").join(kept, "id", "left")
    total = int(chosen.plan["rows"].sum())
    sample = hash_sample(
        marked,
        200 * len(clusters),
        f"examples-{ctx.settings.seed}",
        total=min(total, int(plan[plan["cluster"].isin(clusters)]["rows"].sum())),
    ).to_pandas()
    sample["taken"] = sample["taken"].notna()
    few = sample.groupby(["cluster", "taken"], sort=True).head(each)
    contents = _contents(ctx, sides["pool"], content, few["id"].tolist())
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
                text=str(value)[:_TEXT_SHOWN] if is_text else None,
                image=None if is_text else _image(value),
                source=row["source"],
                label=row["label"],
                log_ratio=None if ratio is None or pd.isna(ratio) else float(ratio),
            )
        )
    return tuple(examples)


def _contents(ctx: Context, side: Side, column: str, ids: list[str]) -> Mapping[str, Any]:
    wanted = ctx.workspace.frame(pa.table({"id": pa.array(ids, pa.string())}))
    picked = F.col(quoted_column(column))
    if side.source.columns.text == column:
        picked = F.substring(picked, 1, _TEXT_SHOWN)
    rows = side.source.rows.select("id", picked.alias("content")).join(
        F.broadcast(wanted), "id", "left_semi"
    )
    table = bounded(rows, len(ids), "examples")
    return dict(zip(table["id"].to_pylist(), table["content"].to_pylist(), strict=True))


def _image(value: Any) -> Any:
    """Return encoded bytes as they are, and a square of pixels as an array."""
    if isinstance(value, bytes):
        return value
    pixels = np.asarray(value, dtype=np.float64)
    side = round(float(np.sqrt(pixels.size)))
    return pixels.reshape(side, side) if side * side == pixels.size else None


def versions(ctx: Context, revision: str) -> dict[str, str]:
    """Return the versions that a run depends on."""
    found = {"python": platform.python_version(), "embedder": revision}
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
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["spark"] = str(ctx.spark.version)
    return found
