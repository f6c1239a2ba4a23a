"""Plan of a refresh: the run's plan on the present rows, with its budget held or floating.

Held, the allocation is solved again: the run's target distribution on the present rows per cluster.
The rows of a cluster keep their order, so that the selection is a function of the present rows and
of the run's models, whatever refreshes came between. Floating, the thresholds of the run's plan
decide about every row, and the number of selected rows follows the pool.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark import gio
from gio_spark.engine import bounded
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_state import Plan, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.fresh_rows import held_fresh_rows
from gio_spark.pipeline.stages.plan import (
    plan_facts,
    rows_of_share,
    set_plan,
    source_sizes,
    with_whole_pool_ranks,
    write_plan,
)
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.strategy_settings import WHOLE_POOL

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.pipeline.run_records import PlanFacts


def held_plan_stage(*, scored: bool) -> Stage:
    """Hold the budget of the run's plan on the present rows of the pool.

    Args:
        scored: Whether rows are ordered by density ratios.
    """
    return Stage(
        "plan",
        _hold_plan,
        inputs=(
            "frozen_plan", "codebook", "cluster_stats", "assignments.pool",
            *(["scores"] if scored else []),
        ),
        outputs=("plan",),
        settings=("budget", "select", "seed", "explode.within_cluster", "explode.temperature"),
    )  # fmt: skip


def _hold_plan(step: Step, state: RunState) -> None:
    """Set the plan.

    Raises:
        BudgetError: Caps and floors allow no budget at all on the present rows.
        EmptySelectionError: The pool has no row left that the target reaches.
    """
    ctx, frozen = step.ctx, state.frozen_plan

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        problem = _present_problem(ctx, state)
        if ctx.settings.select.objective == WHOLE_POOL:
            # Without quotas: the same ranking of the rows that are there now.
            budget = min(float(problem.budget), float(problem.capacity.sum()))
            problem = with_whole_pool_ranks(ctx, state, replace(problem, budget=budget))
            result = gio.select(WHOLE_POOL, problem)
        else:
            result = gio.hold_budget(problem, _quotas(ctx, frozen))
        return write_plan(step, state, result, problem, _facts(frozen, result, problem))

    step.record(make, table="plan")
    set_plan(step, state)


def floating_facts(
    ctx: RunContext, state: RunState, selected: DataFrame, spent: float
) -> PlanFacts:
    """Facts of the run's plan for the rows that pass its thresholds now.

    Args:
        ctx: The run.
        state: With the run's plan, and the clusters of the present pool.
        selected: The selected rows, with gio_cluster.
        spent: Rows or tokens that they spend.
    """
    counted = bounded(
        selected.groupBy("gio_cluster").count(), len(state.plan.table), "selected clusters"
    )
    take = np.zeros(len(state.plan.table), np.int64)
    take[counted["gio_cluster"].to_numpy()] = counted["count"].to_numpy()
    # Bounds on sources are left out: the optimum without them bounds the divergence as well.
    problem = replace(_present_problem(ctx, state), budget=spent, caps={}, floors={})
    result = replace(gio.hold_budget(problem), notices=())
    result = gio.with_allocation(problem, result, take, "the plan's thresholds stand")
    facts = _facts(state.plan, result, problem)
    return facts.model_copy(update={"budget": state.plan.facts.budget, "spent": spent})


def _present_problem(ctx: RunContext, state: RunState) -> gio.SelectionProblem:
    """The problem of the run's plan with the counts of the present pool."""
    settings, stats, frozen = ctx.settings, state.cluster_stats(), state.frozen_plan
    select = settings.select
    unit, amount = parse_budget(settings.budget)
    if unit == "share":
        amount = rows_of_share(amount, float(stats.rows.sum()))
    elif unit == "auto":
        amount = frozen.facts.budget
    repeat = select.repeat
    counts, tokens, names = source_sizes(ctx, state, (*select.source_caps, *select.source_floors))
    return gio.SelectionProblem(
        pool_centroids=state.codebook.centroids,
        sizes=stats.rows,
        target_mass=frozen.table["target_mass"].to_numpy(np.float64),
        budget=float(amount),
        unit="tokens" if unit == "tokens" else "rows",
        tokens=stats.tokens,
        unreachable=frozen.facts.lost_mass,
        source_counts=counts,
        source_tokens=tokens,
        source_names=names,
        caps=select.source_caps,
        floors=select.source_floors,
        repeat=gio.Repetition(repeat.max, repeat.decay) if repeat else None,
        fresh=held_fresh_rows(ctx, state, frozen.key) if repeat else None,
        seed=settings.seed,
    )


def _quotas(ctx: RunContext, frozen: Plan) -> np.ndarray | None:
    """Rows per cluster of a plan that is no optimum of the KL; None where it is one."""
    gate = frozen.facts.gate
    if ctx.settings.select.objective == "budgeted_kl" and not (gate and gate.rows_moved):
        return None
    return frozen.table["take"].to_numpy(np.int64)


def _facts(frozen: Plan, result: gio.SelectionResult, problem: gio.SelectionProblem) -> PlanFacts:
    """Facts of the plan for the present rows; objective, thresholds and basis stay the run's."""
    before = frozen.facts
    update = {"objective": before.objective, "gate": before.gate, "auto": before.auto}
    if before.certificate is None:  # the objective has no optimum that bounds it
        update["certificate"] = None
    return plan_facts(result, problem, ()).model_copy(update=update)
