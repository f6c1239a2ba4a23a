"""Selection problem and result, and the registry of objectives: one interface for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gio_spark.errors import BudgetError, ConfigError, InputError
from gio_spark.gio.row_repetition import Repetition
from gio_spark.registry import Registry

Unit = Literal["rows", "tokens"]


@dataclass(frozen=True)
class Notice:
    """Notice for the user: a name, a sentence on the observation, and what to do about it."""

    name: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Certificate:
    """Proof of optimality: no feasible plan has an objective below `dual`. All in nats."""

    primal: float
    dual: float
    gap: float


@dataclass(frozen=True, eq=False)
class SelectionProblem:
    """A pool on its codebook, a target on the same codebook, and a budget.

    Attributes:
        pool_centroids: (K, d) float32 centroids of the pool's clusters.
        sizes: (K,) int64 rows of the pool in each cluster.
        target_mass: (K,) mass of the target on each cluster, on any scale (`kernel_mass`).
        budget: Rows or tokens to select; a float below 1 is a share of the pool; "auto" needs
            `options["kappa"]` (see `mixture_share`) and may have `options["heldout_budget"]`.
        unit: Unit of the budget, "rows" or "tokens".
        tokens: (K,) tokens of the pool in each cluster; needed where unit is "tokens".
        target_centroids: (M, d) rows or centroids of the target, for objectives on points.
        target_weights: (M,) weight of each of them; equal where None.
        unreachable: Share of the target that lies out of the pool's reach, 0 to 1.
        replay: Share of the pool's own distribution mixed into the target, 0 to 1.
        source_counts: (K, S) rows of each source in each cluster, for caps and floors.
        source_tokens: (K, S) tokens of each source in each cluster, for caps and floors where
            unit is "tokens".
        source_names: The S names that `caps` and `floors` use.
        caps: Largest share of the budget a source may have.
        floors: Smallest share of the budget a source must have.
        quality: (K,) weight of a cluster's rows; the target mass is multiplied by it.
        repeat: Repetition of rows; None: each row is taken once at most.
        fresh: (K,) int64 rows of each cluster that may be taken where rows repeat; others stay out,
            because a repeated row of these is worth more. All rows where None.
        seed: Seed of objectives that draw (the published one); the others draw nothing.
        options: Settings of one objective, by its own parameter names.

    Example:
        >>> import numpy as np
        >>> problem = SelectionProblem(
        ...     pool_centroids=np.zeros((3, 2), np.float32), sizes=np.array([1000, 20, 1000]),
        ...     target_mass=np.array([0.5, 0.4, 0.1]), budget=0.05,
        ... )
        >>> problem.resolved_budget()
        101.0
    """

    pool_centroids: NDArray
    sizes: NDArray
    target_mass: NDArray
    budget: float | str
    unit: Unit = "rows"
    tokens: NDArray | None = None
    target_centroids: NDArray | None = None
    target_weights: NDArray | None = None
    unreachable: float = 0.0
    replay: float = 0.0
    source_counts: NDArray | None = None
    source_tokens: NDArray | None = None
    source_names: tuple[str, ...] = ()
    caps: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    quality: NDArray | None = None
    repeat: Repetition | None = None
    fresh: NDArray | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and ranges.

        Raises:
            InputError: An array has the wrong shape or impossible values.
            ConfigError: A setting is out of range.
        """
        clusters = len(self.pool_centroids)
        if clusters == 0:
            raise InputError("The pool has no clusters. Check that the pool is not empty.")
        per_cluster = {
            "sizes": self.sizes, "target_mass": self.target_mass,
            "tokens": self.tokens, "quality": self.quality, "fresh": self.fresh,
        }  # fmt: skip
        for name, array in per_cluster.items():
            if array is None:
                continue
            if np.shape(array) != (clusters,):
                raise InputError(
                    f"{name} has shape {np.shape(array)}, but there are {clusters} clusters; "
                    f"give one number per cluster."
                )
            if not np.all(np.isfinite(array)) or np.any(np.asarray(array) < 0):
                raise InputError(f"{name} has negative or non-finite entries.")
        if self.unit not in ("rows", "tokens"):
            raise ConfigError(f"unit is {self.unit!r}; it must be 'rows' or 'tokens'.")
        if self.unit == "tokens" and self.tokens is None:
            raise ConfigError(
                "A budget in tokens needs the tokens of each cluster: name the tokens column."
            )
        for name, share in (("replay", self.replay), ("unreachable", self.unreachable)):
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"{name} is {share}; it must lie between 0 and 1.")
        if self.repeat is not None and (self.caps or self.floors):
            raise ConfigError(
                "Rows cannot repeat (repeat) under caps and floors per source: leave one of them "
                "out."
            )
        self._check_sources(clusters)

    def _check_sources(self, clusters: int) -> None:
        if not self.caps and not self.floors:
            return
        shape = (clusters, len(self.source_names))
        if self.source_counts is None or np.shape(self.source_counts) != shape:
            raise ConfigError(
                f"Caps and floors need source_counts of shape {shape}; name the source column."
            )
        if self.source_tokens is not None and np.shape(self.source_tokens) != shape:
            raise InputError(
                f"source_tokens has shape {np.shape(self.source_tokens)}, not {shape}."
            )
        for name in (*self.caps, *self.floors):
            if name not in self.source_names:
                known = ", ".join(self.source_names[:10])
                raise ConfigError(f"No source is called {name!r}. Sources seen: {known}.")
        for name, share in (*self.caps.items(), *self.floors.items()):
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"The share of source {name!r} is {share}, not in 0 to 1.")

    @property
    def capacity(self) -> NDArray:
        """Capacity of each cluster in the budget's unit, (K,) float64."""
        amounts = self.tokens if self.unit == "tokens" else self.sizes
        return np.asarray(amounts, dtype=np.float64)

    @property
    def fresh_amounts(self) -> NDArray:
        """Amount of the rows of each cluster that may be taken, in the budget's unit, (K,)."""
        if self.repeat is None or self.fresh is None:
            return self.capacity
        sizes = np.maximum(1, np.asarray(self.sizes))
        return self.capacity * (np.minimum(self.fresh, sizes) / sizes)

    def resolved_budget(self) -> float:
        """Budget as an amount in its unit.

        Raises:
            BudgetError: The budget is zero, negative or larger than the pool.
            ConfigError: "auto" without an estimate, or a budget of the wrong type.
        """
        available = float(self.capacity.sum())
        copies = 1 if self.repeat is None else self.repeat.most
        largest = copies * available
        budget = self.budget
        if isinstance(budget, str):
            if budget != "auto":
                raise ConfigError(f"budget is {budget!r}; use a number or 'auto'.")
            kappa = self.options.get("kappa")
            if kappa is None:
                raise ConfigError("budget 'auto' needs options['kappa']; see mixture_share.")
            limit = float(self.options.get("heldout_budget") or math.inf)
            return float(math.floor(min(available * min(1.0, float(kappa)), limit) + 1e-9))
        amount = float(budget)
        if isinstance(budget, float) and 0.0 < amount < 1.0:
            amount = float(math.floor(amount * available + 0.5))
        if not math.isfinite(amount) or amount <= 0:
            raise BudgetError(
                f"The budget comes to {amount:g} {self.unit}; it must be at least 1. "
                f"The pool holds {available:.0f} {self.unit}.",
                largest=largest,
            )
        if amount > largest:
            repeated = "" if copies == 1 else f", {largest:.0f} with rows repeated {copies} times"
            raise BudgetError(
                f"The budget is {amount:.0f} {self.unit}, but the pool holds {available:.0f}"
                f"{repeated}. Ask for at most {largest:.0f}.",
                largest=largest,
            )
        return amount


@dataclass(frozen=True, eq=False)
class SelectionResult:
    """Plan of one objective.

    Attributes:
        objective: Name of the objective.
        take: (K,) int64 allocation: rows to select from each cluster.
        fractional: (K,) float64 rows before rounding (equal to `take` where nothing is rounded).
        order: Clusters with selected rows, the most important first; ties by lowest cluster.
        divergence_path: The objective after each cluster of `order`.
        divergence: The objective of the fractional plan, in nats for the KL.
        target_mass: (K,) the target distribution (quality and replay included), sum 1 or 0.
        lost_mass: Share of the target on no usable cluster (out of reach or empty clusters).
        budget: The budget as an amount.
        unit: Unit of the budget.
        spent: Rows or expected tokens of `take`.
        certificate: Proof of optimality, for objectives that have one.
        binding: The active constraints, each in a phrase.
        notices: Notices for the user.
        take_by_source: (K, S) int64 allocation per source, where caps or floors were set.
        copies: (K,) int64 copies of the rows of `take`, where rows repeat.
    """

    objective: str
    take: NDArray
    fractional: NDArray
    order: NDArray
    divergence_path: NDArray
    divergence: float
    target_mass: NDArray
    lost_mass: float
    budget: float
    unit: Unit
    spent: float
    certificate: Certificate | None = None
    binding: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    take_by_source: NDArray | None = None
    copies: NDArray | None = None

    @property
    def trained_rows(self) -> NDArray:
        """Rows per cluster with their repeats, (K,) int64: what a model is trained on."""
        return self.take if self.copies is None else self.copies


Objective = Callable[[SelectionProblem], SelectionResult]
OBJECTIVES: Registry[Objective] = Registry("objective")


def register_entry(name: str, function: Objective) -> None:
    """Register a function as the objective `name`; users call `gio_spark.register`.

    Raises:
        ConfigError: The name is one of gio_spark's own, or this is no function.
    """
    if not callable(function):
        raise ConfigError(f"The objective {name!r} must be a function of a SelectionProblem.")
    OBJECTIVES.add(name, function, owner=getattr(function, "__module__", None))


def objective(name: str) -> Callable[[Objective], Objective]:
    """Decorator of the objectives of this package."""

    def add(function: Objective) -> Objective:
        register_entry(name, function)
        return function

    return add


def objectives() -> tuple[str, ...]:
    """Names of all registered objectives, sorted."""
    return tuple(sorted(OBJECTIVES.names()))


def select(name: str, problem: SelectionProblem) -> SelectionResult:
    """Solve a problem with the objective `name`.

    Args:
        name: Name of a registered objective (`objectives`).
        problem: The problem.

    Raises:
        ConfigError: No objective has that name.
        BudgetError: The budget cannot be met; `largest` is the largest one that can.

    Example:
        >>> import numpy as np
        >>> problem = SelectionProblem(
        ...     pool_centroids=np.zeros((3, 2), np.float32), sizes=np.array([1000, 20, 1000]),
        ...     target_mass=np.array([0.5, 0.4, 0.1]), budget=100,
        ... )
        >>> result = select("budgeted_kl", problem)
        >>> result.take, abs(result.certificate.gap) < 1e-9
        (array([67, 20, 13]), True)
    """
    return OBJECTIVES.get(name)(problem)
