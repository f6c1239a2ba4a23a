"""`gio-spark refresh`: the stages of a run on the present pool, with the models of the run.

A refresh has no stages of its own. What it makes of a pool is what the run would have made of it
with the same embedder, codebook, density ratio and target distribution; stages write what changed
and stand on what they wrote before. The selection alone is written anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gio_spark.engine import describe
from gio_spark.errors import InputError
from gio_spark.pipeline.refresh_records import DriftDecision, RefreshKeys, RefreshSummary
from gio_spark.pipeline.run import run_on_codebook
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_records import PlanFigures, RunSummary, VerdictFacts
from gio_spark.pipeline.run_state import Role, RunState
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages.frozen_models import check_schema, set_frozen_models
from gio_spark.pipeline.stages.held_plan import floating_facts
from gio_spark.pipeline.stages.lineage_event import lineage_path, write_lineage
from gio_spark.pipeline.stages.metric_series import in_series, measure_refresh
from gio_spark.pipeline.stages.open_inputs import (
    PinnedInputs,
    identity,
    open_context,
    opened_run,
    requested,
)
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.pipeline.stages.pool_drift import decide, drift_figures
from gio_spark.pipeline.stages.publish_selection import (
    REFRESH,
    Publication,
    audit_and_publish,
    find_candidate,
    is_audited,
    publish_audited,
)
from gio_spark.pipeline.stages.refresh_chain import (
    Before,
    ChainLink,
    other_versions,
    pin_as_read,
)
from gio_spark.pipeline.stages.refresh_counts import count_changes, no_changes
from gio_spark.pipeline.stages.register_plan import register_plan
from gio_spark.pipeline.stages.run_graph import refresh_graph
from gio_spark.pipeline.stages.select_rows import selected_ids, tokens_of, write_candidate
from gio_spark.settings.run import RunSettings
from gio_spark.tables import Record, StageClaims, Workspace, try_to_prune

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress

DRIFT = "drift"
# Targets are not read: what the plan takes of each cluster is decided already.
ROLES: tuple[Role, ...] = ("pool", "held-out")


@dataclass(frozen=True)
class Refreshed:
    """Result of a refresh: counts of rows, plan, verdict of the gate, drift, publication.

    Attributes:
        run_id: Run whose selection it is.
        new_rows, changed_rows, gone_rows: Rows of the pool that this refresh found to be so.
        bad_rows: Rows of the pool that came to quarantine by this refresh.
        before, added, dropped, after: Selected rows.
        did_work: False where nothing was left to do; then nothing has changed.
        budget: hold or float, as `refresh.budget` says.
        plan: Figures of the plan on the present rows; None where the selection is that of the run.
        drift: Drift since the plan of the run, and the decision on it; None where nothing was done.
        follows: Where drift led to a new run, the run that was refreshed; else "".
        gate: Verdict of the gate; None where there is none.
        drifted: Metrics outside the range of earlier refreshes.
        publication: Under which name and number it was published, or why it was not.
    """

    run_id: str
    new_rows: int
    changed_rows: int
    gone_rows: int
    bad_rows: int
    before: int
    added: int
    dropped: int
    after: int
    did_work: bool
    budget: str = "hold"
    plan: PlanFigures | None = None
    drift: DriftDecision | None = None
    follows: str = ""
    gate: VerdictFacts | None = None
    drifted: tuple[str, ...] = ()
    publication: Publication | None = None


def refresh(
    settings: RunSettings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> Refreshed:
    """Bring the newest run's selection up to date with the pool as it is now.

    Args:
        settings: The settings of the run that is refreshed.
        spark: Session.
        progress: Where to show what is going on.

    Raises:
        InputError: No finished run of these settings is in the workspace.
        BudgetError: Caps and floors allow no selection of the present rows.
        EmptySelectionError: No row of the present pool can be selected.
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    base = RunSummary.of(newest_run(ctx.workspace, settings))
    ctx.run = base.run
    pinned = pin_as_read(ctx, base)
    ctx.settings = base.carried_out(settings)
    claims = StageClaims(ctx.workspace, settings.concurrency, ctx.progress.say)
    with claims.hold(
        fingerprint("refresh", base.run),
        run=base.run,
        stage="refresh",
        # Another refresh may have recorded something in the meantime.
        finished=ctx.workspace.reload,
        release=True,
    ):
        return _refresh(ctx, base, pinned)


def _refresh(ctx: RunContext, base: RunSummary, pinned: PinnedInputs) -> Refreshed:
    """Update the selection, judge it, and publish it where it passes."""
    workspace, settings, pool_pin = ctx.workspace, ctx.settings, pinned.pins["pool"]
    before = Before.of(workspace, base)
    newest, earlier, candidate = before.newest, before.summary, before.candidate
    budget = settings.refresh.budget
    is_current = before.is_current(pinned, settings.refresh)
    others = other_versions(pinned, settings.refresh)
    was_audited = is_current and is_audited(workspace, settings, candidate)
    if is_current:
        # A refresh that died between its rows and its audit goes on with what is missing.
        measured = (
            not settings.gime.on_refresh
            or newest is None
            or in_series(workspace, newest.fingerprint)
        )
        if newest is None or (measured and was_audited):
            publication = publish_audited(workspace, settings, candidate, ctx.progress.say)
            ctx.progress.say(f"{base.run}: nothing to do, the inputs have not changed.")
            register_plan(ctx, base, publication, is_tracked=False)
            return Refreshed(
                base.run, **no_changes(candidate.rows).plain(), did_work=False, budget=budget,
                plan=None if earlier is None else earlier.plan, publication=publication,
            )  # fmt: skip
    if is_current and newest is not None and earlier is not None:
        key, previous, number = newest.fingerprint, earlier.before, earlier.number
    else:
        previous = "" if newest is None else newest.fingerprint
        number = 1 if earlier is None else earlier.number + 1
        # The refresh before is part of the key: a pool may go back to files it had once.
        version = (pool_pin.table_id, pool_pin.version)
        key = fingerprint("refresh", base.run, *version, previous, budget, others)
    link = ChainLink(key, previous, number, before, was_audited, others)
    ctx.gather = True
    tags = {"gio.engine": describe(ctx.spark).line(), "gio.command": "refresh"}
    read = pinned.of_roles(*ROLES)
    with opened_run(ctx, read, tags, name=f"refresh {number} of {base.run}") as state:
        earlier_schema = base.pool_schema if earlier is None else earlier.pool_schema
        check_schema(state.inputs["pool"], earlier_schema)
        decision = _apply_models(ctx, base, state, before.changed_targets(pinned))
        if decision.action in ("keep", "stop"):
            return _select_anew(ctx, state, link, decision)
    return _run_anew(ctx, pinned, before, decision)


def _apply_models(
    ctx: RunContext, base: RunSummary, state: RunState, changed_targets: list[str]
) -> DriftDecision:
    """Apply the models of the run to the present pool, and decide by the drift of its clusters."""
    set_frozen_models(ctx, base, state)
    goals = ["assignments.pool", "cluster_stats", *(["scores"] if base.keys.scores else [])]
    run_stages(ctx, refresh_graph(ctx.settings), state, goals)
    figures = drift_figures(ctx, base, state, changed_targets)
    decision = decide(figures, ctx.settings.refresh.drift)
    if decision.action != "keep":
        ctx.progress.say(f"drift: {decision.action}: {'; '.join(decision.reasons)}")
    ctx.tracker.tags({"gio.drift": decision.action})
    return decision


def _run_anew(
    ctx: RunContext, pinned: PinnedInputs, before: Before, decision: DriftDecision
) -> Refreshed:
    """Plan again in a new run on the codebook of the run, or on one that is fitted from it."""
    workspace, base = ctx.workspace, before.base
    again = open_context(requested(ctx.settings), spark=ctx.spark, progress=ctx.progress)
    fit_again = decision.action == "requantize"
    curation = run_on_codebook(again, pinned, base, fit_again=fit_again)
    workspace.reload()
    workspace.record(
        run=base.run, stage=DRIFT, fingerprint=fingerprint(DRIFT, curation.run_id), table="",
        rows=decision.figures.rows, seconds=0.0, only=(),
        detail={**decision.plain(), "run": curation.run_id},
    )  # fmt: skip
    summary = RunSummary.model_validate(curation.summary)
    keys, facts = summary.keys, load_plan(workspace, summary.plan_key).facts
    counts = count_changes(
        workspace,
        embeddings=(before.embeddings, keys.embeddings["pool"]),
        quarantine=(before.quarantine, (keys.quarantine, keys.removed_rows)),
        tables=(before.candidate.table, find_candidate(workspace, curation.run_id).table),
    )
    _prune(ctx)
    return Refreshed(
        run_id=curation.run_id,
        follows=base.run,
        **counts.plain(),
        did_work=True,
        budget=ctx.settings.refresh.budget,
        plan=PlanFigures.model_validate({**facts.plain(), "spent": summary.spent}),
        drift=decision,
        gate=summary.gate,
        publication=curation.publication,
    )


def _select_anew(
    ctx: RunContext, state: RunState, link: ChainLink, decision: DriftDecision
) -> Refreshed:
    """Select from the present pool, judge the selection, and publish it where it passes."""
    workspace, settings, base = ctx.workspace, ctx.settings, link.before.base
    holds = settings.refresh.budget == "hold"
    if not holds:
        state.plan, state.keys["plan"] = state.frozen_plan, state.frozen_plan.key
    run_stages(ctx, refresh_graph(settings), state, ["plan"])
    keys = RefreshKeys(
        embeddings=state.datasets.pool.key,
        assignments=state.assignments["pool"],
        scores=state.get("scores") or "",
        quarantine=state.keys["datasets"],
        removed_rows=state.get("removed_rows") or "",
        plan=state.plan.key if holds else "",
    )
    record = ctx.stage(
        REFRESH, link.key, "", lambda _: _write_selection(ctx, state, link, keys, decision),
        rows=state.inputs["pool"].count,
    )  # fmt: skip
    problems = [f"drift: {text}" for text in decision.reasons]
    judged = None
    if settings.gime.on_refresh:
        judged = measure_refresh(ctx, base, state.inputs["pool"], keys, link.key)
        if judged.gate is not None and not judged.gate.passed:
            problems.append("the gate fails: " + judged.gate.why.replace("\n", " "))
        if judged.drifted and settings.publish.on_drift == "hold":
            problems.append("metrics drifted: " + ", ".join(judged.drifted))
    publication = audit_and_publish(
        workspace, settings, find_candidate(workspace, base.run), problems, ctx.progress.say
    )
    register_plan(ctx, base, publication, is_tracked=True)
    _prune(ctx)
    summary = RefreshSummary.of(record)
    counts = no_changes(summary.counts.after) if link.was_audited else summary.counts
    refreshed = Refreshed(
        run_id=base.run,
        **counts.plain(),
        did_work=True,
        budget=summary.budget,
        plan=summary.plan,
        drift=summary.drift,
        gate=judged.gate if judged else None,
        drifted=judged.drifted if judged else (),
        publication=publication,
    )
    _track(ctx, refreshed, summary, Path(base.report).parent)
    return refreshed


def _write_selection(
    ctx: RunContext,
    state: RunState,
    link: ChainLink,
    keys: RefreshKeys,
    decision: DriftDecision,
) -> tuple[int, dict[str, Any]]:
    """Write the selection of the present pool, and count what differs from the one before."""
    workspace, pool, before = ctx.workspace, state.inputs["pool"], link.before
    plan, holds = state.plan, ctx.settings.refresh.budget == "hold"
    ids = selected_ids(ctx, state)
    exact = holds and ctx.settings.explode.within_cluster != "hash_share"
    written = write_candidate(ctx, pool, ids, plan=plan.facts, exact=exact)
    table, rows = written.table, written.rows
    pool.recheck()
    by_tokens = plan.facts.unit == "tokens"
    spent_rows = rows if written.copies is None else written.copies
    spent = float(tokens_of(ctx, state, ids) if by_tokens else spent_rows)
    facts = plan.facts.model_copy(update={"spent": spent})
    if not holds:
        facts = floating_facts(ctx, state, workspace.read_table(table), spent)
    summary = RefreshSummary(
        counts=count_changes(
            workspace,
            embeddings=(before.embeddings, keys.embeddings),
            quarantine=(before.quarantine, (keys.quarantine, keys.removed_rows)),
            tables=(before.candidate.table, table),
        ),
        version=pool.version,
        table_id=pool.table_id,
        pool_schema=pool.schema.jsonValue(),
        before=link.previous,
        number=link.number,
        keys=keys,
        table=table,
        budget=ctx.settings.refresh.budget,
        plan=PlanFigures.model_validate(facts.plain()),
        others=link.others,
        drift=decision,
    )
    write_lineage(workspace, before.base, table=table, rows=rows, refresh=summary)
    return rows, summary.plain()


def _prune(ctx: RunContext) -> None:
    problem = try_to_prune(ctx.workspace, ctx.settings.retention)
    if problem:
        ctx.progress.say(f"retention: {problem}")


def _track(ctx: RunContext, refreshed: Refreshed, summary: RefreshSummary, folder: Path) -> None:
    """Record counts and outcome of a refresh; its stages, inputs and metrics are recorded."""
    figures = {name: float(count) for name, count in summary.counts.plain().items()}
    if summary.plan is not None:
        figures |= {"spent": summary.plan.spent, "lost_mass": summary.plan.lost_mass}
        figures |= {f"divergence_{k}": v for k, v in summary.plan.divergences.items()}
    ctx.tracker.metrics(figures, step=summary.number)
    publication = refreshed.publication
    number = None if publication is None else publication.number
    ctx.tracker.tags(
        {"gio.published": f"{publication.name} {number}" if publication and number else "no"}
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"refresh-{summary.number}.json"
    page.write_text(json.dumps(asdict(refreshed), indent=2, default=lambda facts: facts.plain()))
    ctx.tracker.artifact(page, "refresh")
    ctx.tracker.artifact(lineage_path(ctx.workspace, refreshed.run_id, summary.number), "refresh")


def newest_run(workspace: Workspace, settings: RunSettings) -> Record:
    """The newest finished run with the same settings, pinned versions aside."""
    identity_now = identity(settings)
    for record in reversed([r for r in workspace.records() if r.stage == "run"]):
        if record.detail["identity"] == identity_now:
            return record
    raise InputError(
        f"No finished run of this configuration is in the workspace {workspace.location}. "
        "Run `gio-spark run` first; a changed setting makes another run."
    )
