"""The cells of a bake-off: computed on executors, stored as they finish, never computed twice."""

from __future__ import annotations

import hashlib
import importlib
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
from gio_spark.errors import ConfigError
from gio_spark.evaluate import methods as registry
from gio_spark.evaluate.dataset import EvaluationDataset
from gio_spark.evaluate.measure_inputs import MeasureInputs, make_ruler
from gio_spark.evaluate.measures import MEASURES, Measure
from gio_spark.evaluate.methods.base import FAILURES
from gio_spark.evaluate.pack import digest, pack, pack_ruler, unpack, unpack_ruler
from gio_spark.process import no_warnings, one_thread

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.tables import Workspace

log = logging.getLogger(__name__)

TABLE = "evaluations"
# Raised when cells mean something else, so that old ones are not taken for new ones.
FORMAT = 1
# Groups of cells per slot between two commits: few, so that a run that dies loses little.
_GROUPS_PER_SLOT = 4
_MAX_STORED = 2_000_000
_CLUSTER_SLOTS = 64

_OUT = (
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
class Plan:
    """What is compared on one dataset.

    Attributes:
        task: Name of the dataset in tables and plots.
        methods: Names of selection methods.
        budgets: Shares of the dataset's pool, each above 0 and at most 1.
        seeds: Seeds.
        measures: How selections are judged.
        modules: Imported on executors before anything else.
    """

    task: str
    methods: Sequence[str]
    budgets: Sequence[float]
    seeds: Sequence[int]
    measures: Sequence[Measure]
    modules: Sequence[str] = ()


def load_modules(names: Sequence[str]) -> None:
    """Import the modules that register methods of the user's own.

    Raises:
        ConfigError: One cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"evaluate.modules: cannot import {name!r} ({error}).") from error


@dataclass(frozen=True)
class Outcome:
    """The cells of a plan.

    Attributes:
        table: One row per cell and measure, in the columns of the stored table.
        computed: Cells (method, budget, seed) computed now.
        reused: Cells that were there.
        left: Cells not computed, because the time was over.
        seconds: Wall time of the computing.
    """

    table: pd.DataFrame
    computed: int
    reused: int
    left: int
    seconds: float


def run_cells(
    spark: SparkSession,
    workspace: Workspace,
    dataset: EvaluationDataset,
    plan: Plan,
    *,
    run: str = "",
    stop_at: float | None = None,
    slots: int | None = None,
    on_wave: Callable[[int, int, str], None] | None = None,
) -> Outcome:
    """Compute what is missing of a plan, wave by wave, and return all of it.

    All budgets of one method and seed are one task of an executor, so that work which they share
    is done once. A failed cell is a row with its error; it is tried again by the next run.

    Args:
        spark: Session.
        workspace: Where the table `evaluations` is.
        dataset: What methods see.
        plan: What to compute.
        run: Id of the run, for the commits.
        stop_at: time.monotonic() after which no further wave is started.
        slots: Tasks at a time; none: cores of this machine, or 64 on a cluster.
        on_wave: Called after each commit with (cells done, cells in all, name of the last method).
    """
    arrays = pack(dataset)
    content = digest(arrays)
    wanted = _wanted(content, dataset, plan)
    stored = _stored(workspace, wanted)
    good = stored[stored["error"] == ""]
    missing = wanted[~wanted["key"].isin(set(good["key"]))]
    cells = wanted.groupby(["method", "budget", "seed"]).ngroups
    to_do = missing.groupby(["method", "budget", "seed"]).ngroups
    done = cells - to_do
    began = time.monotonic()
    new: list[pd.DataFrame] = []
    if to_do:
        shipped = broadcast_arrays(spark, {**arrays, **pack_ruler(make_ruler(dataset))})
        if slots is None:
            here = describe(spark).kind in ("embedded", "local")
            slots = (os.cpu_count() or 1) if here else _CLUSTER_SLOTS
        groups = _groups(missing)
        step = slots * _GROUPS_PER_SLOT
        for start in range(0, len(groups), step):
            if stop_at is not None and time.monotonic() >= stop_at:
                break
            wave = groups[start : start + step]
            found = _wave(spark, shipped, wave, slots, tuple(plan.modules))
            table = _finish(found, missing, content, plan)
            _store(workspace, table, run)
            new.append(table)
            done += sum(len(g["budgets"].split(",")) for g in wave)
            if on_wave is not None:
                on_wave(done, cells, wave[-1]["method"])
    rows = pd.concat([*new, good], ignore_index=True) if new else good.reset_index(drop=True)
    rows = rows.assign(task=plan.task)
    return Outcome(rows, done - (cells - to_do), cells - to_do, cells - done,
                   time.monotonic() - began)  # fmt: skip


def _wanted(content: str, dataset: EvaluationDataset, plan: Plan) -> pd.DataFrame:
    """List every (method, budget, seed, measure) with the key of what it depends on."""
    lines = []
    for seed in plan.seeds:
        for name in plan.methods:
            it = registry.get(name)
            if it.whole and seed != plan.seeds[0]:
                continue  # it takes the same rows whatever budget and seed
            budgets = [1.0] if it.whole else plan.budgets
            for budget in budgets:
                rows = max(1, round(budget * dataset.rows))
                for measure in plan.measures:
                    parts = (FORMAT, content, name, getattr(it, "version", 1), rows, seed,
                             measure.name, measure.version)  # fmt: skip
                    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
                    lines.append((key, name, float(budget), rows, int(seed), measure.name))
    columns = ["key", "method", "budget", "rows", "seed", "measure"]
    return pd.DataFrame(lines, columns=columns).drop_duplicates("key")


def _stored(workspace: Workspace, wanted: pd.DataFrame) -> pd.DataFrame:
    """Stored rows of the wanted keys, the newest of each."""
    empty = _SCHEMA.empty_table().to_pandas()
    if not workspace.exists(TABLE) or wanted.empty:
        return empty
    rows = workspace.read_keys(TABLE, workspace.keys(TABLE))
    rows = rows.where(F.col("method").isin(*wanted["method"].unique()))
    found = bounded(rows.select(*_SCHEMA.names), _MAX_STORED, "cells").to_pandas()
    found = found[found["key"].isin(set(wanted["key"]))]
    if found.empty:
        return empty
    found = found.sort_values(["finished", "error"]).drop_duplicates("key", keep="last")
    # A share of another dataset may be the same number of rows: the budget is what is asked now.
    return found.drop(columns="budget").merge(wanted[["key", "budget"]], on="key")[_SCHEMA.names]


def _groups(missing: pd.DataFrame) -> list[dict[str, Any]]:
    """One task per (seed, method) with its budgets and measures, seed by seed."""
    found = []
    for _, rows in missing.groupby(["seed", "method"], sort=False):
        budgets = sorted(rows["budget"].unique().tolist())
        found.append(
            {
                "method": rows["method"].tolist()[0],
                "seed": rows["seed"].tolist()[0],
                "budgets": ",".join(repr(b) for b in budgets),
                "measures": ",".join(dict.fromkeys(rows["measure"].tolist())),
            }
        )
    return found


def _wave(
    spark: SparkSession,
    shipped: BroadcastArrays,
    wave: list[dict[str, Any]],
    slots: int,
    modules: tuple[str, ...],
) -> pd.DataFrame:
    """Compute a wave; where a worker dies of a group, the others are computed without it."""
    try:
        return _compute(spark, shipped, wave, slots, modules)
    except Exception as error:  # noqa: BLE001 - engines raise what they like when a worker dies
        if len(wave) == 1:
            log.warning("%s failed on its executor: %s", wave[0]["method"], error)
            return _failed(wave[0], error)
    return pd.concat(
        [_wave(spark, shipped, [group], 1, modules) for group in wave], ignore_index=True
    )


def _failed(group: Mapping[str, Any], error: Exception) -> pd.DataFrame:
    """Rows of a group that took its worker along."""
    lines = str(error).strip().splitlines()
    told = f"The executor failed: {type(error).__name__}: {lines[0] if lines else ''}"
    rows = [
        (group["method"], group["seed"], float(budget), 0, measure, float("nan"), float("nan"),
         float("nan"), 0.0, told[:1000], "")
        for budget in group["budgets"].split(",")
        for measure in group["measures"].split(",")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[part.split()[0] for part in _OUT.split(", ")])


def _compute(
    spark: SparkSession,
    shipped: BroadcastArrays,
    wave: list[dict[str, Any]],
    slots: int,
    modules: tuple[str, ...],
) -> pd.DataFrame:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, list[Any]]]:
        load_modules(modules)
        for batch in batches:
            for group in batch.to_pylist():
                yield compute_group(*_opened(shipped), group)

    frame = spark.createDataFrame(pd.DataFrame(wave)).repartition(max(1, min(slots, len(wave))))
    most = sum(len(g["budgets"].split(",")) * len(g["measures"].split(",")) for g in wave)
    return bounded(map_arrow(frame, work, _OUT, batch_rows=1), most, "cells").to_pandas()


_open: dict[str, tuple[EvaluationDataset, MeasureInputs]] = {}
_open_lock = threading.Lock()


def _opened(shipped: BroadcastArrays) -> tuple[EvaluationDataset, MeasureInputs]:
    """Dataset on a worker: one object per process, so that methods share their work."""
    with _open_lock:
        if shipped.digest not in _open:
            arrays = shipped.load()
            while len(_open) > 1:
                _open.pop(next(iter(_open)))
            _open[shipped.digest] = (unpack(arrays), unpack_ruler(arrays))
        return _open[shipped.digest]


def compute_group(
    dataset: EvaluationDataset, ruler: MeasureInputs, group: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Select at every budget of a group and judge each selection.

    Args:
        dataset: What methods see.
        ruler: What measures need.
        group: method, seed, budgets and measures (both joined by commas).

    Returns:
        Columns of `_OUT`, one entry per budget and measure.
    """
    out: dict[str, list[Any]] = {part.split()[0]: [] for part in _OUT.split(", ")}
    name, seed = group["method"], int(group["seed"])
    measures = [MEASURES[m] for m in group["measures"].split(",")]
    for text in group["budgets"].split(","):
        budget = float(text)
        rows = max(1, round(budget * dataset.rows))
        problem = note = ""
        with one_thread(), no_warnings():
            try:
                chosen = registry.choose(name, dataset, rows, seed)
                picked, seconds, memory = chosen.rows, chosen.seconds, chosen.memory_mb
                problem, note = chosen.problem, chosen.note
            except FAILURES as error:
                picked, seconds, memory = np.zeros(0, np.int64), float("nan"), float("nan")
                problem = f"{type(error).__name__}: {error}"
            for measure in measures:
                value, began, wrong = float("nan"), time.perf_counter(), problem
                if not problem:
                    try:
                        value = float(measure.judge(dataset, ruler, picked, seed))
                    except FAILURES as error:
                        wrong = f"{type(error).__name__}: {error}"
                    if not wrong and not np.isfinite(value):
                        wrong = f"The measure is {value}."
                row = (name, seed, budget, len(picked), measure.name, value, seconds, memory,
                       time.perf_counter() - began, wrong[:1000], note[:500])  # fmt: skip
                for column, cell in zip(out, row, strict=True):
                    out[column].append(cell)
    return out


def _finish(found: pd.DataFrame, missing: pd.DataFrame, content: str, plan: Plan) -> pd.DataFrame:
    """Put keys and bookkeeping to computed rows."""
    at = ["method", "budget", "seed", "measure"]
    named = found.merge(missing[["key", *at]], on=at)
    named["dataset"], named["task"] = content, plan.task
    named["higher_is_better"] = [MEASURES[m].higher_is_better for m in named["measure"]]
    named["finished"] = pd.Timestamp(datetime.now(timezone.utc))
    return named[_SCHEMA.names]


def _store(workspace: Workspace, table: pd.DataFrame, run: str) -> None:
    """Write a wave in one commit, keyed by its cells: the same wave again replaces itself."""
    rows = pa.Table.from_pandas(table, schema=_SCHEMA, preserve_index=False)
    wave = hashlib.sha256("".join(sorted(table["key"])).encode()).hexdigest()[:32]
    workspace.write_arrow(TABLE, rows, fingerprint=wave, run=run, stage="evaluate")
    workspace.record(
        run=run, stage="evaluate wave", fingerprint=wave, table=TABLE, rows=rows.num_rows,
        seconds=0.0, only=[(TABLE, wave)],
    )  # fmt: skip
