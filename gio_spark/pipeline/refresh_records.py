"""Records of refreshes, as stored in `runs`: counts, drift and its decision, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gio_spark.pipeline.run_records import Facts, PlanFigures

if TYPE_CHECKING:
    from gio_spark.tables import Record


class RefreshKeys(Facts):
    """Fingerprints of the pool's rows after a refresh, and of the plan where its budget is held."""

    embeddings: str
    assignments: str
    scores: str = ""
    quarantine: str = ""
    removed_rows: str = ""
    plan: str = ""


class RefreshCounts(Facts):
    """Rows of the pool and of the selection that a refresh has changed.

    Attributes:
        new_rows, changed_rows, gone_rows: Rows of the pool, compared with the version before.
        bad_rows: Rows of the pool that came to quarantine since then.
        before, added, dropped, after: Selected rows.
    """

    new_rows: int
    changed_rows: int
    gone_rows: int
    bad_rows: int
    before: int
    added: int
    dropped: int
    after: int


class DriftFigures(Facts):
    """Drift of the inputs since the plan of the run that is refreshed.

    Attributes:
        changed_targets: Targets at another version.
        share_shift: Total variation between the pool's shares per cluster, then and now, 0 to 1.
        lost_mass: Share of the target whose clusters have lost all rows since.
        rows: New and changed rows that the figures below are of.
        inertia_ratio: Their mean squared distance to their centroids over that of the run's pool.
        auc: AUC of the density ratio, target against these rows; None where rows have none.
        auc_before: The same against the run's pool.
    """

    changed_targets: tuple[str, ...] = ()
    share_shift: float
    lost_mass: float
    rows: int
    inertia_ratio: float | None = None
    auc: float | None = None
    auc_before: float | None = None


class DriftDecision(Facts):
    """Decision on drift: keep, replan, requantize or stop, with the figures and the reasons."""

    action: Literal["keep", "replan", "requantize", "stop"]
    reasons: tuple[str, ...] = ()
    figures: DriftFigures


class RefreshSummary(Facts):
    """Summary of a refresh.

    Attributes:
        counts: What it changed.
        version: Version of the pool that it read.
        table_id: Identity of the pool's table.
        pool_schema: The pool's columns.
        before: Fingerprint of the refresh before, "" for the first.
        number: From 1.
        keys: Fingerprints of the pool's rows.
        table: Table of the selected rows.
        budget: hold or float, as `refresh.budget` was.
        plan: Figures of the plan on the present rows; None in records of earlier versions.
        others: Held-out set or target -> its version; None in records of earlier versions.
        drift: Decision on drift.
    """

    counts: RefreshCounts
    version: str
    table_id: str
    pool_schema: dict[str, Any] = Field(alias="schema")
    before: str
    number: int
    keys: RefreshKeys
    table: str = ""
    budget: str = "float"
    plan: PlanFigures | None = None
    others: dict[str, str] | None = None
    drift: DriftDecision | None = None

    @classmethod
    def of(cls, record: Record) -> RefreshSummary:
        """Summary of a refresh, from its record; the table stands in the record itself."""
        return cls.model_validate({**record.detail, "table": record.table})
