"""`gio-spark gate`: may training start on this selection?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gio_spark.cli.metrics import print_text_table

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.pipeline.commands.gate import Gated
    from gio_spark.settings.run import RunSettings


def print_gate(out: Console, settings: RunSettings, run_id: str | None, *, compare: bool) -> Gated:
    """Judge a run's selection and print the verdict."""
    from gio_spark.pipeline.commands.gate import gate
    from gio_spark.report.gate_page import check_table, score_table, way_table
    from gio_spark.report.text_format import verdict_text

    found = gate(settings, run_id=run_id, compare=compare)
    best = ["best seen"] if "best" in found.checks else []
    columns = ["metric", "selection", "asked for", *best, "verdict"]
    print_text_table(out, check_table(found.checks), columns)
    if found.ways is not None:
        shown = way_table(found.ways, found.checks, found.passes or {}, found.scores)
        print_text_table(out, shown, [c for c in shown.columns if c not in ("unit", "asked for")])
    if found.scores is not None:
        print_text_table(out, score_table(found.scores))
    out.print(
        f"gate of {found.run_id}: "
        + verdict_text(passed=found.passed, checks=len(found.verdict.checks)),
        style="green" if found.passed else "red",
    )
    for line in found.verdict.why.splitlines():
        out.print(line, markup=False)
    for note in found.verdict.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    if found.page is not None:
        out.print(f"page: {found.page}", markup=False)
    return found
