"""Bake-off of selection methods on a pool and target: `gio-spark evaluate` and `compare`."""

from __future__ import annotations

import difflib
import logging
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gio_spark.engine import describe, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import ConfigError, InputError
from gio_spark.evaluate.measures import MEASURES, measures_of_settings
from gio_spark.evaluate.prepare_dataset import (
    EvaluationInputs,
    budgets_of,
    build_dataset,
    prepare_evaluation,
)
from gio_spark.evaluate.trials import TABLE, TrialPlan, TrialResults, run_trials
from gio_spark.pipeline.stages.input_snapshots import as_location
from gio_spark.registry import load_modules
from gio_spark.report import trial_statistics
from gio_spark.report.evaluation_page import render_evaluation
from gio_spark.settings.load import build
from gio_spark.strategy import methods as registry
from gio_spark.tables import Workspace
from gio_spark.tables.output_folders import local_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.settings.run import RunSettings
    from gio_spark.strategy.evaluation_dataset import EvaluationDataset

log = logging.getLogger(__name__)

BASELINE = "random"
ORACLE = "oracle"
# Method that a run uses unless its settings say else.
DEFAULT = "kl_ratio_t025"
# Setting that a field of the dataset comes from.
_SETTING_OF_FIELD = {
    "texts": "columns.text of pool and targets",
    "target_texts": "columns.text of pool and targets",
    "held_texts": "columns.text of pool and targets",
    "labels": "columns.label",
    "held_labels": "columns.label",
    "good": "evaluate.oracle",
    "sources": "columns.source",
}


@dataclass(frozen=True)
class Evaluation:
    """Result of a bake-off.

    Attributes:
        trials: One row per trial (method, budget, seed) and measure: task, method, budget (share
            of the pool), rows, seed, measure, value, higher_is_better, seconds, memory_mb, error,
            note.
        page: Path of the HTML page.
        run_id: Id of the evaluation.
        summary: Sizes, numbers of trials and times, as plain values.
        table: Location of the table of stored trials.
    """

    trials: pd.DataFrame
    page: Path
    run_id: str
    summary: dict[str, Any]
    table: str


def evaluate(
    settings: RunSettings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare selection methods on the pool and target of a run.

    Trials that are stored already are not computed again.

    Args:
        settings: Settings of the run; section `evaluate` names methods, budgets and measures.
        spark: Session; None: a session of the setting `engine`.
        progress: Progress display; None: the default one.

    Raises:
        GioSparkError: Inputs, budgets or settings cannot be used.
    """
    load_modules(settings.modules)
    check_methods(settings.evaluate.methods)
    _check_held_out(settings)
    _check_columns(settings)
    with prepare_evaluation(settings, spark, progress) as data:
        evaluation = _compare(data)
    data.ctx.progress.summary()
    return evaluation


def compare(
    pool: Any,
    target: Any,
    *,
    workspace: str | Path = "gio-workspace",
    spark: SparkSession | None = None,
    **settings: Any,
) -> Evaluation:
    """Compare selection methods on tables or DataFrames; the form of `evaluate` for notebooks.

    Args:
        pool: Path, table name, mapping of input settings, or a Spark or pandas DataFrame.
        target: As `pool`, or a list of targets with shares.
        workspace: Folder, or `catalog.schema`, of all tables.
        spark: Session; None: an active session, or a new one of the setting `engine`.
        settings: Other settings of a run: columns, held_out, embedder, seed, and
            `evaluate={"methods": [...], "budgets": [...], "seeds": 5}`.

    Raises:
        GioSparkError: Inputs, budgets or settings cannot be used.
    """
    spark = spark or session(settings.get("engine", "auto"))
    tables = Workspace(spark, str(workspace))
    inputs = {"pool": pool, "target": target}
    if "held_out" in settings:
        inputs["held_out"] = settings["held_out"]
    locations = {
        name: as_location(spark, tables, value, name.replace("_", "-"), settings.get("columns"))
        for name, value in inputs.items()
    }
    values = {**settings, **locations, "workspace": str(workspace)}
    return evaluate(build(values, where="the call of compare"), spark=spark)


def check_methods(names: tuple[str, ...]) -> None:
    """Check that all methods are registered.

    Raises:
        ConfigError: A method is unknown; the message has the nearest known name.

    Example:
        >>> check_methods(("random", "nearest"))
        >>> check_methods(("nerest",))
        Traceback (most recent call last):
        ...
        gio_spark.errors.ConfigError: evaluate.methods: no method is called 'nerest': \
did you mean 'nearest'?
    """
    for name in names:
        if name not in registry.methods():
            close = difflib.get_close_matches(name, registry.methods(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else (
                f"known: {', '.join(registry.methods())}."
            )  # fmt: skip
            raise ConfigError(f"evaluate.methods: no method is called {name!r}: {hint}")


def _check_held_out(settings: RunSettings) -> None:
    if not settings.held_out and settings.evaluate.held_out_share == 0.0:
        raise InputError(
            "There is no held-out target: name an input in held_out, or set "
            "evaluate.held_out_share above 0 to keep a part of the target for judging."
        )


def _check_columns(settings: RunSettings) -> None:
    """Check that the settings name the columns of all methods and measures, before any read.

    Raises:
        ConfigError: A measure is unknown, or rows are pairs.
        InputError: A column is missing.
    """
    evaluate_settings = settings.evaluate
    pool = settings.pool_columns()
    if pool.output is not None:
        raise ConfigError(
            "columns.output: methods are compared on texts or vectors, not on pairs. Leave it out."
        )
    held_out_columns, target_columns = (
        [one.columns or settings.columns for one in inputs]
        for inputs in (settings.held_out or settings.target, settings.target)
    )
    texts = all(columns.text is not None for columns in (pool, *target_columns, *held_out_columns))
    labels = all(columns.label is not None for columns in (pool, *held_out_columns))
    measures_of_settings(evaluate_settings.measures, texts=texts, labels=labels)
    available = {"texts": texts, "target_texts": texts, "held_texts": texts, "labels": labels,
             "held_labels": labels, "good": evaluate_settings.oracle is not None,
             "sources": pool.source is not None}  # fmt: skip
    for name in evaluate_settings.methods:
        missing = [field for field in registry.get(name).needs if not available.get(field, True)]
        if missing:
            columns = ", ".join(dict.fromkeys(_SETTING_OF_FIELD[field] for field in missing))
            raise InputError(
                f"The method {name!r} needs {columns}: name the column, or leave the method out."
            )


def _compare(data: EvaluationInputs) -> Evaluation:
    ctx, settings = data.ctx, data.ctx.settings
    evaluate_settings = settings.evaluate
    with ctx.progress.stage("dataset", spark=ctx.spark) as stage:
        dataset = build_dataset(data)
        stage.done(rows=dataset.rows)
    plan = TrialPlan(
        task=_task_name(settings),
        methods=_methods(dataset, evaluate_settings.methods),
        budgets=budgets_of(settings, data.state.inputs["pool"].count),
        seeds=range(settings.seed, settings.seed + evaluate_settings.seeds),
        measures=measures_of_settings(
            evaluate_settings.measures,
            texts=dataset.texts is not None and dataset.held_texts is not None,
            labels=dataset.labels is not None and dataset.held_labels is not None,
        ),
        modules=settings.modules,
    )
    started = time.monotonic()
    with ctx.progress.stage("cells", unit="cells") as stage:

        def report_progress(done_trials: int, all_trials: int, last_method: str) -> None:
            stage.total = all_trials
            stage.reached(done_trials)
            stage.say(last_method)

        results = run_trials(
            ctx.spark,
            ctx.workspace,
            dataset,
            plan,
            run=ctx.run,
            slots=evaluate_settings.slots,
            on_wave=report_progress,
        )
        if results.computed == 0:
            stage.skip(f"all {results.reused:,} cells are complete")
        else:
            stage.done(
                rows=results.computed + results.reused, note=f"{results.reused:,} were there"
            )
    return _write_results(data, dataset, results, time.monotonic() - started)


def _task_name(settings: RunSettings) -> str:
    last = settings.pool.location.rstrip("/").rsplit("/", 1)[-1]
    # The name of a table can contain dots, so only known suffixes are removed.
    return re.sub(r"\.(parquet|csv|jsonl|json)(\.gz)?$", "", last)


def _methods(dataset: EvaluationDataset, names: tuple[str, ...]) -> list[str]:
    """Methods of the settings with the baseline, or all methods that the dataset allows.

    Raises:
        InputError: A method needs a field that the dataset lacks.
    """
    if not names:
        return registry.methods(dataset)
    for name in names:
        missing = registry.get(name).missing(dataset)
        if missing:
            raise InputError(
                f"The method {name!r} needs {', '.join(missing)}, which pool or target do not "
                "have: name the columns, or leave the method out."
            )
    # All methods are compared with the baseline.
    return list(dict.fromkeys([BASELINE, *names]))


def _write_results(
    data: EvaluationInputs, dataset: EvaluationDataset, results: TrialResults, seconds: float
) -> Evaluation:
    """Evaluation after writing its page and its tracked metrics."""
    ctx, pool = data.ctx, data.state.inputs["pool"]
    facts = {
        "evaluation": ctx.run,
        "engine": describe(ctx.spark).line().removeprefix("engine: "),
        "pool": f"{dataset.rows:,} rows drawn by hash from "
        f"{data.state.pool_rows:,} of {pool.location}",
        "target": f"{len(dataset.target_vectors):,} rows for the methods, "
        f"{len(dataset.held_vectors):,} held out",
        "clusters": f"{len(dataset.centroids):,}",
        "cells": f"{results.computed:,} computed in {seconds:,.0f} s, "
        f"{results.reused:,} there already",
    }
    folder = local_folder(ctx.workspace) / "reports" / ctx.run
    page = render_evaluation(
        with_measure_titles(results.table),
        folder,
        facts=facts,
        ranking_measures=ranking_measures(results.table),
        settings=ctx.settings.model_dump(mode="json"),
        descriptions={
            name: registry.get(name).summary for name in results.table["method"].unique()
        },
        default=DEFAULT,
    )
    ctx.tracker.metrics(flat_metrics(results.table))
    ctx.tracker.artifact(folder, "evaluation")
    summary = {
        **facts,
        "computed": results.computed,
        "reused": results.reused,
        "failed": int((results.table["error"] != "").sum()),
        "seconds": seconds,
        "versions": {name: source.version for name, source in data.state.inputs.items()},
        "page": str(page),
    }
    return Evaluation(results.table, page, ctx.run, summary, ctx.workspace.place(TABLE))


def with_measure_titles(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with the titles of the measures in place of their names."""
    return trials.assign(measure=[MEASURES[m].title for m in trials["measure"]])


def ranking_measures(trials: pd.DataFrame) -> list[str] | None:
    """Titles of the measures that rank: the proxy models if there are any, else None (all).

    A method can select rows close to the target of which models learn little; with labels, the
    scores of trained models decide.
    """
    names = [m for m in dict.fromkeys(trials["measure"]) if MEASURES[m].needs == "labels"]
    return [MEASURES[m].title for m in names] or None


def deciding_measures(trials: pd.DataFrame) -> list[str]:
    """Names of the main measures: proxy models, else the cross-entropy of texts, else energy."""
    measured = list(dict.fromkeys(trials["measure"]))
    proxies = [m for m in measured if MEASURES[m].needs == "labels"]
    others = [m for m in ("cross_entropy", "energy", *measured) if m in measured]
    return proxies or others[:1]


def rank_methods(trials: pd.DataFrame) -> trial_statistics.Ranks:
    """Ranks of the methods over all comparisons in which the oracle, if any, beats the baseline."""
    checked = trial_statistics.checked_trials(with_measure_titles(trials))
    measures = ranking_measures(trials)
    ranked = checked[checked["method"] != ORACLE]
    if measures is not None:
        ranked = ranked[ranked["measure"].isin(measures)]
    unrankable = set(trial_statistics.weak_comparisons(checked, ORACLE, BASELINE))
    comparisons = ranked[["task", "measure", "budget"]].itertuples(index=False, name=None)
    return trial_statistics.method_ranks(
        ranked[[comparison not in unrankable for comparison in comparisons]]
    )


def flat_metrics(trials: pd.DataFrame) -> dict[str, float]:
    """Tracked metrics of a bake-off: measure/method/budget, mean ranks, seconds and memory."""
    checked = trial_statistics.checked_trials(trials)
    metrics: dict[str, float] = {}
    for row in trial_statistics.mean_scores(checked).to_dict("records"):
        name = f"{row['measure']}/{row['method']}/{100 * row['budget']:g}pct"
        metrics[_metric_name(name)] = float(row["mean"])
    method_ranks = rank_methods(trials)
    for method, rank in zip(method_ranks.methods, method_ranks.mean, strict=True):
        metrics[_metric_name(f"mean_rank/{method}")] = float(rank)
    for row in trial_statistics.method_costs(checked).to_dict("records"):
        for cost in ("seconds", "memory_mb"):
            metrics[_metric_name(f"{cost}/{row['method']}")] = float(row[cost])
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _metric_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", name)
