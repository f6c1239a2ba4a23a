"""Typed state of a run: inputs and outputs of its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gio_spark.pipeline.run_rows import RunRows

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from gio_spark import explode
    from gio_spark.embed import Embedder
    from gio_spark.gio import TargetMass
    from gio_spark.pipeline.constraints.enforce import Enforcement
    from gio_spark.pipeline.constraints.sensitivity_runs import SensitivityResult
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.pipeline.run_records import (
        MixtureFacts,
        PlanFacts,
        RatioFacts,
        StrategyFacts,
        VerdictFacts,
    )
    from gio_spark.quantize import ClusterStats
    from gio_spark.report import ReportRows
    from gio_spark.tables import Input

Role = Literal["pool", "target", "held-out"]


def role_of(name: str) -> Role:
    """Role of a dataset by its name: 'pool', 'target', 'target-2', 'held-out-1'."""
    for role in ("target", "held-out"):
        if name.startswith(role):
            return role  # type: ignore[return-value]
    return "pool"


@dataclass(frozen=True)
class Dataset:
    """An input whose rows are embedded.

    Attributes:
        name: pool, target, target-1, held-out-1, ...
        source: The pinned input.
        key: Fingerprint of its embeddings.
        usable: Rows with a vector.
        bad: Reason -> rows in quarantine.
    """

    name: str
    source: Input
    key: str
    usable: int
    bad: dict[str, int]


@dataclass(frozen=True)
class Datasets:
    """The datasets of a run by role, each in the order of the settings."""

    pool: Dataset
    targets: tuple[Dataset, ...] = ()
    held_out: tuple[Dataset, ...] = ()

    @classmethod
    def of(cls, datasets: dict[str, Dataset]) -> Datasets:
        """Sort named datasets by their role."""

        def having(role: Role) -> tuple[Dataset, ...]:
            return tuple(one for name, one in datasets.items() if role_of(name) == role)

        return cls(datasets["pool"], having("target"), having("held-out"))

    def __iter__(self) -> Iterator[Dataset]:
        """Pool, targets, held-out sets."""
        return iter((self.pool, *self.targets, *self.held_out))

    @property
    def target_rows(self) -> int:
        """Usable rows of all targets."""
        return sum(target.usable for target in self.targets)


@dataclass(frozen=True)
class FittedEmbedder:
    """The embedder with what it has fitted, and the key of that in `models` ("" where nothing)."""

    embedder: Embedder
    key: str


@dataclass(frozen=True)
class Codebook:
    """A fitted codebook.

    Attributes:
        centroids: (K, d) float32.
        key: Fingerprint of the fit.
        error_curve: Quantization error over the number of clusters, on a sample, where that number
            was chosen by the tool.
    """

    centroids: NDArray[np.float32]
    key: str
    error_curve: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class Removed:
    """Rows of the pool that the stage clean put into quarantine: reason -> number."""

    counts: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all reasons."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class RatioModel:
    """A fitted density ratio of target over pool: its key in `models`, and facts of the fit."""

    key: str
    arrays: dict[str, np.ndarray]
    facts: RatioFacts


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        table: One row per cluster: cluster, rows, take, fractional, target_mass, order,
            divergence_after, threshold, tie; where rows repeat copies, extra_threshold, extra_tie.
        key: Fingerprint of the plan.
        facts: Objective, budget, certificate and what else is recorded with it.
    """

    table: pd.DataFrame
    key: str
    facts: PlanFacts

    @property
    def trained_rows(self) -> pd.Series:
        """Rows of each cluster with their repeats."""
        return self.table["copies"] if "copies" in self.table else self.table["take"]


@dataclass(frozen=True)
class Selection:
    """Selected rows as they were written.

    Attributes:
        table: Name of their table.
        rows: The rows.
        count: Their number.
        spent: What they spend of the budget, in its unit.
        copies: Their number with repeats, where rows repeat.
    """

    table: str
    rows: DataFrame
    count: int
    spent: float
    copies: int | None = None


@dataclass
class RunState:
    """Outputs of the stages of a run so far.

    A stage reads what it names as inputs and sets what it names as outputs. What is set before the
    first stage (the models of a finished run, for a refresh) is not made again.

    Attributes:
        inputs: Name -> pinned input.
        embedder: Checked embedder, not fitted.
        keys: What is there -> fingerprint of it; for each dataset one, as in `embeddings.pool`.
    """

    inputs: dict[str, Input]
    embedder: Embedder
    keys: dict[str, str] = field(default_factory=dict)
    basis: dict[str, str] = field(default_factory=dict)
    """Run whose codebook this one begins with; see `RunSummary`."""
    assigned: dict[str, str] = field(default_factory=dict)
    """Dataset -> fingerprint of its assignments as they were written first."""
    assignments: dict[str, str] = field(default_factory=dict)
    """Dataset -> fingerprint of its assignments without the rows that were removed from it."""
    embeddings: dict[str, int] = field(default_factory=dict)
    """Dataset -> rows of its embeddings, those without a vector included."""

    fitted_embedder: FittedEmbedder = field(init=False)
    datasets: Datasets = field(init=False)
    dimension: int = field(init=False)
    warm_start: NDArray[np.float32] = field(init=False)
    """Centroids (K, d) that the fit of the codebook begins with."""
    codebook: Codebook = field(init=False)
    removed_rows: str = field(init=False)
    """Fingerprint, in quarantine, of the pool's rows that the stage clean removed."""
    removed: Removed = field(default_factory=Removed)
    cluster_stats: Callable[[], ClusterStats] = field(init=False)
    target_codebooks: Callable[[], list[pa.Table]] = field(init=False)
    centroids: str = field(init=False)
    """Fingerprint of the clusters of pool and targets in the centroids table."""
    ratio_fit: Callable[[], explode.RatioFit] = field(init=False)
    ratio_model: RatioModel = field(init=False)
    scores: str = field(init=False)
    """Fingerprint of the pool's log density ratios."""
    mixture: MixtureFacts = field(init=False)
    sensitivity: SensitivityResult = field(init=False)
    enforcement: Enforcement = field(init=False)
    target_mass: Callable[[], list[TargetMass]] = field(init=False)
    strategy: StrategyFacts = field(init=False)
    """Choice of the strategy, where the settings leave it to the run."""
    plan: Plan = field(init=False)
    frozen_plan: Plan = field(init=False)
    """Plan of the run that is refreshed."""
    selection: Selection = field(init=False)
    report_samples: Callable[[], dict[str, pa.Table]] = field(init=False)
    report_rows: Callable[[], ReportRows] = field(init=False)
    metrics: pd.DataFrame = field(init=False)
    report: Path = field(init=False)
    verdict: VerdictFacts | None = None
    """The gate's, where thresholds are in force."""

    def has(self, name: str) -> bool:
        """Whether something is there: an attribute, or the entry of one, as in `assigned.pool`."""
        attribute, _, entry = name.partition(".")
        return hasattr(self, attribute) and (not entry or entry in getattr(self, attribute))

    def get(self, name: str) -> Any:
        """Attribute of that name, or None where no stage has set it."""
        return getattr(self, name, None)

    def run_rows(self, ctx: RunContext) -> RunRows:
        """Rows of the run as the metrics read them."""
        return RunRows(
            ctx.workspace,
            ctx.settings,
            {one.name: one.key for one in self.datasets},
            dict(self.assignments),
            self.codebook.key,
            dict(self.inputs),
        )

    @property
    def pool_rows(self) -> int:
        """Usable rows of the pool, those that the stage clean removed left out."""
        return self.datasets.pool.usable - self.removed.rows

    @property
    def quarantined(self) -> dict[str, dict[str, int]]:
        """Dataset -> reason -> rows in quarantine."""
        return {
            one.name: {**one.bad, **(self.removed.counts if one.name == "pool" else {})}
            for one in self.datasets
        }
