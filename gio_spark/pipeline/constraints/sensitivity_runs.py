"""Sensitivity runs: effect of each metric on a model, and thresholds from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gio_spark import gime
from gio_spark.engine import bounded
from gio_spark.engine.progress import duration
from gio_spark.errors import ConfigError, InputError
from gio_spark.gime.driver_samples import labeled_sample, unlabeled_sample
from gio_spark.gime.sensitivity_analysis import forecast_training
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_records import SensitivityFacts
from gio_spark.pipeline.run_rows import RunRows
from gio_spark.settings.budget import Budget, parse_budget

if TYPE_CHECKING:
    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Record, Workspace

STAGE = "sensitivity"
# Settings of the metrics that the runs depend on; thresholds and the like are read afterwards.
USED = (
    "profile", "columns", "tau", "probes", "directions", "sketch_log_size", "bucket_hours",
    "levels", "screen", "seeds", "sample", "proxy", "measure", "scorer",
)  # fmt: skip
# Shares of the sample at which the efficiency curve is drawn.
CURVE_SHARES = (0.05, 0.1, 0.25, 0.5)
_CURVE_LEVEL = 0.95
_LEAST_SUBSET = 20
_MAX_RUNS = 100_000

_SENSITIVITY = pa.schema(
    [
        ("factor", pa.string()), ("metric", pa.string()), ("class", pa.string()),
        ("direction", pa.string()), ("pursued", pa.bool_()),
        *[(n, pa.float64()) for n in (
            "change", "low", "high", "pearson", "spearman", "mutual_information", "p10", "p90",
            "vif", "turning_point", "band_low", "band_high", "worst", "best", "random", "share_90",
            "share_95", "share_99",
        )],
        ("swept", pa.bool_()),
    ]
)  # fmt: skip
_RUNS = pa.schema(
    [
        ("part", pa.string()), ("factor", pa.string()), ("seed", pa.int64()),
        ("level", pa.int64()), ("value", pa.float64()), ("rows", pa.int64()),
        ("tokens", pa.int64()), ("score", pa.float64()), ("seconds", pa.float64()),
        ("metrics", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SensitivityResult:
    """Result of the sensitivity runs, as stored.

    Attributes:
        analysis: Table of factors, screen, sweeps.
        directions: 1 where more is better, -1 where less is, 0 where it is unknown.
        curve: Way, rows, tokens, seconds, score, of_full.
        table: One row per metric, as in the Delta table.
        facts: Facts of the runs.
        key: Fingerprint.
    """

    analysis: gime.Sensitivity
    directions: Mapping[str, int]
    curve: pd.DataFrame
    table: pd.DataFrame
    facts: SensitivityFacts
    key: str


def subset_size(settings: RunSettings, sample: int, pool: int) -> int:
    """Rows per subset: the budget's share of the sample; a tenth where it is open."""
    return _size_of(parse_budget(settings.budget), sample, pool)


def trained_size(settings: RunSettings, sample: int, pool: int) -> int:
    """Rows per subset of the sensitivity runs, from the budget's nearest power of two.

    So budgets of about the same size share the runs; thresholds are rescaled to the selection.
    """
    return _size_of(settings.sensitivity_budget, sample, pool)


def _size_of(budget: Budget, sample: int, pool: int) -> int:
    shares = {"share": budget.amount, "rows": budget.amount / max(pool, 1)}
    return int(min(max(_LEAST_SUBSET, round(shares.get(budget.unit, 0.1) * sample)), sample - 1))


def check_labels(settings: RunSettings) -> None:
    """Refuse settings that give nothing to score a subset by.

    Raises:
        ConfigError: Neither labels nor a scoring function are named.
    """
    if settings.pool_columns().label is None and settings.gime.scorer is None:
        raise ConfigError(
            "Sensitivity needs something to score subsets by: name the column of labels in "
            "columns.label, or a scoring function in gime.scorer (package.module:function). "
            "Without either, set thresholds by hand in gime.thresholds."
        )


def run_sensitivity(
    ctx: RunContext, run_rows: RunRows, pool_rows: int, key: str
) -> SensitivityResult:
    """Run screen and sweeps on a bounded sample, unless a complete record is there.

    Args:
        ctx: The run.
        run_rows: Its rows.
        pool_rows: Usable rows of the pool.
        key: Fingerprint.

    Raises:
        ConfigError: There is nothing to score by.
        InputError: No row has a label, or no metric can be moved.
        NoVerdictError: No label of the target occurs in the pool, or a model of all rows learns
            nothing.
    """
    check_labels(ctx.settings)

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        progress.say("sample and screen")
        progress.unit, progress.total = "models", None
        sample, task = _task(ctx, run_rows)
        size = trained_size(ctx.settings, sample.rows.count, pool_rows)
        ctx.progress.say(_cost_line(ctx, sample, task, size))
        with progress.counting():
            analysis = gime.sensitivity(
                ctx.spark,
                sample,
                task,
                size=size,
                settings=ctx.settings.gime,
                seed=ctx.settings.seed,
                on_models=lambda models: progress.update(0, total=models),
            )
            if isinstance(task, gime.Task):
                task.check_learned(analysis.full_score)
            directions = sample.directions()
            progress.say("efficiency curve")
            ways = _ways(ctx, sample, analysis, directions)
            models = analysis.models + 1 + sum(len(subsets) for subsets in ways.values())
            progress.update(0, total=models)
            curve = gime.efficiency_curve(ctx.spark, task, ways, tokens=_tokens(sample))
        progress.unit = "rows"
        spent = analysis.seconds + float(curve["seconds"].sum())
        facts = SensitivityFacts(
            measure=task.measure,
            proxy=task.proxy,
            sample=sample.rows.count,
            size=analysis.size,
            models=analysis.models + len(curve),
            seconds=spent,
            full_score=analysis.full_score,
            random_score=analysis.random_score,
            full_seconds=float(curve.loc[curve["way"] == "full", "seconds"].mean()),
            notes=tuple(analysis.notes),
            directions=dict(directions),
            random_metrics=dict(analysis.random_metrics),
        )
        table = _metric_rows(analysis, directions)
        _write_runs(ctx, key, analysis, curve)
        rows = ctx.workspace.write_arrow(
            "sensitivity",
            pa.Table.from_pandas(table, schema=_SENSITIVITY, preserve_index=False),
            fingerprint=key,
            run=ctx.run,
            stage=STAGE,
        )
        return rows, facts.plain()

    record = ctx.stage(STAGE, key, "sensitivity", make, rows=ctx.settings.gime.sample)
    return load(ctx.workspace, record)


def _task(ctx: RunContext, run_rows: RunRows) -> tuple[gime.Sample, gime.Task | gime.CustomScore]:
    settings = ctx.settings.gime
    vectors = "vector" in run_rows.profile.roles
    frozen = run_rows.constants(vectors=vectors)
    pool = run_rows.rows("pool", vectors=vectors)
    target = run_rows.targets(vectors=vectors)
    if settings.scorer is not None:
        sample, table = unlabeled_sample(
            pool,
            constants=frozen,
            profile=run_rows.profile,
            target=target,
            rows=settings.sample,
            extra_columns=("label", "source", "tokens"),
        )
        score = gime.CustomScore(
            table.drop_columns([c for c in table.column_names if c in ("_group", "_partition")]),
            settings.scorer,
        )
        score.resolve()
        return sample, score
    labeled_rows = _labeled_rows(run_rows, vectors=vectors)
    sample, task, _ = labeled_sample(
        pool,
        labeled_rows,
        "label",
        constants=frozen,
        profile=run_rows.profile,
        target=target,
        rows=settings.sample,
        measure=settings.measure,
        proxy=settings.proxy,
    )
    return sample, task


def _labeled_rows(run_rows: RunRows, *, vectors: bool) -> Any:
    """The rows that models are scored on: labeled targets, else labeled held-out sets."""
    for kind in ("target", "held-out"):
        names = [
            name
            for name, source in run_rows.inputs.items()
            if name.startswith(kind) and source.columns.label is not None
        ]
        if names:
            rows = run_rows.rows(names[0], vectors=vectors)
            for name in names[1:]:
                rows = rows.unionByName(run_rows.rows(name, vectors=vectors))
            return rows
    raise ConfigError(
        "No target has labels to score models on: name its column in target.columns.label."
    )


def _cost_line(
    ctx: RunContext, sample: gime.Sample, task: gime.Task | gime.CustomScore, size: int
) -> str:
    """Line about the models to train and their time, from one that is trained."""
    forecast = forecast_training(
        sample, task, size=size, settings=ctx.settings.gime, seed=ctx.settings.seed
    )
    return (
        f"sensitivity: {forecast.screen:,} models on subsets of {size:,} rows, and up to "
        f"{forecast.sweeps:,} where the screen finds metrics that matter: "
        f"{duration(forecast.least)} to {duration(forecast.most)} of processor time"
    )


def _tokens(sample: gime.Sample) -> Any:
    """Tokens of each row, None without the column."""
    if "tokens" not in sample.rows:
        return None
    column = sample.rows["tokens"]
    return np.where(column.valid, column.values, 0)


def _ways(
    ctx: RunContext,
    sample: gime.Sample,
    analysis: gime.Sensitivity,
    directions: Mapping[str, int],
) -> dict[str, list[Any]]:
    """Random and chosen subsets of several sizes, for the efficiency curve."""
    n = sample.rows.count
    sizes = sorted({max(_LEAST_SUBSET, round(s * n)) for s in CURVE_SHARES} - {n})
    sizes = [s for s in sizes if s < n]
    seeds = min(3, ctx.settings.gime.seeds)
    ways: dict[str, list[Any]] = {"random": []}
    clusters = clusters_of(sample)
    thresholds, _ = gime.automatic_thresholds(analysis, directions, level=_CURVE_LEVEL)
    pursued = gime.pursued_metrics(analysis.table, directions)
    for size in sizes:
        for seed in range(seeds):
            rng = np.random.default_rng([ctx.settings.seed, size, seed])
            ways["random"].append(np.sort(rng.choice(n, size, replace=False)))
            if clusters is not None and pursued:
                chosen = gime.select(
                    sample, clusters, size, thresholds, pursued, directions, seed=seed, tries=4
                )
                ways.setdefault("by metrics", []).append(chosen.rows)
    return ways


def clusters_of(sample: gime.Sample) -> Any:
    """The cluster of each row of a sample, or None where rows have none."""
    if "cluster" not in sample.rows or not sample.rows["cluster"].valid.all():
        return None
    return np.asarray(sample.rows["cluster"].values, np.int64)


# ---- tables ------------------------------------------------------------------------------------


def _metric_rows(analysis: gime.Sensitivity, directions: Mapping[str, int]) -> pd.DataFrame:
    """One row per metric: its factor's figures, its range, the shares per level."""
    _, shares = gime.automatic_thresholds(analysis, directions)
    ranges = {
        r["metric"]: r for r in gime.attainable_ranges(analysis, directions).to_dict("records")
    }
    reached = {r["metric"]: r for r in shares.to_dict("records")}
    pursued = gime.pursued_metrics(analysis.table, directions)
    rows = []
    for _, factor in analysis.table.iterrows():
        for metric in str(factor["metrics"]).split("+"):
            row = {k: factor[k] for k in analysis.table.columns if k != "metrics"}
            row |= {
                "factor": factor["metrics"],
                "metric": metric,
                "pursued": metric in pursued,
                "direction": {1: "more", -1: "less"}.get(directions.get(metric, 0), "unknown"),
            }
            for name in ("worst", "best", "random"):
                row[name] = ranges.get(metric, {}).get(name)
            for level in (90, 95, 99):
                row[f"share_{level}"] = reached.get(metric, {}).get(f"share at {level}%")
            rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=_SENSITIVITY.names)


def _write_runs(ctx: RunContext, key: str, analysis: gime.Sensitivity, curve: pd.DataFrame) -> None:
    names = [c for c in analysis.screen.columns if c != "score"]

    def metrics(row: pd.Series) -> str:
        return json.dumps({n: float(row[n]) for n in names if n in row and pd.notna(row[n])})

    rows: list[dict[str, Any]] = [
        {"part": "screen", "rows": analysis.size, "score": r["score"], "metrics": metrics(r)}
        for _, r in analysis.screen.iterrows()
    ]
    rows += [
        {"part": "sweep", "factor": r["factor"], "seed": int(r["seed"]), "level": int(r["level"]),
         "value": r["value"], "rows": analysis.size, "score": r["score"], "seconds": r["seconds"],
         "metrics": metrics(r)}
        for _, r in analysis.sweeps.iterrows()
    ]  # fmt: skip
    rows += [
        {"part": "curve", "factor": r["way"], "seed": int(r["seed"]), "rows": int(r["rows"]),
         "tokens": int(r["tokens"]) if "tokens" in r else None, "score": r["score"],
         "seconds": r["seconds"], "value": r["of_full"]}
        for _, r in curve.iterrows()
    ]  # fmt: skip
    frame = pd.DataFrame(rows).reindex(columns=_RUNS.names)
    frame["order"] = np.arange(len(frame))
    schema = _RUNS.append(pa.field("order", pa.int64()))
    ctx.workspace.write_arrow(
        "sensitivity_runs",
        pa.Table.from_pandas(frame, schema=schema, preserve_index=False),
        fingerprint=key,
        run=ctx.run,
        stage=STAGE,
    )


def load(workspace: Workspace, record: Record) -> SensitivityResult:
    """Read the result of the runs of a record."""
    key, facts = record.fingerprint, SensitivityFacts.model_validate(record.detail)
    table = bounded(workspace.read("sensitivity", key), 1000, "metrics").to_pandas()
    table = table.drop(columns="fingerprint")
    runs = bounded(workspace.read("sensitivity_runs", key), _MAX_RUNS, "sensitivity runs")
    frame = runs.to_pandas().sort_values("order", ignore_index=True)
    wide = pd.DataFrame([json.loads(m) if isinstance(m, str) else {} for m in frame["metrics"]])
    screened = frame["part"] == "screen"
    swept = frame["part"] == "sweep"
    screen = wide[screened].assign(score=frame.loc[screened, "score"]).reset_index(drop=True)
    used = ["factor", "seed", "level", "value", "score", "seconds"]
    sweeps = pd.concat([frame.loc[swept, used], wide[swept]], axis=1).reset_index(drop=True)
    curve = frame.loc[frame["part"] == "curve"]
    curve = curve[["factor", "seed", "rows", "tokens", "score", "seconds", "value"]].rename(
        columns={"factor": "way", "value": "of_full"}
    )
    factors = table.drop_duplicates("factor").rename(columns={"factor": "metrics"})
    names = [
        "metrics", "class", "change", "low", "high", "pearson", "spearman", "mutual_information",
        "p10", "p90", "vif", "swept", "turning_point", "band_low", "band_high",
    ]  # fmt: skip
    ordered = _by_strength(factors[names])
    analysis = gime.Sensitivity(
        table=ordered,
        screen=screen,
        sweeps=sweeps,
        random_score=facts.random_score,
        full_score=facts.full_score,
        size=facts.size,
        seconds=facts.seconds,
        models=facts.models,
        notes=facts.notes,
        random_metrics=facts.random_metrics,
    )
    table = table.set_index("factor").loc[list(ordered["metrics"])].reset_index()
    return SensitivityResult(
        analysis, facts.directions, curve.reset_index(drop=True), table, facts, key
    )


def _by_strength(factors: pd.DataFrame) -> pd.DataFrame:
    nearest = factors[["low", "high"]].abs().min(axis=1)
    sure = np.where(factors["low"] * factors["high"] > 0, nearest, 0.0)
    order = np.lexsort((-factors["change"].abs(), -sure))
    return factors.iloc[order].reset_index(drop=True)


def of_key(workspace: Workspace, key: str) -> SensitivityResult:
    """Read the result of complete runs of a fingerprint.

    Raises:
        InputError: They are gone.
    """
    record = workspace.complete(STAGE, key)
    if record is None:
        raise InputError(f"The sensitivity runs are gone from {workspace.place('sensitivity')}.")
    return load(workspace, record)
