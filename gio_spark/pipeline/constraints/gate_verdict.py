"""Verdict of the gate on measured rows, stored with the run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd

from gio_spark import gime
from gio_spark.pipeline.constraints.enforce import judge
from gio_spark.pipeline.run_records import GateFacts, PlanFacts, VerdictFacts

if TYPE_CHECKING:
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.tables import Workspace

CHECKS = ("metric", "value", "bound", "upper", "direction", "kind", "passed", "why")


def verdict_of(gate: GateFacts | None, figures: pd.DataFrame) -> gime.Verdict | None:
    """Judge the metrics of selected rows; None where no thresholds are in force.

    Args:
        gate: Of a plan's facts.
        figures: Metrics of the groups selected and random.
    """
    if gate is None:
        return None
    groups = {name: gime.robust_values(figures, name) for name in ("selected", "random")}
    return judge(gate, groups)


def as_facts(verdict: gime.Verdict) -> VerdictFacts:
    """Verdict as it is recorded."""
    return VerdictFacts(
        passed=verdict.passed, why=verdict.why, checks=verdict.checks, notes=verdict.notes,
        tries=verdict.tries,
    )  # fmt: skip


def gate_facts(workspace: Workspace, plan_key: str) -> GateFacts | None:
    """Thresholds that a finished run's plan was held to, or None."""
    plans = workspace.recorded("plan", plan_key)
    return PlanFacts.model_validate(plans[-1].detail).gate if plans else None


def checks_table(verdict: VerdictFacts) -> pd.DataFrame:
    """Checks of a recorded verdict as a table."""
    return pd.DataFrame([asdict(check) for check in verdict.checks], columns=list(CHECKS))


def report_verdict(ctx: RunContext, verdict: gime.Verdict | None) -> None:
    """Add a verdict to the run's warnings and its tracked record."""
    if verdict is None:
        return
    numbers = {"gate/passed": float(verdict.passed), "gate/moved": float(verdict.tries)}
    for check in verdict.checks:
        numbers[f"gate/{check.metric}/passed"] = float(check.passed)
        numbers[f"gate/{check.metric}/bound"] = float(check.bound)
    ctx.tracker.metrics(numbers)
    ctx.tracker.tags(
        {"gio.gate": "passed" if verdict.passed else "failed", "gio.gate.why": verdict.why}
    )
    if not verdict.passed:
        ctx.warn(
            "the gate fails",
            verdict.why.replace("\n", " "),
            "Accept a larger loss (gime.accepted_loss), lower the threshold, raise the budget, "
            "or widen the pool.",
        )
    for note in verdict.notes:
        ctx.warn("note of the gate", note, "See the gate's table.")
