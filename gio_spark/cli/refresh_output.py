"""Tables for a terminal: outcome and forecast of a refresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gio_spark.cli.show import text_table

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.pipeline.commands.plan_refresh import PlannedRefresh
    from gio_spark.pipeline.refresh import Refreshed
    from gio_spark.pipeline.refresh_records import DriftDecision

DRIFT_ACTIONS = {
    "keep": "the plan stays",
    "replan": "planned again on the same codebook",
    "requantize": "codebook fitted again and planned again",
    "stop": "not published",
}


def print_refresh(out: Console, done: Refreshed) -> None:
    """Print what a refresh changed."""
    from gio_spark.report.text_format import verdict_text

    table = text_table(f"Refresh of {done.run_id}", "", "")
    table.add_row("new rows in the pool", f"{done.new_rows:,}")
    table.add_row("changed rows", f"{done.changed_rows:,}")
    table.add_row("rows gone from the pool", f"{done.gone_rows:,}")
    table.add_row("newly in quarantine", f"{done.bad_rows:,}")
    table.add_row("selected before", f"{done.before:,}")
    table.add_row("added", f"{done.added:,}")
    table.add_row("dropped", f"{done.dropped:,}")
    table.add_row("selected now", f"{done.after:,}")
    for word, text in (*plan_lines(done), *drift_lines(done.drift)):
        table.add_row(word, text)
    if done.gate is not None:
        said = verdict_text(passed=done.gate.passed, checks=len(done.gate.checks))
        table.add_row("gate", f"{said}: " + done.gate.why.splitlines()[0])
    if done.drifted:
        table.add_row("metrics that drifted", ", ".join(done.drifted))
    out.print(table)
    for notice in done.plan.notices if done.plan else ():
        out.print(f"{notice.text} {notice.remedy}", style="yellow", markup=False)
    if done.follows:
        out.print(f"{done.run_id} is a new run; it follows {done.follows}.", markup=False)
    if not done.did_work:
        out.print("Nothing to do: the inputs have not changed.")


def print_planned_refresh(out: Console, planned: PlannedRefresh) -> None:
    """Print what a refresh would do."""
    table = text_table(f"Refresh of {planned.run_id} (nothing is written)", "", "")
    table.add_row("rows of the pool", f"{planned.pool_rows:,}")
    table.add_row("new", f"{planned.new_rows:,}")
    table.add_row("changed", f"{planned.changed_rows:,}")
    table.add_row("gone", f"{planned.gone_rows:,}")
    table.add_row("to embed", f"{planned.rows_to_embed:,}")
    if planned.changed_targets:
        table.add_row("changed targets", ", ".join(planned.changed_targets))
    for word, text in drift_lines(planned.drift):
        table.add_row(f"{word}, newest refresh", text)
    out.print(table)
    if planned.is_current:
        out.print("Nothing to do: the inputs have not changed.")
        return
    costs = text_table("Expected cost", "stage", "rows", "seconds")
    for stage in planned.stages:
        seconds = "unknown" if stage.seconds is None else f"{stage.seconds:,.1f}"
        costs.add_row(stage.name, f"{stage.rows:,}", seconds)
    costs.add_row("all", "", f"{planned.seconds:,.1f}")
    out.print(costs)


def drift_lines(drift: DriftDecision | None) -> list[tuple[str, str]]:
    """Drift since the plan and the decision on it, as pairs of a word and a text."""
    if drift is None:
        return []
    figures = drift.figures
    texts = [f"shares {figures.share_shift:.3f}", f"target without rows {figures.lost_mass:.2%}"]
    if figures.inertia_ratio is not None:
        texts.append(f"squared distance of {figures.rows:,} new rows x {figures.inertia_ratio:.2f}")
    if figures.auc is not None and figures.auc_before is not None:
        texts.append(f"AUC {figures.auc:.3f} (was {figures.auc_before:.3f})")
    if figures.changed_targets:
        texts.append(f"changed: {', '.join(figures.changed_targets)}")
    decision = DRIFT_ACTIONS[drift.action] + "".join(f"; {text}" for text in drift.reasons)
    return [("drift since the plan", ", ".join(texts)), ("decision", decision)]


def plan_lines(done: Refreshed) -> list[tuple[str, str]]:
    """Budget, divergence and certificate of a refresh, as pairs of a word and a text."""
    plan = done.plan
    if plan is None:
        return []
    selection, random, pool = (plan.divergences[n] for n in ("selection", "random", "pool"))
    lines = [
        (
            f"budget ({'held' if done.budget == 'hold' else 'floating'})",
            f"{plan.spent:,.0f} of {plan.budget:,.0f} {plan.unit}",
        ),
        (
            "divergence from the target",
            f"{selection:.4g} nats (random rows {random:.4g}, pool {pool:.4g})",
        ),
        ("target without a counterpart", f"{plan.lost_mass:.2%}"),
    ]
    if plan.certificate is not None:
        _, bound, gap = plan.certificate
        lines.append(("certificate", f"optimum at least {bound:.4g} nats, gap {gap:.2g}"))
    return lines
