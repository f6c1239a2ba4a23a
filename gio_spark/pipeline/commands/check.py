"""`gio-spark check`: the consistency checks of the method, on the user's own data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F
from sklearn.cluster import KMeans

from gio_spark import gio, quantize
from gio_spark.engine import bounded, decode_vectors, hash53, hash_sample, session
from gio_spark.engine.progress import Progress
from gio_spark.errors import EmptySelectionError
from gio_spark.gio.budgeted_kl_objective import WARN_LOST
from gio_spark.gio.selection_checks import (
    DataCheck,
    mode_coverage,
    negative_consistency,
    quantization_consistency,
    self_consistency,
)
from gio_spark.pipeline.run import run
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_state import Dataset, RunState
from gio_spark.pipeline.stage_runner import run_stages
from gio_spark.pipeline.stages.embed import vectors_of
from gio_spark.pipeline.stages.open_inputs import open_context, pin_inputs
from gio_spark.pipeline.stages.run_graph import run_graph
from gio_spark.quantize import ClusterStats
from gio_spark.report.checks_page import render_checks
from gio_spark.settings.run import RunSettings
from gio_spark.tables.output_folders import report_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

_SAMPLE = 4_000
# Rows taken per mode of the target, on average, and those expected of a mode that is judged.
_ROWS_PER_MODE, _ROWS_TO_JUDGE = 40, 20


@dataclass(frozen=True)
class _FinishedRun:
    """Stages of a run up to the clusters, and its selection where it has one."""

    ctx: RunContext
    state: RunState

    @property
    def centroids(self) -> NDArray[np.float32]:
        return self.state.codebook.centroids

    @property
    def stats(self) -> ClusterStats:
        return self.state.cluster_stats()

    def dataset(self, name: str) -> Dataset:
        return next(one for one in self.state.datasets if one.name == name)

    def vectors(self, name: str) -> DataFrame:
        return vectors_of(self.ctx, self.dataset(name)).select("id", "vector")

    def sample(self, name: str, rows: int) -> NDArray[np.float32]:
        salt = f"check-{self.ctx.settings.seed}"
        table = hash_sample(self.vectors(name), rows, salt, total=self.dataset(name).usable)
        return np.array(decode_vectors(table["vector"], self.centroids.shape[1]))

    def selected_sample(self, rows: int) -> NDArray[np.float32]:
        """Vectors of a hash sample of the selected rows."""
        selection = self.state.selection
        ids = hash_sample(
            selection.rows.select(F.col("gio_id").alias("id")),
            rows,
            f"check-taken-{self.ctx.settings.seed}",
            total=selection.count,
        )
        sampled = F.broadcast(self.ctx.workspace.frame(ids.select(["id"])))
        vectors = self.vectors("pool").join(sampled, "id", "left_semi")
        table = bounded(vectors, rows, "selected vectors").sort_by("id")
        return np.array(decode_vectors(table["vector"], self.centroids.shape[1]))


@dataclass(frozen=True)
class Checked:
    """Verdicts, and the page that shows them with pictures."""

    checks: list[DataCheck]
    page: Path


def check(settings: RunSettings, *, spark: SparkSession | None = None) -> Checked:
    """Complete the run, then check its codebook, its reach and its coverage.

    Args:
        settings: Of the run.
        spark: Session.

    Returns:
        One verdict per check: self-, negative- and quantization-consistency (Everaert and Potts,
        arXiv 2306.11670, section 4), and reach and coverage of each target; and the page with
        their pictures. Where nothing is selected, coverage is left out.
    """
    spark = spark or session(settings.engine)
    nothing_selected = ""
    try:
        run(settings, spark=spark)
    except EmptySelectionError as error:
        nothing_selected = str(error)
    finished = _open_finished_run(settings, spark, selected=not nothing_selected)
    ctx, state = finished.ctx, finished.state
    stats, targets = finished.stats, [one.name for one in state.datasets.targets]
    rows = finished.sample("pool", _SAMPLE)
    checks = [
        _self(finished),
        negative_consistency(
            state.codebook.centroids,
            stats.radius,
            stats.limit,
            finished.sample(targets[0], _SAMPLE),
        ),
        quantization_consistency(
            rows, state.codebook.centroids, pool_rows=int(stats.rows.sum()), seed=settings.seed
        ),
        _target_reach(finished, nothing_selected),
        *(_coverage(finished, name) for name in targets if not nothing_selected),
    ]
    page = render_checks(
        checks,
        report_folder(ctx.workspace, ctx.run) / "checks",
        facts={"run": ctx.run, "pool": f"{state.pool_rows:,} rows"},
        error_curve=quantize.error_curve(rows, seed=settings.seed),
        clusters=len(state.codebook.centroids),
    )
    return Checked(checks, page)


def _open_finished_run(
    settings: RunSettings, spark: SparkSession, *, selected: bool
) -> _FinishedRun:
    ctx = open_context(settings, spark=spark, progress=Progress("silent"), dry=True)
    pinned = pin_inputs(ctx)
    ctx.run = pinned.run_id
    state = pinned.open()
    goals = ["centroids", "cluster_stats", "target_mass", *(["selection"] if selected else [])]
    run_stages(ctx, run_graph(settings), state, goals)
    return _FinishedRun(ctx, state)


def _target_reach(finished: _FinishedRun, nothing_selected: str) -> DataCheck:
    """Check that the pool has rows near the user's own target, and that some were selected."""
    shares = [target.share for target in finished.ctx.settings.target]
    _, lost = gio.mix_targets(finished.state.target_mass(), shares)
    return DataCheck(
        "target_reach",
        lost <= WARN_LOST and not nothing_selected,
        f"{lost:.1%} of the target is out of the pool's reach (up to {WARN_LOST:.0%} is fine)."
        + (f" Nothing is selected: {nothing_selected}" if nothing_selected else ""),
        "See that pool and target are the same kind of data and went through the same embedder and "
        "columns, or add pool data of the missing kind.",
        {"unreachable": lost},
    )


def _codebook(
    finished: _FinishedRun, name: str
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Centroids, rows and radii of a dataset's own clusters."""
    rows = finished.ctx.workspace.read("centroids", finished.state.centroids)
    rows = rows.where(F.col("side") == name).select("cluster", "vector", "rows", "radius")
    table = bounded(rows, 1 << 20, "centroids").sort_by("cluster")
    return (
        np.array(decode_vectors(table["vector"])),
        table["rows"].to_numpy(),
        table["radius"].to_numpy(),
    )


def _self(finished: _FinishedRun) -> DataCheck:
    """One half of a sample of the pool is the target, the other half judges."""
    salt = f"check-halves-{finished.ctx.settings.seed}"
    part = hash53("id", salt) % 10
    target = finished.vectors("pool").where(part == 0)
    mass = quantize.target_mass(
        target,
        finished.centroids,
        radius=finished.stats.radius,
        limit=float("inf"),
        neighbors=finished.ctx.settings.quantize.neighbors,
        spherical=finished.ctx.settings.quantize.spherical,
        seed=finished.ctx.settings.seed,
    )
    other = (
        finished.ctx.workspace.read("assignments", finished.state.assignments["pool"])
        .where(part == 1)
        .groupBy("cluster")
        .count()
    )
    row_counts = bounded(other, len(finished.centroids), "rows per cluster")
    counts = np.zeros(len(finished.centroids))
    counts[row_counts["cluster"].to_numpy()] = row_counts["count"].to_numpy()
    return self_consistency(mass.mass, counts, finished.stats.rows)


def _coverage(finished: _FinishedRun, target: str) -> DataCheck:
    """Judge whether every mode of a target is covered by the rows that were taken."""
    target_centroids, rows, radii = _codebook(finished, target)
    taken = finished.selected_sample(_SAMPLE)
    # A mode reaches as far as the pool's clusters near it are wide.
    wide = np.maximum(radii, float(np.median(finished.stats.radius)))
    modes = _modes(
        target_centroids, rows, wide, len(taken) // _ROWS_PER_MODE, finished.ctx.settings.seed
    )
    return mode_coverage(
        *modes[:2], taken, modes[2], smallest=max(0.01, _ROWS_TO_JUDGE / len(taken))
    )


def _modes(
    target_centroids: NDArray[np.float32],
    rows: NDArray[np.int64],
    radii: NDArray[np.float64],
    most: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Merge a target's clusters to so few modes that the selected rows suffice to judge each.

    Returns:
        (M, d) centers, (M,) rows and (M,) root mean squared radius of each mode.
    """
    filled = rows > 0
    points, rows, radii = target_centroids[filled].astype(np.float64), rows[filled], radii[filled]
    if len(points) <= max(1, most):
        return points, rows, radii
    kmeans = KMeans(max(1, most), n_init=4, random_state=seed).fit(points, sample_weight=rows)
    centers, mode = kmeans.cluster_centers_, kmeans.labels_
    squared = np.square(points - centers[mode]).sum(axis=1) + np.square(radii)
    total = np.bincount(mode, rows, minlength=len(centers))
    spread = np.bincount(mode, rows * squared, minlength=len(centers))
    return centers, total.astype(np.int64), np.sqrt(spread / np.maximum(total, 1))
