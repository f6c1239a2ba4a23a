"""Stage plan: rows to take from each cluster, and the threshold that rows must pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark import explode, gio
from gio_spark.engine import bounded
from gio_spark.errors import EmptySelectionError, InputError, WorkspaceError
from gio_spark.gio.selection_checks import failure_signs
from gio_spark.pipeline.constraints import sensitivity_page
from gio_spark.pipeline.constraints.enforce import Enforcement, enforce
from gio_spark.pipeline.constraints.score_bias import Order, to_choose_from
from gio_spark.pipeline.constraints.sensitivity_runs import USED, run_sensitivity
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_records import Notice, PlanFacts
from gio_spark.pipeline.run_state import Plan, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.cluster import centroids_of
from gio_spark.pipeline.stages.fresh_rows import plan_fresh_rows
from gio_spark.pipeline.stages.mixture_share import automatic_budget
from gio_spark.pipeline.stages.source_strata import in_strata, save_strata
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.strategy_settings import WHOLE_POOL
from gio_spark.tables.model_arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Workspace

_MAX_SOURCES = 10_000
# Columns of a plan with repeated rows, which the table of plans lacks: stored as arrays.
_COPIES = ("copies", "extra_threshold", "extra_tie")


def enforcement_stages(settings: RunSettings, names: Sequence[str]) -> list[Stage]:
    """Determine the thresholds of metrics that are enforced on the plan, where there are any.

    Automatic thresholds come from the sensitivity runs.

    Args:
        settings: Of the run.
        names: Of all datasets.
    """
    rows = ("codebook", *(f"assignments.{name}" for name in names))
    sensitivity = Stage(
        "sensitivity",
        _run_sensitivity,
        inputs=rows,
        reads=("datasets",),
        outputs=("sensitivity",),
        settings=(
            *(f"gime.{name}" for name in USED), "sensitivity_budget", "columns.label",
            "pool.columns", "seed",
        ),
    )  # fmt: skip
    automatic = settings.gime.performance_level is not None
    thresholds = Stage(
        "thresholds",
        _set_enforcement,
        inputs=(*rows, *(["sensitivity"] if automatic else [])),
        reads=("datasets",),
        outputs=("enforcement",),
        settings=(
            "gime.performance_level",
            *(f"gime.{n}" for n in (
                "thresholds", "moves", "sample", "screen", "profile", "profiles", "columns")),
            *(f"gime.{name}" for name in USED), "budget", "seed",
        ),
    )  # fmt: skip
    return [sensitivity, *([thresholds] if settings.gime.enforces_thresholds else [])]


def _run_sensitivity(step: Step, state: RunState) -> None:
    rows = state.run_rows(step.ctx)
    state.sensitivity = run_sensitivity(step.ctx, rows, state.pool_rows, step.key)
    sensitivity_page.write_page(step.ctx, state.sensitivity)


def _set_enforcement(step: Step, state: RunState) -> None:
    rows = state.run_rows(step.ctx)
    state.enforcement = Enforcement(step.ctx, rows, state.pool_rows, state.get("sensitivity"))


def plan_stage(settings: RunSettings, names: Sequence[str], *, scored: bool) -> Stage:
    """Choose the rows to take from each cluster, and enforce thresholds on the plan.

    Args:
        settings: Of the run.
        names: Of all datasets.
        scored: Whether rows have density ratios.
    """
    return Stage(
        "plan",
        make_plan,
        inputs=(
            "centroids", "target_mass", "cluster_stats", "assignments.pool",
            *(["ratio_model", "scores", "mixture"] if scored else []),
            *(["enforcement"] if settings.gime.enforces_thresholds else []),
        ),
        reads=("codebook", "datasets", *(f"assignments.{name}" for name in names)),
        outputs=("plan",),
        settings=(
            "select", "budget", "seed", "explode.within_cluster", "explode.temperature",
            "quantize.neighbors", "target.*.share",
        ),
    )  # fmt: skip


def make_plan(step: Step, state: RunState) -> None:
    """Set the plan.

    Raises:
        EmptySelectionError: It takes no row.
    """
    ctx, settings = step.ctx, step.ctx.settings

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        problem = _problem(step, state)
        if settings.select.objective == WHOLE_POOL:
            problem = with_whole_pool_ranks(ctx, state, problem)
        result = gio.select(settings.select.objective, problem)
        _refuse_empty(result)
        gate = None
        if state.has("enforcement"):

            def keep(take: np.ndarray, order: Order) -> DataFrame:
                rows = rows_to_choose_from(ctx, state, order)
                if take.ndim > 1:
                    chosen_from, table = _strata(ctx, state, problem, rows, take)
                    return explode.selected_ids(
                        chosen_from, table, settings=settings.explode, seed=settings.seed
                    )
                table = explode.with_thresholds(
                    rows,
                    _plan_table(replace(result, take=take), problem),
                    settings=settings.explode,
                    seed=settings.seed,
                )
                return explode.selected_ids(
                    rows, table, settings=settings.explode, seed=settings.seed
                )

            result, gate = enforce(state.enforcement, result, problem, keep)
        signs = failure_signs(
            result,
            problem.sizes,
            problem.pool_centroids,
            target_rows=state.datasets.target_rows,
            seed=settings.seed,
        )
        facts = plan_facts(result, problem, signs).model_copy(update={"gate": gate})
        return write_plan(step, state, result, problem, facts)

    step.record(make, table="plan")
    set_plan(step, state)


def write_plan(
    step: Step,
    state: RunState,
    result: gio.SelectionResult,
    problem: gio.SelectionProblem,
    facts: PlanFacts,
) -> tuple[int, dict[str, Any]]:
    """Write a plan with the thresholds of its rows; gives its rows and its facts.

    Raises:
        EmptySelectionError: It takes no row.
    """
    ctx, settings = step.ctx, step.ctx.settings
    _refuse_empty(result)
    rows = rows_to_choose_from(ctx, state, Order.stored(facts.gate))
    table = _plan_table(result, problem)
    if result.objective == WHOLE_POOL:
        thresholds = {name: problem.options[name] for name in ("threshold", "tie")}
        table = table.assign(**thresholds)
    else:
        table = explode.with_thresholds(rows, table, settings=settings.explode, seed=settings.seed)
    if result.take_by_source is not None:
        strata = _strata(ctx, state, problem, rows, result.take_by_source)[1]
        save_strata(ctx, step.key, strata, problem.source_names)
    if result.copies is not None:
        arrays = {name: table[name].to_numpy(np.int64) for name in _COPIES}
        save_arrays(ctx.workspace, "copies", arrays, key=_copies_key(step.key), run=ctx.run)
        table = table.drop(columns=list(_COPIES))
    written = step.write_small("plan", pa.Table.from_pandas(table, preserve_index=False))
    return written, facts.plain()


def set_plan(step: Step, state: RunState) -> None:
    """Set the plan that the step has written, and warn of its notices."""
    state.plan = load_plan(step.ctx.workspace, step.key)
    for notice in state.plan.facts.notices:
        step.ctx.warn(notice.name.replace("_", " "), notice.text, notice.remedy)


def _refuse_empty(result: gio.SelectionResult) -> None:
    if int(result.take.sum()) == 0:
        notices_text = "; ".join(f"{n.text} {n.remedy}" for n in result.notices)
        raise EmptySelectionError(notices_text or "The plan takes no row of any cluster.")


def _strata(
    ctx: RunContext,
    state: RunState,
    problem: gio.SelectionProblem,
    rows: DataFrame,
    take: np.ndarray,
) -> tuple[DataFrame, pd.DataFrame]:
    """Rows numbered by stratum, and the thresholds of the strata; see `in_strata`."""
    sources = ctx.workspace.read("assignments", state.assignments["pool"])
    counts, names = np.asarray(problem.source_counts), problem.source_names
    return in_strata(ctx, rows, sources, counts=counts, take=take, names=names)


def load_plan(workspace: Workspace, key: str) -> Plan:
    """Plan that is stored under a key.

    Raises:
        WorkspaceError: It is gone.
    """
    records = workspace.recorded("plan", key)
    if not records:
        raise WorkspaceError(f"{workspace.place('plan')} lacks the plan {key}. Run again.")
    table = workspace.read_arrow("plan", key, 1 << 20, "clusters of the plan").to_pandas()
    table = table.sort_values("cluster", ignore_index=True)
    facts = PlanFacts.model_validate(records[-1].detail)
    if facts.copies is not None:
        table = table.assign(**load_arrays(workspace, _copies_key(key)))
    return Plan(table, key, facts)


def _copies_key(key: str) -> str:
    return fingerprint("copies", key)


def rows_to_choose_from(ctx: RunContext, state: RunState, order: Order) -> DataFrame:
    """Rows of the pool with the columns that order them; see `score_bias.to_choose_from`."""
    scores = None
    if ctx.settings.explode.within_cluster == "density_ratio":
        scores = ctx.workspace.read("scores", state.scores)
    return to_choose_from(
        ctx.workspace.read("assignments", state.assignments["pool"]), scores, order
    )


def with_whole_pool_ranks(
    ctx: RunContext, state: RunState, problem: gio.SelectionProblem
) -> gio.SelectionProblem:
    """Problem with the rows per cluster and the threshold of a ranking of the whole pool."""
    ranks = explode.rank_whole_pool(
        rows_to_choose_from(ctx, state, Order()),
        problem.sizes,
        int(problem.resolved_budget()),
        settings=ctx.settings.explode,
        seed=ctx.settings.seed,
    )
    return replace(problem, options={**problem.options, **ranks._asdict()})


def _problem(step: Step, state: RunState) -> gio.SelectionProblem:
    ctx, settings, stats = step.ctx, step.ctx.settings, state.cluster_stats()
    unit, amount = parse_budget(settings.budget)
    by_tokens = unit == "tokens"
    mass, unreachable = gio.mix_targets(state.target_mass(), [t.share for t in settings.target])
    points, weights = [], []
    for dataset, target in zip(state.datasets.targets, settings.target, strict=True):
        centroids, rows = centroids_of(ctx, state.centroids, dataset.name)
        points.append(centroids)
        weights.append(target.share * rows / max(rows.sum(), 1))
    budget: float | str = amount
    options = dict(settings.select.options)
    if unit == "auto":
        budget = "auto"
        options |= automatic_budget(ctx, state).plain()
    elif unit == "share":
        budget = rows_of_share(amount, float(stats.rows.sum()))
    counts, tokens, names = source_sizes(ctx, state)
    repeat = settings.select.repeat
    return gio.SelectionProblem(
        pool_centroids=state.codebook.centroids,
        sizes=stats.rows,
        target_mass=mass,
        budget=budget,
        unit="tokens" if by_tokens else "rows",
        tokens=stats.tokens,
        target_centroids=np.concatenate(points),
        target_weights=np.concatenate(weights),
        unreachable=unreachable,
        replay=settings.select.replay,
        source_counts=counts,
        source_tokens=tokens,
        source_names=names,
        caps=settings.select.source_caps,
        floors=settings.select.source_floors,
        quality=_quality(ctx, state) if settings.select.use_quality else None,
        repeat=gio.Repetition(repeat.max, repeat.decay) if repeat else None,
        fresh=plan_fresh_rows(ctx, state, mass, step.key) if repeat else None,
        seed=settings.seed,
        options=options,
    )


def rows_of_share(share: float, rows: float) -> float:
    """Budget in rows of a share of the pool's usable rows, at least one."""
    return float(max(1, round(share * rows)))


def source_sizes(
    ctx: RunContext, state: RunState, also: Iterable[str] = ()
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Rows and tokens per cluster and source, and the sources' names.

    Args:
        ctx: The run.
        state: Its assignments.
        also: Sources that are listed even where the pool has no row of them.
    """
    if not (ctx.settings.select.source_caps or ctx.settings.select.source_floors):
        return None, None, ()
    rows = ctx.workspace.read("assignments", state.assignments["pool"])
    counted = rows.groupBy("cluster", F.coalesce("source", F.lit("")).alias("source")).agg(
        F.count(F.lit(1)).alias("rows"),
        F.sum(F.coalesce("tokens", F.lit(0))).cast("bigint").alias("tokens"),
    )
    table = bounded(counted, _MAX_SOURCES * 100, "rows per cluster and source").to_pandas()
    names = tuple(sorted({*table["source"], *also}))
    if len(names) > _MAX_SOURCES:
        raise InputError(f"{len(names):,} sources are too many for caps and floors.")
    source_counts = np.zeros((2, len(state.codebook.centroids), len(names)), np.int64)
    at = {name: i for i, name in enumerate(names)}
    place = [at[s] for s in table["source"]]
    source_counts[0, table["cluster"], place] = table["rows"]
    source_counts[1, table["cluster"], place] = table["tokens"]
    return source_counts[0], source_counts[1], names


def _quality(ctx: RunContext, state: RunState) -> np.ndarray:
    """Mean quality of each cluster; rows without one count as the pool's mean."""
    rows = ctx.workspace.read("assignments", state.assignments["pool"])
    # Whole numbers add up to the same in any order, floats do not.
    millionths = F.round(F.col("quality") * F.lit(1_000_000)).cast("bigint")
    summed = (
        rows.where(F.col("quality").isNotNull())
        .groupBy("cluster")
        .agg(F.sum(millionths).alias("total"), F.count(F.lit(1)).alias("rows"))
    )
    table = bounded(summed, len(state.codebook.centroids), "quality per cluster").to_pandas()
    if table.empty:
        raise InputError("select.use_quality is set, but no row has a quality; set columns.quality")
    mean = table["total"].sum() / table["rows"].sum() / 1e6
    quality = np.full(len(state.codebook.centroids), mean)
    quality[table["cluster"]] = table["total"] / table["rows"] / 1e6
    return np.clip(quality, 0.0, None)


def _plan_table(result: gio.SelectionResult, problem: gio.SelectionProblem) -> pd.DataFrame:
    count = len(result.take)
    order = np.full(count, -1, np.int64)
    order[result.order] = np.arange(len(result.order))
    after = np.full(count, np.nan)
    after[result.order] = result.divergence_path
    table = pd.DataFrame(
        {
            "cluster": np.arange(count, dtype=np.int32),
            "rows": np.asarray(problem.sizes, np.int64),
            "take": np.asarray(result.take, np.int64),
            "fractional": np.asarray(result.fractional, np.float64),
            "target_mass": np.asarray(result.target_mass, np.float64),
            "order": order,
            "divergence_after": after,
        }
    )
    if result.copies is None:
        return table
    return table.assign(copies=np.asarray(result.copies, np.int64))


def plan_facts(
    result: gio.SelectionResult, problem: gio.SelectionProblem, signs: tuple[gio.Notice, ...]
) -> PlanFacts:
    certificate = result.certificate
    return PlanFacts(
        objective=result.objective,
        budget=result.budget,
        unit=result.unit,
        spent=result.spent,
        rows=int(result.take.sum()),
        divergence=float(result.divergence),
        lost_mass=float(result.lost_mass),
        certificate=(
            # Adding zero takes the sign of a negative zero away.
            (certificate.primal + 0.0, certificate.dual + 0.0, certificate.gap + 0.0)
            if certificate
            else None
        ),
        binding=tuple(result.binding),
        notices=tuple(
            Notice(name=n.name, text=n.text, remedy=n.remedy) for n in (*result.notices, *signs)
        ),
        auto=problem.options if problem.budget == "auto" else None,  # type: ignore[arg-type]
        divergences=gio.divergences(
            result.target_mass, problem.sizes, result.take, problem.seed, copies=result.copies
        ),
        copies=None if result.copies is None else int(result.copies.sum()),
        fresh_rows=None if problem.fresh is None else int(problem.fresh.sum()),
    )
