"""Subsets of equal size with different metrics, drawn by random tilts of a sample.

A designed experiment (Plackett-Burman) needs corners such as 'much variety, little coverage', which
no subset has. A random tilt draws rows with probability proportional to exp(a . z), z the rows'
standardized attributes; the metrics of the subset are then measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gio_spark.engine.arrow import joined
from gio_spark.errors import InputError
from gio_spark.gime.metric_profile import Constants, Profile, get_profile
from gio_spark.gime.metric_state import State
from gio_spark.gime.row_batch import Rows, from_arrow

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sample:
    """A bounded sample of the pool, in memory, whose subsets can be measured.

    Attributes:
        rows: The sample by role, derived columns included.
        profile: The metric profile.
        constants: Codebook and so on.
        target: The target's states, or None.
    """

    rows: Rows
    profile: Profile
    constants: Constants
    target: Mapping[str, State] | None = None

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        profile: str | Profile,
        constants: Constants,
        target: pa.Table | None = None,
    ) -> Sample:
        """Build a sample from tables with columns by role (see `partial_states.as_roles`)."""
        resolved = get_profile(profile)
        sample = cls(_read(table, resolved, constants), resolved, constants)
        if target is None:
            return sample
        target_rows = _read(target, resolved, constants)
        return cls(
            sample.rows, resolved, constants, measure_states(target_rows, resolved, constants)
        )

    def metrics(self, index: NDArray[np.intp] | None = None) -> dict[str, float]:
        """Robust metrics of some rows (None: of all), those that have a value."""
        rows = self.rows if index is None else self.rows.take(np.asarray(index, np.intp))
        states = measure_states(rows, self.profile, self.constants)
        values = {}
        for metric in self.profile.metrics:
            # Values are generated: further forms, some of them slow, are not asked for.
            forms = metric.value(states, self.target, self.constants)
            robust = next((one.value for one in forms if one.form == "robust"), None)
            if robust is not None:
                values[metric.name] = float(robust)
        return values

    def directions(self) -> dict[str, int]:
        """Direction of each metric: 1 where more is better, -1 where less is, 0 where unknown."""
        states = measure_states(self.rows, self.profile, self.constants)
        signs = {"more": 1, "less": -1}
        return {
            metric.name: signs.get(one.direction, 0)
            for metric in self.profile.metrics
            for one in metric.value(states, self.target, self.constants)
            if one.form == "robust"
        }


def _read(table: pa.Table, profile: Profile, constants: Constants) -> Rows:
    if table.num_rows == 0:
        raise InputError("A sample without rows cannot be measured.")
    names = [n for n in table.column_names if n in profile.roles or ":" in n]
    kinds = {role: profile.kind(role) for role in names}
    columns = [joined(table[name]) for name in table.column_names]
    batch = pa.RecordBatch.from_arrays(columns, names=table.column_names)
    rows = from_arrow(batch, kinds, constants.get("dimension"))
    return rows if profile.prepare is None else profile.prepare(rows, constants)


def measure_states(rows: Rows, profile: Profile, constants: Constants) -> dict[str, State]:
    """All states of some rows, in memory."""
    return {
        accumulator.name: accumulator.state(rows, constants, "in-memory")
        for accumulator in profile.accumulators
        if all(n in rows or constants.get(n) is not None for n in accumulator.needs)
    }


@dataclass(frozen=True, eq=False)
class Tilts:
    """Attributes that subsets are tilted by.

    Attributes:
        names: Names of the attributes, (m,).
        values: Standardized attributes, (n, m).
        clusters: Cluster per row, for tilts that favor some clusters over others; -1 where unknown.
        seed: Seed of the clusters' random potentials and of all draws.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    clusters: NDArray[np.int64]
    seed: int = 0

    @property
    def width(self) -> int:
        """Number of coefficients of a tilt: one per attribute, and the strength on clusters."""
        return len(self.names) + 1

    def draw(self, coefficients: NDArray[np.float64], size: int, seed: int) -> NDArray[np.intp]:
        """Draw `size` rows without replacement, tilted by the coefficients (width,).

        The last coefficient is the strength of a random potential on clusters: at 0 all clusters
        are equal, at large values nearly all rows are of a few clusters.

        Raises:
            InputError: The sample has fewer rows.
        """
        n = len(self.values)
        if not 0 < size <= n:
            raise InputError(f"Subsets of {size} rows cannot be drawn from {n} rows.")
        rng = np.random.default_rng([self.seed, seed])
        score = self.values @ coefficients[:-1]
        has_cluster = self.clusters >= 0
        if has_cluster.any():
            potential = rng.standard_normal(int(self.clusters.max()) + 1)
            score = score + coefficients[-1] * np.where(has_cluster, potential[self.clusters], 0.0)
        # Gumbel noise and the largest scores: a weighted draw without replacement.
        score = score + rng.gumbel(size=n)
        return np.sort(np.argpartition(-score, size - 1)[:size])


def tilts_of(sample: Sample, seed: int = 0) -> Tilts:
    """Attributes of a sample that its metrics depend on.

    Numbers and times, indicators of missing values, and the log ratio of the target's share to the
    pool's share of a row's cluster.
    """
    rows = sample.rows
    attributes: dict[str, NDArray[np.float64]] = {}
    for role, column in rows.columns.items():
        if role in ("unit", "vector", "cluster", "combination", "pair", "user_day", "sample"):
            continue
        if not column.valid.all() and column.valid.any():
            attributes[f"{role} missing"] = (~column.valid).astype(np.float64)
        ordered = role.startswith("numeric:") or role in (
            "tokens", "bytes", "distance", "quality", "event_time", "latitude", "longitude",
        )  # fmt: skip
        if ordered and column.valid.any():
            middle = float(np.median(column.valid_values()))
            attributes[role] = np.where(column.valid, column.values, middle).astype(np.float64)
    clusters = np.full(rows.count, -1, np.int64)
    for role in ("cluster", "station", "combination"):
        if role in rows:
            column = rows[role]
            _, code = np.unique(column.values, return_inverse=True)
            clusters = np.where(column.valid, code, -1)
            break
    if "cluster" in rows and sample.target and "cells" in sample.target:
        target_counts = sample.target["cells"]["cells"]
        size = int(max(rows["cluster"].values.max(), target_counts[0].max(initial=0))) + 1
        pool_counts = np.bincount(rows["cluster"].valid_values(), minlength=size) + 0.5
        target_rows = np.full(size, 0.5)
        target_rows[target_counts[0]] += target_counts[1]
        ratio = np.log(target_rows / target_rows.sum()) - np.log(pool_counts / pool_counts.sum())
        attributes["target ratio"] = ratio[rows["cluster"].values]
    standardized = {}
    for name, values in attributes.items():
        spread = float(values.std())
        if spread > 0:
            # Ranks limit long tails: a tilt by raw token counts would depend on a handful of rows.
            rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
            fair = (rank - rank.mean()) / rank.std() if name != "target ratio" else None
            standardized[name] = (values - values.mean()) / spread if fair is None else fair
    matrix = (
        np.stack(list(standardized.values()), axis=1) if standardized else np.zeros((rows.count, 0))
    )
    return Tilts(tuple(standardized), matrix, clusters, seed)


def random_tilts(
    tilts: Tilts, count: int, size: int, *, strength: float = 1.0
) -> tuple[NDArray[np.float64], list[NDArray[np.intp]]]:
    """Draw subsets by random tilts, one in twelve of them without a tilt.

    Returns:
        Coefficients (count, width) and the rows of each subset.
    """
    rng = np.random.default_rng([tilts.seed, 1])
    coefficients = rng.normal(0, strength, (count, tilts.width))
    # Few attributes at a time: with all of them a subset is a random direction in many dimensions,
    # and no metric changes much.
    is_used = rng.random((count, tilts.width)) < min(1.0, 3 / tilts.width)
    coefficients *= is_used
    coefficients[:, -1] = np.abs(rng.normal(0, 1.5 * strength, count)) * (rng.random(count) < 0.6)
    coefficients[: max(1, count // 12)] = 0.0
    subsets = [tilts.draw(row, size, 100 + at) for at, row in enumerate(coefficients)]
    return coefficients, subsets
