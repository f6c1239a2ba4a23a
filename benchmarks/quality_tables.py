"""From the cells of the quality benchmark to tables that can be read at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from gio_spark.evaluate.measures import MEASURES
from gio_spark.report import trial_statistics

BASELINE, ORACLE, FULL = "random", "oracle", "full"
PUBLISHED = ("published_exact", "published_jump")
SIGNS = {"better": "+", "worse": "−", "": "="}
_CORRELATION = (
    "Spearman's rank correlation over methods between less divergence to held-out target rows and "
    "a better score, mean over budgets (published for KL and BLEU: 0.83)."
)


def hours(cells: pd.DataFrame) -> float:
    """Return core-hours of all cells: selecting once each, and every measure."""
    one = cells.drop_duplicates(["task", "method", "budget", "seed"])
    return float((one["seconds"].sum() + cells["measure_seconds"].sum()) / 3600)


def scored(cells: pd.DataFrame, tasks: dict) -> pd.DataFrame:
    """Return the cells of each task's own score, the measure that decides there."""
    kept = [cells[(cells["task"] == n) & (cells["measure"] == t.score)] for n, t in tasks.items()]
    return pd.concat(kept, ignore_index=True)


def summarise(cells: pd.DataFrame, tasks: dict, default: str) -> tuple[str, dict]:
    """Return the tables as Markdown and the results as plain values."""
    cells = trial_statistics.checked_trials(cells)
    told = scored(cells, tasks)
    weak = set(trial_statistics.weak_comparisons(told, ORACLE, BASELINE))
    lines, figures = [], []
    ranked = _ranks(told, weak)
    on_text = told[told["measure"] == "cross_entropy"]
    lines += _rank_lines(ranked, _ranks(on_text, weak) if len(on_text) else ranked, told)
    figures += [_figure(f"mean rank: {m}", r, "rank") for m, r in
                zip(ranked.methods, ranked.mean, strict=True)]  # fmt: skip
    part, found = _headroom(told, weak, default)
    lines += part
    figures += found
    best = ranked.methods[0] if ranked.methods else default
    for name in dict.fromkeys([default, best]):
        part, found = _verdicts(told, tasks, name, weak)
        lines += part
        figures += found
    for name, task in tasks.items():
        for score in (task.score, *task.extra):
            mine = cells[(cells["task"] == name) & (cells["measure"] == score)]
            if not mine.empty:
                lines += _task_lines(cells, mine, task, score, ranked)
    part, found = _correlation(cells, tasks)
    lines += part
    figures += found
    return "\n".join(lines), {"figures": figures, "cells": _compact(cells, tasks)}


def _figure(name: str, value: float, unit: str, *, error: float | None = None,
            holds: bool | None = None) -> dict:  # fmt: skip
    return {"figure": name, "value": _round(value), "unit": unit,
            "anchor": None if error is None else _round(error), "ratio": None,
            "bar": None if holds is None else "better than the 95 % interval of 0",
            "holds": holds}  # fmt: skip


def _round(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _ranks(told: pd.DataFrame, weak: set) -> trial_statistics.Ranks:
    fair = told[~told["method"].isin([ORACLE, FULL])]
    keep = [k not in weak for k in
            fair[["task", "measure", "budget"]].itertuples(index=False, name=None)]  # fmt: skip
    fair = fair[keep]
    # A mean over one seed is no match for one over five.
    cells = fair[np.isfinite(fair["value"])].groupby(["method", "task"]).size()
    most = cells.groupby("task").max()
    few = cells[2 * cells < most.reindex(cells.index, level="task")]
    return trial_statistics.method_ranks(
        fair[~fair["method"].isin(few.index.get_level_values("method"))]
    )


def _rank_lines(
    ranked: trial_statistics.Ranks, texts: trial_statistics.Ranks, told: pd.DataFrame
) -> list[str]:
    cost = trial_statistics.method_costs(told).set_index("method")
    lines = [
        "### Mean ranks and costs",
        "",
        (
            f"Over {ranked.blocks} comparisons (task and budget) in which knowing the truth helps, "
            f"of the {len(ranked.methods)} methods that all tasks allow: two methods "
            f"{ranked.critical:.2f} apart differ (Nemenyi, 5 %). Beside it, over the "
            f"{texts.blocks} on text, of all {len(texts.methods)} methods: {texts.critical:.2f}."
        ),
        "",
        "| method | mean rank | on text | seconds | memory, MB | failed |",
        "|---|---|---|---|---|---|",
    ]
    rank, beside = (dict(zip(r.methods, r.mean, strict=True)) for r in (ranked, texts))
    order = [*ranked.methods, *[m for m in texts.methods if m not in rank]]
    order += [m for m in cost.index if m not in order]
    for m in order:
        line = cost.loc[m]
        shown = " | ".join(f"{r[m]:.2f}" if m in r else "–" for r in (rank, beside))
        lines.append(
            f"| {m} | {shown} | {line['seconds']:.2g} | {line['memory_mb']:.0f} | "
            f"{int(line['failed']) or ''} |"
        )
    return [*lines, ""]


def _headroom(told: pd.DataFrame, weak: set, default: str) -> tuple[list[str], list[dict]]:
    """Return the share of the oracle's gain over random that each method reaches."""
    good = told[np.isfinite(told["value"]) & (told["method"] != FULL)].copy()
    good["value"] *= np.where(good["higher_is_better"].astype(bool), 1.0, -1.0)
    wide = good.pivot_table(
        index=["task", "measure", "budget", "seed"], columns="method", values="value"
    )
    wide = wide[[key[:3] not in weak for key in wide.index]]
    if wide.empty or BASELINE not in wide or ORACLE not in wide:
        return [], []
    gain = wide.sub(wide[BASELINE], axis=0)
    # What there was to gain on the same seeds: a method with few of them has other samples.
    room = gain.notna().mul(gain[ORACLE], axis=0).where(gain.notna())
    at = ["task", "budget"]
    mean, most = gain.groupby(at).mean(), room.groupby(at).mean()
    # Medians: one task with little headroom would drown the others in its noise.
    by_budget = (mean / most).groupby("budget").median()
    # Sums over budgets in a task's own unit; only budgets at which a method has a value.
    by_task = _by_task(mean) / _by_task(most)
    # Methods with most of the tasks first: a mean over one task says little beside one over all.
    few = by_task.notna().sum() * 2 < len(by_task)
    order = by_task.mean().to_frame("share").assign(few=few)
    order = order.sort_values(["few", "share"], ascending=[True, False]).index
    budgets = list(by_budget.index)
    lines = [
        "### Share of the headroom",
        "",
        (
            "How much of the oracle's gain over random a method reaches (1 is all, 0 is random, "
            "below 0 is worse): median over tasks at each budget; mean over tasks of all budgets "
            f"together, and its difference from the default ± standard error over the "
            f"{len(by_task)} tasks. Text methods have fewer tasks, some methods too few to say. "
            "p: Wilcoxon's signed rank test over tasks against the default, Holm-corrected."
        ),
        "",
        "| method | " + " | ".join(f"{100 * b:g} %" for b in budgets)
        + " | all | tasks | less the default | p |",
        "|---" * (len(budgets) + 5) + "|",
    ]  # fmt: skip
    figures, rows, chance = [], [], {}
    for method in order:
        if method in (BASELINE, ORACLE):
            continue
        cells = [f"{by_budget.at[b, method]:.2f}" for b in budgets]
        cells.append(f"{by_task[method].mean():.2f}")
        apart = None
        if default in gain:
            rival = gain[[default]].where(gain[[method]].notna().to_numpy())
            same = _by_task(rival.groupby(at).mean()).div(_by_task(most[[method]]).to_numpy())
            apart = (by_task[method] - same[default]).dropna()
        told_apart, tasks = "", by_task[method].notna().sum()
        if apart is not None and len(apart) and method != default:
            told_apart = f"{apart.mean():+.2f}"
            if len(apart) > 1:
                told_apart += f" ± {apart.std(ddof=1) / np.sqrt(len(apart)):.2f}"
                chance[method] = paired_chance(apart)
        rows.append((method, f"| {method} | {' | '.join(cells)} | {tasks} | {told_apart} |"))
        figures.append(_figure(f"share of the headroom: {method}", by_task[method].mean(), "share"))
    corrected = holm(chance)
    for method, row in rows:
        lines.append(f"{row} {corrected[method]:.3f} |" if method in corrected else f"{row}  |")
    return [*lines, ""], figures


def paired_chance(differences: pd.Series) -> float:
    """Return p of Wilcoxon's signed-rank test; differences of 0 say nothing."""
    # Left out here: scipy before 1.13 does not take them into its exact test.
    differing = differences[differences != 0]
    return float(stats.wilcoxon(differing).pvalue) if len(differing) else 1.0


def holm(chance: dict[str, float]) -> dict[str, float]:
    """Correct p values of several comparisons by Holm's step-down method.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    corrected, largest = {}, 0.0
    for number, (name, p) in enumerate(sorted(chance.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(chance) - number) * p))
        corrected[name] = largest
    return corrected


def _by_task(values: pd.DataFrame) -> pd.DataFrame:
    return values.groupby("task").sum(min_count=1)


def _against(told: pd.DataFrame, method: str, others: tuple[str, ...]) -> pd.DataFrame:
    """Compare a method with the best of some others per seed; full data meets every budget."""
    mine = told[told["method"] == method]
    rest = told[told["method"].isin(others) & np.isfinite(told["value"])].copy()
    if rest.empty:
        return pd.DataFrame()
    if others == (FULL,):
        rest = rest.drop(columns="budget").merge(mine[["task", "budget"]].drop_duplicates(),
                                                 on="task")  # fmt: skip
    sign = np.where(rest["higher_is_better"].astype(bool), 1.0, -1.0)
    rest["good"] = rest["value"] * sign
    # The better of several rivals by its mean, not by luck of a seed.
    means = rest.groupby(["task", "budget", "method"])["good"].mean().reset_index()
    top = means.sort_values("good").drop_duplicates(["task", "budget"], keep="last")
    rest = rest.merge(top[["task", "budget", "method"]], on=["task", "budget", "method"])
    both = pd.concat([mine, rest.drop(columns="good").assign(method="rival")])
    return trial_statistics.paired_gains(both, "rival")


def _verdicts(told: pd.DataFrame, tasks: dict, method: str, weak: set) -> tuple[list, list]:
    lines = [
        f"### {method} against random, the published objective and full data",
        "",
        (
            "Mean paired gain ± standard error over seeds, in the score of the task (positive is "
            "better); + and − where the 95 % interval excludes 0. Headroom: the oracle over "
            "random; (0) where it is below two standard errors, so that nothing is ranked. The "
            "published objective is the better of its exact solution and its algorithm with jumps."
        ),
        "",
        "| task | score | budget | seeds | headroom | over random | over published | over full |",
        "|---|---|---|---|---|---|---|---|",
    ]
    figures = []
    rivals = {"random": (BASELINE,), "published": PUBLISHED, "full data": (FULL,)}
    found = {n: _against(told, method, r) for n, r in rivals.items()}
    counts: dict[str, list[str]] = {rival: [] for rival in rivals}
    head = _against(told, ORACLE, (BASELINE,))
    for name, task in tasks.items():
        mine = told[(told["task"] == name) & (told["method"] == method)]
        for budget in sorted(mine["budget"].unique()):
            seeds = mine.loc[mine["budget"] == budget, "seed"].nunique()
            row = [name, MEASURES[task.score].title, f"{100 * budget:g} %", str(seeds)]
            room = _cell(head, name, budget)
            low = (name, task.score, budget) in weak
            row.append((room[0] if room else "") + (" (0)" if low else ""))
            for rival, table in found.items():
                cell = _cell(table, name, budget)
                row.append(cell[0] if cell else "")
                if cell:
                    counts[rival].append(cell[3])
                    figures.append(
                        _figure(f"{name}, {100 * budget:g} %: {method} over {rival}", cell[1],
                                task.score, error=cell[2], holds=cell[3] == "better")
                    )  # fmt: skip
            lines.append("| " + " | ".join(row) + " |")
    lines.append("")
    total = [
        f"{rival}: better in {signs.count('better')}, worse in {signs.count('worse')} of "
        f"{len(signs)}"
        for rival, signs in counts.items()
        if signs
    ]
    return [*lines, f"{method} against " + "; ".join(total) + ".", ""], figures


def _cell(table: pd.DataFrame, task: str, budget: float) -> tuple | None:
    if table.empty:
        return None
    row = table[(table["task"] == task) & (table["budget"] == budget)]
    if row.empty:
        return None
    gain, error, verdict = (row[c].iloc[0] for c in ("gain", "error", "verdict"))
    text = f"{gain:+.4f} ± {error:.4f} {SIGNS[verdict]}" if np.isfinite(error) else f"{gain:+.4f}"
    return text, float(gain), float(error), str(verdict)


def _task_lines(cells: pd.DataFrame, mine: pd.DataFrame, task: Any, score: str,
                ranked: trial_statistics.Ranks) -> list[str]:  # fmt: skip
    """Return a table of a score and, beside it, the two-sample AUC at the middle budget."""
    it = MEASURES[score]
    weak = set(trial_statistics.weak_comparisons(mine, ORACLE, BASELINE))
    middle = trial_statistics.mean_scores(mine).set_index(["method", "budget"])
    means, halves = middle["mean"].to_dict(), middle["half"].to_dict()
    signs = (
        trial_statistics.paired_gains(mine, BASELINE)
        .set_index(["method", "budget"])["verdict"]
        .to_dict()
    )
    budgets = sorted({b for m, b in means if m != FULL})
    if not budgets:
        return []
    auc = cells[(cells["task"] == task.name) & (cells["measure"] == "two_sample_auc")]
    aucs = trial_statistics.mean_scores(auc).set_index(["method", "budget"])["mean"].to_dict()
    beside = budgets[len(budgets) // 2]
    marks = ["(0)" if (task.name, score, b) in weak else "" for b in budgets]
    heads = [f"{100 * b:g} % {m}".strip() for b, m in zip(budgets, marks, strict=True)]
    order = [ORACLE, *ranked.methods]
    order += [m for m in dict.fromkeys(mine["method"]) if m not in order]
    lines = [
        f"### {task.name}" + ("" if score == task.score else f": {it.title}"),
        "",
        (
            f"{task.about} Score: {it.title}, {'higher' if it.higher_is_better else 'lower'} is "
            f"better; {_span(middle['seeds'])}; mean ± half of the 95 % "
            f"interval; + better and − worse than random. AUC: two-sample, at {100 * beside:g} %, "
            f"on {'features that no method sees' if task.apart else 'the rows themselves'}; .5 is "
            "best."
        ),
        "",
        "| method | " + " | ".join(heads) + " | AUC |",
        "|---" * (len(budgets) + 2) + "|",
    ]
    for method in order:
        row = []
        for b in [1.0] * len(budgets) if method == FULL else budgets:
            if (method, b) not in means:
                row.append("")
                continue
            half = halves[method, b]
            spread = f" ± {half:.3f}" if np.isfinite(half) else ""
            sign = signs.get((method, b), "")
            row.append(f"{means[method, b]:.4f}{spread} {SIGNS[sign] if sign else ''}".strip())
        if any(row):
            at = aucs.get((method, 1.0 if method == FULL else beside), np.nan)
            lines.append(f"| {method} | " + " | ".join(row) + f" | {at:.3f} |")
    return [*lines, ""]


def _span(seeds: pd.Series) -> str:
    """Return how many seeds the means of a table are of."""
    least, most = int(seeds.min()), int(seeds.max())
    if least < most:
        return f"{least} to {most} seeds"
    return f"{most} seed{'s' if most > 1 else ''}"


def _correlation(cells: pd.DataFrame, tasks: dict) -> tuple[list[str], list[dict]]:
    """Return how well divergence to held-out rows orders the methods by their score."""
    rows, figures = [], []
    good = cells[np.isfinite(cells["value"]) & (cells["method"] != FULL)]
    for name, task in tasks.items():
        mine = good[good["task"] == name]
        if mine.empty:
            continue
        wide = mine.pivot_table(index=["budget", "method"], columns="measure", values="value")
        if task.score not in wide:
            continue
        sign = 1.0 if MEASURES[task.score].higher_is_better else -1.0
        row = [name]
        for measure in ("jsd", "energy", "two_sample_auc"):
            found = []
            for _, part in wide.groupby("budget"):
                both = part[[measure, task.score]].dropna()
                if len(both) >= 5:
                    at = stats.spearmanr(-both[measure], sign * both[task.score]).statistic
                    found.append(at)
            found = [f for f in found if np.isfinite(f)]
            row.append(f"{np.mean(found):.2f}" if found else "")
            if found:
                figures.append(_figure(f"{name}: rank correlation of {measure} with score",
                                       float(np.mean(found)), "Spearman"))  # fmt: skip
        rows.append("| " + " | ".join(row) + " |")
    lines = [
        "### Does divergence tell the score?",
        "",
        _CORRELATION,
        "",
        "| task | Jensen-Shannon | energy distance | two-sample AUC |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    return lines, figures


def _compact(cells: pd.DataFrame, tasks: dict) -> dict:
    """Return mean, standard error and seeds per task, measure, method and budget."""
    kept: dict = {}
    wanted = {n: {t.score, *t.extra, "two_sample_auc", "jsd"} for n, t in tasks.items()}
    good = cells[np.isfinite(cells["value"])]
    for (task, measure, method, budget), part in good.groupby(
        ["task", "measure", "method", "budget"], sort=False
    ):
        if measure in wanted.get(task, ()):
            values = part["value"].to_numpy()
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            at = kept.setdefault(task, {}).setdefault(measure, {}).setdefault(method, {})
            at[f"{budget:g}"] = [_round(values.mean()), _round(error), len(values)]
    return kept


def renew(page: Path, text: str, part: str = "tables") -> None:
    """Put tables between the marks of a part of the page."""
    whole = page.read_text(encoding="utf-8")
    start, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    before, rest = whole.split(start, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")
