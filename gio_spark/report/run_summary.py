"""Summary of a run in words: sentences and key numbers for the head of the page."""

from __future__ import annotations

from gio_spark.report.report_data import ReportData
from gio_spark.report.text_format import (
    clean_text,
    count_text,
    duration_text,
    number_text,
    percent_text,
)

ROUNDING_GAP = 1e-9  # a gap below this is rounding


def summary(data: ReportData) -> list[str]:
    """Sentences at the head of the page, for readers who did not start the run."""
    return [
        s
        for s in (
            _selection_text(data),
            _distance_text(data),
            _limits_text(data),
            _gate_text(data),
            _work_text(data),
        )
        if s
    ]


def _selection_text(data: ReportData) -> str:
    if not data.rows_selected:
        return (
            f"Nothing was selected from the pool of {count_text(data.rows_pool)} rows: see the "
            "notes "
            "below for the reason."
        )
    share = data.rows_selected / data.rows_pool if data.rows_pool else None
    share_text = f" ({percent_text(share)})" if share is not None else ""
    target_text = f" of {count_text(data.rows_target)} rows" if data.rows_target else ""
    return (
        f"From a pool of {count_text(data.rows_pool)} rows this run took "
        f"{count_text(data.rows_selected)}"
        f"{share_text}, {_manner_text(data)}{target_text}." + _copies_text(data)
    )


def _manner_text(data: ReportData) -> str:
    if data.objective != "whole_pool":
        return "chosen so that together they look like the target"
    if data.within_cluster == "exact_count":
        return "drawn at random, whatever the target"
    return "each chosen for how much it looks like the target"


def _copies_text(data: ReportData) -> str:
    if data.copies_selected is None:
        return ""
    return (
        f" With their repeats (gio_repeat) they count as {count_text(data.copies_selected)} rows; "
        "distances from the target are of these."
    )


def _distance_text(data: ReportData) -> str:
    selection_distance, reference = data.divergence.selection, data.divergence.random
    reference_name = f"{count_text(data.rows_selected)} random rows"
    if selection_distance is None:
        return ""
    if reference is None:
        reference, reference_name = data.divergence.pool, "the whole pool"
    sentence = (
        f"Their distance from the target is {number_text(selection_distance)} "
        f"{data.divergence.unit}"
    )
    if reference is None:
        return sentence + "."
    sentence += f"; for {reference_name} it is {number_text(reference)}"
    if selection_distance < 0 or reference <= 0:
        return sentence + "."
    if selection_distance <= reference * 0.01:
        return sentence + ": almost nothing of the difference is left."
    if selection_distance < reference * 0.95:
        return (
            sentence
            + f": the selection is {reference / selection_distance:.1f} times nearer to the target."
        )
    if selection_distance <= reference * 1.05:
        return sentence + ": the selection is no nearer to the target than random rows are."
    return sentence + ": the selection is FARTHER from the target than random rows are."


def _limits_text(data: ReportData) -> str:
    parts = []
    if data.certificate is not None:
        gap = max(data.certificate.gap, 0.0)
        parts.append(
            "The plan is proved to be the best one for this budget and these clusters."
            if gap < ROUNDING_GAP
            else "No other plan with this budget and these clusters can be nearer by more than "
            f"{number_text(gap, 2)} {data.divergence.unit}."
        )
    if data.unreached:
        parts.append(
            f"{percent_text(data.unreached)} of the target lies where the pool has no rows; no "
            "selection can serve that part."
        )
    return " ".join(parts)


def _gate_text(data: ReportData) -> str:
    if data.gate is None:
        return ""
    if not len(data.gate):
        return clean_text(data.verdict, 900)
    verdict = "passes" if bool(data.gate["passed"].all()) else "FAILS"
    return f"The gate of the metrics {verdict}: {clean_text(data.verdict, 900)}"


def _work_text(data: ReportData) -> str:
    parts = []
    unusable = sum(sum(reasons.values()) for reasons in data.quarantine.values())
    if unusable:
        parts.append(f"{count_text(unusable)} unusable rows were quarantined and not considered.")
    total_seconds = sum(stage.seconds for stage in data.stages if not stage.skipped)
    if data.stages and all(stage.skipped for stage in data.stages):
        parts.append("All stages were up to date; nothing was computed again.")
    elif data.stages:
        parts.append(f"The work took {duration_text(total_seconds)}.")
    return " ".join(parts)


def tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """Key numbers as (label, number, note)."""
    tiles: list[tuple[str, str, str]] = []
    share = data.rows_selected / data.rows_pool if data.rows_pool else None
    tiles.append(
        (
            "Rows selected",
            count_text(data.rows_selected),
            f"{percent_text(share)} of {count_text(data.rows_pool)}",
        )
    )
    if data.budget_asked:
        budget_note = ""
        if data.budget_met is not None:
            budget_note = f"met: {count_text(data.budget_met)} {clean_text(data.budget_unit, 20)}"
        tiles.append(("Budget asked", clean_text(data.budget_asked, 30), budget_note))
    divergence = data.divergence
    if divergence.selection is not None:
        parts = [("random", divergence.random), ("pool", divergence.pool)]
        note = ", ".join(
            f"{name} {number_text(value)}" for name, value in parts if value is not None
        )
        tiles.append(
            (
                f"Distance from target ({clean_text(divergence.unit, 12)})",
                number_text(divergence.selection),
                note,
            )
        )
        if divergence.random is not None and divergence.random > 0 and divergence.selection > 0:
            factor = divergence.random / divergence.selection
            tiles.append(("Nearer than random rows", f"{number_text(factor, 2)} ×", "1 ×: no gain"))
    if data.certificate is not None:
        gap = max(data.certificate.gap, 0.0)
        number, gap_note = (
            ("optimal", "below 1e-9") if gap < ROUNDING_GAP else (number_text(gap, 2), "this much")
        )
        tiles.append(("Proof of optimality", number, f"gap to the best plan: {gap_note}"))
    if data.unreached is not None:
        tiles.append(("Target out of reach", percent_text(data.unreached), "of its mass"))
    if data.mixture_share is not None:
        alike = percent_text(data.mixture_share)
        tiles.append(("Pool like the target", alike, "can have the target's distribution"))
    return tiles
