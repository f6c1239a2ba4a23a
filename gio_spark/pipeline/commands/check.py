"""`gio-spark check`: the consistency checks of the method, on the user's own data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F
from sklearn.cluster import KMeans

from gio_spark import quantize
from gio_spark.engine import bounded, decode_vectors, hash53, hash_sample, session
from gio_spark.errors import InputError
from gio_spark.gio.selection_checks import (
    DataCheck,
    mode_coverage,
    negative_consistency,
    quantization_consistency,
    self_consistency,
)
from gio_spark.pipeline.run import run
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.run_state import role_of
from gio_spark.quantize import ClusterStats
from gio_spark.report.checks_page import render_checks
from gio_spark.settings.run import RunSettings
from gio_spark.tables import Workspace
from gio_spark.tables.output_folders import report_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

_SAMPLE = 4_000
# Rows of the sample per cluster that the quantization check needs to say anything.
_ROWS_PER_CLUSTER = 10
# Rows taken per mode of the target, on average, and those expected of a mode that is judged.
_ROWS_PER_MODE, _ROWS_TO_JUDGE = 40, 20


@dataclass(frozen=True)
class _FinishedRun:
    """Tables and models of a finished run."""

    workspace: Workspace
    selected: DataFrame
    run: RunSummary
    settings: RunSettings
    centroids: NDArray[np.float32]
    stats: ClusterStats

    def vectors(self, dataset: str) -> DataFrame:
        rows = self.workspace.read("embeddings", self.run.keys.embeddings[dataset])
        return rows.where(F.col("reason").isNull()).select("id", "vector")

    def assigned(self, dataset: str) -> DataFrame:
        return self.workspace.read("assignments", self.run.keys.assignments[dataset])

    def sample(self, dataset: str, rows: int) -> NDArray[np.float32]:
        salt = f"check-{self.settings.seed}"
        table = hash_sample(self.vectors(dataset), rows, salt, total=self.run.sides[dataset])
        return np.array(decode_vectors(table["vector"], self.centroids.shape[1]))

    def taken(self, rows: int) -> NDArray[np.float32]:
        """Vectors of a hash sample of the selected rows."""
        ids = hash_sample(
            self.selected.select(F.col("gio_id").alias("id")),
            rows,
            f"check-taken-{self.settings.seed}",
            total=self.run.selected_rows,
        )
        sampled_ids = F.broadcast(self.workspace.frame(ids.select(["id"])))
        sampled_vectors = self.vectors("pool").join(sampled_ids, "id", "left_semi")
        table = bounded(sampled_vectors, rows, "selected vectors").sort_by("id")
        return np.array(decode_vectors(table["vector"], self.centroids.shape[1]))

    def targets(self) -> list[str]:
        return [name for name in self.run.sides if role_of(name) == "target"]


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
        arXiv 2306.11670, section 4), and coverage of the modes of each target; and the page with
        their pictures.
    """
    spark = spark or session(settings.engine)
    curation = run(settings, spark=spark)
    workspace = Workspace(spark, settings.workspace)
    summary = RunSummary.model_validate(curation.summary)
    centroids, _, _ = _codebook(workspace, summary, "pool")
    stats = quantize.cluster_stats(
        workspace.read("assignments", summary.keys.assignments["pool"]),
        len(centroids),
        quantile=settings.quantize.reach_quantile,
    )
    done = _FinishedRun(workspace, curation.selected, summary, settings, centroids, stats)
    rows = done.sample("pool", _SAMPLE)
    checks = [
        _self(done),
        negative_consistency(
            centroids, stats.radius, stats.limit, done.sample(done.targets()[0], _SAMPLE)
        ),
        _quantization(done, rows),
        *(_coverage(done, name) for name in done.targets()),
    ]
    page = render_checks(
        checks,
        report_folder(workspace, curation.run_id) / "checks",
        facts={"run": curation.run_id, "pool": f"{summary.pool_rows:,} rows"},
        error_curve=quantize.error_curve(rows, seed=settings.seed),
        clusters=len(centroids),
    )
    return Checked(checks, page)


def _codebook(
    workspace: Workspace, run: RunSummary, dataset: str
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Centroids, rows and radii of a dataset's own clusters."""
    rows = workspace.read("centroids", run.keys.centroids)
    rows = rows.where(F.col("side") == dataset).select("cluster", "vector", "rows", "radius")
    table = bounded(rows, 1 << 20, "centroids").sort_by("cluster")
    return (
        np.array(decode_vectors(table["vector"])),
        table["rows"].to_numpy(),
        table["radius"].to_numpy(),
    )


def _self(done: _FinishedRun) -> DataCheck:
    """One half of a sample of the pool is the target, the other half judges."""
    salt = f"check-halves-{done.settings.seed}"
    part = hash53("id", salt) % 10
    target = done.vectors("pool").where(part == 0)
    mass = quantize.target_mass(
        target,
        done.centroids,
        radius=done.stats.radius,
        limit=float("inf"),
        neighbors=done.settings.quantize.neighbors,
        spherical=done.settings.quantize.spherical,
        seed=done.settings.seed,
    )
    other = done.assigned("pool").where(part == 1).groupBy("cluster").count()
    row_counts = bounded(other, len(done.centroids), "rows per cluster")
    counts = np.zeros(len(done.centroids))
    counts[row_counts["cluster"].to_numpy()] = row_counts["count"].to_numpy()
    return self_consistency(mass.mass, counts, done.stats.rows)


def _quantization(done: _FinishedRun, rows: NDArray[np.float32]) -> DataCheck:
    """Check on a codebook of a tenth of the sample's rows at most: more would prove nothing."""
    try:
        return quantization_consistency(rows, done.centroids, seed=done.settings.seed)
    except InputError:
        few = max(1, len(rows) // _ROWS_PER_CLUSTER)
        largest = np.argsort(-done.stats.rows, kind="stable")[:few]
        inside = np.isin(quantize.nearest(rows, done.centroids)[0], largest)
        if inside.sum() < _ROWS_PER_CLUSTER * len(largest):
            largest = largest[: max(1, int(inside.sum()) // _ROWS_PER_CLUSTER // 2)]
            inside = np.isin(quantize.nearest(rows, done.centroids)[0], largest)
        return quantization_consistency(
            rows[inside], done.centroids[largest], seed=done.settings.seed
        )


def _coverage(done: _FinishedRun, target: str) -> DataCheck:
    """Judge whether every mode of a target is covered by the rows that were taken."""
    centroids, rows, radii = _codebook(done.workspace, done.run, target)
    taken = done.taken(_SAMPLE)
    # A mode reaches as far as the pool's clusters near it are wide.
    wide = np.maximum(radii, float(np.median(done.stats.radius)))
    modes = _modes(centroids, rows, wide, len(taken) // _ROWS_PER_MODE, done.settings.seed)
    return mode_coverage(
        *modes[:2], taken, modes[2], smallest=max(0.01, _ROWS_TO_JUDGE / len(taken))
    )


def _modes(
    centroids: NDArray[np.float32],
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
    points, rows, radii = centroids[filled].astype(np.float64), rows[filled], radii[filled]
    if len(points) <= max(1, most):
        return points, rows, radii
    kmeans = KMeans(max(1, most), n_init=4, random_state=seed).fit(points, sample_weight=rows)
    centers, mode = kmeans.cluster_centers_, kmeans.labels_
    squared = np.square(points - centers[mode]).sum(axis=1) + np.square(radii)
    total = np.bincount(mode, rows, minlength=len(centers))
    spread = np.bincount(mode, rows * squared, minlength=len(centers))
    return centers, total.astype(np.int64), np.sqrt(spread / np.maximum(total, 1))
