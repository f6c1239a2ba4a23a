"""Dataset of a bake-off: inputs embedded and clustered by the pipeline, then sampled by hash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from gio_spark.engine import hash53, hash_sample
from gio_spark.errors import InputError
from gio_spark.evaluate.measures import MEASURES
from gio_spark.gime.proxy_training import frequency_codes
from gio_spark.gio import mix_targets
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages.cluster import mass_of
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.pipeline.stages.open_inputs import open_context, opened_run, pin_inputs
from gio_spark.pipeline.stages.run_graph import run_graph
from gio_spark.pipeline.stages.sampled_rows import (
    CATEGORY,
    DatasetPart,
    add_columns,
    hashes_of,
    in_hash_order,
    label_codes,
    matrix_of,
    sample_parts,
    strings_or_none,
    texts_of,
    tokens_or_none,
    with_content,
)
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.run import RunSettings
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.tables import quoted_column

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.pipeline.run_state import RunState

# With fewer held-out rows than this, differences between methods are noise.
_MIN_HELD_OUT = 50
_HELD_SALT = "evaluate-held-out"
_DRAW_SALT = "evaluate-draws"


@contextmanager
def prepare_evaluation(
    settings: RunSettings, spark: SparkSession | None, progress: Progress | None
) -> Iterator[EvaluationInputs]:
    """Inputs after the embed and cluster stages of the pipeline; complete stages are reused.

    The block of the context manager is part of the tracked run.

    Raises:
        GioSparkError: Inputs, budgets or settings cannot be used.
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    pinned = pin_inputs(ctx)
    evaluate_settings = settings.evaluate.model_dump(mode="json")
    ctx.run = "eval-" + fingerprint("evaluate", pinned.run_id, evaluate_settings)[:12]
    ctx.gather = True
    with opened_run(ctx, pinned, {"gio.kind": "evaluation"}) as state:
        budgets_of(settings, state.inputs["pool"].count)
        assignments = [f"assignments.{name}" for name in state.inputs]
        run_stages(ctx, run_graph(settings), state, ["datasets", "cluster_stats", *assignments])
        yield EvaluationInputs(ctx, state)


@dataclass(frozen=True)
class EvaluationInputs:
    """Embedded and clustered inputs of an evaluation, one pinned version each.

    Attributes:
        ctx: Context of the evaluation as a run.
        state: Datasets, codebook and assignments.
    """

    ctx: RunContext
    state: RunState


def budgets_of(settings: RunSettings, pool_rows: int) -> list[float]:
    """Budgets as shares of the pool, ascending.

    Raises:
        InputError: A budget is larger than the pool, or is in tokens.
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


def build_dataset(data: EvaluationInputs) -> EvaluationDataset:
    """Dataset of hash samples of the pool, the target and the held-out target.

    Raises:
        InputError: There are too few held-out rows.
    """
    ctx, state = data.ctx, data.state
    evaluate_settings = ctx.settings.evaluate
    targets, held_out_datasets = state.datasets.targets, state.datasets.held_out
    share = 0.0 if held_out_datasets else evaluate_settings.held_out_share
    if not held_out_datasets and share == 0.0:
        raise InputError(
            "There is no held-out target: name an input in held_out, or set "
            "evaluate.held_out_share above 0 to keep a part of the target for judging."
        )
    weights = [table.share for table in ctx.settings.target]
    method_parts = [DatasetPart(ctx, dataset, share, salt=_HELD_SALT) for dataset in targets]
    if held_out_datasets:
        held_out_parts, held_out_weights = (
            [DatasetPart(ctx, dataset) for dataset in held_out_datasets],
            [1.0] * len(held_out_datasets),
        )
        held_out_weights = [float(dataset.usable) for dataset in held_out_datasets]
    else:
        held_out_parts, held_out_weights = (
            [
                DatasetPart(ctx, dataset, share, set_apart=True, salt=_HELD_SALT)
                for dataset in targets
            ],
            weights,
        )
    pool = _pool_rows(data)
    target_rows = sample_parts(method_parts, weights, evaluate_settings.target_rows, _DRAW_SALT)
    held_out_rows = sample_parts(
        held_out_parts, held_out_weights, evaluate_settings.held_out_rows, _DRAW_SALT
    )
    if held_out_rows.num_rows < _MIN_HELD_OUT or target_rows.num_rows == 0:
        raise InputError(
            f"The held-out target has {held_out_rows.num_rows} rows and the methods' own "
            f"{target_rows.num_rows}; at least {_MIN_HELD_OUT} held-out rows are needed. Name a "
            "larger held_out input, or change evaluate.held_out_share."
        )
    texts = all("text" in table.column_names for table in (pool, target_rows, held_out_rows))
    labels, held_labels, target_labels = _labels(ctx, pool, held_out_rows, target_rows)
    categories, held_categories = _categories(pool, held_out_rows)
    dimension = state.codebook.centroids.shape[1]
    return EvaluationDataset(
        vectors=matrix_of(pool, dimension),
        hashes=hashes_of(pool),
        target_vectors=matrix_of(target_rows, dimension),
        centroids=state.codebook.centroids,
        cluster=pool["cluster"].to_numpy().astype(np.int32),
        target_mass=_mass(data, method_parts, weights),
        held_vectors=matrix_of(held_out_rows, dimension),
        texts=texts_of(pool) if texts else None,
        target_texts=texts_of(target_rows) if texts else None,
        held_texts=texts_of(held_out_rows) if texts else None,
        sources=strings_or_none(pool, "source"),
        tokens=tokens_or_none(pool),
        labels=labels,
        held_labels=held_labels,
        target_labels=target_labels,
        groups=strings_or_none(pool, "group"),
        target_groups=strings_or_none(target_rows, "group"),
        good=_oracle_values(pool),
        categories=categories,
        held_categories=held_categories,
    )


def _pool_rows(data: EvaluationInputs) -> pa.Table:
    """Sample of the pool in the order of its hash, with vector, cluster and content."""
    ctx, state, pool = data.ctx, data.state, data.state.datasets.pool
    assigned = ctx.workspace.read("assignments", state.assignments["pool"])
    assignments = assigned.select("id", "cluster", "source", "tokens", "label")
    rows = min(ctx.settings.evaluate.sample, state.pool_rows)
    sample = hash_sample(assignments, rows, _DRAW_SALT, total=state.pool_rows)
    if sample.num_rows == 0:
        raise InputError("The pool's sample is empty.")
    embedded = vectors_of(ctx, pool).select("id", "vector")
    draws = embedded.withColumn("_draw", hash53("id", _DRAW_SALT))
    sample = add_columns(ctx, sample, draws)
    sample = with_content(ctx, pool, sample)
    column = ctx.settings.evaluate.oracle
    if column is not None:
        if column not in pool.source.rows.columns:
            raise InputError(
                f"evaluate.oracle names {column!r}, which is no column of the pool. It has: "
                f"{', '.join(pool.source.rows.columns)}."
            )
        oracle = pool.source.rows.select("id", F.col(quoted_column(column)).cast("double").alias(
            "_good"))  # fmt: skip
        sample = add_columns(ctx, sample, oracle)
    return in_hash_order(sample)


def _categories(
    pool: pa.Table, held_out: pa.Table
) -> tuple[NDArray[np.int32] | None, NDArray[np.int32] | None]:
    """Codes of the categorical columns that both tables have, (n, c) and (h, c)."""
    names = [n for n in pool.column_names if n.startswith(CATEGORY) and n in held_out.column_names]
    if not names:
        return None, None
    fields = [
        frequency_codes(
            *(
                np.asarray(pc.fill_null(t[name], "").to_pylist(), dtype=str)
                for t in (pool, held_out)
            )
        )
        for name in names
    ]
    codes, held_codes = (np.stack([field[side] for field in fields], axis=1) for side in (0, 1))
    return codes, held_codes


def _mass(
    data: EvaluationInputs, parts: list[DatasetPart], weights: list[float]
) -> NDArray[np.float64]:
    """Target distribution over clusters, of the rows that methods may see and the pool covers."""
    masses = [
        mass_of(data.ctx, data.state, part.dataset, weight=None, rows=part.rows()) for part in parts
    ]
    mass, unreachable = mix_targets(masses, weights)
    if mass.sum() <= 0:
        raise InputError(f"{unreachable:.0%} of the target is out of the pool's reach.")
    return np.asarray(mass / mass.sum(), dtype=np.float64)


def _oracle_values(table: pa.Table) -> NDArray[np.float64] | None:
    if "_good" not in table.column_names:
        return None
    values = table["_good"].cast(pa.float64())
    return pc.fill_null(values, float("-inf")).to_numpy()  # type: ignore[no-any-return]


def _labels(
    ctx: RunContext, pool: pa.Table, held_out: pa.Table, target: pa.Table
) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None]:
    """Labels of pool, held-out and target rows: class codes, or numbers if they have fractions.

    Labels of the target are None if not all of its rows have one; only `auto` reads them.

    Raises:
        InputError: Rows have no label, and the settings name a measure that trains models.
    """
    columns = []
    for name, table in (("pool", pool), ("held-out target", held_out)):
        empty = table["label"].null_count
        if empty:
            label_measures = [
                name for name in ctx.settings.evaluate.measures if MEASURES[name].needs == "labels"
            ]
            if label_measures:
                raise InputError(
                    f"{empty:,} of the {table.num_rows:,} sampled rows of the {name} have no "
                    f"label, which the measure {label_measures[0]!r} needs: put such rows aside, "
                    "or leave the measure out."
                )
            if empty < table.num_rows:
                ctx.progress.say(
                    f"labels: {empty:,} of the {table.num_rows:,} sampled rows of the {name} have "
                    "none, so nothing is trained on them; put such rows aside to use the others."
                )
            return None, None, None
        columns.append(table["label"])
    has_target = target["label"].null_count == 0
    codes = label_codes([*columns, *([target["label"]] if has_target else [])])
    return codes[0], codes[1], codes[2] if has_target else None
