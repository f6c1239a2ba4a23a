"""Stages fit, assign and centroids: vectors to clusters, for pool and target."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark import quantize
from gio_spark.engine import decode_vectors, encode_vectors
from gio_spark.errors import InputError
from gio_spark.gio import TargetMass
from gio_spark.pipeline.stage_runner import Context, fingerprint
from gio_spark.pipeline.stages.embed import CARRIED, Side, targets_of, vectors_of
from gio_spark.pipeline.stages.kmeans_checkpoints import (
    centroid_rows,
    fitted_state,
    load_state,
    save_state,
)
from gio_spark.quantize import ClusterStats, KMeansState, MiniBatchKMeans
from gio_spark.tables import Chunk, chunks_for

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings

_FIT_SETTINGS = {
    "clusters", "batch_rows", "max_passes", "patience", "tolerance", "decay", "starved_share",
    "init_rows", "spherical", "two_level_above", "probes",
}  # fmt: skip
# A target's own codebook describes its shape; more clusters than this describe its noise.
_TARGET_ROWS_PER_CLUSTER = 5
_TARGET_CLUSTERS = 1_000
_CURVE_ROWS = 4_000
# Where the state of a fit is kept, and how.
_FIT_FORMAT = 2

# Work that a killed fit may lose: a commit takes a second or two, passes over small tables less.
COMMIT_SECONDS = 20.0


@dataclass(frozen=True)
class Codebook:
    """A codebook with its rows assigned.

    Attributes:
        centroids: (K, d) float32.
        key: Fingerprint of the fit.
        assignments: Side -> fingerprint of its assignments.
        stats: Figures of the pool's clusters.
        published: Fingerprint of the rows in the centroids table.
        curve: Quantisation error over the number of clusters, on a sample, where that number was
            chosen by the tool.
    """

    centroids: NDArray[np.float32]
    key: str
    assignments: dict[str, str]
    stats: ClusterStats
    published: str
    curve: tuple[dict[str, float], ...] = ()


def clusters_for(settings: RunSettings, rows: int, dimension: int) -> int:
    """Return K: the user's, or one from rows, dimension and memory.

    Raises:
        InputError: More clusters are wanted than there are rows.
    """
    wanted = settings.quantize.clusters
    if isinstance(wanted, int):
        if wanted > rows:
            raise InputError(
                f"{wanted:,} clusters are more than the {rows:,} rows of the pool that can be "
                f"used: set clusters to at most {rows:,}, or to auto."
            )
        return wanted
    return quantize.auto_clusters(rows, dimension)


def fit(
    ctx: Context, side: Side, clusters: int, dimension: int
) -> tuple[NDArray[np.float32], str, tuple[dict[str, float], ...]]:
    """Fit a codebook on a side's vectors; a fit that was killed goes on from its last pass."""
    settings = ctx.settings.quantize
    used = settings.model_dump(mode="json", include=_FIT_SETTINGS)
    key = fingerprint("fit", _FIT_FORMAT, used, clusters, ctx.settings.seed, side.key)
    ws = ctx.workspace

    def make(shown: StageProgress) -> tuple[int, dict[str, Any]]:
        initial = load_state(ws, key)
        saved, written = time.monotonic(), len(initial.centroids) if initial else 0

        def commit(state: KMeansState) -> None:
            nonlocal saved, written
            shown.say(_pass_note(state, settings.max_passes))
            if state.finished or time.monotonic() - saved >= COMMIT_SECONDS:
                written = save_state(ctx, state, key)
                saved = time.monotonic()

        # With the number left to the tool, people get to see how it stands.
        curve = partial(quantize.error_curve, rows=_CURVE_ROWS, seed=ctx.settings.seed)
        model = MiniBatchKMeans.from_settings(settings, k=clusters, seed=ctx.settings.seed).fit(
            vectors_of(ctx, side),
            initial=initial,
            on_pass=commit,
            on_sample=curve if settings.clusters == "auto" else None,
            rows=side.usable,
            dimension=dimension,
        )
        summary = model.summary
        detail = {
            "clusters": len(model.centroids),
            "side": side.name,
            "error_curve": [],
        }
        if summary is not None:
            detail |= {
                "error_curve": summary.of_sample or [],
                "passes": summary.passes,
                "inertia_per_row": summary.inertia,
                "history": list(summary.history),
            }
        return written, detail

    record = ctx.stage(
        f"fit {side.name}", key, "centroids", make, fitted_on=side.usable, claim=True
    )
    curve = tuple(record.detail.get("error_curve", ()))
    return fitted_state(ws, key).centroids, key, curve


def _pass_note(state: KMeansState, most: int) -> str:
    if not state.history:
        return f"{len(state.centroids):,} first centres"
    return f"pass {state.passes} of at most {most}, inertia {state.history[-1]['inertia']:.5g}"


def assign(
    ctx: Context, sides: dict[str, Side], centroids: NDArray[np.float32], fit_key: str
) -> dict[str, str]:
    """Assign the rows of all sides to the pool's clusters; gives the fingerprints of each."""
    return {name: _assign_side(ctx, side, centroids, fit_key) for name, side in sides.items()}


def _assign_side(ctx: Context, side: Side, centroids: NDArray[np.float32], fit_key: str) -> str:
    """Write the assignments of a side, on those of its earlier version by the same codebook."""
    settings, ws, stage = ctx.settings.quantize, ctx.workspace, f"assign {side.name}"
    key = fingerprint("assign", fit_key, settings.second, side.key)
    below = ws.base_of("embeddings", side.key)
    base = fingerprint("assign", fit_key, settings.second, below.key) if below else ""
    on_base = bool(base) and ws.complete(stage, base) is not None

    def assigned(chunk: Chunk) -> DataFrame:
        return quantize.assign(
            vectors_of(ctx, side, chunk, only_new=on_base),
            centroids,
            second=settings.second and len(centroids) > 1,
            carry=CARRIED,
            spherical=settings.spherical,
            two_level=len(centroids) > settings.two_level_above,
            probes=settings.probes,
        )

    def make(shown: StageProgress) -> tuple[int, dict[str, Any]]:
        new = vectors_of(ctx, side, only_new=True).count() if on_base else side.usable
        ctx.write_chunks(
            shown,
            "assignments",
            assigned,
            count=chunks_for(new, ctx.settings.chunk_rows),
            key=key,
            stage=stage,
            expected=new,
        )
        detail: dict[str, Any] = {"side": side.name}
        if on_base and below is not None:
            detail["base"] = {"assignments": [base, below.hidden]}
        return side.usable, detail

    ctx.stage(stage, key, "assignments", make, rows=side.usable, claim=side.name == "pool")
    return key


def quantise(ctx: Context, sides: dict[str, Side], dimension: int) -> Codebook:
    """Fit the pool's codebook, assign pool and targets to it, and publish the centroids."""
    pool = sides["pool"]
    clusters = clusters_for(ctx.settings, pool.usable, dimension)
    if not isinstance(ctx.settings.quantize.clusters, int) and pool.usable < 100:
        ctx.caution(
            "too few rows",
            f"The pool has {pool.usable} usable rows, so only {clusters} cluster(s) were made.",
            "Selection on so few rows says little; use a larger pool.",
        )
    centroids, fit_key, curve = fit(ctx, pool, clusters, dimension)
    keys = assign(ctx, sides, centroids, fit_key)
    stats, published = publish(ctx, sides, centroids, fit_key, keys)
    return Codebook(centroids, fit_key, keys, stats, published, curve)


def pool_stats(ctx: Context, assignments: str, clusters: int) -> ClusterStats:
    """Figures of the pool's clusters by its assignments."""
    rows = ctx.workspace.read("assignments", assignments)
    return quantize.cluster_stats(rows, clusters, quantile=ctx.settings.quantize.reach_quantile)


def publish(
    ctx: Context,
    sides: dict[str, Side],
    centroids: NDArray[np.float32],
    fit_key: str,
    keys: dict[str, str],
) -> tuple[ClusterStats, str]:
    """Write the centroids table: the pool's clusters with their figures, and the targets' own."""
    settings = ctx.settings.quantize
    key = fingerprint(
        "centroids",
        fit_key,
        keys,
        settings.target_clusters,
        settings.reach_quantile,
        ctx.settings.seed,
    )

    def rows_of_targets() -> list[pa.Table]:
        return [_own_rows(ctx, s, centroids.shape[1]) for s in targets_of(sides)]

    own = ctx.ahead("centroids", key, rows_of_targets)
    # One scan of a skinny table; cheap enough to do again when the stage itself is complete.
    stats = pool_stats(ctx, keys["pool"], len(centroids))

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        table = pa.concat_tables([_rows_of("pool", centroids, stats), *own()])
        rows = ctx.write_small("centroids", table, key=key, stage="centroids")
        return rows, {"skew": stats.skew(), "reach_limit": stats.limit}

    ctx.stage("centroids", key, "centroids", make)
    return stats, key


def _own_rows(ctx: Context, side: Side, dimension: int) -> pa.Table:
    """Return the rows of the centroids table that a target's own codebook makes."""
    own = _own_codebook(ctx, side, dimension)
    found = quantize.assign(
        vectors_of(ctx, side), own, carry=("tokens",), spherical=ctx.settings.quantize.spherical
    )
    return _rows_of(side.name, own, quantize.cluster_stats(found, len(own)))


def _own_codebook(ctx: Context, side: Side, dimension: int) -> NDArray[np.float32]:
    settings = ctx.settings.quantize
    wanted = settings.target_clusters
    if isinstance(wanted, int):
        clusters = min(wanted, side.usable)
    else:
        clusters = int(np.clip(side.usable // _TARGET_ROWS_PER_CLUSTER, 1, _TARGET_CLUSTERS))
    model = MiniBatchKMeans(
        k=clusters,
        seed=ctx.settings.seed,
        max_iter=min(4, settings.max_passes),
        spherical=settings.spherical,
    ).fit(vectors_of(ctx, side), rows=side.usable, dimension=dimension)
    return model.centroids


def _rows_of(side: str, centroids: NDArray[np.float32], stats: ClusterStats) -> pa.Table:
    count = len(centroids)
    columns = {
        "cluster": pa.array(np.arange(count, dtype=np.int32)),
        "vector": encode_vectors(centroids),
        "rows": pa.array(stats.rows),
        "tokens": pa.array(stats.tokens),
        "inertia": pa.array(stats.inertia),
        "radius": pa.array(stats.radius),
        "far": pa.array(stats.far),
    }
    return centroid_rows(side, columns)


def centroids_of(ctx: Context, key: str, side: str) -> tuple[NDArray[np.float32], NDArray]:
    """Return a side's own centroids and the rows of each."""
    table = ctx.workspace.read_arrow("centroids", key, 1 << 20, "centroids")
    table = table.filter(pc.field("side") == side).sort_by("cluster")
    return np.array(decode_vectors(table["vector"])), table["rows"].to_numpy()


def mass_of(
    ctx: Context,
    side: Side,
    book: Codebook,
    *,
    weight: str | None,
    rows: DataFrame | None = None,
) -> TargetMass:
    """Spread a target's rows, or the given ones of them, over the pool's clusters."""
    settings = ctx.settings.quantize
    return quantize.target_mass(
        vectors_of(ctx, side) if rows is None else rows,
        book.centroids,
        radius=book.stats.radius,
        limit=book.stats.limit,
        neighbours=settings.neighbours,
        weight=weight,
        spherical=settings.spherical,
        seed=ctx.settings.seed,
        rows=side.usable if rows is None else None,
    )
