"""Stages fit, assign and centroids: vectors to clusters, for pool and targets."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark import quantize
from gio_spark.engine import decode_vectors, encode_vectors
from gio_spark.errors import InputError
from gio_spark.gio import TargetMass
from gio_spark.pipeline.kmeans_checkpoints import (
    centroid_rows,
    fitted_state,
    load_state,
    save_state,
)
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_state import Codebook, Dataset, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.embed import CARRIED, vectors_of
from gio_spark.quantize import ClusterStats, KMeansState, MiniBatchKMeans
from gio_spark.settings.budget import parse_budget
from gio_spark.tables import Chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings

_FIT_SETTINGS = (
    "clusters", "batch_rows", "max_passes", "patience", "tolerance", "decay", "starved_share",
    "init_rows", "spherical", "two_level_above", "probes",
)  # fmt: skip
# A target's own codebook describes its shape; more clusters than this describe its noise.
_TARGET_ROWS_PER_CLUSTER = 5
_TARGET_CLUSTERS = 1_000
_CURVE_ROWS = 4_000
# Pools with fewer rows get a warning that the selection says little.
_FEW_ROWS = 100

# Work that a killed fit may lose: a commit takes a second or two, passes over small tables less.
COMMIT_SECONDS = 20.0


def fit_stage(*, warm: bool = False) -> Stage:
    """Fit the codebook on the pool's vectors; a fit that was killed goes on from its last pass.

    Args:
        warm: Whether it begins with the centroids `warm_start`.
    """
    return Stage(
        "fit pool",
        fit,
        inputs=("embeddings.pool", *(["warm_start"] if warm else [])),
        reads=("datasets", "dimension"),
        outputs=("codebook",),
        settings=(*(f"quantize.{name}" for name in _FIT_SETTINGS), "seed"),
    )


def assign_stages(names: Sequence[str], *, cleaned: bool) -> list[Stage]:
    """Assign the rows of each dataset to the pool's clusters.

    Args:
        names: Of the datasets.
        cleaned: Whether the stage clean removes rows of the pool afterwards.
    """

    def one(name: str) -> Stage:
        gives = "assigned" if cleaned and name == "pool" else "assignments"
        return Stage(
            f"assign {name}",
            lambda step, state: assign(step, state, name, gives),
            inputs=("codebook", f"embeddings.{name}"),
            reads=("datasets",),
            outputs=(f"{gives}.{name}",),
            settings=("quantize.second",),
        )

    return [one(name) for name in names]


def centroid_stages(targets: Sequence[str]) -> list[Stage]:
    """Count the pool's clusters, fit each target's own, and write both to the centroids table."""
    return [
        Stage(
            "cluster stats",
            query=lambda ctx, state: pool_stats(
                ctx, state.assignments["pool"], len(state.codebook.centroids)
            ),
            inputs=("codebook", "assignments.pool"),
            outputs=("cluster_stats",),
            settings=("quantize.reach_quantile",),
        ),
        Stage(
            "target codebooks",
            query=target_codebooks,
            inputs=tuple(f"embeddings.{name}" for name in targets),
            reads=("datasets", "dimension"),
            outputs=("target_codebooks",),
            settings=(
                "quantize.target_clusters", "quantize.max_passes", "quantize.spherical", "seed",
            ),
        ),
        Stage(
            "centroids",
            write_centroids,
            inputs=("cluster_stats", "target_codebooks"),
            reads=("codebook",),
            outputs=("centroids",),
        ),
    ]  # fmt: skip


def target_mass_stage(targets: Sequence[str]) -> Stage:
    """Spread each target over the pool's clusters; weighted by tokens where the budget is."""

    def query(ctx: RunContext, state: RunState) -> list[TargetMass]:
        weight = "tokens" if parse_budget(ctx.settings.budget)[0] == "tokens" else None
        return [mass_of(ctx, state, one, weight=weight) for one in state.datasets.targets]

    return Stage(
        "target mass",
        query=query,
        inputs=("codebook", "cluster_stats", *(f"embeddings.{name}" for name in targets)),
        reads=("datasets",),
        outputs=("target_mass",),
        settings=("budget", "quantize.neighbors", "quantize.spherical", "seed"),
    )


def clusters_for(settings: RunSettings, rows: int, dimension: int) -> int:
    """K: the user's, or one from rows, dimension and memory.

    Raises:
        InputError: More clusters are wanted than there are rows.
    """
    cluster_setting = settings.quantize.clusters
    if isinstance(cluster_setting, int):
        if cluster_setting > rows:
            raise InputError(
                f"{cluster_setting:,} clusters are more than the {rows:,} rows of the pool that "
                f"can be used: set clusters to at most {rows:,}, or to auto."
            )
        return cluster_setting
    return quantize.auto_clusters(rows, dimension)


def fit(step: Step, state: RunState) -> None:
    """Set the codebook."""
    ctx, pool = step.ctx, state.datasets.pool
    settings, ws = ctx.settings.quantize, ctx.workspace
    warm_start = state.get("warm_start")
    clusters = (
        clusters_for(ctx.settings, pool.usable, state.dimension)
        if warm_start is None
        else len(warm_start)
    )
    if settings.clusters == "auto" and pool.usable < _FEW_ROWS:
        ctx.warn(
            "too few rows",
            f"The pool has {pool.usable} usable rows, so only {clusters} cluster(s) were made.",
            "Selection on so few rows says little; use a larger pool.",
        )

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        initial = load_state(ws, step.key)
        saved, written = time.monotonic(), len(initial.centroids) if initial else 0

        def commit(kmeans: KMeansState) -> None:
            nonlocal saved, written
            progress.say(_pass_note(kmeans, settings.max_passes))
            progress.step(kmeans.passes, settings.max_passes)
            if kmeans.finished or time.monotonic() - saved >= COMMIT_SECONDS:
                written = save_state(ctx, kmeans, step.key)
                saved = time.monotonic()

        # With the number left to the tool, people get to see how it stands.
        curve = partial(quantize.error_curve, rows=_CURVE_ROWS, seed=ctx.settings.seed)
        model = MiniBatchKMeans.from_settings(settings, k=clusters, seed=ctx.settings.seed).fit(
            vectors_of(ctx, pool),
            initial=warm_start if initial is None else initial,
            on_pass=commit,
            on_sample=curve if settings.clusters == "auto" else None,
            rows=pool.usable,
            dimension=state.dimension,
        )
        summary = model.summary
        detail = {"clusters": len(model.centroids), "side": "pool", "error_curve": []}
        if summary is not None:
            detail |= {
                "error_curve": summary.of_sample or [],
                "passes": summary.passes,
                "inertia_per_row": summary.inertia,
                "history": list(summary.history),
            }
        return written, detail

    record = step.record(make, table="centroids", fitted_on=pool.usable, claim=True)
    curve = tuple(record.detail.get("error_curve", ()))
    state.codebook = Codebook(fitted_state(ws, step.key).centroids, step.key, curve)


def _pass_note(state: KMeansState, most: int) -> str:
    if not state.history:
        return f"{len(state.centroids):,} first centers"
    return f"pass {state.passes} of at most {most}, inertia {state.history[-1]['inertia']:.5g}"


def assign(step: Step, state: RunState, name: str, gives: str) -> None:
    """Assign a dataset, on the assignments of its earlier version by the same codebook."""
    ctx, ws = step.ctx, step.ctx.workspace
    settings, centroids = ctx.settings.quantize, state.codebook.centroids
    dataset = next(one for one in state.datasets if one.name == name)
    below = ws.base_of("embeddings", dataset.key)
    base = step.key_with(f"embeddings.{name}", below.key) if below else ""
    on_base = bool(base) and ws.complete(step.stage.name, base) is not None

    def assigned(chunk: Chunk) -> DataFrame:
        return quantize.assign(
            vectors_of(ctx, dataset, chunk, only_new=on_base),
            centroids,
            second=settings.second and len(centroids) > 1,
            carry=CARRIED,
            spherical=settings.spherical,
            two_level=len(centroids) > settings.two_level_above,
            probes=settings.probes,
        )

    def make(progress: StageProgress) -> tuple[int, dict[str, Any]]:
        new = vectors_of(ctx, dataset, only_new=True).count() if on_base else dataset.usable
        step.write_chunks(progress, "assignments", assigned, expected=new)
        detail: dict[str, Any] = {"side": name}
        if on_base and below is not None:
            detail["base"] = {"assignments": [base, below.hidden]}
        return dataset.usable, detail

    step.record(make, table="assignments", rows=dataset.usable, claim=name == "pool")
    getattr(state, gives)[name] = step.key


def pool_stats(ctx: RunContext, assignments: str, clusters: int) -> ClusterStats:
    """Figures of the pool's clusters by its assignments."""
    rows = ctx.workspace.read("assignments", assignments)
    return quantize.cluster_stats(rows, clusters, quantile=ctx.settings.quantize.reach_quantile)


def write_centroids(step: Step, state: RunState) -> None:
    """Write the pool's clusters with their figures, and the targets' own."""

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        stats = state.cluster_stats()
        pool = _rows_of("pool", state.codebook.centroids, stats)
        rows = step.write_small("centroids", pa.concat_tables([pool, *state.target_codebooks()]))
        return rows, {"skew": stats.skew(), "reach_limit": stats.limit}

    step.record(make, table="centroids")
    state.centroids = step.key


def target_codebooks(ctx: RunContext, state: RunState) -> list[pa.Table]:
    """Rows of the centroids table that the codebook of each target's own rows makes."""
    return [_target_centroid_rows(ctx, one, state.dimension) for one in state.datasets.targets]


def _target_centroid_rows(ctx: RunContext, dataset: Dataset, dimension: int) -> pa.Table:
    """Rows of the centroids table that a target's own codebook makes."""
    centroids = _target_codebook(ctx, dataset, dimension)
    assigned = quantize.assign(
        vectors_of(ctx, dataset),
        centroids,
        carry=("tokens",),
        spherical=ctx.settings.quantize.spherical,
    )
    return _rows_of(dataset.name, centroids, quantize.cluster_stats(assigned, len(centroids)))


def _target_codebook(ctx: RunContext, dataset: Dataset, dimension: int) -> NDArray[np.float32]:
    settings = ctx.settings.quantize
    cluster_setting = settings.target_clusters
    if isinstance(cluster_setting, int):
        clusters = min(cluster_setting, dataset.usable)
    else:
        clusters = int(np.clip(dataset.usable // _TARGET_ROWS_PER_CLUSTER, 1, _TARGET_CLUSTERS))
    model = MiniBatchKMeans(
        k=clusters,
        seed=ctx.settings.seed,
        max_iter=min(4, settings.max_passes),
        spherical=settings.spherical,
    ).fit(vectors_of(ctx, dataset), rows=dataset.usable, dimension=dimension)
    return model.centroids


def _rows_of(dataset: str, centroids: NDArray[np.float32], stats: ClusterStats) -> pa.Table:
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
    return centroid_rows(dataset, columns)


def centroids_of(ctx: RunContext, key: str, dataset: str) -> tuple[NDArray[np.float32], NDArray]:
    """A dataset's own centroids and the rows of each."""
    table = ctx.workspace.read_arrow("centroids", key, 1 << 20, "centroids")
    table = table.filter(pc.field("side") == dataset).sort_by("cluster")
    return np.array(decode_vectors(table["vector"])), table["rows"].to_numpy()


def mass_of(
    ctx: RunContext,
    state: RunState,
    dataset: Dataset,
    *,
    weight: str | None,
    rows: DataFrame | None = None,
) -> TargetMass:
    """Spread a target's rows, or the given ones of them, over the pool's clusters."""
    settings, stats = ctx.settings.quantize, state.cluster_stats()
    return quantize.target_mass(
        vectors_of(ctx, dataset) if rows is None else rows,
        state.codebook.centroids,
        radius=stats.radius,
        limit=stats.limit,
        neighbors=settings.neighbors,
        weight=weight,
        spherical=settings.spherical,
        seed=ctx.settings.seed,
        rows=dataset.usable if rows is None else None,
    )
