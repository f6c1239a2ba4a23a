"""Typed records of a run: facts of stages, plans and gates, as stored in `runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from gio_spark.gime import Threshold, ThresholdCheck

if TYPE_CHECKING:
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Record


class Facts(BaseModel):
    """Base of all typed records: immutable, stored as JSON, fields of later versions left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        """Values fit for JSON; a NaN stays one."""
        return self.model_dump(mode="json", by_alias=True)


class RatioFacts(Facts):
    """Facts of a fitted density ratio.

    Attributes:
        auc: Held-out area under the curve, target against pool.
        error: Calibration error.
        table: Columns of the calibration table.
        target_rows: Rows of the targets that it was fitted on.
        pool_rows: Rows of the pool.
        warnings: Warnings for the user.
        kind: text or vector: what is scored.
    """

    auc: float
    error: float
    table: dict[str, list[float]]
    target_rows: int
    pool_rows: int
    warnings: tuple[str, ...] = ()
    kind: str


class ScoreBias(Facts):
    """A metric that the rows of a cluster are ranked towards.

    Attributes:
        metric: Name, `source/metric` for the rows of one source.
        sign: 1 where more is better, -1 where less is.
        mean: Mean of a row's value on a sample.
        scale: Its standard deviation.
        weight: Weight of the standardized value beside the log ratio.
    """

    metric: str
    sign: float
    mean: float
    scale: float
    weight: float


class RequiredRow(Facts):
    """A row that is always selected: its id, cluster and source ("" without one)."""

    id: str
    cluster: int
    source: str


class GateFacts(Facts):
    """Thresholds of metrics that a plan was held to, and how.

    Attributes:
        thresholds: What a selection must reach.
        here: Metrics of random subsets of the size at which the thresholds were found.
        rescale: Whether bounds are rescaled to the size of the selection.
        level: Fraction of full performance that automatic thresholds are for.
        moved: Times that the allocation was changed.
        rows_moved: Rows that changed their cluster by it.
        score_biases: Metrics that rows are ranked towards.
        required_rows: Rows that are always selected.
        notes: Notes for the user.
    """

    thresholds: tuple[Threshold, ...]
    here: dict[str, float] = {}
    rescale: bool = True
    level: float | None = None
    moved: int = 0
    rows_moved: int = 0
    score_biases: tuple[ScoreBias, ...] = ()
    required_rows: tuple[RequiredRow, ...] = ()
    notes: tuple[str, ...] = ()


class VerdictFacts(Facts):
    """Verdict of a gate: whether every threshold is met, the reason, and each check."""

    passed: bool
    why: str
    checks: tuple[ThresholdCheck, ...] = ()
    notes: tuple[str, ...] = ()
    tries: int = 0


class AutomaticBudget(Facts):
    """Basis of the budget `auto`.

    Attributes:
        kappa: Largest share of the pool that can have the target's distribution.
        heldout_budget: Budget at which the held-out curve is lowest, as a share of the pool.
        curve: Budgets, cross-entropies and their standard errors.
    """

    kappa: float
    heldout_budget: float
    curve: tuple[list[float], list[float], list[float]]


class SensitivityFacts(Facts):
    """Facts of sensitivity runs.

    Attributes:
        measure: How models are scored.
        proxy: Kind of model.
        sample: Rows of the sample.
        size: Rows of a subset.
        models: Models trained.
        seconds: Processor time of their training.
        full_score: Score on the whole sample.
        random_score: Mean and standard deviation of the score on random subsets.
        full_seconds: Processor time of a model of the whole sample.
        notes: Remarks for the reader.
        directions: Metric -> 1 where more is better, -1 where less is, 0 where it is unknown.
        random_metrics: Metric -> mean over random subsets.
    """

    measure: str
    proxy: str
    sample: int
    size: int
    models: int
    seconds: float
    full_score: float
    random_score: tuple[float, float]
    full_seconds: float
    notes: tuple[str, ...]
    directions: dict[str, int]
    random_metrics: dict[str, float]


class MixtureFacts(Facts):
    """Share of the pool that can have the target's distribution (mixture-proportion estimate).

    Attributes:
        share: Largest share of the pool that can have it; see `gio.mixture_share`.
        pool_share: Share of the pool in the set of rows that decides it.
        target_share: Share of the target in that set.
        pool_scores, target_scores: Log ratio in tenths -> rows; empty in earlier records.
    """

    share: float
    pool_share: float
    target_share: float
    pool_scores: dict[int, int] = {}
    target_scores: dict[int, int] = {}


class CandidateFacts(Facts):
    """Figures of a candidate strategy, in parts of the loss of random rows.

    Attributes:
        name: Strategy.
        gain, gain_error: Gain over the default and its standard error; NaN if it failed.
        over_random, over_random_error: The same over random rows.
        seconds: Mean wall time of a selection from the sample.
        problem: Why it dropped out; empty otherwise.
    """

    name: str
    gain: float
    gain_error: float
    over_random: float
    over_random_error: float
    seconds: float
    problem: str = ""


class StrategyFacts(Facts):
    """Choice of a strategy before the plan.

    Attributes:
        strategy: Chosen strategy.
        reason: Why, in one sentence.
        warning: What the user should know; empty otherwise.
        judge: What judged; empty where nothing could.
        splits: Splits of the target.
        judging_rows: Target rows that judged, of all splits together.
        sample_rows: Rows of the pool's sample.
        seconds: Wall time of trials and judgment.
        candidates: Figures, best first.
        dropped: Strategies that the settings rule out -> why.
        settings: Settings that carry the strategy out.
    """

    strategy: str
    reason: str
    warning: str = ""
    judge: str = ""
    splits: int = 0
    judging_rows: int = 0
    sample_rows: int = 0
    seconds: float = 0.0
    candidates: tuple[CandidateFacts, ...] = ()
    dropped: dict[str, str] = {}
    settings: dict[str, str | float] = {}

    @property
    def line(self) -> str:
        """Choice, reason and judge on one line."""
        if not self.judge:
            return f"{self.strategy}: {self.reason}"
        return (
            f"{self.strategy}: {self.reason} Judge: {self.judge}, {self.judging_rows:,} target "
            f"rows in {self.splits} splits; {self.sample_rows:,} pool rows, {self.seconds:.0f} s."
        )

    def applied_to(self, settings: RunSettings) -> RunSettings:
        """Settings of a run that carry the strategy out."""
        return settings.with_strategy(self.strategy)


class Notice(Facts):
    """Notice of a possible problem: name, observation, remedy."""

    name: str
    text: str
    remedy: str


class PlanFigures(Facts):
    """Figures of a plan on the rows of a pool.

    Attributes:
        budget: Budget asked for, in `unit`.
        unit: rows or tokens.
        spent: Budget spent.
        rows: Rows to select.
        divergence: Objective's value.
        lost_mass: Share of the target that no cluster of the pool reaches.
        certificate: Value, lower bound and gap of a certified optimum.
        binding: Constraints that bind, in words.
        notices: Signs of failure.
        divergences: Smoothed KL divergence of pool, random rows and selection.
        copies: Rows to select with their repeats, where rows repeat.
        fresh_rows: Rows of the pool that may be taken, where rows repeat.
    """

    budget: float
    unit: str
    spent: float
    rows: int
    divergence: float
    lost_mass: float
    certificate: tuple[float, float, float] | None = None
    binding: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    divergences: dict[str, float]
    copies: int | None = None
    fresh_rows: int | None = None


class PlanFacts(PlanFigures):
    """Facts of a plan.

    Attributes:
        objective: Name of the objective.
        auto: Where the budget is `auto`.
        gate: Thresholds of metrics in force, or None.
    """

    objective: str
    auto: AutomaticBudget | None = None
    gate: GateFacts | None = None


class RunKeys(Facts):
    """Fingerprints of the tables and models of a run, for refresh and gate.

    `quarantine` is that of unusable rows of all inputs, `removed_rows` that of the rows that the
    stage clean removed from the pool.
    """

    embeddings: dict[str, str]
    embed_fit: str
    fit: str
    centroids: str
    assignments: dict[str, str]
    scores: str = ""
    ratio: str = ""
    quarantine: str = ""
    removed_rows: str = ""


class RunSummary(Facts):
    """Summary of a finished run; `Curation.summary` has the same as plain values.

    Attributes:
        run: Id of the run.
        name: Name that it publishes under.
        engine: Engine, in one line.
        embedder: Name and revision.
        sides: Dataset -> usable rows.
        clusters: Number of clusters.
        clusters_selected: Number of those that rows are selected from; None in earlier records.
        budget: As it was set.
        budget_in_words: The same in words, with what tokens are.
        spent: Rows or tokens of the selected rows, repeats included.
        copies: Selected rows with their repeats, where rows repeat.
        gate: Verdict, or None where no thresholds are in force.
        quarantine: Dataset -> reason -> rows.
        versions: Dataset -> version read.
        table_id: Identity of the pool's table.
        table_ids: Dataset -> identity of its table; empty in records of earlier versions.
        pool_schema: The pool's columns, as `StructType.jsonValue` gives them.
        inputs: Dataset -> location.
        columns: Dataset -> column -> type; empty in records of earlier versions.
        cautions: Name, text and advice of each warning.
        stages: Name, seconds, rows, and whether it was complete already, of each stage.
        keys: Fingerprints of tables and models.
        basis: Run whose codebook this one began with, and whether it was kept (replan) or fitted
            again from it (requantize); empty for others.
        strategy: Choice of the strategy, where `select.strategy` is auto.
        settings: All settings, as they were asked for.
        identity: Those that decide what is selected.
    """

    run: str
    name: str
    engine: str
    embedder: tuple[str, str]
    sides: dict[str, int]
    pool_rows: int
    target_rows: int
    selected_rows: int
    clusters: int
    clusters_selected: int | None = None
    budget: str
    budget_in_words: str = ""
    spent: float
    copies: int | None = None
    unit: str
    objective: str
    within_cluster: str
    divergences: dict[str, float]
    lost_mass: float
    certificate: tuple[float, float, float] | None
    binding: tuple[str, ...]
    auto: AutomaticBudget | None
    mixture: MixtureFacts | None = None
    gate: VerdictFacts | None
    quarantine: dict[str, dict[str, int]]
    versions: dict[str, str]
    table_id: str
    table_ids: dict[str, str] = {}
    pool_schema: dict[str, Any] = Field(alias="schema")
    inputs: dict[str, str]
    columns: dict[str, dict[str, str]] = {}
    cautions: tuple[tuple[str, str, str], ...]
    stages: tuple[tuple[str, float, int | None, bool], ...]
    report: str
    plan_key: str
    keys: RunKeys
    basis: dict[str, str] = {}
    strategy: StrategyFacts | None = None
    settings: dict[str, Any]
    identity: dict[str, Any]
    started: str
    seconds: float

    @classmethod
    def of(cls, record: Record) -> RunSummary:
        """Summary of a finished run, from its record."""
        return cls.model_validate(record.detail)

    def carried_out(self, settings: RunSettings) -> RunSettings:
        """Settings of this run with the strategy that it has chosen."""
        return settings if self.strategy is None else self.strategy.applied_to(settings)
