"""The gate: a verdict on measured rows, kept with the run and given by `gio-spark gate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from gio_spark import gime
from gio_spark.pipeline.constraints.enforce import judge

if TYPE_CHECKING:
    from gio_spark.pipeline.stage_runner import Context
    from gio_spark.tables import Record, Workspace

CHECKS = ("metric", "value", "bound", "upper", "direction", "kind", "passed", "why")


def verdict_of(gate: Mapping[str, Any] | None, figures: pd.DataFrame) -> gime.Verdict | None:
    """Judge the metrics of selected rows; None where no thresholds are in force.

    Args:
        gate: The `gate` of a plan's facts.
        figures: Metrics of the groups selected and random.
    """
    if gate is None:
        return None
    groups = {name: gime.robust(figures, name) for name in ("selected", "random")}
    return judge(gate, groups)


def as_facts(verdict: gime.Verdict | None) -> dict[str, Any] | None:
    """Return a verdict as plain values, for records."""
    if verdict is None:
        return None
    return {
        "passed": verdict.passed,
        "why": verdict.why,
        "checks": [asdict(c) for c in verdict.checks],
        "notes": list(verdict.notes),
        "tries": verdict.tries,
    }


def gate_facts(workspace: Workspace, record: Record) -> dict[str, Any] | None:
    """Return the thresholds that a finished run's plan was held to, or None."""
    plans = [
        r for r in workspace.records()
        if r.stage == "plan" and r.fingerprint == record.detail["plan_key"]
    ]  # fmt: skip
    return plans[-1].detail.get("gate") if plans else None


def checks_table(verdict: Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Return the checks of a recorded verdict as a table."""
    if verdict is None:
        return None
    return pd.DataFrame(verdict["checks"], columns=list(CHECKS))


def tell(ctx: Context, verdict: gime.Verdict | None) -> None:
    """Put a verdict into the run's cautions and its tracked record."""
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
        ctx.caution(
            "the gate fails",
            verdict.why.replace("\n", " "),
            "Accept a larger loss (gime.accepted_loss), lower the threshold, raise the budget, "
            "or widen the pool.",
        )
    for note in verdict.notes:
        ctx.caution("seen by the gate", note, "See the gate's table.")
