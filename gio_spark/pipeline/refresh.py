"""`gio-spark refresh`: the stages of a run on the pool as it is now, by the run's own models.

A refresh has no stages of its own. What it makes of a pool is what the run would have made of it
with the same embedder, codebook, density ratio, plan and thresholds; stages write what changed and
stand on what they wrote before. The selection alone is written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark.engine import describe, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError
from gio_spark.pipeline.publishing import (
    REFRESH,
    Candidate,
    Publication,
    audit_and_publish,
    find_candidate,
    is_audited,
    publish_audited,
    refreshes_of,
)
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages import clean, embed, open_inputs
from gio_spark.pipeline.stages.cluster import Codebook, assign, pool_stats
from gio_spark.pipeline.stages.density_ratio import Ratio, score_pool
from gio_spark.pipeline.stages.embedding_changes import changed_rows, count_changes
from gio_spark.pipeline.stages.kmeans_checkpoints import fitted_state
from gio_spark.pipeline.stages.metric_series import in_series, measure_refresh
from gio_spark.pipeline.stages.plan import frozen_plan, kept_ids, write_candidate
from gio_spark.settings.run import RunSettings
from gio_spark.tables import (
    Input,
    Pin,
    Record,
    StageClaims,
    Workspace,
    open_input,
    pin_input,
    try_to_prune,
)
from gio_spark.tables.model_arrays import load_arrays
from gio_spark.tables.table_schema import is_widened
from gio_spark.tracking import NullTracker

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.embed import Embedder
    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.inputs import InputSettings


@dataclass(frozen=True)
class Refreshed:
    """What a refresh changed: counts of rows, the gate's verdict, drift, what is published."""

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
    gate: dict[str, Any] | None = None
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
    spark = spark or session(settings.engine)
    progress = progress or Progress()
    progress.say(describe(spark).line())
    workspace = Workspace(spark, settings.workspace)
    base = _newest_run(workspace, settings)
    pool_now = open_inputs.pin_views(spark, workspace, settings).pool
    pin = pin_input(spark, pool_now, "pool")
    ctx = Context(spark, settings, workspace, base.run, progress, NullTracker())
    claims = StageClaims(workspace, settings.concurrency, progress.say)
    claimed = fingerprint("refresh", base.run)
    with claims.hold(
        claimed,
        run=base.run,
        stage="refresh",
        finished=lambda: _look(workspace),
        release=True,
    ):
        return _refresh(ctx, base, pool_now, pin)


def _look(workspace: Workspace) -> None:
    """See what another refresh has recorded in the meantime."""
    workspace.reload()


def _refresh(ctx: Context, base: Record, pool_now: InputSettings, pin: Pin) -> Refreshed:
    """Follow the pool, judge what came of it, and publish it where it passes."""
    workspace, settings = ctx.workspace, ctx.settings
    chain = refreshes_of(workspace, base.run)
    newest = chain[-1] if chain else None
    detail = base.detail if newest is None else newest.detail
    version = base.detail["versions"]["pool"] if newest is None else newest.detail["version"]
    nothing_new = version == pin.version and detail["table_id"] == pin.table_id
    candidate = find_candidate(workspace, base.run)
    if nothing_new:
        # A refresh that died between its rows and its audit goes on with what is missing.
        measured = (
            not settings.gime.on_refresh
            or newest is None
            or in_series(workspace, base, newest.fingerprint)
        )
        if newest is None or (measured and is_audited(workspace, settings, candidate)):
            publication = publish_audited(workspace, settings, candidate, ctx.progress.say)
            return _unchanged(base, candidate, publication)
    before = "" if newest is None else newest.fingerprint
    number = 1 if newest is None else newest.detail["number"] + 1
    if newest is not None and nothing_new:
        before, number = newest.detail["before"], newest.detail["number"]
    # The refresh before is part of the key: a pool may go back to files it had once.
    key = fingerprint("refresh", base.run, pin.table_id, pin.version, before)
    inputs = _open(ctx, pool_now, pin)
    pool = inputs["pool"]
    check_schema(pool, detail["schema"])
    sides, book, ratio = _rows_by_frozen_models(ctx, base, inputs)
    keys = {
        "embeddings": sides["pool"].key,
        "assignments": book.assignments["pool"],
        "scores": ratio.key if ratio else "",
    }

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        earlier = base.detail["keys"]["embeddings"]["pool"]
        if number > 1:
            earlier = workspace.recorded(REFRESH, before)[-1].detail["keys"]["embeddings"]
        plan = frozen_plan(workspace, base, ratio)
        ids = kept_ids(ctx, book, plan)
        table, rows = write_candidate(ctx, pool, ids, expected=int(plan.plan["take"].sum()))
        pool.recheck()
        counts = _counts(workspace, earlier, keys["embeddings"], sides["pool"])
        counts |= _moves(workspace, candidate.table, table)
        return rows, {
            "counts": counts,
            "version": pin.version,
            "table_id": pin.table_id,
            "schema": pool.schema.jsonValue(),
            "before": before,
            "number": number,
            "keys": keys,
            "table": table,
        }

    record = ctx.stage(REFRESH, key, "", make, rows=pool.count)
    problems: list[str] = []
    judged = None
    if settings.gime.on_refresh:
        judged = measure_refresh(ctx, base, pool, keys, key)
        if judged.gate is not None and not judged.gate["passed"]:
            problems.append("the gate fails: " + judged.gate["why"].replace("\n", " "))
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
    return Refreshed(
        run_id=base.run,
        did_work=True,
        gate=judged.gate if judged else None,
        drifted=judged.drifted if judged else (),
        publication=publication,
        **record.detail["counts"],
    )


def _unchanged(base: Record, candidate: Candidate, publication: Publication) -> Refreshed:
    rows = candidate.rows
    return Refreshed(
        base.run, 0, 0, 0, 0, rows, 0, 0, rows, did_work=False, publication=publication
    )


def _open(ctx: Context, pool_now: InputSettings, pin: Pin) -> dict[str, Input]:
    """Open the pool at its pin, and the held-out sets that its rows must not overlap."""
    settings = ctx.settings
    pool = open_input(ctx.spark, pool_now, settings.pool_columns(), "pool", pin)
    open_inputs.check_pool_columns(ctx.spark, settings, pool)
    resolved = (
        open_inputs.pin_views(ctx.spark, ctx.workspace, settings) if settings.held_out else None
    )
    by_name = open_inputs.names(resolved) if resolved else {}
    return {
        "pool": pool,
        **{
            name: open_input(
                ctx.spark, one, one.columns or settings.columns, name,
                pin_input(ctx.spark, one, name),
            )
            for name, one in by_name.items()
            if name.startswith("held-out")
        },
    }  # fmt: skip


def _rows_by_frozen_models(
    ctx: Context, base: Record, inputs: dict[str, Input]
) -> tuple[dict[str, embed.Side], Codebook, Ratio | None]:
    """Have the stages of a run make the rows of an input by the models that a run has fitted.

    Each stage stands on the rows that it made of the input's earlier version, so that only what
    changed is embedded, assigned and scored.
    """
    ws, keys = ctx.workspace, base.detail["keys"]
    embedder = _frozen_embedder(ctx, base)
    sides = embed.set_aside(ctx, embed.embed_sides(ctx, embedder, inputs))
    centroids = fitted_state(ws, keys["fit"]).centroids
    assignments = assign(ctx, sides, centroids, keys["fit"])
    book = Codebook(
        centroids,
        keys["fit"],
        {**keys["assignments"], **assignments},
        pool_stats(ctx, assignments["pool"], len(centroids)),
        keys["centroids"],
    )
    if clean.wanted(ctx):
        sides, book = clean.clean(ctx, sides, book)
    ratio = score_pool(ctx, sides["pool"], book, keys["ratio"]) if keys["ratio"] else None
    return sides, book, ratio


def _frozen_embedder(ctx: Context, base: Record) -> Embedder:
    """Embedder of the run, with what it had fitted.

    Raises:
        InputError: This process would embed otherwise.
    """
    embedder = embed.make_embedder(ctx)
    if [embedder.name, embedder.revision] != base.detail["embedder"]:
        raise InputError(
            f"The run embedded with {base.detail['embedder']}, this process would embed with "
            f"{[embedder.name, embedder.revision]}: set embed.name and embed.revision to the "
            "run's, or run again."
        )
    if not embedder.needs_fit:
        return embedder
    return embedder.with_state(load_arrays(ctx.workspace, base.detail["keys"]["embed_fit"]))


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


def _counts(ws: Workspace, earlier: str, now: str, side: embed.Side) -> dict[str, int]:
    """Rows of the pool that are new, changed and gone since the refresh before, and unusable."""
    columns = ["id", "content_hash", "row_hash"]
    differing = changed_rows(
        ws.read("embeddings", earlier).select(*columns), ws.read("embeddings", now).select(*columns)
    )
    added, changed, gone = count_changes(differing)
    return {
        "new_rows": added,
        "changed_rows": changed,
        "gone_rows": gone,
        "bad_rows": sum(side.bad.values()),
    }


def _moves(ws: Workspace, before: str, after: str) -> dict[str, int]:
    """Rows that were selected before and after, and how many came and went."""
    old, new = (ws.read_table(t).select(F.col("gio_id").alias("id")) for t in (before, after))
    added, _, dropped = count_changes(changed_rows(old, new))
    return {"before": int(old.count()), "added": added, "dropped": dropped,
            "after": int(new.count())}  # fmt: skip


def _newest_run(workspace: Workspace, settings: RunSettings) -> Record:
    """Return the newest finished run with the same settings, pinned versions aside."""
    identity = open_inputs.identity(settings)
    for record in reversed([r for r in workspace.records() if r.stage == "run"]):
        if record.detail["identity"] == identity:
            return record
    raise InputError(
        f"No finished run of this configuration is in the workspace {workspace.location}. "
        "Run `gio-spark run` first; a changed setting makes another run."
    )
