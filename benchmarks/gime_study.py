"""One task of the metrics benchmark, seed by seed: what is finished is kept and not done again."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from gime_tasks import Case

from gio_spark import gime
from gio_spark.gime.metric_selection import bounded_kl, select
from gio_spark.gime.metric_thresholds import pursued_metrics
from gio_spark.settings.gime import GimeSettings

# Raised when what a seed computes changes, so that old seeds are not taken for new ones.
VERSION = 1
LEVEL = 0.95
SHARES = (0.05, 0.1, 0.25, 0.35, 0.5)
SENSITIVITY_SHARE = 0.05
WAYS = ("random", "stratified", "gio", "gime", "gime+gio")
# The whole pool is trained on for so many seeds: its score hardly depends on them.
FULL_SEEDS = 3


def folder_of(store: Path, part: str, settings: GimeSettings, limit: int | None) -> Path:
    """Return where a task's seeds are kept; other settings have a folder of their own."""
    parts = [VERSION, settings.model_dump(mode="json"), SHARES, SENSITIVITY_SHARE, LEVEL, limit]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    return store / f"{part}-{digest}"


def keep(place: Path, content: dict) -> None:
    """Write a file so that it is there whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_suffix(".half")
    half.write_text(json.dumps(plain(content)) + "\n")
    half.replace(place)


def plain(value):
    """Make values fit for JSON: numbers of numpy, NaN as null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def learn(spark, case: Case, settings: GimeSettings) -> dict:
    """Sensitivity runs and thresholds of a task, as plain values."""
    n, began = case.sample.rows.count, time.perf_counter()
    found = gime.sensitivity(
        spark, case.sample, case.task, size=round(SENSITIVITY_SHARE * n), settings=settings
    )
    signs = case.sample.directions()
    thresholds, reached = gime.automatic_thresholds(found, signs, level=LEVEL)
    return {
        "rows": n,
        "size": found.size,
        "table": found.table.to_dict("records"),
        "thresholds": [asdict(t) for t in thresholds],
        "shares": reached.to_dict("records"),
        "pursued": pursued_metrics(found.table, signs),
        "signs": signs,
        "notes": list(found.notes),
        "random_score": list(found.random_score),
        "full_score": found.full_score,
        "models": found.models,
        "training_seconds": found.seconds,
        "seconds": time.perf_counter() - began,
        "measure": case.task.measure,
        "proxy": case.task.proxy,
        "unit": "rows" if case.task.members is None else "blocks",
        # Of a skill s, RMSE is (1 - s) times this.
        "label_spread": float(np.std(case.task.test_labels)) if case.task.measure == "skill" else 0,
    }


def threshold(stored: dict) -> gime.Threshold:
    """Read a threshold back; a share that was NaN came as null."""
    return gime.Threshold(**{**stored, "share": np.nan if stored["share"] is None else
                             stored["share"]})  # fmt: skip


def subsets(case: Case, learnt: dict, size: int, seed: int) -> dict:
    """Rows of every way of selecting `size` rows, and whether selections by metrics pass."""
    n, cells = case.sample.rows.count, case.cells
    counts = np.bincount(cells)
    counted = case.sample.target["cells"]["cells"]
    target = np.zeros(len(counts))
    target[counted[0]] = counted[1]
    target /= target.sum()
    order, ends = np.argsort(cells, kind="stable"), np.cumsum(counts)
    rng = np.random.default_rng([size, seed])

    def drawn(quota):
        parts = [
            rng.choice(order[e - c : e], q, replace=False)
            for e, c, q in zip(ends, counts, quota, strict=True)
        ]
        return np.sort(np.concatenate(parts))

    none = np.zeros_like(counts)
    made = {
        "random": (np.sort(rng.choice(n, size, replace=False)), None),
        "stratified": (drawn(bounded_kl(counts / n, none, counts, size)), None),
        "gio": (drawn(bounded_kl(target, none, counts, size)), None),
    }
    thresholds = [threshold(t) for t in learnt["thresholds"]]
    for way, mass in (("gime", None), ("gime+gio", target)):
        chosen = select(case.sample, cells, size, thresholds, learnt["pursued"], learnt["signs"],
                        target_mass=mass, seed=seed)  # fmt: skip
        made[way] = (chosen.rows, chosen.verdict.passed)
    return made


def run_seed(spark, case: Case, learnt: dict, seed: int) -> list[dict]:
    """Select and train all ways at all shares with one seed; one line per model."""
    n, lines, chosen = case.sample.rows.count, [], []
    for share in SHARES:
        for way, (rows, passed) in subsets(case, learnt, round(share * n), seed).items():
            chosen.append(rows)
            lines.append({"way": way, "share": share, "seed": seed, "passed": passed})
    if seed < FULL_SEEDS:
        chosen.append(np.arange(n))
        lines.append({"way": "full", "share": 1.0, "seed": seed, "passed": None})
    scored = gime.train_many(spark, case.task, chosen, seeds=[seed])
    tokens = case.sample.rows["tokens"].values if "tokens" in case.sample.rows else None
    for line, rows, result in zip(lines, chosen, scored.to_dict("records"), strict=True):
        line |= {"rows": len(rows), "trained_rows": result["rows"], "score": result["score"],
                 "seconds": result["seconds"]}  # fmt: skip
        if tokens is not None:
            line["tokens"] = int(np.sum(tokens[rows]))
    return lines


def study(spark, make, part: str, folder: Path, seeds: int, settings: GimeSettings, stop: float):
    """Do what is missing of a task.

    Args:
        spark: Session.
        make: Builds the case; called only if something is missing.
        part: Name, for messages.
        folder: Where seeds are kept.
        seeds: How many there should be.
        settings: Of the sensitivity runs.
        stop: Moment (time.monotonic) from which nothing more is started.

    Returns:
        What the sensitivity runs found (None if they are not there), and one line per model.
    """
    built: list[Case] = []

    def case() -> Case:
        if not built:
            began = time.perf_counter()
            built.append(make())
            rows = built[0].sample.rows.count
            print(f"  {part}: {rows:,} rows made, {time.perf_counter() - began:.0f} s", flush=True)
        return built[0]

    place = folder / "learnt.json"
    if not place.exists():
        if time.monotonic() >= stop:
            return None, pd.DataFrame()
        found = learn(spark, case(), settings)
        keep(place, found)
        print(f"  {part}: sensitivity, {found['models']} models, {found['seconds']:.0f} s",
              flush=True)  # fmt: skip
    learnt = json.loads(place.read_text())
    lines = []
    for seed in range(seeds):
        mine = folder / f"seed-{seed:02d}.json"
        if not mine.exists():
            if time.monotonic() >= stop:
                continue
            began = time.perf_counter()
            keep(mine, {"lines": run_seed(spark, case(), learnt, seed)})
            print(f"  {part}: seed {seed} of {seeds}, {time.perf_counter() - began:.0f} s",
                  flush=True)  # fmt: skip
        lines += json.loads(mine.read_text())["lines"]
    return learnt, pd.DataFrame(lines)
