"""What a report shows, as plain bounded values.

The pipeline fills a `ReportData`; `render` turns it into a page. Nothing here knows Spark, so a
page can be made again, or tested, from ten made-up numbers.
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
    """One table that was read. `version` is a Delta version or the hash of a list of files."""

    name: str  # 'pool', 'target', or the name of one of several targets
    location: str
    format: str
    version: str = ""
    rows: int = 0
    unusable: int = 0
    columns: str = ""  # roles, for instance 'text=body, source=site'


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage of a run. `skipped` means that an earlier run's table was used as it is."""

    name: str
    seconds: float
    rows: int | None = None
    skipped: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Caution:
    """A sign that something may be wrong: its name, what was seen, what to do."""

    name: str
    text: str
    action: str = ""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Proof of optimality: the plan's value, a lower bound on any plan's value, the difference."""

    primal: float
    dual: float
    gap: float


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Distance to the target of the pool, of random rows and of the selection (lower is nearer).

    `random` is a random draw of as many rows as the selection has. `path_rows` and `path` are the
    divergence as rows are added, in the plan's order.
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
    """Two-dimensional sample points, each (n, 2); `explained` is the share of variance shown."""

    target: Floats
    pool: Floats
    selection: Floats
    explained: float | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row shown to the reader: text, or an image (encoded bytes, or an array of pixels)."""

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
    """How far a classifier's probabilities can be trusted, per bin of predicted probability."""

    predicted: Floats
    observed: Floats
    rows: Floats
    auc: float | None = None
    name: str = "target-against-pool classifier"


@dataclass(frozen=True)
class ReportRows:
    """What a report shows of rows: counts per source, points, rows taken and left."""

    sources: pd.DataFrame | None
    points: Points
    examples: tuple[Example, ...]


def _no_plan() -> pd.DataFrame:
    return pd.DataFrame({"cluster": [], "rows": [], "take": [], "target_mass": []})


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a run's page shows. All parts but the first few may be left out.

    Attributes:
        title: heading of the page.
        run_id: the run's own id.
        engine: the line that says which engine ran it.
        started, finished: points in time as text (UTC).
        inputs: what was read.
        quarantine: rows put aside, side -> reason -> count.
        quarantine_table: where to read them.
        budget_asked: the budget as the user wrote it.
        budget_met: what was taken, in `budget_unit`.
        rows_pool, rows_selected, rows_target: usable rows.
        objective, within_cluster: names of the rules that chose.
        certificate: proof of optimality, when the objective has one.
        constraints: constraints that bind, in words.
        unreached: share of target mass that no pool row can serve (0..1).
        divergence: the verdict numbers and the path.
        plan: one row per cluster: cluster, rows, take, target_mass [, order, divergence_after,
            label, ...]; `label` is a short description of the cluster.
        sources: one row per source: source, pool, selected [, target], counts of rows (or tokens).
        points: sample points in two dimensions.
        examples: rows taken and left, of a few clusters.
        metrics: long table group, metric, value, unit, direction [, exactness, rows, nulls];
            groups are pool, selected, random, target.
        gate: one row per threshold of a metric: metric, value, bound, upper, direction, kind,
            passed.
        verdict: what the gate says, in words; "" where no threshold is set.
        calibration: of the classifier behind the density ratio.
        error_curve: quantisation error over the number of clusters, records clusters and share.
        cautions: failure signs, seen or feared.
        stages: seconds and rows.
        settings: nested settings (secrets are taken out on rendering).
        versions: name -> version.
        tables: name -> location of the run's tables.
        links: name -> location, for instance of the tracked run.
        extra: more label -> value lines for the first table.
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
    rows_target: int = 0
    objective: str = ""
    within_cluster: str = ""
    certificate: Certificate | None = None
    constraints: tuple[str, ...] = ()
    unreached: float | None = None
    divergence: Divergence = field(default_factory=Divergence)
    plan: pd.DataFrame = field(default_factory=_no_plan)
    sources: pd.DataFrame | None = None
    points: Points | None = None
    examples: tuple[Example, ...] = ()
    metrics: pd.DataFrame | None = None
    gate: pd.DataFrame | None = None
    verdict: str = ""
    calibration: Calibration | None = None
    error_curve: tuple[Mapping[str, float], ...] = ()
    cautions: tuple[Caution, ...] = ()
    stages: tuple[StageSummary, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a plan or a source table without the columns that the page reads.

        Raises:
            ValueError: when a column is missing.
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
    """Project vectors to the two directions of largest variance of pool and target together.

    The axes are fitted on pool and target with equal weight each, so that a large pool sample does
    not hide the direction in which a small target differs; the signs are fixed, so equal vectors
    give equal pictures.

    Args:
        target: (n, d) sample of target vectors.
        pool: (m, d) sample of pool vectors.
        selection: (s, d) sample of selected vectors; may be empty.

    Returns:
        Points with the share of the weighted variance that the two axes show.
    """
    parts = [np.asarray(a, dtype=np.float64) for a in (target, pool) if len(a)]
    if not parts:
        none = np.empty((0, 2), dtype=np.float32)
        return Points(target=none, pool=none, selection=none)
    centre = np.mean([a.mean(axis=0) for a in parts], axis=0)
    covariance = sum((a - centre).T @ (a - centre) / len(a) for a in parts) / len(parts)
    values, vectors = np.linalg.eigh(covariance)
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:  # one-dimensional vectors: a flat second axis
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    largest = np.abs(axes).argmax(axis=0)
    signs = np.where(axes[largest, np.arange(2)] < 0, -1.0, 1.0)
    axes = axes * signs
    total = float(values.sum())
    shown = float(values[::-1][:2].sum()) / total if total > 0 else None

    def placed(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(matrix):
            return np.empty((0, 2), dtype=np.float32)
        return ((np.asarray(matrix, dtype=np.float64) - centre) @ axes).astype(np.float32)

    return Points(
        target=placed(target), pool=placed(pool), selection=placed(selection), explained=shown
    )
