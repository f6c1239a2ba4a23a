"""From a task's models to figures: paired intervals, gaps closed, rows and training time saved."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

MARGIN_SHARES = (0.05, 0.1, 0.25)
NEAR = 0.99
_RESAMPLES = 2000


def figure(name, value, unit, bar=None, *, anchor=None, most=True, low=None, high=None):
    """Return one line of the results; `bar` is the largest (or smallest) value that holds."""
    holds = None if bar is None else bool(value <= bar if most else value >= bar)
    ratio = None if not anchor else value / anchor
    line = f"{name}: {value:.4g} {unit}"
    if low is not None:
        line += f"  [{low:.4g}, {high:.4g}]"
    print(line if holds is None else f"{line}  ({'holds' if holds else 'MISSED'}: {bar})")
    found = {"figure": name, "value": value, "unit": unit, "anchor": anchor, "ratio": ratio,
             "bar": bar, "holds": holds}  # fmt: skip
    return found if low is None else {**found, "low": low, "high": high}


def half_width(values: np.ndarray) -> float:
    """Half of the 95 % interval (Student's t) of a mean over seeds; NaN below two."""
    if len(values) < 2:
        return float("nan")
    spread = values.std(ddof=1) / np.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1) * spread)


def paired(lines: pd.DataFrame, way: str, share: float, other: str = "random") -> np.ndarray:
    """Score of a way less that of another, seed by seed, on the same split and test rows."""
    scores = lines[lines["share"] == share].pivot_table(index="seed", columns="way", values="score")
    return (scores[way] - scores[other]).dropna().to_numpy()


def closed(lines: pd.DataFrame, way: str, share: float) -> tuple[float, float, float]:
    """Share of the gap from random to full that a way closes, with its interval over seeds.

    A ratio of means, resampled over the seeds; NaN where random rows are as good as all of them.
    """
    full = lines.loc[lines["way"] == "full", "score"].mean()
    scores = lines[lines["share"] == share].pivot_table(index="seed", columns="way", values="score")
    mine, random = (scores[w].to_numpy() for w in (way, "random"))
    if full <= random.mean():
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(mine), (_RESAMPLES, len(mine)))
    gaps = full - random[drawn].mean(axis=1)
    shares = (mine[drawn] - random[drawn]).mean(axis=1) / np.where(gaps > 0, gaps, np.nan)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return float((mine - random).mean() / (full - random.mean())), float(low), float(high)


def curve(lines: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of score, training seconds and share of full performance per way and size."""
    full = lines.loc[lines["way"] == "full", "score"].mean()
    wanted = {"score": ("score", "mean"), "spread": ("score", "std"), "seeds": ("score", "size"),
              "seconds": ("seconds", "mean")}  # fmt: skip
    if "tokens" in lines:
        wanted["tokens"] = ("tokens", "mean")
    found = lines.groupby(["way", "share", "rows"]).agg(**wanted).reset_index()
    return found.assign(of_full=found["score"] / full).sort_values(["rows", "way"])


def equal_random(table: pd.DataFrame, score: float) -> tuple[float, float] | None:
    """Rows and seconds of the random subset with a score, read off the rising random curve.

    None where the score is outside of what random subsets and the whole pool reach.
    """
    random = table[table["way"].isin(["random", "full"])].sort_values("rows")
    rising = np.maximum.accumulate(random["score"].to_numpy())
    if not rising[0] <= score <= rising[-1]:
        return None
    return (float(np.interp(score, rising, random["rows"])),
            float(np.interp(score, rising, random["seconds"])))  # fmt: skip


def saved(name: str, learnt: dict, table: pd.DataFrame, way: str = "gime") -> list[dict]:
    """Rows and training time saved, with and without the sensitivity runs counted.

    Against the random subset of equal score at each size, and against the whole pool at the
    smallest size that reaches 99 % of its score (the published margin).
    """
    figures, spent = [], learnt["training_seconds"]
    whole = table[table["way"] == "full"].iloc[0]
    mine = table[table["way"] == way].sort_values("rows")
    for pick in mine.to_dict("records"):
        equal = equal_random(table, pick["score"])
        base = f"{name}, {way} at {pick['share']:.0%}, random subset of equal score"
        if equal is None:
            print(f"{base}: none (below the smallest random subset, or above the whole pool)")
            continue
        rows, seconds = equal
        figures.append(figure(f"{base}: rows saved", 1 - pick["rows"] / rows, "share",
                              anchor=None))  # fmt: skip
        figures.append(figure(f"{base}: training time saved", 1 - pick["seconds"] / seconds,
                              "share"))  # fmt: skip
        figures.append(figure(f"{base}: the same, sensitivity runs counted once",
                              1 - (pick["seconds"] + spent) / seconds, "share"))  # fmt: skip
    good = mine[mine["score"] >= NEAR * whole["score"]]
    if good.empty:
        print(f"{name}: no size tried by {way} reaches {NEAR:.0%} of the whole pool's score")
        return figures
    pick = good.iloc[0]
    base = f"{name}, {way} at {NEAR:.0%} of full ({pick['share']:.0%} of the {learnt['unit']})"
    gain = float(whole["seconds"] - pick["seconds"])
    figures += [
        figure(f"{base}: rows saved", 1 - pick["rows"] / whole["rows"], "share"),
        figure(f"{base}: training time saved", gain / whole["seconds"], "share"),
        figure(f"{base}: the same, sensitivity runs counted once",
               (gain - spent) / whole["seconds"], "share"),
    ]  # fmt: skip
    if gain > 0:
        figures.append(figure(f"{base}: trainings until the sensitivity runs are paid",
                              spent / gain, "trainings"))  # fmt: skip
    return figures


def summarise(name: str, learnt: dict, lines: pd.DataFrame) -> tuple[list[dict], dict]:
    """Print a task's tables; return its figures and tables for the results file."""
    show = {"index": False, "float_format": lambda v: f"{v:.4g}"}
    print(f"\n== {name}: {learnt['rows']:,} {learnt['unit']}, {learnt['models']} models for the "
          f"sensitivity in {learnt['training_seconds']:.1f} s of training")  # fmt: skip
    columns = ["metrics", "class", "change", "low", "high", "spearman", "vif", "turning_point"]
    print(pd.DataFrame(learnt["table"])[columns].to_string(**show))
    for note in learnt["notes"]:
        print("note:", note)
    for t in learnt["thresholds"]:
        print(f"threshold {t['metric']}: {t['direction']} {t['bound']:.4g} "
              f"(best {t['best']:.4g}, {t['kind']})")  # fmt: skip
    print("pursued:", learnt["pursued"] or "none")
    table = curve(lines)
    print(table.to_string(**show))
    measure, figures = learnt["measure"], []
    shares = sorted(set(lines.loc[lines["way"] != "full", "share"]))
    for way in ("gime", "gio", "gime+gio", "stratified"):
        for share in shares:
            gain = paired(lines, way, share)
            half = half_width(gain)
            figures.append(figure(
                f"{name}, {way} over random at {share:.0%}", float(gain.mean()),
                f"{measure}, paired over {len(gain)} seeds",
                low=float(gain.mean() - half), high=float(gain.mean() + half)))  # fmt: skip
            if share in MARGIN_SHARES:
                value, low, high = closed(lines, way, share)
                if np.isfinite(value):
                    figures.append(figure(
                        f"{name}, {way}: gap random to full closed at {share:.0%}", value,
                        "share", low=low, high=high))  # fmt: skip
    if learnt["label_spread"]:
        rmse = table.assign(rmse=(1 - table["score"]) * learnt["label_spread"])
        shown = rmse[rmse["way"].isin(["random", "gime", "full"])].to_dict("records")
        figures += [
            figure(f"{name}, RMSE of {r['way']} at {r['share']:.0%}", r["rmse"], "of the label")
            for r in shown
        ]
    figures += saved(name, learnt, table)
    full = float(lines.loc[lines["way"] == "full", "seconds"].mean())
    figures.append(figure(f"{name}, sensitivity runs", learnt["training_seconds"], "training s",
                          anchor=full))  # fmt: skip
    judged = lines[lines["way"] == "gime"]["passed"].dropna()
    figures.append(figure(f"{name}, gate passed", float(judged.mean()), "share of selections"))
    kept = ("table", "thresholds", "shares", "pursued", "notes", "random_score", "full_score")
    tables = {k: learnt[k] for k in kept} | {"curve": table.to_dict("records")}
    return figures, {("sensitivity" if k == "table" else k): v for k, v in tables.items()}
