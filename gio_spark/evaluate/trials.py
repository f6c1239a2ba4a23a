"""Trials of a bake-off: computed on executors, stored as they finish, never computed twice."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import BroadcastArrays, bounded, broadcast_arrays, describe, map_arrow
from gio_spark.evaluate import auto_method  # noqa: F401 - registers the method `auto`
from gio_spark.evaluate.dataset_arrays import (
    content_hash,
    dataset_from_arrays,
    dataset_to_arrays,
    measure_inputs_from_arrays,
    measure_inputs_to_arrays,
)
from gio_spark.evaluate.measure_inputs import MeasureInputs, prepare_measure_inputs
from gio_spark.evaluate.measures import MEASURES, Measure
from gio_spark.process import no_warnings, one_thread
from gio_spark.registry import load_modules
from gio_spark.strategy import methods as registry
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.methods.method_registry import FAILURES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.tables import Workspace

log = logging.getLogger(__name__)

TABLE = "evaluations"
# Raised when the meaning of a trial changes, so that stored trials are not reused.
FORMAT = 1
# Groups of trials per slot between two commits: few, so that a run that dies loses little.
_GROUPS_PER_SLOT = 4
_MAX_STORED = 2_000_000
_CLUSTER_SLOTS = 64

_RESULT_SCHEMA = (
    "method string, seed bigint, budget double, rows bigint, measure string, value double, "
    "seconds double, memory_mb double, measure_seconds double, error string, note string"
)
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("task", pa.string()),
        pa.field("method", pa.string()),
        pa.field("budget", pa.float64()),
        pa.field("rows", pa.int64()),
        pa.field("seed", pa.int64()),
        pa.field("measure", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("higher_is_better", pa.bool_()),
        pa.field("seconds", pa.float64()),
        pa.field("memory_mb", pa.float64()),
        pa.field("measure_seconds", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("note", pa.string()),
        pa.field("finished", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class TrialPlan:
    """Trials to run on one dataset.

    Attributes:
        task: Name of the dataset in tables and plots.
        methods: Names of selection methods.
        budgets: Shares of the dataset's pool, each above 0 and at most 1.
        seeds: Seeds.
        measures: Measures of the selections.
        modules: Modules that executors import first.
    """

    task: str
    methods: Sequence[str]
    budgets: Sequence[float]
    seeds: Sequence[int]
    measures: Sequence[Measure]
    modules: Sequence[str] = ()


@dataclass(frozen=True)
class TrialResults:
    """Results of the trials of a plan.

    Attributes:
        table: One row per trial and measure, with the columns of the stored table.
        computed: Number of trials (method, budget, seed) computed now.
        reused: Number of trials that were stored already.
        remaining: Number of trials not computed because the time limit was reached.
        seconds: Wall time of the computation.
    """

    table: pd.DataFrame
    computed: int
    reused: int
    remaining: int
    seconds: float


def run_trials(
    spark: SparkSession,
    workspace: Workspace,
    dataset: EvaluationDataset,
    plan: TrialPlan,
    *,
    run: str = "",
    stop_at: float | None = None,
    slots: int | None = None,
    on_wave: Callable[[int, int, str], None] | None = None,
) -> TrialResults:
    """Results of all trials of a plan; missing trials are computed in waves, one commit each.

    All budgets of one method and seed are one task of an executor, so that work which they share
    is done once. A failed trial is a row with its error; the next run tries it again.

    Args:
        spark: Session.
        workspace: Workspace of the table `evaluations`.
        dataset: Dataset that methods select from.
        plan: Trials to run.
        run: Id of the run, for the commits.
        stop_at: time.monotonic() after which no further wave is started.
        slots: Number of parallel tasks; None: cores of this machine, or 64 on a cluster.
        on_wave: Called after each commit with (finished trials, all trials, last method).
    """
    arrays = dataset_to_arrays(dataset)
    dataset_hash = content_hash(arrays)
    planned = _planned_trials(dataset_hash, dataset, plan)
    stored = _stored_trials(workspace, planned)
    complete = stored[stored["error"] == ""]
    missing = planned[~planned["key"].isin(set(complete["key"]))]
    trial_count = planned.groupby(["method", "budget", "seed"]).ngroups
    missing_count = missing.groupby(["method", "budget", "seed"]).ngroups
    done = trial_count - missing_count
    started = time.monotonic()
    tables: list[pd.DataFrame] = []
    if missing_count:
        broadcast = broadcast_arrays(
            spark, {**arrays, **measure_inputs_to_arrays(prepare_measure_inputs(dataset))}
        )
        if slots is None:
            on_this_machine = describe(spark).kind in ("embedded", "local")
            slots = (os.cpu_count() or 1) if on_this_machine else _CLUSTER_SLOTS
        groups = _trial_groups(missing)
        step = slots * _GROUPS_PER_SLOT
        for start in range(0, len(groups), step):
            if stop_at is not None and time.monotonic() >= stop_at:
                break
            wave = groups[start : start + step]
            results = _compute_wave(spark, broadcast, wave, slots, tuple(plan.modules))
            table = _add_keys(results, missing, dataset_hash, plan)
            _store_wave(workspace, table, run)
            tables.append(table)
            done += sum(len(group["budgets"].split(",")) for group in wave)
            if on_wave is not None:
                on_wave(done, trial_count, wave[-1]["method"])
    rows = (
        pd.concat([*tables, complete], ignore_index=True)
        if tables
        else complete.reset_index(drop=True)
    )
    rows = rows.assign(task=plan.task)
    return TrialResults(
        rows,
        done - (trial_count - missing_count),
        trial_count - missing_count,
        trial_count - done,
        time.monotonic() - started,
    )


def _planned_trials(dataset_hash: str, dataset: EvaluationDataset, plan: TrialPlan) -> pd.DataFrame:
    """Planned trials: one row per method, budget, seed and measure, with its content key."""
    trials = []
    for seed in plan.seeds:
        for name in plan.methods:
            selection_method = registry.get(name)
            if selection_method.takes_all and seed != plan.seeds[0]:
                continue  # selects the same rows at every budget and seed
            budgets = [1.0] if selection_method.takes_all else plan.budgets
            for budget in budgets:
                rows = max(1, round(budget * dataset.rows))
                for measure in plan.measures:
                    parts = (
                        FORMAT,
                        dataset_hash,
                        name,
                        getattr(selection_method, "version", 1),
                        rows,
                        seed,
                        measure.name,
                        measure.version,
                    )
                    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
                    trials.append((key, name, float(budget), rows, int(seed), measure.name))
    columns = ["key", "method", "budget", "rows", "seed", "measure"]
    return pd.DataFrame(trials, columns=columns).drop_duplicates("key")


def _stored_trials(workspace: Workspace, planned: pd.DataFrame) -> pd.DataFrame:
    """Newest stored row of each planned key."""
    empty = _SCHEMA.empty_table().to_pandas()
    if not workspace.exists(TABLE) or planned.empty:
        return empty
    rows = workspace.read_keys(TABLE, workspace.keys(TABLE))
    rows = rows.where(F.col("method").isin(*planned["method"].unique()))
    stored = bounded(rows.select(*_SCHEMA.names), _MAX_STORED, "cells").to_pandas()
    stored = stored[stored["key"].isin(set(planned["key"]))]
    if stored.empty:
        return empty
    stored = stored.sort_values(["finished", "error"]).drop_duplicates("key", keep="last")
    # Different shares can give the same number of rows, so the budget comes from the plan.
    return stored.drop(columns="budget").merge(planned[["key", "budget"]], on="key")[_SCHEMA.names]


def _trial_groups(missing: pd.DataFrame) -> list[dict[str, Any]]:
    """Tasks, one per seed and method, with budgets and measures; ordered by seed."""
    groups = []
    for _, rows in missing.groupby(["seed", "method"], sort=False):
        budgets = sorted(rows["budget"].unique().tolist())
        groups.append(
            {
                "method": rows["method"].tolist()[0],
                "seed": rows["seed"].tolist()[0],
                "budgets": ",".join(repr(b) for b in budgets),
                "measures": ",".join(dict.fromkeys(rows["measure"].tolist())),
            }
        )
    return groups


def _compute_wave(
    spark: SparkSession,
    broadcast: BroadcastArrays,
    wave: list[dict[str, Any]],
    slots: int,
    modules: tuple[str, ...],
) -> pd.DataFrame:
    """Results of a wave; if a worker dies, each group is computed alone, so that others finish."""
    try:
        return _compute_groups(spark, broadcast, wave, slots, modules)
    except Exception as error:  # noqa: BLE001 - engines raise what they like when a worker dies
        if len(wave) == 1:
            log.warning("%s failed on its executor: %s", wave[0]["method"], error)
            return _failed_rows(wave[0], error)
    return pd.concat(
        [_compute_wave(spark, broadcast, [group], 1, modules) for group in wave], ignore_index=True
    )


def _failed_rows(group: Mapping[str, Any], error: Exception) -> pd.DataFrame:
    """Rows of a group whose worker died, with the error."""
    lines = str(error).strip().splitlines()
    message = f"The executor failed: {type(error).__name__}: {lines[0] if lines else ''}"
    rows = [
        (group["method"], group["seed"], float(budget), 0, measure, float("nan"), float("nan"),
         float("nan"), 0.0, message[:1000], "")
        for budget in group["budgets"].split(",")
        for measure in group["measures"].split(",")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[part.split()[0] for part in _RESULT_SCHEMA.split(", ")])


def _compute_groups(
    spark: SparkSession,
    broadcast: BroadcastArrays,
    wave: list[dict[str, Any]],
    slots: int,
    modules: tuple[str, ...],
) -> pd.DataFrame:
    def compute_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, list[Any]]]:
        load_modules(modules)
        for batch in batches:
            for group in batch.to_pylist():
                yield compute_group(*_worker_dataset(broadcast), group)

    frame = spark.createDataFrame(pd.DataFrame(wave)).repartition(max(1, min(slots, len(wave))))
    row_limit = sum(
        len(group["budgets"].split(",")) * len(group["measures"].split(",")) for group in wave
    )
    return bounded(
        map_arrow(frame, compute_batches, _RESULT_SCHEMA, batch_rows=1), row_limit, "cells"
    ).to_pandas()


_DATASETS: dict[str, tuple[EvaluationDataset, MeasureInputs]] = {}
_DATASETS_LOCK = threading.Lock()


def _worker_dataset(broadcast: BroadcastArrays) -> tuple[EvaluationDataset, MeasureInputs]:
    """Dataset and measure inputs on a worker, one object per process, so that work is shared."""
    with _DATASETS_LOCK:
        if broadcast.digest not in _DATASETS:
            arrays = broadcast.load()
            while len(_DATASETS) > 1:
                _DATASETS.pop(next(iter(_DATASETS)))
            _DATASETS[broadcast.digest] = (
                dataset_from_arrays(arrays),
                measure_inputs_from_arrays(arrays),
            )
        return _DATASETS[broadcast.digest]


def compute_group(
    dataset: EvaluationDataset, inputs: MeasureInputs, group: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Measures of the selections of one method and seed at all budgets of a group.

    Args:
        dataset: Dataset that the method selects from.
        inputs: Inputs of the measures.
        group: method, seed, budgets and measures (both joined by commas).

    Returns:
        Columns of `_RESULT_SCHEMA`, one entry per budget and measure.
    """
    columns: dict[str, list[Any]] = {part.split()[0]: [] for part in _RESULT_SCHEMA.split(", ")}
    name, seed = group["method"], int(group["seed"])
    measures = [MEASURES[m] for m in group["measures"].split(",")]
    for text in group["budgets"].split(","):
        budget = float(text)
        rows = max(1, round(budget * dataset.rows))
        problem = note = ""
        with one_thread(), no_warnings():
            try:
                selection = registry.run_method(name, dataset, rows, seed)
                row_ids, seconds, memory = selection.rows, selection.seconds, selection.memory_mb
                problem, note = selection.problem, selection.note
            except FAILURES as error:
                row_ids, seconds, memory = np.zeros(0, np.int64), float("nan"), float("nan")
                problem = f"{type(error).__name__}: {error}"
            for measure in measures:
                value, started, problem_of_measure = float("nan"), time.perf_counter(), problem
                if not problem:
                    try:
                        value = float(measure.compute(dataset, inputs, row_ids, seed))
                    except FAILURES as error:
                        problem_of_measure = f"{type(error).__name__}: {error}"
                    if not problem_of_measure and not np.isfinite(value):
                        problem_of_measure = f"The measure is {value}."
                row = (
                    name,
                    seed,
                    budget,
                    len(row_ids),
                    measure.name,
                    value,
                    seconds,
                    memory,
                    time.perf_counter() - started,
                    problem_of_measure[:1000],
                    note[:500],
                )
                for column, cell in zip(columns, row, strict=True):
                    columns[column].append(cell)
    return columns


def _add_keys(
    results: pd.DataFrame, missing: pd.DataFrame, dataset_hash: str, plan: TrialPlan
) -> pd.DataFrame:
    """Computed rows with keys, dataset, task, direction and time."""
    key_columns = ["method", "budget", "seed", "measure"]
    trials = results.merge(missing[["key", *key_columns]], on=key_columns)
    trials["dataset"], trials["task"] = dataset_hash, plan.task
    trials["higher_is_better"] = [MEASURES[m].higher_is_better for m in trials["measure"]]
    trials["finished"] = pd.Timestamp(datetime.now(timezone.utc))
    return trials[_SCHEMA.names]


def _store_wave(workspace: Workspace, table: pd.DataFrame, run: str) -> None:
    """Write a wave in one commit with a key of its trials, so that a repeated wave is replaced."""
    rows = pa.Table.from_pandas(table, schema=_SCHEMA, preserve_index=False)
    wave = hashlib.sha256("".join(sorted(table["key"])).encode()).hexdigest()[:32]
    workspace.write_arrow(TABLE, rows, fingerprint=wave, run=run, stage="evaluate")
    workspace.record(
        run=run, stage="evaluate wave", fingerprint=wave, table=TABLE, rows=rows.num_rows,
        seconds=0.0, only=[(TABLE, wave)],
    )  # fmt: skip
