"""Subsets of equal size whose metrics differ: random tilts of a sample, and what they reach.

A designed experiment (Plackett-Burman) needs corners such as 'much variety, little coverage', which
no subset has. A random tilt draws rows with probability proportional to exp(a . z), z the rows'
standardised attributes; the metrics are then taken as achieved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gio_spark.engine.arrow import joined
from gio_spark.errors import InputError
from gio_spark.gime.profile import Constants, Profile, get_profile
from gio_spark.gime.rows import Rows, from_arrow
from gio_spark.gime.state import State

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
        """Make a sample from tables whose columns are named by role (see `scan.as_roles`)."""
        chosen = get_profile(profile)
        sample = cls(_read(table, chosen, constants), chosen, constants)
        if target is None:
            return sample
        whole = _read(target, chosen, constants)
        return cls(sample.rows, chosen, constants, measure_states(whole, chosen, constants))

    def metrics(self, index: NDArray[np.intp] | None = None) -> dict[str, float]:
        """Robust metrics of some rows (None: of all), those that have a value."""
        rows = self.rows if index is None else self.rows.take(np.asarray(index, np.intp))
        states = measure_states(rows, self.profile, self.constants)
        found = {}
        for metric in self.profile.metrics:
            for one in metric.value(states, self.target, self.constants):
                if one.form == "robust" and one.value is not None:
                    found[metric.name] = float(one.value)
        return found

    def directions(self) -> dict[str, int]:
        """Return 1 for metrics of which more is better, -1 for less, 0 where it is unknown."""
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
        one.name: one.state(rows, constants, "in-memory")
        for one in profile.accumulators
        if all(n in rows or constants.get(n) is not None for n in one.needs)
    }


@dataclass(frozen=True, eq=False)
class Tilts:
    """Attributes that subsets are tilted by.

    Attributes:
        names: Names of the attributes, (m,).
        values: Standardised attributes, (n, m).
        cells: Cell per row, for tilts that favour some cells over others; -1 where unknown.
        seed: Seed of the cells' random potentials and of all draws.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    cells: NDArray[np.int64]
    seed: int = 0

    @property
    def width(self) -> int:
        """Number of coefficients of a tilt: one per attribute, and the strength on cells."""
        return len(self.names) + 1

    def draw(self, coefficients: NDArray[np.float64], size: int, seed: int) -> NDArray[np.intp]:
        """Draw `size` rows without replacement, tilted by the coefficients (width,).

        The last coefficient is the strength of a random potential on cells: at 0 all cells are
        equal, at large values a few cells hold nearly all rows.

        Raises:
            InputError: The sample has fewer rows.
        """
        n = len(self.values)
        if not 0 < size <= n:
            raise InputError(f"Subsets of {size} rows cannot be drawn from {n} rows.")
        rng = np.random.default_rng([self.seed, seed])
        score = self.values @ coefficients[:-1]
        known = self.cells >= 0
        if known.any():
            potential = rng.standard_normal(int(self.cells.max()) + 1)
            score = score + coefficients[-1] * np.where(known, potential[self.cells], 0.0)
        # Gumbel noise and the largest scores: a weighted draw without replacement.
        score = score + rng.gumbel(size=n)
        return np.sort(np.argpartition(-score, size - 1)[:size])


def tilts_of(sample: Sample, seed: int = 0) -> Tilts:
    """Collect the attributes of a sample that its metrics depend on.

    Numbers and times as they are, missing values as a tilt of their own, and the log ratio of the
    target's share to the pool's share of a row's cell.
    """
    rows = sample.rows
    found: dict[str, NDArray[np.float64]] = {}
    for role, column in rows.columns.items():
        if role in ("unit", "vector", "cluster", "combination", "pair", "user_day", "sample"):
            continue
        if not column.valid.all() and column.valid.any():
            found[f"{role} missing"] = (~column.valid).astype(np.float64)
        ordered = role.startswith("numeric:") or role in (
            "tokens", "bytes", "distance", "quality", "event_time", "latitude", "longitude",
        )  # fmt: skip
        if ordered and column.valid.any():
            middle = float(np.median(column.kept()))
            found[role] = np.where(column.valid, column.values, middle).astype(np.float64)
    cells = np.full(rows.count, -1, np.int64)
    for role in ("cluster", "station", "combination"):
        if role in rows:
            column = rows[role]
            _, code = np.unique(column.values, return_inverse=True)
            cells = np.where(column.valid, code, -1)
            break
    if "cluster" in rows and sample.target and "cells" in sample.target:
        theirs = sample.target["cells"]["cells"]
        size = int(max(rows["cluster"].values.max(), theirs[0].max(initial=0))) + 1
        mine = np.bincount(rows["cluster"].kept(), minlength=size) + 0.5
        other = np.full(size, 0.5)
        other[theirs[0]] += theirs[1]
        ratio = np.log(other / other.sum()) - np.log(mine / mine.sum())
        found["target ratio"] = ratio[rows["cluster"].values]
    kept = {}
    for name, values in found.items():
        spread = float(values.std())
        if spread > 0:
            # Ranks tame long tails: a tilt by raw token counts would follow a handful of rows.
            rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
            fair = (rank - rank.mean()) / rank.std() if name != "target ratio" else None
            kept[name] = (values - values.mean()) / spread if fair is None else fair
    matrix = np.stack(list(kept.values()), axis=1) if kept else np.zeros((rows.count, 0))
    return Tilts(tuple(kept), matrix, cells, seed)


def random_tilts(
    tilts: Tilts, count: int, size: int, *, strength: float = 1.0
) -> tuple[NDArray[np.float64], list[NDArray[np.intp]]]:
    """Draw subsets by random tilts; a quarter of them are tilted on cells alone or not at all.

    Returns:
        Coefficients (count, width) and the rows of each subset.
    """
    rng = np.random.default_rng([tilts.seed, 1])
    coefficients = rng.normal(0, strength, (count, tilts.width))
    # Few attributes at a time: with all of them a subset is a random direction in many dimensions,
    # and no metric moves far.
    keep = rng.random((count, tilts.width)) < min(1.0, 3 / tilts.width)
    coefficients *= keep
    coefficients[:, -1] = np.abs(rng.normal(0, 1.5 * strength, count)) * (rng.random(count) < 0.6)
    coefficients[: max(1, count // 12)] = 0.0
    subsets = [tilts.draw(row, size, 100 + at) for at, row in enumerate(coefficients)]
    return coefficients, subsets
