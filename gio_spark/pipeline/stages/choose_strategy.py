"""Stage strategy: the way to select, chosen on a bounded sample before the plan, and recorded."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import gio
from gio_spark.engine import bounded, hash53
from gio_spark.engine.arrow import take_rows
from gio_spark.engine.sampling import HASH_RANGE
from gio_spark.errors import ConfigError
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_records import StrategyFacts
from gio_spark.pipeline.run_state import RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.pipeline.stages.input_checks import whole_pool_conflicts
from gio_spark.pipeline.stages.sampled_rows import (
    DatasetPart,
    add_columns,
    hashes_of,
    in_hash_order,
    label_codes,
    matrix_of,
    sample_parts,
    strings_or_none,
    texts_of,
    with_content,
)
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.strategy_settings import (
    DEFAULT_STRATEGY,
    STRATEGIES,
    WHOLE_POOL,
)
from gio_spark.strategy.registered_scorers import SCORERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.pipeline.run_state import Dataset
    from gio_spark.settings.run import RunSettings
    from gio_spark.strategy import EvaluationDataset, StrategyChoice
    from gio_spark.strategy.held_out_judge import RowScorer

# Most target rows that candidates and judge see.
_TARGET_ROWS = 10_000


def strategy_stage(targets: Sequence[str]) -> Stage:
    """Choose a strategy, unless the choice is recorded.

    Args:
        targets: Names of the targets.
    """
    return Stage(
        "strategy",
        _choose,
        inputs=(
            "target_mass", "cluster_stats", "assignments.pool",
            *(f"embeddings.{name}" for name in targets),
        ),
        reads=("codebook", "datasets"),
        outputs=("strategy",),
        settings=(
            "budget", "select", "seed", "target.*.share", "explode.text_bytes", "gime.thresholds",
            "gime.performance_level", "columns.group", "pool.columns", "target.*.columns",
        ),
        keyed_by_content=True,
    )  # fmt: skip


def _choose(step: Step, state: RunState) -> None:
    ctx = step.ctx

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        dropped = dropped_strategies(ctx.settings)
        choice = choice_of_run(ctx, state, dropped)
        progress.say(choice.strategy)
        return choice.sample_rows, _facts(choice, dropped).plain()

    record = step.record(make)
    state.strategy = facts = StrategyFacts.model_validate(record.detail)
    state.keys["strategy"] = fingerprint("strategy", facts.settings)
    if facts.warning:
        ctx.warn("strategy", facts.warning, "See the table of strategies in the report.")
    ctx.tracker.tags({"gio.strategy": facts.strategy, "gio.strategy.why": facts.reason})
    gains = {f"strategy/{one.name}": one.gain for one in facts.candidates if not one.problem}
    ctx.tracker.metrics(gains)


def _facts(choice: StrategyChoice, dropped: dict[str, str]) -> StrategyFacts:
    """Facts of a choice; random rows are not taken where settings ask for more than they honour."""
    values = asdict(choice)
    values["candidates"] = values.pop("figures")
    values["dropped"] = dropped
    if choice.strategy in dropped:
        values["reason"] = f"{choice.strategy}: {choice.reason} But {dropped[choice.strategy]}"
        values["strategy"] = DEFAULT_STRATEGY
    values["settings"] = STRATEGIES[values["strategy"]]
    return StrategyFacts.model_validate(values)


def dropped_strategies(settings: RunSettings) -> dict[str, str]:
    """Strategies that do not honour what the settings ask for -> why."""
    conflicts = whole_pool_conflicts(settings)
    if not conflicts:
        return {}
    reason = f"it has no quotas per cluster and cannot honour {', '.join(conflicts)}."
    return {
        name: reason
        for name, values in STRATEGIES.items()
        if values["select.objective"] == WHOLE_POOL
    }


def choice_of_run(ctx: RunContext, state: RunState, dropped: dict[str, str]) -> StrategyChoice:
    """Choice of a strategy for a run.

    Args:
        ctx: The run.
        state: Its datasets, clusters and target distribution.
        dropped: Strategies that the settings rule out.
    """
    from gio_spark.strategy.candidate_strategies import CANDIDATES
    from gio_spark.strategy.methods import registered_by_users
    from gio_spark.strategy.strategy_choice import NO_JUDGE, StrategyChoice, choose_strategy
    from gio_spark.strategy.strategy_sample import MAX_THREADS

    unit, amount = parse_budget(ctx.settings.budget)
    scorer = ctx.settings.select.scorer
    if unit == "auto":
        reason = "the budget auto is found by the default's density ratio, before any choice."
        return StrategyChoice(DEFAULT_STRATEGY, reason)
    columns = [one.source.columns for one in (state.datasets.pool, *state.datasets.targets)]
    has_judge = scorer or all(c.text for c in columns) or all(c.label for c in columns)
    if not has_judge:
        return StrategyChoice(DEFAULT_STRATEGY, NO_JUDGE)
    stats = state.cluster_stats()
    rows = float(stats.rows.sum())
    per_row = {"rows": 1.0, "share": 1.0 / rows, "tokens": float(stats.tokens.sum()) / rows}[unit]
    budget = max(1, round(min(rows, amount / max(per_row, 1e-300))))
    sample = strategy_dataset(ctx, state, budget)
    if sample is None:
        return StrategyChoice(DEFAULT_STRATEGY, "no cluster of the pool is near to the target.")
    dataset, ids = sample
    carried_out = [n for n in CANDIDATES if n in STRATEGIES and n not in dropped]
    return choose_strategy(
        dataset,
        budget,
        ctx.settings.seed,
        names=(*carried_out, *registered_by_users()),
        carried_out=tuple(STRATEGIES),
        scorer=row_scorer(ctx, state.datasets.pool, ids, scorer) if scorer else None,
        unit="tokens" if unit == "tokens" else "rows",
        # A function of the user's may not be made for threads.
        threads=1 if scorer else min(MAX_THREADS, os.cpu_count() or 1),
    )


def row_scorer(ctx: RunContext, pool: Dataset, ids: pa.ChunkedArray, name: str) -> RowScorer:
    """Registered scorer as a function of row numbers of a sample of the pool.

    Args:
        ctx: The run.
        pool: The pool.
        ids: Ids of the sample's rows, whose columns come to the driver.
        name: Name of the scorer.
    """
    scorer = SCORERS.get(name)
    rows = add_columns(ctx, pa.table({"id": ids}), pool.source.rows)

    def score(positions: NDArray[np.int64], seed: int) -> float:
        try:
            value = float(scorer(take_rows(rows, pa.array(positions)), seed))
        except Exception as error:
            raise ConfigError(
                f"select.scorer: {name!r} raised {type(error).__name__}: {error}"
            ) from error
        if not np.isfinite(value):
            raise ConfigError(f"select.scorer: {name!r} gave {value}, which is no score.")
        return value

    return score


def strategy_dataset(
    ctx: RunContext, state: RunState, budget: int
) -> tuple[EvaluationDataset, pa.ChunkedArray] | None:
    """Weighted sample of the pool with the target, and the ids of its rows; None without mass.

    Args:
        ctx: The run.
        state: Its datasets, clusters and target distribution.
        budget: Rows to select, for which the sample must be large enough.
    """
    from gio_spark.strategy import EvaluationDataset
    from gio_spark.strategy.strategy_sample import is_small_budget, sampling_rates

    settings, targets = ctx.settings, state.datasets.targets
    shares = [target.share for target in settings.target]
    mass, _ = gio.mix_targets(state.target_mass(), shares)
    if mass.sum() <= 0:
        return None
    salt, characters = f"strategy-target:{settings.seed}", settings.explode.text_bytes
    mass = np.asarray(mass / mass.sum(), np.float64)
    sizes = np.asarray(state.cluster_stats().rows, np.int64)
    small_budget = is_small_budget(budget, int(sizes.sum()))
    rates = sampling_rates(sizes, mass, small_budget=small_budget)
    pool, weights = _pool_sample(ctx, state, rates, sizes)
    target = sample_parts(
        [DatasetPart(ctx, one) for one in targets], shares, _TARGET_ROWS, salt,
        characters=characters,
    )  # fmt: skip
    pool = with_content(ctx, state.datasets.pool, pool, characters=characters)
    has_texts = all("text" in table.column_names for table in (pool, target))
    labels = [pool["label"], target["label"]]
    has_labels = not any(column.null_count for column in labels)
    codes = label_codes(labels) if has_labels else [None, None]
    dimension = state.codebook.centroids.shape[1]
    vectors = matrix_of(target, dimension)
    dataset = EvaluationDataset(
        vectors=matrix_of(pool, dimension),
        hashes=hashes_of(pool),
        target_vectors=vectors,
        centroids=state.codebook.centroids,
        cluster=pool["cluster"].to_numpy().astype(np.int32),
        target_mass=mass,
        held_vectors=vectors[:0],
        texts=texts_of(pool) if has_texts else None,
        target_texts=texts_of(target) if has_texts else None,
        labels=codes[0],
        target_labels=codes[1],
        groups=strings_or_none(pool, "group"),
        target_groups=strings_or_none(target, "group"),
        weights=weights,
    )
    return dataset, pool["id"]


def _pool_sample(
    ctx: RunContext, state: RunState, rates: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[pa.Table, NDArray[np.float64] | None]:
    """Sample of the pool in the order of its hash, and the pool rows that each row stands for.

    Args:
        ctx: The run.
        state: Its pool with its clusters.
        rates: (K,) share of each cluster's rows that the sample holds.
        sizes: (K,) pool rows of each cluster.

    Returns:
        The sample, and its weights; None where the whole pool is sampled.
    """
    from gio_spark.strategy.strategy_sample import sample_weights

    seed, is_whole = ctx.settings.seed, bool(rates.min() >= 1.0)
    assigned = ctx.workspace.read("assignments", state.assignments["pool"])
    assigned = assigned.select("id", "cluster", "label")
    if not is_whole:
        of_clusters = pa.table(
            {
                "cluster": pa.array(np.arange(len(rates), dtype=np.int32)),
                "_bound": pa.array(np.rint(rates * HASH_RANGE).astype(np.int64)),
            }
        )
        assigned = assigned.join(F.broadcast(ctx.workspace.frame(of_clusters)), "cluster")
        drawn = hash53("id", f"strategy-sample:{seed}") < F.col("_bound")
        assigned = assigned.where(drawn).drop("_bound")
    most = 2 * int((rates * sizes).sum()) + 1000
    sample = bounded(assigned, most, "the strategies' sample")
    draws = hash53("id", f"strategy-draws:{seed}").alias("_draw")
    embedded = vectors_of(ctx, state.datasets.pool).select("id", "vector", draws)
    sample = in_hash_order(add_columns(ctx, sample, embedded))
    if is_whole:
        return sample, None
    clusters = sample["cluster"].to_numpy().astype(np.int32)
    return sample, sample_weights(rates, clusters, int(sizes.sum()))
