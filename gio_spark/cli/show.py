"""Tables for a terminal: forecast, outcome of a run, list of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gio_spark.errors import InputError
from gio_spark.settings.strategy_settings import WHOLE_POOL

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.gio.selection_checks import DataCheck
    from gio_spark.pipeline import Curation
    from gio_spark.pipeline.commands.forecast import Forecast
    from gio_spark.pipeline.stage_runner import PlannedStage
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Input, Record


# Reasons of quarantine shown for each input; the report has all.
_REASONS = 6


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    return ""


def text_table(title: str, *columns: str) -> Table:
    """Return an empty table for a terminal, its first column aligned to the left."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    return table


def print_forecast(
    out: Console, settings: RunSettings, made: Forecast, inputs: dict[str, Input], embedder: str
) -> None:
    """Print the plan of a run and what it will take."""
    table = text_table("Inputs", "input", "rows", "format", "version", "location")
    for name, one in inputs.items():
        table.add_row(name, f"{one.count:,}", one.format, one.version[:12], one.location)
    out.print(table)
    plan = text_table("Plan", "", "")
    plan.add_row("embedder", f"{embedder}, {made.dimension} numbers")
    plan.add_row("clusters", f"{made.clusters:,}")
    if settings.select.strategy == "auto":
        plan.add_row("strategy", "auto: chosen on a sample before the plan")
    else:
        plan.add_row("objective", settings.select.objective)
        plan.add_row("inside a cluster", settings.explode.within_cluster)
    plan.add_row("budget", made.budget)
    plan.add_row("workspace", settings.workspace)
    out.print(plan)
    cost = text_table("Forecast", "", "")
    for name, seconds in made.core_seconds.items():
        cost.add_row(f"core-seconds: {name}", f"{seconds:,.0f}")
    cost.add_row("core-hours in all", f"{made.core_hours:.3g}")
    cost.add_row("written", _size(made.bytes_written))
    if made.worker_bytes:
        cost.add_row("driver memory", _size(made.driver_bytes))
        cost.add_row("memory per Python worker", _size(made.worker_bytes))
    else:
        cost.add_row("memory of the process", _size(made.driver_bytes))
    out.print(cost)
    out.print("The configuration is valid.")


def print_planned_stages(out: Console, stages: Sequence[PlannedStage]) -> None:
    """Print the stages that a run would go through."""
    table = text_table("Stages", "stage", "")
    for stage in stages:
        table.add_row(stage.name, "complete" if stage.complete else "to do")
    out.print(table)
    for stage in stages:
        if stage.note:
            out.print(f"{stage.name}: {stage.note}", markup=False)
    todo = sum(not stage.complete for stage in stages)
    out.print(f"{todo} of {len(stages)} stages to do; nothing was run.")


def print_curation(out: Console, curation: Curation, until: str | None) -> None:
    """Print what a run gave."""
    summary = curation.summary
    if until is not None and "selected_rows" not in summary:
        done = "complete already" if not curation.did_work else "done"
        out.print(f"{curation.run_id}: {until} is {done}.")
    else:
        _print_summary(out, summary)
        if not curation.did_work:
            out.print("Nothing was left to do: every stage was complete.")
    for name in ("selected", "plan"):
        if name in curation.tables:
            out.print(f"{name}: {curation.tables[name]}")
    if curation.report is not None:
        out.print(f"report: {curation.report}")


def _print_summary(out: Console, summary: dict[str, Any]) -> None:
    from gio_spark.report.text_format import clusters_text, verdict_text

    share = summary["selected_rows"] / max(1, summary["pool_rows"])
    table = text_table(f"Run {summary['run']}", "", "")
    table.add_row(
        "selected", f"{summary['selected_rows']:,} of {summary['pool_rows']:,} rows ({share:.1%})"
    )
    if summary.get("copies") is not None:
        table.add_row(
            "with repeats", f"{summary['copies']:,} rows (gio_repeat: how often each row counts)"
        )
    if summary.get("budget_in_words"):
        table.add_row("budget", summary["budget_in_words"])
    if summary["unit"] == "tokens":
        table.add_row("tokens of these rows", f"{summary['spent']:,.0f}")
    table.add_row("target", f"{summary['target_rows']:,} rows")
    with_rows = summary.get("clusters_selected")
    table.add_row("clusters", clusters_text(summary["clusters"], with_rows, ""))
    has_quotas = summary["objective"] != WHOLE_POOL
    rows_by = f"{'inside a cluster' if has_quotas else 'all rows by'} {summary['within_cluster']}"
    table.add_row("chosen by", f"{summary['objective']}, {rows_by}")
    if summary.get("strategy"):
        from gio_spark.pipeline.run_records import StrategyFacts

        table.add_row("strategy", StrategyFacts.model_validate(summary["strategy"]).line)
    found = summary["divergences"]
    table.add_row(
        "divergence from target",
        f"pool {_nats(found['pool'])}, random rows {_nats(found['random'])}, "
        f"selection {_nats(found['selection'])} nats",
    )
    if summary.get("mixture"):
        share = summary["mixture"]["share"]
        table.add_row(
            "pool like the target",
            f"about {share * summary['pool_rows']:,.0f} rows ({share:.2%}) can have the target's "
            "distribution",
        )
    if summary["certificate"]:
        gap = max(0.0, summary["certificate"][2])
        table.add_row("certified", f"no plan is better by more than {gap:.1e}")
    judged = summary.get("gate")
    if judged is not None:
        said = verdict_text(passed=judged["passed"], checks=len(judged["checks"]))
        table.add_row("gate", f"{said}: " + judged["why"].splitlines()[0])
    for side, reasons in summary["quarantine"].items():
        for reason, rows in sorted(reasons.items(), key=lambda item: -item[1])[:_REASONS]:
            table.add_row(f"quarantine, {side}", f"{rows:,} {reason}")
    out.print(table)
    for name, text, action in summary["cautions"]:
        out.print(f"warning, {name}: {text} {action}", style="yellow", markup=False)


def _nats(value: float) -> str:
    """Divergence with three decimals; one that is zero but for rounding has no sign."""
    return f"{round(value, 3) + 0.0:.3f}"


def print_runs(out: Console, records: Sequence[Record]) -> None:
    """Print the finished runs of a workspace."""
    table = text_table("Runs", "run", "name", "finished", "rows", "budget", "engine")
    for record in records:
        if record.stage == "run":
            detail = record.detail
            table.add_row(
                record.run,
                detail["name"],
                f"{record.finished:%Y-%m-%d %H:%M}",
                f"{record.rows:,}",
                str(detail["budget"]),
                detail["engine"].split(" · ")[0],
            )
    out.print(table)


def print_run(out: Console, records: Sequence[Record], run_id: str) -> None:
    """Print everything known of one run.

    Raises:
        InputError: There is no such run.
    """
    own = [r for r in records if r.run == run_id]
    if not own:
        known = sorted({r.run for r in records})
        raise InputError(f"No run {run_id!r} is recorded here. Known: {', '.join(known[-10:])}.")
    whole = [r for r in own if r.stage == "run"]
    if whole:
        summary = whole[-1].detail
        out.print(summary["engine"])
        _print_summary(out, summary)
        for name, place in summary["inputs"].items():
            out.print(f"{name}: {place} at {summary['versions'][name]}")
        out.print(f"report: {summary['report']}")
    table = text_table("Stages of this run", "stage", "rows", "seconds", "table", "version")
    for record in own:
        if record.stage != "run":
            table.add_row(
                record.stage,
                f"{record.rows:,}",
                f"{record.seconds:.1f}",
                record.table,
                str(record.version),
            )
    out.print(table)
    if not whole:
        out.print("The run has not finished; run it again to go on.")


def print_checks(out: Console, checks: Sequence[DataCheck]) -> bool:
    """Print verdicts; tells whether all of them held."""
    for one in checks:
        name = one.name.replace("_", " ")
        out.print(
            f"{'ok  ' if one.passed else 'FAIL'} {name}: {one.text}",
            markup=False,
            style="green" if one.passed else "red",
        )
        if not one.passed:
            out.print(f"     {one.remedy}", markup=False)
    return all(one.passed for one in checks)
