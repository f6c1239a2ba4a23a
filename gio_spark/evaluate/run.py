"""`gio-spark evaluate`: which selection is best on this pool and target, and what it costs."""

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
from gio_spark.evaluate import methods as registry
from gio_spark.evaluate.measures import MEASURES, wanted_measures
from gio_spark.evaluate.prepare_dataset import EvaluationData, budgets_of, make_dataset, prepared
from gio_spark.evaluate.trials import TABLE, Outcome, Plan, load_modules, run_cells
from gio_spark.pipeline.stages.input_snapshots import as_location
from gio_spark.report import scores
from gio_spark.report.evaluation import render_evaluation
from gio_spark.settings.load import build
from gio_spark.tables import Workspace
from gio_spark.tables.local_files import local_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.evaluate.dataset import EvaluationDataset
    from gio_spark.settings.run import RunSettings

log = logging.getLogger(__name__)

BASELINE = "random"
ORACLE = "oracle"
# What a field of the dataset comes from, as settings call it.
_COLUMNS = {
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
    """What a bake-off gave.

    Attributes:
        cells: One row per cell and measure: task, method, budget (share of the pool), rows, seed,
            measure, value, higher_is_better, seconds, memory_mb, error, note.
        page: Path of the HTML page.
        run_id: Id of the evaluation.
        summary: Sizes, counts of cells and times, plain values.
        table: Place of the stored cells.
    """

    cells: pd.DataFrame
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
    """Compare selection methods on the run's own pool and target.

    Cells that are stored already are not computed again.

    Args:
        settings: Of the run; `evaluate` says what is compared.
        spark: Session; none: as `engine` says.
        progress: Where people see what is going on.

    Raises:
        GioSparkError: With one clear message.
    """
    load_modules(settings.evaluate.modules)
    check_methods(settings.evaluate.methods)
    _check_held_out(settings)
    _check_columns(settings)
    with prepared(settings, spark, progress) as data:
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
    """Compare selection methods on tables or frames: `evaluate` for notebooks.

    Args:
        pool: Path, table name, mapping of input settings, or a Spark or pandas DataFrame.
        target: The same, or a list of those with shares.
        workspace: Folder, or `catalog.schema`, of all tables.
        spark: Session; none: found or started as `engine` says.
        settings: Any other setting of a run: columns, held_out, embedder, seed, and
            `evaluate={"methods": [...], "budgets": [...], "seeds": 5}`.

    Raises:
        GioSparkError: With one clear message.
    """
    spark = spark or session(settings.get("engine", "auto"))
    tables = Workspace(spark, str(workspace))
    given = {"pool": pool, "target": target}
    if "held_out" in settings:
        given["held_out"] = settings["held_out"]
    places = {
        name: as_location(spark, tables, value, name.replace("_", "-"))
        for name, value in given.items()
    }
    data = {**settings, **places, "workspace": str(workspace)}
    return evaluate(build(data, where="the call of compare"), spark=spark)


def check_methods(names: tuple[str, ...]) -> None:
    """Refuse unknown methods.

    Raises:
        ConfigError: With the nearest known name.
    """
    for name in names:
        if name not in registry.methods():
            near = difflib.get_close_matches(name, registry.methods(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else (
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
    """Refuse methods and measures whose columns no setting names, before anything is read.

    Raises:
        ConfigError: An unknown measure.
        InputError: What is to be set.
    """
    wanted = settings.evaluate
    pool = settings.pool_columns()
    judges, targets = (
        [one.columns or settings.columns for one in inputs]
        for inputs in (settings.held_out or settings.target, settings.target)
    )
    texts = all(c.text is not None for c in (pool, *targets, *judges))
    labels = all(c.label is not None for c in (pool, *judges))
    wanted_measures(wanted.measures, texts=texts, labels=labels)
    there = {"texts": texts, "target_texts": texts, "held_texts": texts, "labels": labels,
             "held_labels": labels, "good": wanted.oracle is not None,
             "sources": pool.source is not None}  # fmt: skip
    for name in wanted.methods:
        missing = [need for need in registry.get(name).needs if not there.get(need, True)]
        if missing:
            what = ", ".join(dict.fromkeys(_COLUMNS[need] for need in missing))
            raise InputError(
                f"The method {name!r} needs {what}: name the column, or leave the method out."
            )


def _compare(data: EvaluationData) -> Evaluation:
    ctx, settings = data.ctx, data.ctx.settings
    wanted = settings.evaluate
    with ctx.progress.stage("dataset", spark=ctx.spark) as shown:
        dataset = make_dataset(data)
        shown.done(rows=dataset.rows)
    plan = Plan(
        task=_task_name(settings),
        methods=_methods(dataset, wanted.methods),
        budgets=budgets_of(settings, data.state.inputs["pool"].count),
        seeds=range(settings.seed, settings.seed + wanted.seeds),
        measures=wanted_measures(
            wanted.measures,
            texts=dataset.texts is not None and dataset.held_texts is not None,
            labels=dataset.labels is not None and dataset.held_labels is not None,
        ),
        modules=wanted.modules,
    )
    began = time.monotonic()
    with ctx.progress.stage("cells", unit="cells") as shown:

        def told(done: int, cells: int, last: str) -> None:
            shown.total = cells
            shown.reached(done)
            shown.say(last)

        out = run_cells(
            ctx.spark, ctx.workspace, dataset, plan, run=ctx.run, slots=wanted.slots, on_wave=told
        )
        if out.computed == 0:
            shown.skip(f"all {out.reused:,} cells are complete")
        else:
            shown.done(rows=out.computed + out.reused, note=f"{out.reused:,} were there")
    return _shown(data, dataset, out, time.monotonic() - began)


def _task_name(settings: RunSettings) -> str:
    last = settings.pool.location.rstrip("/").rsplit("/", 1)[-1]
    # A table's name has dots of its own.
    return re.sub(r"\.(parquet|csv|jsonl|json)(\.gz)?$", "", last)


def _methods(dataset: EvaluationDataset, names: tuple[str, ...]) -> list[str]:
    """Methods of the settings, or all that the dataset allows.

    Raises:
        InputError: A method was asked for that needs what is not there.
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
    # Without the baseline there is nothing to compare with.
    return list(dict.fromkeys([BASELINE, *names]))


def _shown(
    data: EvaluationData, dataset: EvaluationDataset, out: Outcome, seconds: float
) -> Evaluation:
    """Write page and metrics."""
    ctx, pool = data.ctx, data.state.inputs["pool"]
    facts = {
        "evaluation": ctx.run,
        "engine": describe(ctx.spark).line().removeprefix("engine: "),
        "pool": f"{dataset.rows:,} rows drawn by hash from "
        f"{data.state.pool_rows:,} of {pool.location}",
        "target": f"{len(dataset.target_vectors):,} rows for the methods, "
        f"{len(dataset.held_vectors):,} held out",
        "clusters": f"{len(dataset.centroids):,}",
        "cells": f"{out.computed:,} computed in {seconds:,.0f} s, {out.reused:,} there already",
    }
    folder = local_folder(ctx.workspace) / "reports" / ctx.run
    page = render_evaluation(
        titled(out.table),
        folder,
        facts=facts,
        ranked_by=ranked_by(out.table),
        settings=ctx.settings.model_dump(mode="json"),
    )
    ctx.tracker.metrics(tracked(out.table))
    ctx.tracker.artifact(folder, "evaluation")
    summary = {
        **facts,
        "computed": out.computed,
        "reused": out.reused,
        "failed": int((out.table["error"] != "").sum()),
        "seconds": seconds,
        "versions": {name: one.version for name, one in data.state.inputs.items()},
        "page": str(page),
    }
    return Evaluation(out.table, page, ctx.run, summary, ctx.workspace.place(TABLE))


def titled(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with measures named as people read them."""
    return cells.assign(measure=[MEASURES[m].title for m in cells["measure"]])


def ranked_by(cells: pd.DataFrame) -> list[str] | None:
    """Titles of the proxy models, which alone rank where there are some, else None.

    A method can be close to the target and teach little; where labels tell, they decide.
    """
    names = [m for m in dict.fromkeys(cells["measure"]) if MEASURES[m].needs == "labels"]
    return [MEASURES[m].title for m in names] or None


def deciding(cells: pd.DataFrame) -> list[str]:
    """Measures that say most: proxies, else the cross-entropy of texts, else energy."""
    there = list(dict.fromkeys(cells["measure"]))
    proxies = [m for m in there if MEASURES[m].needs == "labels"]
    rest = [m for m in ("cross_entropy", "energy", *there) if m in there]
    return proxies or rest[:1]


def ranks(cells: pd.DataFrame) -> scores.Ranks:
    """Rank the methods where the oracle, if there is one, shows that there is something to gain."""
    checked = scores.checked(titled(cells))
    by = ranked_by(cells)
    fair = checked[checked["method"] != ORACLE]
    if by is not None:
        fair = fair[fair["measure"].isin(by)]
    weak = set(scores.unrankable(checked, ORACLE, BASELINE))
    at = fair[["task", "measure", "budget"]].itertuples(index=False, name=None)
    return scores.ranks(fair[[place not in weak for place in at]])


def tracked(cells: pd.DataFrame) -> dict[str, float]:
    """Figures of a bake-off as flat metrics: measure/method/budget, ranks, seconds."""
    checked = scores.checked(cells)
    found: dict[str, float] = {}
    for row in scores.means(checked).to_dict("records"):
        name = f"{row['measure']}/{row['method']}/{100 * row['budget']:g}pct"
        found[_plain(name)] = float(row["mean"])
    ranked = ranks(cells)
    for method, rank in zip(ranked.methods, ranked.mean, strict=True):
        found[_plain(f"mean_rank/{method}")] = float(rank)
    for row in scores.costs(checked).to_dict("records"):
        for cost in ("seconds", "memory_mb"):
            found[_plain(f"{cost}/{row['method']}")] = float(row[cost])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", name)
