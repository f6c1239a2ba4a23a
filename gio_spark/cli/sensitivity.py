"""`gio-spark sensitivity`: which metrics matter on this data, with thresholds and their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gio_spark.cli.metrics import print_text_table

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.pipeline.commands.sensitivity import SensitivityOutput
    from gio_spark.settings.run import RunSettings


def sensitivity_of_run(out: Console, settings: RunSettings) -> SensitivityOutput:
    """Run what is missing, print the table, thresholds and curve, and write the page."""
    from gio_spark.pipeline.commands.sensitivity import sensitivity
    from gio_spark.report import sensitivity_page as page

    found = sensitivity(settings)
    learnt = found.result
    print_text_table(out, page.sensitivity_table(learnt.table), ("metric", "class", "effect",
                     "95 % interval", "Spearman", "band", "pursued"))  # fmt: skip
    print_text_table(out, page.threshold_table(found.thresholds, found.level))
    print_text_table(out, page.curve_table(learnt.curve))
    facts = learnt.facts
    out.print(
        f"{facts.models:,} models trained, {facts.seconds:.1f} s of processor time; full "
        f"sample {facts.full_score:.4g} ({facts.measure}), random subsets of "
        f"{facts.size:,} rows {facts.random_score[0]:.4g}."
    )
    for note in facts.notes:
        out.print(f"note: {note}", style="yellow", markup=False)
    if found.skipped:
        out.print("Nothing was left to do: the runs were complete.")
    out.print(f"table: {found.place}", markup=False)
    out.print(f"page: {found.page}", markup=False)
    if not settings.gime.enforces_thresholds:
        out.print(
            "Thresholds hold a run once you pick a point: gime.level=0.95, "
            "gime.accepted_loss=0.05, or gime.thresholds by hand.",
            markup=False,
        )
    return found
