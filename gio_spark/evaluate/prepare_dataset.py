"""From a run's inputs to a dataset: embedded and quantised by the pipeline, sampled by hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from gio_spark.engine import bounded, decode_vectors, hash53, hash_sample
from gio_spark.engine.arrow import take_rows
from gio_spark.engine.sampling import HASH_RANGE
from gio_spark.errors import InputError
from gio_spark.evaluate.dataset import EvaluationDataset
from gio_spark.evaluate.measures import MEASURES
from gio_spark.gio import mix_targets
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages.cluster import mass_of
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.pipeline.stages.open_inputs import open_context, opened_run, pin_inputs
from gio_spark.pipeline.stages.run_graph import run_graph
from gio_spark.settings.run import RunSettings, parse_budget
from gio_spark.tables import quoted_column

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline.run_state import Dataset, RunState

# Fewer held-out rows than this tell no method from another.
_LEAST_HELD = 50
_HELD_SALT = "evaluate-held-out"
_DRAW_SALT = "evaluate-draws"


@contextmanager
def prepared(
    settings: RunSettings, spark: SparkSession | None, progress: Progress | None
) -> Iterator[EvaluationData]:
    """Run the pipeline as far as the clusters; what is complete is not done again.

    What is done inside is recorded as a tracked run.

    Raises:
        GioSparkError: Inputs, budgets or settings cannot be used.
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    pinned = pin_inputs(ctx)
    asked = settings.evaluate.model_dump(mode="json")
    ctx.run = "eval-" + fingerprint("evaluate", pinned.run_id, asked)[:12]
    ctx.gather = True
    with opened_run(ctx, pinned, {"gio.kind": "evaluation"}) as state:
        budgets_of(settings, state.inputs["pool"].count)
        assignments = [f"assignments.{name}" for name in state.inputs]
        run_stages(ctx, run_graph(settings), state, ["datasets", "cluster_stats", *assignments])
        yield EvaluationData(ctx, state)


@dataclass(frozen=True)
class EvaluationData:
    """Inputs that are embedded and clustered, under one pinned version each.

    Attributes:
        ctx: The evaluation as a run.
        state: Datasets, codebook and assignments.
    """

    ctx: RunContext
    state: RunState


def budgets_of(settings: RunSettings, pool_rows: int) -> list[float]:
    """Return the budgets as shares of the pool, ascending.

    Raises:
        InputError: One is above the pool, or counts tokens.
    """
    shares = []
    for budget in settings.evaluate.budgets:
        unit, amount = parse_budget(budget)
        if unit not in ("rows", "share"):
            raise InputError(
                f"evaluate.budgets: {budget!r} is neither rows (10000) nor a share (0.1)."
            )
        share = amount / pool_rows if unit == "rows" else amount
        if share > 1:
            raise InputError(
                f"evaluate.budgets: {amount:,.0f} rows are above the pool, which has "
                f"{pool_rows:,}: ask for at most {pool_rows:,}."
            )
        shares.append(share)
    return sorted(set(shares))


def make_dataset(data: EvaluationData) -> EvaluationDataset:
    """Draw the samples that methods and measures see, by hash of the id.

    Raises:
        InputError: There are too few held-out rows.
    """
    ctx, state = data.ctx, data.state
    wanted = ctx.settings.evaluate
    targets, held = state.datasets.targets, state.datasets.held_out
    share = 0.0 if held else wanted.held_out_share
    if not held and share == 0.0:
        raise InputError(
            "There is no held-out target: name an input in held_out, or set "
            "evaluate.held_out_share above 0 to keep a part of the target for judging."
        )
    weights = [t.share for t in ctx.settings.target]
    seen = [_Part(ctx, s, share, kept=False) for s in targets]
    if held:
        judged, judged_weights = [_Part(ctx, s, 0.0, kept=False) for s in held], [1.0] * len(held)
        judged_weights = [float(s.usable) for s in held]
    else:
        judged, judged_weights = [_Part(ctx, s, share, kept=True) for s in targets], weights
    pool = _pool_rows(data)
    mine = _mixed(seen, weights, wanted.target_rows)
    theirs = _mixed(judged, judged_weights, wanted.held_out_rows)
    if theirs.num_rows < _LEAST_HELD or mine.num_rows == 0:
        raise InputError(
            f"The held-out target has {theirs.num_rows} rows and the methods' own "
            f"{mine.num_rows}; at least {_LEAST_HELD} held-out rows are needed. Name a larger "
            "held_out input, or change evaluate.held_out_share."
        )
    texts = all("text" in t.column_names for t in (pool, mine, theirs))
    labels, held_labels = _labels(ctx, pool, theirs)
    dimension = state.codebook.centroids.shape[1]
    return EvaluationDataset(
        vectors=_matrix(pool, dimension),
        hashes=pool["_draw"].to_numpy().astype(np.uint64) << np.uint64(11),
        target_vectors=_matrix(mine, dimension),
        centroids=state.codebook.centroids,
        cluster=pool["cluster"].to_numpy().astype(np.int32),
        target_mass=_mass(data, seen, weights),
        held_vectors=_matrix(theirs, dimension),
        texts=_texts(pool) if texts else None,
        target_texts=_texts(mine) if texts else None,
        held_texts=_texts(theirs) if texts else None,
        sources=_known(pool, "source"),
        tokens=_tokens(pool),
        labels=labels,
        held_labels=held_labels,
        good=_good(pool),
    )


@dataclass(frozen=True)
class _Part:
    """The rows of a side, or the part of them that is kept from (or left to) the methods."""

    ctx: RunContext
    dataset: Dataset
    share: float
    kept: bool

    def rows(self) -> DataFrame:
        rows = vectors_of(self.ctx, self.dataset)
        if self.share == 0.0:
            return rows
        bound = F.lit(round(self.share * HASH_RANGE))
        hashed = hash53("id", _HELD_SALT)
        return rows.where(hashed < bound if self.kept else hashed >= bound)

    @property
    def total(self) -> int:
        part = 1.0 if self.share == 0.0 else self.share if self.kept else 1.0 - self.share
        return max(1, round(self.dataset.usable * part))


def _mixed(parts: list[_Part], weights: list[float], most: int) -> pa.Table:
    """Return a sample of several parts in which each has its share."""
    whole = sum(weights)
    shares = [w / whole for w in weights]
    rows = min(most, *(int(p.total / s) for p, s in zip(parts, shares, strict=True)), most)
    tables = []
    for part, share in zip(parts, shares, strict=True):
        number = max(1, round(rows * share))
        found = hash_sample(
            part.rows().select("id", "vector", "label"), number, _DRAW_SALT, total=part.total
        )
        tables.append(_with_text(part.ctx, part.dataset, found))
    common = set.intersection(*(set(t.column_names) for t in tables))
    return pa.concat_tables(t.select(sorted(common)) for t in tables)


def _pool_rows(data: EvaluationData) -> pa.Table:
    """Return the pool's sample in the order of its hash, with vector, cluster and content."""
    ctx, state, pool = data.ctx, data.state, data.state.datasets.pool
    assigned = ctx.workspace.read("assignments", state.assignments["pool"])
    skinny = assigned.select("id", "cluster", "source", "tokens", "label")
    rows = min(ctx.settings.evaluate.sample, state.pool_rows)
    found = hash_sample(skinny, rows, _DRAW_SALT, total=state.pool_rows)
    if found.num_rows == 0:
        raise InputError("The pool's sample is empty.")
    embedded = vectors_of(ctx, pool).select("id", "vector")
    draws = embedded.withColumn("_draw", hash53("id", _DRAW_SALT))
    found = _joined(ctx, found, draws)
    found = _with_text(ctx, pool, found)
    column = ctx.settings.evaluate.oracle
    if column is not None:
        if column not in pool.source.rows.columns:
            raise InputError(
                f"evaluate.oracle names {column!r}, which is no column of the pool. It has: "
                f"{', '.join(pool.source.rows.columns)}."
            )
        truth = pool.source.rows.select("id", F.col(quoted_column(column)).cast("double").alias(
            "_good"))  # fmt: skip
        found = _joined(ctx, found, truth)
    order = pc.sort_indices(found, sort_keys=[("_draw", "ascending"), ("id", "ascending")])
    return take_rows(found, order)


def _joined(ctx: RunContext, found: pa.Table, other: DataFrame) -> pa.Table:
    """Add the columns of another table to the sample's rows; its ids go there, no row twice."""
    ids = ctx.spark.createDataFrame(pa.table({"id": found["id"].cast(pa.string())}))
    there = bounded(other.join(F.broadcast(ids), "id", "inner"), found.num_rows, "sampled rows")
    place = pc.index_in(found["id"].cast(pa.string()), there["id"].cast(pa.string()))
    taken = take_rows(there, place)
    for name in taken.column_names:
        if name != "id":
            found = found.append_column(name, taken[name])
    return found


def _with_text(ctx: RunContext, dataset: Dataset, found: pa.Table) -> pa.Table:
    column = dataset.source.columns.text
    if column is None:
        return found
    content = dataset.source.rows.select("id", F.col(quoted_column(column)).alias("text"))
    return _joined(ctx, found, content)


def _mass(data: EvaluationData, seen: list[_Part], weights: list[float]) -> NDArray[np.float64]:
    """Return the mass of the rows that methods may see, within the pool's reach."""
    masses = [mass_of(data.ctx, data.state, p.dataset, weight=None, rows=p.rows()) for p in seen]
    mass, unreachable = mix_targets(masses, weights)
    if mass.sum() <= 0:
        raise InputError(f"{unreachable:.0%} of the target is out of the pool's reach.")
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def _matrix(table: pa.Table, dimension: int) -> NDArray[np.float32]:
    return np.array(decode_vectors(table["vector"], dimension), dtype=np.float32)


def _texts(table: pa.Table) -> pa.Array:
    return pc.fill_null(table["text"].cast(pa.large_string()), "").combine_chunks()


def _known(table: pa.Table, name: str) -> NDArray[Any] | None:
    column = table[name]
    if column.null_count == len(column):
        return None
    return np.asarray(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=str)


def _tokens(table: pa.Table) -> NDArray[np.int64] | None:
    column = table["tokens"]
    if column.null_count == len(column):
        return None
    return pc.fill_null(column.cast(pa.int64()), 0).to_numpy()  # type: ignore[no-any-return]


def _good(table: pa.Table) -> NDArray[np.float64] | None:
    if "_good" not in table.column_names:
        return None
    values = table["_good"].cast(pa.float64())
    return pc.fill_null(values, float("-inf")).to_numpy()  # type: ignore[no-any-return]


def _labels(
    ctx: RunContext, pool: pa.Table, held: pa.Table
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Return labels as class codes of both sides, or as numbers where they have fractions.

    Raises:
        InputError: Rows have none, and a measure that trains models was asked for.
    """
    both = []
    for name, table in (("pool", pool), ("held-out target", held)):
        empty = table["label"].null_count
        if empty:
            asked = [m for m in ctx.settings.evaluate.measures if MEASURES[m].needs == "labels"]
            if asked:
                raise InputError(
                    f"{empty:,} of the {table.num_rows:,} sampled rows of the {name} have no "
                    f"label, which the measure {asked[0]!r} needs: put such rows aside, or leave "
                    "the measure out."
                )
            if empty < table.num_rows:
                ctx.progress.say(
                    f"labels: {empty:,} of the {table.num_rows:,} sampled rows of the {name} have "
                    "none, so nothing is trained on them; put such rows aside to use the others."
                )
            return None, None
        both.append(np.asarray(table["label"].cast(pa.string()).to_pylist(), dtype=str))
    try:
        numbers = [side.astype(np.float64) for side in both]
    except ValueError:
        numbers = []
    if numbers and any((side % 1 != 0).any() for side in numbers):
        return numbers[0], numbers[1]
    codes = np.unique(np.concatenate(both), return_inverse=True)[1].astype(np.int64)
    return codes[: len(both[0])], codes[len(both[0]) :]
