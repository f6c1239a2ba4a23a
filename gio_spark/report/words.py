"""Say in plain words what a run did and how good it is."""

from __future__ import annotations

from gio_spark.report.data import ReportData
from gio_spark.report.text import clean, percent, real, seconds, whole

PROVED = 1e-9  # a gap below this is rounding


def summary(data: ReportData) -> list[str]:
    """Page's first sentences, for a reader who did not run it."""
    return [s for s in (_what(data), _how_near(data), _limits(data), _gate(data),
                          _dropped(data)) if s]  # fmt: skip


def _what(data: ReportData) -> str:
    if not data.rows_selected:
        return (
            f"Nothing was selected from the pool of {whole(data.rows_pool)} rows: see the notes "
            "below for the reason."
        )
    share = data.rows_selected / data.rows_pool if data.rows_pool else None
    part = f" ({percent(share)})" if share is not None else ""
    like = f" of {whole(data.rows_target)} rows" if data.rows_target else ""
    return (
        f"From a pool of {whole(data.rows_pool)} rows this run took {whole(data.rows_selected)}"
        f"{part}, chosen so that together they look like the target{like}."
    )


def _how_near(data: ReportData) -> str:
    near, far = data.divergence.selection, data.divergence.random
    who = f"{whole(data.rows_selected)} random rows"
    if near is None:
        return ""
    if far is None:
        far, who = data.divergence.pool, "the whole pool"
    said = f"Their distance from the target is {real(near)} {data.divergence.unit}"
    if far is None:
        return said + "."
    said += f"; for {who} it is {real(far)}"
    if near < 0 or far <= 0:
        return said + "."
    if near <= far * 0.01:
        return said + ": almost nothing of the difference is left."
    if near < far * 0.95:
        return said + f": the selection is {far / near:.1f} times nearer to the target."
    if near <= far * 1.05:
        return said + ": the selection is no nearer to the target than random rows are."
    return said + ": the selection is FARTHER from the target than random rows are."


def _limits(data: ReportData) -> str:
    parts = []
    if data.certificate is not None:
        gap = max(data.certificate.gap, 0.0)
        parts.append(
            "The plan is proved to be the best one for this budget and these clusters."
            if gap < PROVED
            else "No other plan with this budget and these clusters can be nearer by more than "
            f"{real(gap, 2)} {data.divergence.unit}."
        )
    if data.unreached:
        parts.append(
            f"{percent(data.unreached)} of the target lies where the pool has no rows; no "
            "selection can serve that part."
        )
    return " ".join(parts)


def _gate(data: ReportData) -> str:
    if data.gate is None:
        return ""
    passed = bool(data.gate["passed"].all()) if len(data.gate) else True
    said = "passes" if passed else "FAILS"
    return f"The gate of the metrics {said}: {clean(data.verdict, 900)}"


def _dropped(data: ReportData) -> str:
    parts = []
    unusable = sum(sum(reasons.values()) for reasons in data.quarantine.values())
    if unusable:
        parts.append(f"{whole(unusable)} unusable rows were put aside and not considered.")
    spent = sum(s.seconds for s in data.stages if not s.skipped)
    if data.stages and all(s.skipped for s in data.stages):
        parts.append("All stages were up to date; nothing was computed again.")
    elif data.stages:
        parts.append(f"The work took {seconds(spent)}.")
    return " ".join(parts)


def tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """Verdict numbers as (label, number, note)."""
    shown: list[tuple[str, str, str]] = []
    share = data.rows_selected / data.rows_pool if data.rows_pool else None
    shown.append(
        ("Rows selected", whole(data.rows_selected), f"{percent(share)} of {whole(data.rows_pool)}")
    )
    if data.budget_asked:
        met = ""
        if data.budget_met is not None:
            met = f"met: {whole(data.budget_met)} {clean(data.budget_unit, 20)}"
        shown.append(("Budget asked", clean(data.budget_asked, 30), met))
    d = data.divergence
    if d.selection is not None:
        parts = [("random", d.random), ("pool", d.pool)]
        note = ", ".join(f"{name} {real(v)}" for name, v in parts if v is not None)
        shown.append((f"Distance from target ({clean(d.unit, 12)})", real(d.selection), note))
        if d.random is not None and d.random > 0 and d.selection > 0:
            factor = d.random / d.selection
            shown.append(("Nearer than random rows", f"{real(factor, 2)} ×", "1 ×: no gain"))
    if data.certificate is not None:
        gap = max(data.certificate.gap, 0.0)
        number, least = ("optimal", "below 1e-9") if gap < PROVED else (real(gap, 2), "this much")
        shown.append(("Proof of optimality", number, f"gap to the best plan: {least}"))
    if data.unreached is not None:
        shown.append(("Target out of reach", percent(data.unreached), "of its mass"))
    return shown
