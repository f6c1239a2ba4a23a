"""Stage report: the gate's verdict, and the page of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gio_spark.pipeline.constraints.gate_verdict import (
    as_facts,
    checks_table,
    report_verdict,
    verdict_of,
)
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.pipeline.stages.report_inputs import report_data
from gio_spark.tables.output_folders import report_folder

if TYPE_CHECKING:
    from gio_spark.pipeline.run_state import RunState


def report_stage() -> Stage:
    """Judge the metrics and render the report; made anew by every run that gets this far."""
    return Stage(
        "report",
        write_report,
        inputs=("selection", "plan", "metrics"),
        reads=("report_rows", "codebook", "datasets"),
        outputs=("report",),
        key_of_run=True,
    )


def write_report(step: Step, state: RunState) -> None:
    """Set the report's path and the verdict."""
    from gio_spark.report.html_page import render

    ctx = step.ctx
    verdict = verdict_of(state.plan.facts.gate, state.metrics)
    report_verdict(ctx, verdict)
    with ctx.progress.stage("report") as progress:
        data = report_data(ctx, state)
        if verdict is not None:
            state.verdict = as_facts(verdict)
            data = replace(data, verdict=verdict.why, gate=checks_table(state.verdict))
        folder = report_folder(ctx.workspace, ctx.run)
        state.report = render(data, folder, with_plots=ctx.settings.report.plots)
        progress.done(str(state.report))
