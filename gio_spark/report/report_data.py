"""Data of a run's report, as plain bounded values.

The pipeline fills a `ReportData`; `html_page.render` writes its page. This module does not depend
on Spark, so a page can be rendered again, or tested, from a few numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class InputSummary:
    """Input table of a run; `version` is a Delta version or the hash of a list of files."""

    name: str  # 'pool', 'target', or the name of one of several targets
    location: str
    format: str
    version: str = ""
    rows: int = 0
    unusable: int = 0
    columns: str = ""  # roles, for instance 'text=body, source=site'


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """Stage of a run; `skipped` means that the table of an earlier run was used unchanged."""

    name: str
    seconds: float
    rows: int | None = None
    skipped: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class RunWarning:
    """Warning of a run: its name, a description and what to do."""

    name: str
    text: str
    action: str = ""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Certificate of optimality: value of the plan, lower bound of all plans, and their gap."""

    primal: float
    dual: float
    gap: float


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Divergence from the target of the pool, of random rows and of the selection.

    Lower is nearer. `random` is a random draw of as many rows as the selection has. `path_rows` and
    `path` are the divergence while rows are added, in the order of the plan.
    """

    name: str = "KL divergence from the target, over clusters"
    unit: str = "nats"
    pool: float | None = None
    random: float | None = None
    selection: float | None = None
    path_rows: Floats | None = None
    path: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Points:
    """Two-dimensional sample points, each (n, 2); `explained` is their share of the variance."""

    target: Floats
    pool: Floats
    selection: Floats
    explained: float | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """Example row: text, or an image (encoded bytes, or an array of pixels)."""

    cluster: int
    taken: bool
    id: str
    text: str | None = None
    image: bytes | Floats | None = None
    source: str | None = None
    log_ratio: float | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of a classifier's probabilities, per bin of predicted probability."""

    predicted: Floats
    observed: Floats
    rows: Floats
    auc: float | None = None
    name: str = "target-against-pool classifier"


@dataclass(frozen=True)
class ReportRows:
    """Report data that is read from rows: counts per source, sample points and example rows."""

    sources: pd.DataFrame | None
    points: Points | None
    examples: tuple[Example, ...]


def _empty_plan() -> pd.DataFrame:
    return pd.DataFrame({"cluster": [], "rows": [], "take": [], "target_mass": []})


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Data of a run's page; all fields but the first three are optional.

    Attributes:
        title: Heading of the page.
        run_id: Id of the run.
        engine: Description of the engine.
        started, finished: Times as text (UTC).
        inputs: Input tables.
        quarantine: Rows in quarantine, input -> reason -> count.
        quarantine_table: Location of the quarantine table.
        budget_asked: Budget in the form of the settings.
        budget_met: Amount that was taken, in `budget_unit`.
        rows_pool, rows_selected, rows_target: Usable rows.
        copies_selected: Selected rows with their repeats, where rows repeat.
        objective, within_cluster: Names of the objective and of the within-cluster rule.
        strategy: Choice of the strategy in words, where the run has made it.
        strategies: One row per candidate strategy: name, gain, gain_error, over_random,
            over_random_error, seconds, problem.
        certificate: Certificate of optimality, if the objective has one.
        constraints: Active constraints, one sentence each.
        unreached: Share of the target mass that no pool row is near to (0..1).
        mixture_share: Largest share of the pool that can have the target's distribution (0..1).
        divergence: Divergences of pool, random rows and selection, and the path.
        plan: One row per cluster: cluster, rows, take, target_mass [, order, divergence_after,
            label, ...]; `label` is a short description of the cluster.
        sources: One row per source: source, pool, selected [, target], counts of rows (or tokens).
        points: Sample points in two dimensions.
        examples: Selected and not selected rows of a few clusters.
        metrics: Long table group, metric, value, unit, direction [, exactness, rows, nulls];
            groups are pool, selected, random, target.
        gate: One row per threshold of a metric: metric, value, bound, upper, direction, kind,
            passed.
        verdict: Verdict of the gate in words; "" without thresholds.
        calibration: Calibration of the classifier of the density ratio.
        error_curve: Quantization error by number of clusters, records clusters and share.
        warnings: Warnings of the run.
        stages: Stages with seconds and rows.
        settings: Nested settings; secrets are removed on rendering.
        versions: Name -> version.
        tables: Name -> location of the run's tables.
        links: Name -> location, for example of the tracked run.
        extra: Additional label -> value lines for the first table.
    """

    title: str
    run_id: str
    engine: str
    started: str = ""
    finished: str = ""
    inputs: tuple[InputSummary, ...] = ()
    quarantine: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    quarantine_table: str = ""
    budget_asked: str = ""
    budget_met: float | None = None
    budget_unit: str = "rows"
    rows_pool: int = 0
    rows_selected: int = 0
    copies_selected: int | None = None
    rows_target: int = 0
    objective: str = ""
    within_cluster: str = ""
    strategy: str = ""
    strategies: pd.DataFrame | None = None
    certificate: Certificate | None = None
    constraints: tuple[str, ...] = ()
    unreached: float | None = None
    mixture_share: float | None = None
    divergence: Divergence = field(default_factory=Divergence)
    plan: pd.DataFrame = field(default_factory=_empty_plan)
    sources: pd.DataFrame | None = None
    points: Points | None = None
    examples: tuple[Example, ...] = ()
    metrics: pd.DataFrame | None = None
    gate: pd.DataFrame | None = None
    verdict: str = ""
    calibration: Calibration | None = None
    error_curve: tuple[Mapping[str, float], ...] = ()
    warnings: tuple[RunWarning, ...] = ()
    stages: tuple[StageSummary, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the tables have the columns that the page reads.

        Raises:
            ValueError: A column is missing.
        """
        _require(self.plan, ("cluster", "rows", "take", "target_mass"), "plan")
        if self.sources is not None:
            _require(self.sources, ("source", "pool", "selected"), "sources")
        if self.metrics is not None:
            _require(self.metrics, ("group", "metric", "value"), "metrics")


def _require(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise ValueError(
            f"ReportData.{name} lacks the column(s) {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns)) or 'none'}."
        )


def project(
    target: NDArray[np.float32], pool: NDArray[np.float32], selection: NDArray[np.float32]
) -> Points:
    """Projection of vectors to the two directions of largest variance of pool and target.

    The axes are fitted on pool and target with equal weight, so that a large pool sample does not
    hide the direction in which a small target differs. The signs of the axes are fixed, so equal
    vectors give equal plots.

    Args:
        target: (n, d) sample of target vectors.
        pool: (m, d) sample of pool vectors.
        selection: (s, d) sample of selected vectors; may be empty.

    Returns:
        Points with the share of the weighted variance along the two axes.

    Example:
        >>> vectors = np.array([[0, 0, 0], [4, 0, 0], [0, 2, 0], [4, 2, 0]], dtype=np.float32)
        >>> points = project(vectors, vectors, vectors[:1])
        >>> points.pool.tolist()
        [[-2.0, -1.0], [2.0, -1.0], [-2.0, 1.0], [2.0, 1.0]]
        >>> points.selection.shape, points.explained
        ((1, 2), 1.0)
    """
    parts = [np.asarray(a, dtype=np.float64) for a in (target, pool) if len(a)]
    if not parts:
        empty = np.empty((0, 2), dtype=np.float32)
        return Points(target=empty, pool=empty, selection=empty)
    center = np.mean([a.mean(axis=0) for a in parts], axis=0)
    covariance = sum((a - center).T @ (a - center) / len(a) for a in parts) / len(parts)
    values, vectors = np.linalg.eigh(covariance)
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:  # one-dimensional vectors: a flat second axis
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    largest = np.abs(axes).argmax(axis=0)
    signs = np.where(axes[largest, np.arange(2)] < 0, -1.0, 1.0)
    axes = axes * signs
    total_variance = float(values.sum())
    explained = float(values[::-1][:2].sum()) / total_variance if total_variance > 0 else None

    def projected(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(matrix):
            return np.empty((0, 2), dtype=np.float32)
        return ((np.asarray(matrix, dtype=np.float64) - center) @ axes).astype(np.float32)

    return Points(
        target=projected(target),
        pool=projected(pool),
        selection=projected(selection),
        explained=explained,
    )
