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
from gio_spark.pipeline.context import Context, fingerprint
from gio_spark.pipeline.fits import fitted_state
from gio_spark.pipeline.gate import gate_facts
from gio_spark.pipeline.pull import Order, to_choose_from
from gio_spark.pipeline.series import in_series, measure_refresh
from gio_spark.pipeline.store import load_arrays
from gio_spark.pipeline.strata import kept_by_source
from gio_spark.pipeline.vectors import content_columns
from gio_spark.settings.run import RunSettings
from gio_spark.tables import Input, Record, Workspace, open_input, pin_input, quoted_column
from gio_spark.tracking import NullTracker

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.engine.progress import Stage as StageProgress

ADDED = ("gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_input_version")


@dataclass(frozen=True)
class Refreshed:
    """What a refresh changed; counts of rows, the gate's verdict, metrics that drifted."""

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
    newest = _last(workspace, base.run)
    if newest is None and base.detail["versions"]["pool"] == pin.version:
        count = base.rows
        return Refreshed(base.run, 0, 0, 0, count, 0, 0, count, did_work=False)
    nothing_new = newest is not None and newest.detail["version"] == pin.version
    if newest is not None and nothing_new:
        key = newest.fingerprint
        # A refresh that died between its rows and its metrics left the series without its entry.
        if not settings.gime.on_refresh or in_series(workspace, base, key):
            return Refreshed(**{**newest.detail["counts"], "did_work": False})
    else:
        # The refresh before is part of the key: a pool may go back to files it had once.
        before = "" if newest is None else newest.fingerprint
        key = fingerprint("refresh", base.run, pin.table_id, pin.version, before)
    pool = open_input(spark, pool_now, settings.pool_columns(), "pool", pin)
    refreshed: dict[str, Any] = {}

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        made = _apply(ctx, base, pool, key)
        refreshed.update(made)
        return made["after"], {"counts": {**made, "run_id": base.run}, "version": pin.version}

    record = ctx.stage("refresh", key, "", make, rows=pool.count)
    pool.recheck()
    refreshed = refreshed or {k: v for k, v in record.detail["counts"].items() if k != "run_id"}
    if settings.gime.on_refresh:
        judged = measure_refresh(ctx, base, pool, key)
        refreshed |= {"gate": judged.gate, "drifted": judged.drifted}
    return Refreshed(run_id=base.run, did_work=True, **refreshed)


def _newest_run(workspace: Workspace, settings: RunSettings) -> Record:
    """Return the newest finished run with the same settings, pinned versions aside."""
    outside = {"engine", "tracking", "report", "workspace", "chunk_rows"}
    wanted = settings.model_dump(mode="json", exclude=outside)
    for record in reversed([r for r in workspace.records() if r.stage == "run"]):
        found = {k: v for k, v in record.detail["settings"].items() if k not in outside}
        if found == wanted:
            return record
    raise InputError(
        f"No finished run of this configuration is in the workspace {workspace.location}. "
        "Run `gio-spark run` first; a changed setting makes another run."
    )


def _last(workspace: Workspace, run: str) -> Record | None:
    found = [r for r in workspace.records(run) if r.stage == "refresh"]
    return found[-1] if found else None


def _apply(ctx: Context, base: Record, pool: Input, key: str) -> dict[str, int]:
    """Embed, assign and judge new rows; write the selection anew in one commit."""
    keys = base.detail["keys"]
    ws = ctx.workspace
    # Everything that was ever embedded for this run: its first pool and earlier refreshes.
    earlier = [r.fingerprint for r in ws.records(base.run) if r.stage == "refresh"]
    seen_keys = [keys["embeddings"]["pool"], *earlier]
    seen = ws.read_all("embeddings").where(F.col("fingerprint").isin(seen_keys)).select("id")
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
    state = load_arrays(ws, _embed_fit_key(ctx, base)) if embedder.needs_fit else {}
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
    before = ws.read("selected", base.run, key="gio_run")
    had = before.count()
    # What was taken stays taken; what was not, or was gone for a while, is judged by the plan.
    if keys["ratio"]:
        _score(ctx, base, new, key)
    kept = _kept(ctx, base, [*earlier, key])
    kept = kept.join(before.select(F.col("gio_id").alias("id")), "id", "left_anti")
    kept = kept.join(pool.rows.select("id"), "id", "left_semi")
    added_rows = explode.materialise(
        pool.rows,
        kept,
        expected=pool.count,
        settings=ctx.settings.explode,
        columns={"gio_input_version": pool.version},
    )
    own = [] if ctx.settings.explode.output == "ids" else pool.own(added_rows)
    stay = before.join(pool.rows.select(F.col("id").alias("gio_id")), "gio_id", "left_semi")
    added = added_rows.select(*own, *ADDED)
    names = [quoted_column(c) for c in added.columns]
    both = stay.select(*names).unionByName(added)
    stayed = stay.count()
    # One commit replaces the selection: readers see the old one or the new one.
    after = ws.write("selected", both, fingerprint=base.run, run=ctx.run, stage="refresh")
    gone = seen.join(pool.rows.select("id"), "id", "left_anti").count()
    return {
        "new_rows": new_rows,
        "gone_rows": gone,
        "bad_rows": bad_rows,
        "before": had,
        "added": after - stayed,
        "dropped": had - stayed,
        "after": after,
    }


def _embed_fit_key(ctx: Context, base: Record) -> str:
    """Return the fingerprint of the embedder's fitted state of the run."""
    found = [r for r in ctx.workspace.records() if r.stage == "embed-fit"]
    own = [r for r in found if r.run == base.run] or found
    if not own:
        raise InputError("The run's fitted embedder is gone from `models`; run `gio-spark run`.")
    return own[-1].fingerprint


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
        return ws.read_all(table).where(F.col("fingerprint").isin([first, *refreshes]))

    assigned = ever("assignments", keys["assignments"]["pool"])
    scores = ever("scores", keys["scores"]) if keys["ratio"] else None
    # The order inside cells is the plan's own, with the means and weights of its day.
    rows = to_choose_from(assigned, scores, Order.stored(gate_facts(ws, base)))
    kept = kept_by_source(ctx, base.detail["plan_key"], rows, assigned)
    if kept is not None:
        return kept
    return explode.kept(rows, plan, settings=ctx.settings.explode, seed=ctx.settings.seed)
