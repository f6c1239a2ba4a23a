"""Options and draws of the published algorithm, under their published names."""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import ConfigError

STARTS = ("mean", "prev_opt", "jump")
CRITERIA = (
    "increase",
    "max_resets",
    "min_difference",
    "sequential_increase_tolerance",
    "min_kl",
    "data_size",
)


@dataclass(frozen=True)
class PublishedOptions:
    """Options of the published algorithm, with the names and defaults of the original.

    Where a default differs, its description says so.

    Attributes:
        v_init: Start of a descent: "mean" of the target, "prev_opt" (where the last one
            ended; the default here, as in the paper's runs), or "jump" (a random target row).
        k: Neighbor used inside the target.
        max_iter: Picks at most. (The original makes one more.)
        stop_criterion: "increase": before the divergence rises. "max_resets": before it rises
            with all resets used. "min_difference": before a pick that lowers it by less than
            min_difference. "sequential_increase_tolerance": before more than
            max_sequential_increases rises in a row. "min_kl": with the pick that takes it below
            min_kl. "data_size": at max_data_size of the pool. (The second and fourth never
            fire in the original; the last two differ from it by one pick.)
        min_difference: See `stop_criterion`.
        resets_allowed: On a rise, refill the pool and go on from the target's mean instead of
            stopping, up to max_resets times. Candidates may then be picked again.
        max_resets: See `resets_allowed`.
        max_data_size: Share of the pool.
        min_kl: Divergence to reach.
        max_sequential_increases: Rises in a row that are tolerated.
        random_init_pct: Share of the pool to start from, where no data are given.
        random_restart_prob: Chance that a descent is three times as long.
        scale_factor: Factor on the gradient; "auto" is |v0| / |gradient(v0)|.
        grad_desc_iter: Steps of a descent; three times as many at the first pick and after a
            reset.
        discard_nearest_for_xy: Leave each target row's nearest selected point out.
        normalize: Give the uniform start points length 1.
        lr: Step length.
        uniform_low: Lower bound of the uniform start, in every coordinate.
        uniform_high: Upper bound.
        uniform_start_size: Points of the uniform start.
    """

    v_init: Literal["mean", "prev_opt", "jump"] = "prev_opt"
    k: int = 5
    max_iter: int = 100
    stop_criterion: str = "increase"
    min_difference: float = 0.0
    resets_allowed: bool = False
    max_resets: int = 2
    max_data_size: float = 1.0
    min_kl: float = 0.0
    max_sequential_increases: int = 3
    random_init_pct: float = 0.0
    random_restart_prob: float = 0.0
    scale_factor: float | Literal["auto"] = "auto"
    grad_desc_iter: int = 50
    discard_nearest_for_xy: bool = False
    normalize: bool = True
    lr: float = 0.01
    uniform_low: float = -1.0
    uniform_high: float = 1.0
    uniform_start_size: int = 20

    @classmethod
    def of(cls, **options: Any) -> PublishedOptions:
        """Build the options, with a hint for a misspelled name.

        Raises:
            ConfigError: A name is unknown or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                close_names = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f" Did you mean {close_names[0]!r}?"
                    if close_names
                    else f" Known: {', '.join(known)}."
                )
                raise ConfigError(f"The published objective has no option {name!r}.{hint}")
        return cls(**options)

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A value is out of range, or two contradict each other.
        """
        if self.v_init not in STARTS:
            raise ConfigError(f"v_init is {self.v_init!r}; use one of {', '.join(STARTS)}.")
        if self.stop_criterion not in CRITERIA:
            raise ConfigError(
                f"stop_criterion is {self.stop_criterion!r}; use one of {', '.join(CRITERIA)}."
            )
        if self.stop_criterion == "max_resets" and not self.resets_allowed:
            raise ConfigError("stop_criterion 'max_resets' needs resets_allowed=True.")
        if isinstance(self.scale_factor, str) and self.scale_factor != "auto":
            raise ConfigError(f"scale_factor is {self.scale_factor!r}; use a number or 'auto'.")
        for name in ("max_data_size", "random_init_pct", "random_restart_prob"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie in 0 to 1.")
        for name in ("k", "max_iter", "grad_desc_iter", "uniform_start_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("max_resets", "max_sequential_increases"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not self.uniform_low < self.uniform_high:
            raise ConfigError("uniform_low must be below uniform_high.")

    def rejects(self, before: float, after: float, rises: int) -> bool:
        """Whether the stop criterion rejects a pick with this change of the divergence.

        Args:
            before: Divergence without the pick.
            after: Divergence with the pick.
            rises: Rises in a row, this one included.
        """
        if self.stop_criterion in ("increase", "max_resets"):
            return after > before
        if self.stop_criterion == "min_difference":
            return before - after < self.min_difference
        if self.stop_criterion == "sequential_increase_tolerance":
            return rises > self.max_sequential_increases
        return False


class Draws(Protocol):
    """Random numbers that a run draws."""

    def uniform(self, low: float, high: float, shape: tuple[int, int]) -> NDArray:
        """Points of a uniform start, `shape`."""

    def share(self, rows: int, amount: int) -> NDArray:
        """Indices of `amount` different rows of the pool."""

    def index(self, rows: int) -> int:
        """Index of the target row to jump to."""

    def restart(self) -> float:
        """Number in [0, 1) that decides on a longer descent."""


class SeededDraws:
    """Draws from the two classic generators that the original uses, with one seed.

    The same seed gives the numbers that the original draws after random.seed(seed) and
    numpy.random.seed(seed), so that runs can be compared pick by pick.
    """

    def __init__(self, seed: int) -> None:
        self._plain = random.Random(seed)
        self._array = np.random.RandomState(seed)

    def uniform(self, low: float, high: float, shape: tuple[int, int]) -> NDArray:
        """Points of a uniform start, `shape`."""
        return self._array.uniform(low=low, high=high, size=shape)

    def share(self, rows: int, amount: int) -> NDArray:
        """Indices of `amount` different rows, in the order drawn."""
        return np.array(self._plain.sample(range(rows), amount), dtype=np.int64)

    def index(self, rows: int) -> int:
        """Index of one row."""
        return self._plain.sample(range(rows), 1)[0]

    def restart(self) -> float:
        """Number in [0, 1)."""
        return self._plain.random()
