"""Bounded sample of a run for one profile: of the pool, or of one of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gio_spark import gime
from gio_spark.gime.driver_samples import unlabeled_sample
from gio_spark.gime.metric_selection import cluster_means
from gio_spark.kernels.rounding import largest_remainders
from gio_spark.pipeline.constraints import sensitivity_runs
from gio_spark.pipeline.run_rows import RunRows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame


@dataclass(frozen=True, eq=False)
class ProfileSample:
    """Sample, constants and target states of one profile.

    Attributes:
        run_rows: Its tables, of all rows or of one source.
    """

    run_rows: RunRows

    @cached_property
    def constants(self) -> gime.Constants:
        """Constants of the metrics, with vectors where the profile reads them."""
        return self.run_rows.constants(vectors=self.run_rows.vectors)

    @cached_property
    def target(self) -> Mapping[str, gime.State] | None:
        """States of the target; None where it has no row of this source."""
        return self.run_rows.target_states(self.constants, vectors=self.run_rows.vectors)

    @cached_property
    def sample(self) -> gime.Sample:
        """A hash sample of the pool, with the target's states."""
        sample, _ = unlabeled_sample(
            self.run_rows.rows("pool", vectors=self.run_rows.vectors),
            constants=self.constants,
            profile=self.run_rows.profile,
            rows=self.run_rows.settings.gime.sample,
        )
        return replace(sample, target=self.target)

    @cached_property
    def clusters(self) -> NDArray[np.int64] | None:
        """Cluster of each row of the sample; None where the profile has no clusters."""
        clusters = sensitivity_runs.clusters_of(self.sample)
        return None if clusters is None else np.asarray(clusters, np.int64)

    def measure(self, ids: DataFrame, *, random: bool) -> dict[str, dict[str, float]]:
        """Measure the rows with these ids and, if asked for, a random draw of as many.

        Returns:
            "selected" (and "random") -> metric -> value; metrics are named as those of the source.
        """
        pool = self.run_rows.rows("pool", vectors=self.run_rows.vectors)
        if random:
            counts = self.run_rows.count_selected(ids)
            frames = self.run_rows.selected_and_random(pool, ids, *counts)
        else:
            frames = {"selected": pool.join(ids, "id", "left_semi")}
        table = self.run_rows.measure(
            frames, constants=self.constants, target=self.target, by=False
        ).to_pandas()
        groups = set(table["group"])
        return {name: gime.robust_values(table, name) if name in groups else {} for name in frames}

    def what_if(self, take: NDArray[np.int64], sizes: NDArray[np.int64]) -> dict[str, float]:
        """Metrics of the sample with each cluster's share of rows in a plan.

        Args:
            take: Rows per cluster of the whole pool, (K,).
            sizes: Rows of each cluster, (K,).
        """
        order, sample_sizes = self._rows_by_cluster(sizes.size)
        exact = sample_sizes * take / np.maximum(sizes, 1)
        quota = largest_remainders(exact, round(float(exact.sum())), most=sample_sizes, slack=0.0)
        starts = np.r_[0, np.cumsum(sample_sizes)[:-1]]
        parts = [order[s : s + q] for s, q in zip(starts, quota, strict=True)]
        rows = np.sort(np.concatenate(parts))
        values = self.sample.metrics(rows) if rows.size else {}
        return {self.run_rows.named(m): v for m, v in values.items()}

    def _rows_by_cluster(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The sample's rows in order of cluster, and rows per cluster."""
        clusters = np.zeros(0, np.int64) if self.clusters is None else self.clusters
        return np.argsort(clusters, kind="stable"), np.bincount(clusters, minlength=count)

    def cluster_statistics(self, count: int) -> gime.ClusterStats:
        """Statistics of each cluster in the sample: rows, the target's mass, means."""
        clusters = np.zeros(0, np.int64) if self.clusters is None else self.clusters
        target_distribution = None
        if self.target is not None and "cells" in self.target:
            target_distribution = np.zeros(count)
            known = self.target["cells"]["cells"]
            target_distribution[known[0]] = known[1]
            target_distribution = (
                target_distribution / target_distribution.sum()
                if target_distribution.sum() > 0
                else None
            )
        return gime.ClusterStats(
            np.bincount(clusters, minlength=count),
            target_distribution,
            cluster_means(self.sample, clusters, count),
        )
