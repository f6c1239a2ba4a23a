"""`gio-spark refresh`, first cut: a grown pool meets the frozen plan.

Only ids not seen before are embedded and assigned; the plan's thresholds, the codebook, the
embedder's and the ratio's fitted state stay as the run left them; rows whose ids are gone are
dropped from the selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark import embed, explode, quantize
from gio_spark.engine import bounded, describe, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import InputError, TooManyBadRowsError
from gio_spark.pipeline import prepare, vectors
from gio_spark.pipeline.choose import write_candidate
from gio_spark.pipeline.context import Context, fingerprint
from gio_spark.pipeline.fits import fitted_state
from gio_spark.pipeline.gate import gate_facts
from gio_spark.pipeline.ground import rows_of_keys
from gio_spark.pipeline.publishing import (
    REFRESH,
    Publication,
    audit_and_publish,
    find_candidate,
    is_audited,
    publish_audited,
    refreshes_of,
)
from gio_spark.pipeline.pull import Order, to_choose_from
from gio_spark.pipeline.series import in_series, measure_refresh
from gio_spark.pipeline.store import load_arrays
from gio_spark.pipeline.strata import kept_by_source
from gio_spark.pipeline.vectors import content_columns
from gio_spark.settings.run import RunSettings
from gio_spark.tables import (
    Input,
    Pin,
    Record,
    StageClaims,
    Workspace,
    open_input,
    pin_input,
    quoted_column,
    try_to_prune,
)
from gio_spark.tracking import NullTracker

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.inputs import InputSettings


@dataclass(frozen=True)
class Refreshed:
    """What a refresh changed: counts of rows, the gate's verdict, drift, what is published."""

    run_id: str
    new_rows: int
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
    pool_now = prepare.pin_views(spark, workspace, settings).pool
    pin = pin_input(spark, pool_now, "pool")
    ctx = Context(spark, settings, workspace, base.run, progress, NullTracker())
    claims = StageClaims(workspace, settings.concurrency, progress.say)
    claimed = fingerprint("refresh", base.run)
    with claims.hold(claimed, run=base.run, stage="refresh", finished=lambda: _look(workspace)):
        return _refresh(ctx, base, pool_now, pin)


def _look(workspace: Workspace) -> None:
    """See what another refresh has recorded in the meantime."""
    workspace.reload()


def _refresh(ctx: Context, base: Record, pool_now: InputSettings, pin: Pin) -> Refreshed:
    """Follow the pool, judge what came of it, and publish it where it passes."""
    workspace, settings = ctx.workspace, ctx.settings
    chain = refreshes_of(workspace, base.run)
    newest = chain[-1] if chain else None
    if newest is None and _is_same(base.detail["versions"]["pool"], base.detail, pin):
        candidate = find_candidate(workspace, base.run)
        publication = publish_audited(workspace, settings, candidate, ctx.progress.say)
        count = base.rows
        return Refreshed(
            base.run, 0, 0, 0, count, 0, 0, count, did_work=False, publication=publication
        )
    nothing_new = newest is not None and _is_same(newest.detail["version"], newest.detail, pin)
    if newest is not None and nothing_new:
        key = newest.fingerprint
        # A refresh that died between its rows and its audit goes on with what is missing.
        measured_rows = not settings.gime.on_refresh or in_series(workspace, base, key)
        candidate = find_candidate(workspace, base.run)
        if measured_rows and is_audited(workspace, settings, candidate):
            publication = publish_audited(workspace, settings, candidate, ctx.progress.say)
            counts = {**newest.detail["counts"], "did_work": False}
            return Refreshed(**counts, publication=publication)
        before, number = newest.detail["before"], newest.detail["number"]
    else:
        # The refresh before is part of the key: a pool may go back to files it had once.
        before = "" if newest is None else newest.fingerprint
        number = 1 if newest is None else newest.detail["number"] + 1
        key = fingerprint("refresh", base.run, pin.table_id, pin.version, before)
    pool = open_input(ctx.spark, pool_now, settings.pool_columns(), "pool", pin)
    counts = {}

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        table, made = _apply(ctx, base, pool, key)
        pool.recheck()
        counts.update(made)
        return made["after"], {
            "counts": {**made, "run_id": base.run},
            "version": pin.version,
            "table_id": pin.table_id,
            "before": before,
            "number": number,
            "table": table,
        }

    record = ctx.stage(REFRESH, key, "", make, rows=pool.count)
    counts = counts or {k: v for k, v in record.detail["counts"].items() if k != "run_id"}
    problems: list[str] = []
    judged = None
    if settings.gime.on_refresh:
        judged = measure_refresh(ctx, base, pool, key)
        if judged.gate is not None and not judged.gate["passed"]:
            problems.append("the gate fails: " + judged.gate["why"].replace("\n", " "))
        if judged.drifted and settings.publish.on_drift == "hold":
            problems.append("metrics drifted: " + ", ".join(judged.drifted))
    candidate = find_candidate(workspace, base.run)
    publication = audit_and_publish(workspace, settings, candidate, problems, ctx.progress.say)
    problem = try_to_prune(workspace, settings.retention)
    if problem:
        ctx.progress.say(f"retention: {problem}")
    return Refreshed(
        run_id=base.run,
        did_work=True,
        gate=judged.gate if judged else None,
        drifted=judged.drifted if judged else (),
        publication=publication,
        **counts,
    )


def _is_same(version: str, detail: dict[str, Any], pin: Pin) -> bool:
    """Whether a record was made from the table and version that is pinned now.

    A table that was dropped and made again may have the same version number.
    """
    return bool(version == pin.version and detail.get("table_id", pin.table_id) == pin.table_id)


def _newest_run(workspace: Workspace, settings: RunSettings) -> Record:
    """Return the newest finished run with the same settings, pinned versions aside."""
    wanted = prepare.identity(settings)
    for record in reversed([r for r in workspace.records() if r.stage == "run"]):
        if record.detail["identity"] == wanted:
            return record
    raise InputError(
        f"No finished run of this configuration is in the workspace {workspace.location}. "
        "Run `gio-spark run` first; a changed setting makes another run."
    )


def _apply(ctx: Context, base: Record, pool: Input, key: str) -> tuple[str, dict[str, int]]:
    """Embed, assign and judge new rows; write the selection anew as a table of its own."""
    keys = base.detail["keys"]
    ws = ctx.workspace
    # Everything that was ever embedded for this run: its first pool and earlier refreshes.
    earlier = [r.fingerprint for r in refreshes_of(ws, base.run)]
    earlier = [k for k in earlier if k != key]
    seen = rows_of_keys(ws, "embeddings", [keys["embeddings"]["pool"], *earlier]).select("id")
    seen = seen.distinct()
    # A refresh that was interrupted after its embeddings were written starts over with the same
    # fingerprint, so its own rows never count as seen.
    new = pool.rows.join(seen, "id", "left_anti")
    embedder = vectors.make_embedder(ctx)
    if [embedder.name, embedder.revision] != base.detail["embedder"]:
        raise InputError(
            f"The run embedded with {base.detail['embedder']}, this process would embed with "
            f"{[embedder.name, embedder.revision]}: set embed.name and embed.revision to the "
            "run's, or run again."
        )
    state = load_arrays(ws, keys["embed_fit"]) if embedder.needs_fit else {}
    if embedder.needs_fit:
        embedder = embedder.with_state(state)
    out = embed.embed(
        new, embedder, columns=pool.columns, directions=ctx.settings.quantize.spherical
    ).select(
        "*",
        F.lit("pool").alias("side"),
        F.lit(embedder.name).alias("embedder"),
        F.lit(embedder.revision).alias("embedder_revision"),
        F.lit(pool.version).alias("input_version"),
    )
    new_rows = ws.write("embeddings", out, fingerprint=key, run=ctx.run, stage="refresh")
    written = ws.read("embeddings", key)
    bad_rows = _judge(ctx, pool, written, new_rows)
    book = fitted_state(ws, keys["fit"]).centroids
    assigned = quantize.assign(
        written.where(F.col("reason").isNull()).select("id", "vector", *vectors.CARRIED),
        book,
        carry=vectors.CARRIED,
        spherical=ctx.settings.quantize.spherical,
        second=ctx.settings.quantize.second and len(book) > 1,
    )
    ws.write(
        "assignments",
        assigned,
        fingerprint=key,
        run=ctx.run,
        stage="refresh",
        expected=new_rows - bad_rows,
    )
    before = ws.read_table(find_candidate(ws, base.run).table)
    had = before.count()
    # What was taken stays taken; what was not, or was gone for a while, is judged by the plan.
    if keys["ratio"]:
        _score(ctx, base, new, key)
    kept = _kept(ctx, base, [*earlier, key])
    kept = kept.join(before.select(F.col("gio_id").alias("id")), "id", "left_anti")
    kept = kept.join(pool.rows.select("id"), "id", "left_semi")
    stay = before.join(pool.rows.select(F.col("id").alias("gio_id")), "gio_id", "left_semi")
    stayed = stay.count()
    table, after = write_candidate(ctx, pool, kept, expected=pool.count, stays=stay)
    gone = seen.join(pool.rows.select("id"), "id", "left_anti").count()
    return table, {
        "new_rows": new_rows,
        "gone_rows": gone,
        "bad_rows": bad_rows,
        "before": had,
        "added": after - stayed,
        "dropped": had - stayed,
        "after": after,
    }


def _judge(ctx: Context, pool: Input, written: DataFrame, new_rows: int) -> int:
    """Write the new rows' quarantine; stop where too many are unusable."""
    bad = written.where(F.col("reason").isNotNull()).select(
        "id", "reason", F.lit(None).cast("string").alias("detail"), F.lit("pool").alias("side")
    )
    key = fingerprint(
        "refresh-quarantine",
        bounded(written.select("fingerprint").limit(1), 1, "one fingerprint").to_pylist(),
    )
    count = ctx.workspace.write("quarantine", bad, fingerprint=key, run=ctx.run, stage="refresh")
    if count > ctx.settings.quarantine.max_share * max(new_rows, 1):
        raise TooManyBadRowsError(
            f"{pool.name}: {count:,} of {new_rows:,} new rows of {pool.location} "
            f"({content_columns(pool)}) cannot be used, above quarantine.max_share = "
            f"{ctx.settings.quarantine.max_share:g}. Look for the reasons in "
            f"{ctx.workspace.place('quarantine')}, mend the input, or allow a larger share; the "
            "selection is as it was."
        )
    return count


def _score(ctx: Context, base: Record, new: DataFrame, key: str) -> None:
    """Write the log ratio of the new rows by the run's fitted ratio."""
    ws = ctx.workspace
    arrays = load_arrays(ws, base.detail["keys"]["ratio"])
    arrays.pop("facts")
    model = explode.RatioModel.from_arrays(arrays)
    if model.kind == "text":
        column = quoted_column(ctx.settings.pool_columns().text or "")
        content = new.select("id", F.col(column).alias("content"))
    else:
        content = ws.read("embeddings", key).select("id", F.col("vector").alias("content"))
    scored = explode.score(content, model, content="content", keep=())
    rows = ws.read("assignments", key).select("id", "cluster").join(scored, "id", "inner")
    ws.write("scores", rows, fingerprint=key, run=ctx.run, stage="refresh")


def _kept(ctx: Context, base: Record, refreshes: list[str]) -> DataFrame:
    """Return all rows ever assigned for this run that pass its frozen thresholds."""
    ws = ctx.workspace
    keys = base.detail["keys"]
    plan = bounded(ws.read("plan", base.detail["plan_key"]), 1 << 20, "clusters").to_pandas()

    def ever(table: str, first: str) -> DataFrame:
        return rows_of_keys(ws, table, [first, *refreshes])

    assigned = ever("assignments", keys["assignments"]["pool"])
    scores = ever("scores", keys["scores"]) if keys["ratio"] else None
    # The order inside cells is the plan's own, with the means and weights of its day.
    rows = to_choose_from(assigned, scores, Order.stored(gate_facts(ws, base)))
    kept = kept_by_source(ctx, base.detail["plan_key"], rows, assigned)
    if kept is not None:
        return kept
    return explode.kept(rows, plan, settings=ctx.settings.explode, seed=ctx.settings.seed)
