"""Stages scores, plan and selected: what to take of each cluster, and which rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from gio_spark import explode, gio
from gio_spark.engine import bounded
from gio_spark.errors import EmptySelectionError, InputError, WorkspaceError
from gio_spark.gio.checks import failure_signs
from gio_spark.pipeline.constraints.enforce import Steering, steer
from gio_spark.pipeline.constraints.score_bias import Order, to_choose_from
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages.automatic_budget import auto_options
from gio_spark.pipeline.stages.cluster import Codebook, centroids_of, mass_of
from gio_spark.pipeline.stages.density_ratio import Ratio
from gio_spark.pipeline.stages.embed import Side, targets_of
from gio_spark.pipeline.stages.source_strata import in_strata, kept_by_source, save_strata
from gio_spark.settings.run import parse_budget

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.tables import Input, Record, Workspace

log = logging.getLogger(__name__)

_MAX_SOURCES = 10_000
_GIO_SCHEMA = T.StructType(
    [
        T.StructField("gio_id", T.StringType()),
        T.StructField("gio_cluster", T.IntegerType()),
        T.StructField("gio_reason", T.StringType()),
        T.StructField("gio_log_ratio", T.FloatType()),
        T.StructField("gio_input_version", T.StringType()),
        T.StructField("gio_run", T.StringType()),
    ]
)
GIO_COLUMNS = tuple(_GIO_SCHEMA.names)


@dataclass(frozen=True)
class Chosen:
    """The plan of a run.

    Attributes:
        plan: One row per cluster.
        key: Fingerprint of the plan.
        facts: Objective, budget, certificate and path, as plain values.
        ratio: The density ratio, where the rule uses one.
    """

    plan: pd.DataFrame
    key: str
    facts: dict[str, Any]
    ratio: Ratio | None


# ---- plan --------------------------------------------------------------------------------------


def masses(ctx: Context, sides: dict[str, Side], book: Codebook) -> list[gio.TargetMass]:
    """Spread each target over the pool's clusters; weighted by tokens where the budget is."""
    by_tokens = parse_budget(ctx.settings.budget)[0] == "tokens"
    weight = "tokens" if by_tokens else None
    return [mass_of(ctx, side, book, weight=weight) for side in targets_of(sides)]


def plan(
    ctx: Context,
    sides: dict[str, Side],
    book: Codebook,
    ratio: Ratio | None,
    steering: Steering | None,
    found_masses: Callable[[], list[gio.TargetMass]],
) -> Chosen:
    """Choose how much to take of each cluster, and the threshold that rows must pass.

    Where thresholds of the metrics are in force, the plan is held to them. `found_masses` gives
    what `masses` does, and may have been begun before.
    """
    settings = ctx.settings
    key = fingerprint(
        "plan",
        settings.select.model_dump(mode="json"),
        str(settings.budget),
        settings.seed,
        settings.explode.within_cluster,
        settings.explode.temperature,
        settings.quantize.neighbours,
        book.published,
        ratio.key if ratio else "",
        [t.share for t in settings.target],
        *([steering.key] if steering else []),
    )
    ws = ctx.workspace

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        problem = _problem(ctx, sides, book, ratio, found_masses())
        result = gio.select(settings.select.objective, problem)
        if int(result.take.sum()) == 0:
            told = "; ".join(f"{n.text} {n.remedy}" for n in result.notices)
            raise EmptySelectionError(told or "The plan takes no row of any cluster.")

        def strata_of(rows: DataFrame, take: np.ndarray) -> tuple[DataFrame, pd.DataFrame]:
            sources = ws.read("assignments", book.assignments["pool"])
            counts, names = problem.source_counts, problem.source_names
            return in_strata(ctx, rows, sources, counts=np.asarray(counts), take=take, names=names)

        gate = None
        if steering is not None:

            def keep(take: np.ndarray, order: Order) -> DataFrame:
                rows = _rows_to_choose_from(ctx, book, ratio, order)
                if take.ndim > 1:
                    chosen_from, table = strata_of(rows, take)
                    return explode.kept(
                        chosen_from, table, settings=settings.explode, seed=settings.seed
                    )
                table = explode.with_thresholds(
                    rows,
                    _plan_table(replace(result, take=take), problem),
                    settings=settings.explode,
                    seed=settings.seed,
                )
                return explode.kept(rows, table, settings=settings.explode, seed=settings.seed)

            result, gate = steer(steering, result, problem, keep)
        rows = _rows_to_choose_from(ctx, book, ratio, Order.stored(gate))
        target_rows = sum(s.usable for s in targets_of(sides))
        signs = failure_signs(
            result,
            problem.sizes,
            problem.pool_centroids,
            target_rows=target_rows,
            seed=settings.seed,
        )
        table = _plan_table(result, problem)
        table = explode.with_thresholds(rows, table, settings=settings.explode, seed=settings.seed)
        if result.take_by_source is not None:
            found = strata_of(rows, result.take_by_source)[1]
            save_strata(ctx, key, found, problem.source_names)
        rows_of_plan = pa.Table.from_pandas(table, preserve_index=False)
        written = ctx.write_small("plan", rows_of_plan, key=key, stage="plan")
        return written, {**_facts(result, problem, signs), "gate": gate}

    record = ctx.stage("plan", key, "plan", make)
    table = ws.read_arrow("plan", key, 1 << 20, "clusters of the plan").to_pandas()
    table = table.sort_values("cluster", ignore_index=True)
    for name, text, remedy in record.detail["notices"]:
        ctx.caution(name.replace("_", " "), text, remedy)
    return Chosen(table, key, record.detail, ratio)


def _rows_to_choose_from(
    ctx: Context, book: Codebook, ratio: Ratio | None, order: Order
) -> DataFrame:
    scores = None
    if ratio is not None and ctx.settings.explode.within_cluster == "density_ratio":
        scores = ctx.workspace.read("scores", ratio.key)
    return to_choose_from(
        ctx.workspace.read("assignments", book.assignments["pool"]), scores, order
    )


def _problem(
    ctx: Context,
    sides: dict[str, Side],
    book: Codebook,
    ratio: Ratio | None,
    found_masses: list[gio.TargetMass],
) -> gio.SelectionProblem:
    settings = ctx.settings
    unit, amount = parse_budget(settings.budget)
    by_tokens = unit == "tokens"
    targets = targets_of(sides)
    mass, unreachable = gio.mix_targets(found_masses, [t.share for t in settings.target])
    points, weights = [], []
    for side, target in zip(targets, settings.target, strict=True):
        own, rows = centroids_of(ctx, book.published, side.name)
        points.append(own)
        weights.append(target.share * rows / max(rows.sum(), 1))
    budget: float | str = amount
    options = dict(settings.select.options)
    if unit == "auto" and ratio is not None:
        budget = "auto"
        options |= auto_options(ctx, sides, book, ratio)
    elif unit == "share":
        budget = float(max(1, round(amount * float(book.stats.rows.sum()))))
    counts, tokens, names = _sources(ctx, book)
    return gio.SelectionProblem(
        pool_centroids=book.centroids,
        sizes=book.stats.rows,
        target_mass=mass,
        budget=budget,
        unit="tokens" if by_tokens else "rows",
        tokens=book.stats.tokens,
        target_centroids=np.concatenate(points),
        target_weights=np.concatenate(weights),
        unreachable=unreachable,
        replay=settings.select.replay,
        source_counts=counts,
        source_tokens=tokens,
        source_names=names,
        caps=settings.select.source_caps,
        floors=settings.select.source_floors,
        quality=_quality(ctx, book) if settings.select.use_quality else None,
        seed=settings.seed,
        options=options,
    )


def _sources(
    ctx: Context, book: Codebook
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Return rows and tokens per cluster and source, and the sources' names."""
    if not (ctx.settings.select.source_caps or ctx.settings.select.source_floors):
        return None, None, ()
    rows = ctx.workspace.read("assignments", book.assignments["pool"])
    counted = rows.groupBy("cluster", F.coalesce("source", F.lit("")).alias("source")).agg(
        F.count(F.lit(1)).alias("rows"),
        F.sum(F.coalesce("tokens", F.lit(0))).cast("bigint").alias("tokens"),
    )
    table = bounded(counted, _MAX_SOURCES * 100, "rows per cluster and source").to_pandas()
    names = tuple(sorted(table["source"].unique()))
    if len(names) > _MAX_SOURCES:
        raise InputError(f"{len(names):,} sources are too many for caps and floors.")
    found = np.zeros((2, len(book.centroids), len(names)), np.int64)
    at = {name: i for i, name in enumerate(names)}
    place = [at[s] for s in table["source"]]
    found[0, table["cluster"], place] = table["rows"]
    found[1, table["cluster"], place] = table["tokens"]
    return found[0], found[1], names


def _quality(ctx: Context, book: Codebook) -> np.ndarray:
    """Return the mean quality of each cluster; rows without one count as the pool's mean."""
    rows = ctx.workspace.read("assignments", book.assignments["pool"])
    # Whole numbers add up to the same in any order, floats do not.
    whole = F.round(F.col("quality") * F.lit(1_000_000)).cast("bigint")
    summed = (
        rows.where(F.col("quality").isNotNull())
        .groupBy("cluster")
        .agg(F.sum(whole).alias("total"), F.count(F.lit(1)).alias("rows"))
    )
    table = bounded(summed, len(book.centroids), "quality per cluster").to_pandas()
    if table.empty:
        raise InputError("select.use_quality is set, but no row has a quality; set columns.quality")
    mean = table["total"].sum() / table["rows"].sum() / 1e6
    quality = np.full(len(book.centroids), mean)
    quality[table["cluster"]] = table["total"] / table["rows"] / 1e6
    return np.clip(quality, 0.0, None)


def _plan_table(result: gio.SelectionResult, problem: gio.SelectionProblem) -> pd.DataFrame:
    count = len(result.take)
    order = np.full(count, -1, np.int64)
    order[result.order] = np.arange(len(result.order))
    after = np.full(count, np.nan)
    after[result.order] = result.divergence_path
    return pd.DataFrame(
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


def _facts(
    result: gio.SelectionResult, problem: gio.SelectionProblem, signs: tuple[gio.Notice, ...]
) -> dict[str, Any]:
    certificate = result.certificate
    return {
        "objective": result.objective,
        "budget": result.budget,
        "unit": result.unit,
        "spent": result.spent,
        "rows": int(result.take.sum()),
        "divergence": float(result.divergence),
        "lost_mass": float(result.lost_mass),
        "certificate": (
            [certificate.primal, certificate.dual, certificate.gap] if certificate else None
        ),
        "binding": list(result.binding),
        "notices": [[n.name, n.text, n.remedy] for n in (*result.notices, *signs)],
        "auto": _auto_facts(problem) if problem.budget == "auto" else None,
        "divergences": divergences(result.target_mass, problem.sizes, result.take, problem.seed),
    }


def _auto_facts(problem: gio.SelectionProblem) -> dict[str, Any]:
    return {k: problem.options[k] for k in ("kappa", "heldout_budget", "curve")}


def smoothed_kl(law: np.ndarray, counts: np.ndarray) -> float:
    """Return KL(p || counts + 1/2, normalised) in nats: finite for any whole numbers."""
    used = law > 0
    if not used.any():
        return float("nan")
    p = law[used] / law[used].sum()
    q = (counts + 0.5) / (counts + 0.5).sum()
    return float(np.sum(p * np.log(p / q[used])))


def smoothed_path(law: np.ndarray, take: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return `smoothed_kl` after each cluster of `order` is added; it ends at the plan's own."""
    used = law > 0
    if not used.any() or not len(order):
        return np.zeros(len(order))
    p = np.where(used, law, 0.0) / law[used].sum()
    entropy = float(np.sum(p[used] * np.log(p[used])))
    gains = p[order] * (np.log(take[order] + 0.5) - np.log(0.5))
    cross = np.log(0.5) + np.cumsum(gains)
    return entropy - cross + np.log(np.cumsum(take[order]) + 0.5 * len(law))


def divergences(
    law: np.ndarray, sizes: np.ndarray, take: np.ndarray, seed: int
) -> dict[str, float]:
    """Return the smoothed KL of the pool, of random rows (as many as taken) and of the plan."""
    generator = np.random.default_rng(seed)
    sizes = np.asarray(sizes, np.int64)
    draw = int(take.sum())
    random = [
        smoothed_kl(law, generator.multivariate_hypergeometric(sizes, draw, method="marginals"))
        for _ in range(8)
    ]
    return {
        "pool": smoothed_kl(law, sizes),
        "random": float(np.mean(random)),
        "selection": smoothed_kl(law, np.asarray(take)),
    }


# ---- rows --------------------------------------------------------------------------------------


def select_rows(
    ctx: Context, sides: dict[str, Side], book: Codebook, chosen: Chosen
) -> tuple[DataFrame, int]:
    """Write the selected rows of this run; gives them and their number."""
    ws = ctx.workspace
    pool = sides["pool"].source
    expected = int(chosen.plan["take"].sum())

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        kept = kept_ids(ctx, book, chosen)
        exact = ctx.settings.explode.within_cluster != "hash_share"
        table, written = write_candidate(ctx, pool, kept, expected=expected, exact=exact)
        pool.recheck()
        return written, {"plan": chosen.key, "table": table, "version": pool.version}

    record = ctx.stage("select rows", ctx.run, "", make, rows=pool.count, claim=True)
    return ws.read_table(record.table), record.rows


def write_candidate(
    ctx: Context,
    pool: Input,
    kept: DataFrame,
    *,
    expected: int,
    exact: bool = False,
) -> tuple[str, int]:
    """Write selected rows as a table of its own, which nobody reads before it is published.

    Args:
        ctx: The run.
        pool: The pool that the rows are taken from.
        kept: id, cluster, reason and log_ratio of the rows to fetch.
        expected: About how many these are.
        exact: Whether it must be this number.

    Returns:
        Name of the table and its rows.

    Raises:
        WorkspaceError: It does not hold as many rows as were chosen.
    """
    settings = ctx.settings.explode
    rows = explode.materialise(
        pool.rows,
        kept,
        expected=expected,
        settings=settings,
        columns={"gio_run": ctx.run, "gio_input_version": pool.version},
    )
    own = [] if settings.output == "ids" else pool.own(rows)
    rows = rows.select(*own, *GIO_COLUMNS)
    chosen_rows = int(kept.count())
    if exact and chosen_rows != expected:
        raise WorkspaceError(
            f"The plan takes {expected:,} rows, but {chosen_rows:,} pass its thresholds: rows of "
            f"{ctx.workspace.place('assignments')} or scores changed meanwhile. Run again."
        )
    own_schema = T.StructType() if settings.output == "ids" else pool.schema
    schema = T.StructType([*own_schema.fields, *_GIO_SCHEMA.fields])
    return ctx.workspace.write_selection(rows, schema, run=ctx.run, expected=chosen_rows)


def frozen_plan(workspace: Workspace, run: Record, ratio: Ratio | None) -> Chosen:
    """Plan of a finished run, for the rows that a ratio has scored since.

    Raises:
        WorkspaceError: It is gone.
    """
    key = run.detail["plan_key"]
    records = workspace.recorded("plan", key)
    if not records:
        raise WorkspaceError(f"{workspace.place('plan')} lacks the plan of {run.run}. Run again.")
    table = workspace.read_arrow("plan", key, 1 << 20, "clusters of the plan").to_pandas()
    table = table.sort_values("cluster", ignore_index=True)
    return Chosen(table, key, records[-1].detail, ratio)


def kept_ids(ctx: Context, book: Codebook, chosen: Chosen) -> DataFrame:
    """Return id, cluster, reason and log_ratio of the rows that the plan keeps."""
    rows = _rows_to_choose_from(ctx, book, chosen.ratio, Order.stored(chosen.facts.get("gate")))
    if not (ctx.settings.select.source_caps or ctx.settings.select.source_floors):
        return explode.kept(
            rows, chosen.plan, settings=ctx.settings.explode, seed=ctx.settings.seed
        )
    sources = ctx.workspace.read("assignments", book.assignments["pool"])
    kept = kept_by_source(ctx, chosen.key, rows, sources)
    if kept is not None:
        return kept
    return explode.kept(rows, chosen.plan, settings=ctx.settings.explode, seed=ctx.settings.seed)
