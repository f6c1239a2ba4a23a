"""Figures of the strategies that `auto` has tried on real data, and the choices they lead to."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy.stats import norm

from gio_spark.strategy.candidate_strategies import DEFAULT
from gio_spark.strategy.strategy_choice import (
    CONFIDENCE,
    CandidateFigures,
    StrategyChoice,
    decide,
)

FIGURES = Path(__file__).resolve().parent / "results" / "strategy_figures.csv.gz"
KEY = ["task", "seed", "budget"]
FIGURE_COLUMNS = ["gain", "gain_error", "over_random", "over_random_error"]


def read_figures() -> pd.DataFrame:
    """Return the stored figures, one line a candidate, task, seed and budget."""
    return pd.read_csv(FIGURES) if FIGURES.exists() else pd.DataFrame(columns=KEY)


def lines_of(task: str, seed: int, budget: float, choice: StrategyChoice) -> list[dict]:
    """Return the lines of a choice, one a candidate; the default's alone if none was judged."""
    common = {"task": task, "seed": seed, "budget": budget, "judging_rows": choice.judging_rows}
    if not choice.figures:
        return [{**common, "candidate": DEFAULT}]
    return [
        {**common, "candidate": c.name, **{name: getattr(c, name) for name in FIGURE_COLUMNS}}
        for c in choice.figures
    ]


def choices_of(figures: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Return the chosen strategy of each task, seed and budget, and the core-seconds it took.

    Args:
        figures: Stored figures.
        confidence: Confidence of the guard; 0.5 is none.
    """
    quantile = float(norm.ppf(confidence))
    rows = []
    for key, part in figures.groupby(KEY, sort=False):
        judged = [
            CandidateFigures(c.candidate, c.gain, c.gain_error, c.over_random,
                             c.over_random_error, 0.0)
            for c in part.dropna(subset=["gain"]).itertuples()
        ]  # fmt: skip
        judged.sort(key=lambda c: -c.gain)
        name = decide(judged, quantile)[0] if judged else DEFAULT
        rows.append((*key, name, part["core_seconds"].sum()))
    return pd.DataFrame(rows, columns=[*KEY, "chosen", "core_seconds"])


def cells_of_auto(cells: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the chosen strategies as those of a method `auto`.

    Args:
        cells: Cells of the candidates.
        figures: Stored figures.
    """
    if figures.empty:
        return cells.iloc[:0]
    choices = choices_of(figures).rename(columns={"chosen": "method"})
    found = cells.merge(choices, on=[*KEY, "method"])
    found["seconds"] += found["core_seconds"]
    return found.assign(method="auto")[list(cells.columns)]
