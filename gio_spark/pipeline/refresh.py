"""`gio-spark refresh`: the stages of a run on the present pool, with the models of the run.

A refresh has no stages of its own. What it makes of a pool is what the run would have made of it
with the same embedder, codebook, density ratio, plan and thresholds; stages write what changed and
stand on what they wrote before. The selection alone is written anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import describe
from gio_spark.errors import InputError
from gio_spark.pipeline.kmeans_checkpoints import fitted_state
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_records import (
    RefreshCounts,
    RefreshKeys,
    RefreshSummary,
    RunSummary,
    VerdictFacts,
)
from gio_spark.pipeline.run_state import Codebook, FittedEmbedder, Role, RunState
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages.density_ratio import load_ratio
from gio_spark.pipeline.stages.embed import set_fitted_embedder
from gio_spark.pipeline.stages.embedding_changes import changed_rows, count_changes
from gio_spark.pipeline.stages.metric_series import in_series, measure_refresh
from gio_spark.pipeline.stages.open_inputs import (
    PinnedInputs,
    identity,
    open_context,
    opened_run,
    pin_inputs,
)
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.pipeline.stages.publish_selection import (
    REFRESH,
    Candidate,
    Publication,
    audit_and_publish,
    find_candidate,
    is_audited,
    publish_audited,
    refreshes_of,
)
from gio_spark.pipeline.stages.run_graph import run_graph
from gio_spark.pipeline.stages.select_rows import selected_ids, write_candidate
from gio_spark.settings.run import RunSettings
from gio_spark.tables import Input, Record, StageClaims, Workspace, try_to_prune
from gio_spark.tables.model_arrays import load_arrays
from gio_spark.tables.table_schema import is_widened

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.engine.progress import Progress
    from gio_spark.engine.progress import Stage as StageProgress

# Targets are not read: what the plan takes of each cluster is decided already.
ROLES: tuple[Role, ...] = ("pool", "held-out")


@dataclass(frozen=True)
class Refreshed:
    """Result of a refresh: counts of rows, verdict of the gate, drift, publication."""

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
    """
    ctx = open_context(settings, spark=spark, progress=progress)
    base = RunSummary.of(newest_run(ctx.workspace, settings))
    ctx.run = base.run
    pinned = pin_inputs(ctx, ROLES)
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
    chain = refreshes_of(workspace, base.run)
    newest = chain[-1] if chain else None
    earlier = None if newest is None else RefreshSummary.of(newest)
    version = base.versions["pool"] if earlier is None else earlier.version
    table_id = base.table_id if earlier is None else earlier.table_id
    nothing_new = version == pool_pin.version and table_id == pool_pin.table_id
    candidate = find_candidate(workspace, base.run)
    if nothing_new:
        # A refresh that died between its rows and its audit goes on with what is missing.
        measured = (
            not settings.gime.on_refresh
            or newest is None
            or in_series(workspace, newest.fingerprint)
        )
        if newest is None or (measured and is_audited(workspace, settings, candidate)):
            publication = publish_audited(workspace, settings, candidate, ctx.progress.say)
            return _unchanged(base, candidate, publication)
    before, number = "", 1
    if newest is not None and earlier is not None:
        before, number = newest.fingerprint, earlier.number + 1
        if nothing_new:
            before, number = earlier.before, earlier.number
    # The refresh before is part of the key: a pool may go back to files it had once.
    key = fingerprint("refresh", base.run, pool_pin.table_id, pool_pin.version, before)
    tags = {"gio.engine": describe(ctx.spark).line(), "gio.command": "refresh"}
    with opened_run(ctx, pinned, tags, name=f"refresh {number} of {base.run}") as state:
        earlier_schema = base.pool_schema if earlier is None else earlier.pool_schema
        check_schema(state.inputs["pool"], earlier_schema)
        link = ChainLink(key, before, number, candidate)
        return _select_anew(ctx, base, state, link)


@dataclass(frozen=True)
class ChainLink:
    """Place of a refresh among those of its run.

    Attributes:
        key: Its fingerprint.
        before: Fingerprint of the refresh before, "" for the first.
        number: From 1.
        candidate: Selection that it replaces.
    """

    key: str
    before: str
    number: int
    candidate: Candidate


def _select_anew(ctx: RunContext, base: RunSummary, state: RunState, link: ChainLink) -> Refreshed:
    """Select from the present pool, judge the selection, and publish it where it passes."""
    workspace, settings, pool = ctx.workspace, ctx.settings, state.inputs["pool"]
    _set_frozen_models(ctx, base, state)
    goals = ["assignments.pool", *(["scores"] if base.keys.scores else [])]
    run_stages(ctx, run_graph(settings, ROLES), state, goals)
    keys = RefreshKeys(
        embeddings=state.datasets.pool.key,
        assignments=state.assignments["pool"],
        scores=state.get("scores") or "",
        quarantine=state.keys["datasets"],
        removed_rows=state.get("removed_rows") or "",
    )

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        embeddings_before = base.keys.embeddings["pool"]
        if link.number > 1:
            record_before = workspace.recorded(REFRESH, link.before)[-1]
            embeddings_before = RefreshSummary.of(record_before).keys.embeddings
        ids = selected_ids(ctx, state)
        written = write_candidate(ctx, pool, ids, plan=state.plan.facts)
        table, rows = written.table, written.rows
        pool.recheck()
        summary = RefreshSummary(
            counts=RefreshCounts(
                **_count_changes_of_pool(workspace, embeddings_before, keys.embeddings),
                bad_rows=sum(state.quarantined["pool"].values()),
                **_count_changes_of_selection(workspace, link.candidate.table, table),
            ),
            version=pool.version,
            table_id=pool.table_id,
            pool_schema=pool.schema.jsonValue(),
            before=link.before,
            number=link.number,
            keys=keys,
            table=table,
        )
        return rows, summary.plain()

    record = ctx.stage(REFRESH, link.key, "", make, rows=pool.count)
    problems: list[str] = []
    judged = None
    if settings.gime.on_refresh:
        judged = measure_refresh(ctx, base, pool, keys, link.key)
        if judged.gate is not None and not judged.gate.passed:
            problems.append("the gate fails: " + judged.gate.why.replace("\n", " "))
        if judged.drifted and settings.publish.on_drift == "hold":
            problems.append("metrics drifted: " + ", ".join(judged.drifted))
    publication = audit_and_publish(
        workspace,
        settings,
        find_candidate(workspace, base.run),
        problems,
        ctx.progress.say,
    )
    problem = try_to_prune(workspace, settings.retention)
    if problem:
        ctx.progress.say(f"retention: {problem}")
    refreshed = Refreshed(
        run_id=base.run,
        did_work=True,
        gate=judged.gate if judged else None,
        drifted=judged.drifted if judged else (),
        publication=publication,
        **RefreshSummary.of(record).counts.plain(),
    )
    _track(ctx, refreshed, RefreshSummary.of(record), Path(base.report).parent)
    return refreshed


def _track(ctx: RunContext, refreshed: Refreshed, summary: RefreshSummary, folder: Path) -> None:
    """Record counts and outcome of a refresh; its stages, inputs and metrics are recorded."""
    counts = {name: float(count) for name, count in summary.counts.plain().items()}
    ctx.tracker.metrics(counts, step=summary.number)
    publication = refreshed.publication
    number = None if publication is None else publication.number
    ctx.tracker.tags(
        {"gio.published": f"{publication.name} {number}" if publication and number else "no"}
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"refresh-{summary.number}.json"
    page.write_text(json.dumps(asdict(refreshed), indent=2, default=lambda facts: facts.plain()))
    ctx.tracker.artifact(page, "refresh")


def _unchanged(base: RunSummary, candidate: Candidate, publication: Publication) -> Refreshed:
    rows = candidate.rows
    return Refreshed(
        base.run, 0, 0, 0, 0, rows, 0, 0, rows, did_work=False, publication=publication
    )


def _set_frozen_models(ctx: RunContext, base: RunSummary, state: RunState) -> None:
    """Set the fitted models and the plan of a run in the state, so that no stage fits others.

    Each stage stands on the rows that it made of the input's earlier version, so that only what
    changed is embedded, assigned and scored.

    Raises:
        InputError: This process would embed otherwise.
    """
    embedder, keys = state.embedder, base.keys
    if (embedder.name, embedder.revision) != base.embedder:
        raise InputError(
            f"The run embedded with {list(base.embedder)}, this process would embed with "
            f"{[embedder.name, embedder.revision]}: set embed.name and embed.revision to the "
            "run's, or run again."
        )
    if embedder.needs_fit:
        embedder = embedder.with_state(load_arrays(ctx.workspace, keys.embed_fit))
    set_fitted_embedder(state, FittedEmbedder(embedder, keys.embed_fit))
    state.codebook = Codebook(fitted_state(ctx.workspace, keys.fit).centroids, keys.fit)
    state.keys["codebook"] = keys.fit
    if keys.ratio:
        state.ratio_model = load_ratio(ctx.workspace, keys.ratio)
        state.keys["ratio_model"] = keys.ratio
    state.plan = load_plan(ctx.workspace, base.plan_key)
    state.keys["plan"] = base.plan_key


def check_schema(pool: Input, earlier: dict[str, Any]) -> None:
    """Refuse a pool of which a column has another type than the selection that is refreshed.

    Columns may come, go, stand in another order and be widened.

    Raises:
        InputError: With the column and both types.
    """
    types = {f.name: f.dataType for f in T.StructType.fromJson(earlier).fields}
    for field in pool.schema.fields:
        before = types.get(field.name, field.dataType)
        if before != field.dataType and not is_widened(before, field.dataType):
            raise InputError(
                f"{pool.name}: column {field.name!r} of {pool.location} was "
                f"{before.simpleString()} and is {field.dataType.simpleString()} now. Cast it "
                "back, or run `gio-spark run`, which makes a selection of the new columns."
            ).about(location=pool.location, column=field.name)


def _count_changes_of_pool(ws: Workspace, earlier: str, now: str) -> dict[str, int]:
    """Rows of the pool that are new, changed and gone since the refresh before."""
    columns = ["id", "content_hash", "row_hash"]
    differing = changed_rows(
        ws.read("embeddings", earlier).select(*columns),
        ws.read("embeddings", now).select(*columns),
    )
    added, changed, gone = count_changes(differing)
    return {
        "new_rows": added,
        "changed_rows": changed,
        "gone_rows": gone,
    }


def _count_changes_of_selection(ws: Workspace, before: str, after: str) -> dict[str, int]:
    """Rows that were selected before and after, and how many came and went."""
    old, new = (ws.read_table(t).select(F.col("gio_id").alias("id")) for t in (before, after))
    added, _, dropped = count_changes(changed_rows(old, new))
    return {"before": int(old.count()), "added": added, "dropped": dropped,
            "after": int(new.count())}  # fmt: skip


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
