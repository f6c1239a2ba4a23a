"""Made-up but plausible runs, for tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gio_spark.report import (
    Calibration,
    Certificate,
    Divergence,
    Example,
    InputSummary,
    ReportData,
    RunWarning,
    StageSummary,
    project,
)

WORDS = """the river ran past mills and gardens while a clerk counted sacks of flour and wrote the
sum in a ledger that nobody had opened since the spring when my card was declined at the till"""


def random_plan(clusters: int, budget: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = rng.integers(20, 400, clusters)
    mass = rng.dirichlet(np.full(clusters, 0.5))
    take = np.minimum(rows, np.round(budget * mass)).astype(int)
    return pd.DataFrame(
        {"cluster": np.arange(clusters), "rows": rows, "take": take, "target_mass": mass}
    )


def metric_table() -> pd.DataFrame:
    rows = []
    for metric, unit, better, values in (
        ("volume", "tokens", "more", (8.2e6, 9.1e5, 8.0e5)),
        ("variety", "effective classes", "more", (661.2, 655.0, 402.7)),
        ("scope", "share of cells", "more", (1.0, 0.97, 0.61)),
        ("coverage", "share of probes", "more", (0.71, 0.62, 0.93)),
        ("mismatch", "bits", "less", (0.412, 0.415, 0.021)),
        ("delay", "days", "less", (float("nan"), float("nan"), float("nan"))),
    ):
        for group, value in zip(("pool", "random", "selected"), values, strict=True):
            rows.append(
                {
                    "group": group,
                    "metric": metric,
                    "value": value,
                    "unit": unit,
                    "direction": better,
                    "exactness": "exact",
                    "rows": 1000,
                    "nulls": 0,
                }
            )
    return pd.DataFrame(rows)


def text_run(clusters: int = 1000, **changes: Any) -> ReportData:
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(12, 32))
    pool = (centers[rng.integers(0, 12, 2500)] + 0.4 * rng.normal(size=(2500, 32))).astype("f4")
    target = (centers[rng.integers(0, 3, 600)] + 0.4 * rng.normal(size=(600, 32))).astype("f4")
    selection = (centers[rng.integers(0, 3, 1200)] + 0.45 * rng.normal(size=(1200, 32))).astype(
        "f4"
    )
    plan = random_plan(clusters, 20_580)

    def sentence() -> str:
        return " ".join(rng.choice(WORDS.split(), int(rng.integers(6, 60))))

    largest_clusters = plan.sort_values("take", ascending=False)["cluster"].head(4)
    examples = [
        Example(
            cluster=int(c),
            taken=taken,
            id=f"doc-{rng.integers(0, 10**6):06d}",
            text=sentence(),
            source="wikipedia" if taken else "reddit",
            log_ratio=float(rng.normal(1.5 if taken else -1.2)),
        )
        for c in largest_clusters
        for taken in (True, False)
        for _ in range(3)
    ]
    steps = np.arange(1, 801) * 25
    values: dict[str, Any] = {
        "title": "Curated text: rows like the support tickets",
        "run_id": "20261122-164233-7f3a",
        "engine": "embedded engine (Sail 0.7.2, Spark Connect 4.2.0, 2 cores)",
        "started": "2026-11-22 16:42:33",
        "finished": "2026-11-22 16:44:51",
        "inputs": (
            InputSummary(
                name="pool",
                location="/data/text_pool/rows.parquet",
                format="parquet",
                version="9f86d081884c7d65",
                rows=205_101,
                unusable=707,
                columns="id=doc_id, text=body, source=site",
            ),
            InputSummary(
                name="target",
                location="main.support.tickets",
                format="delta",
                version="41",
                rows=1_502,
                unusable=0,
                columns="text=question",
            ),
        ),
        "quarantine": {"pool": {"empty content": 522, "duplicate id": 185}, "target": {}},
        "quarantine_table": "/data/work/quarantine",
        "budget_asked": "10 %",
        "budget_met": 20_510,
        "rows_pool": 205_101,
        "rows_selected": 20_510,
        "rows_target": 1_502,
        "objective": "budgeted KL",
        "within_cluster": "density ratio, temperature 0.25",
        "certificate": Certificate(primal=0.1214, dual=0.1214, gap=8.9e-16),
        "constraints": ("214 clusters are taken whole.", "Source 'reddit' is at its cap of 20 %."),
        "unreached": 0.013,
        "divergence": Divergence(
            pool=1.61,
            random=1.68,
            selection=0.121,
            path_rows=steps,
            path=1.68 * np.exp(-steps / 6000) + 0.06 + steps * 1e-7,
        ),
        "plan": plan,
        "sources": pd.DataFrame(
            {
                "source": ["reddit", "wikipedia", "news", "banking", "books", "forums"],
                "pool": [90_000, 50_000, 30_000, 13_000, 12_101, 10_000],
                "selected": [2_000, 9_000, 1_000, 8_000, 500, 10],
                "target": [0, 600, 0, 800, 102, 0],
            }
        ),
        "points": project(target, pool, selection),
        "examples": tuple(examples),
        "metrics": metric_table(),
        "calibration": Calibration(
            predicted=np.linspace(0.05, 0.95, 10),
            observed=np.linspace(0.05, 0.95, 10) + 0.03 * rng.normal(size=10),
            rows=np.array([900, 400, 260, 150, 120, 90, 80, 100, 160, 500]),
            auc=0.913,
        ),
        "error_curve": tuple({"clusters": 2.0**i, "share": 0.8**i + 0.1} for i in range(10)),
        "warnings": (
            RunWarning(
                name="target out of reach",
                text="1.3 % of the target lies farther from the pool than the pool's own rows do.",
                action="Add rows like these to the pool, or leave them out of the target.",
            ),
        ),
        "stages": (
            StageSummary(name="embed", seconds=31.2, rows=206_603, note="WordLlama 256"),
            StageSummary(name="quantize", seconds=14.8, rows=205_101),
            StageSummary(name="select", seconds=0.4, rows=1000),
            StageSummary(name="explode", seconds=9.6, rows=20_510),
            StageSummary(name="measure", seconds=6.0, rows=205_101, skipped=True),
        ),
        "settings": {
            "pool": {"path": "https://user:hunter2@host/pool", "columns": {"text": "body"}},
            "budget": 0.1,
            "quantize": {"clusters": 1000, "seed": 0},
            "tracking": {"uri": "postgresql://me:hunter2@db/mlflow"},
        },
        "versions": {"gio_spark": "0.1.0", "python": "3.11.9", "numpy": "2.4.6"},
        "tables": {"selected": "/data/work/selected", "plan": "/data/work/plan"},
        "links": {"tracked run": "sqlite:////data/work/mlflow.db"},
    }
    return ReportData(**{**values, **changes})


def image_run(**changes: Any) -> ReportData:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:8, 0:8]

    def blob(kind: int, noise: float) -> np.ndarray:
        shape = np.exp(-((x - 2 - kind) ** 2 + (y - 4) ** 2) / 4) + noise * rng.random((8, 8))
        return (shape * 16).astype(np.float32)

    examples = tuple(
        Example(
            cluster=c,
            taken=taken,
            id=f"{c}-{taken}-{i}",
            image=blob(c, 0.1 if taken else 0.9),
            label=f"class {c}",
        )
        for c in range(4)
        for taken in (True, False)
        for i in range(8)
    )
    values: dict[str, Any] = {
        "title": "Curated digits",
        "plan": random_plan(4, 400),
        "examples": examples,
        "sources": None,
        "metrics": None,
        "calibration": None,
        "warnings": (),
        "rows_pool": 1_797,
        "rows_selected": 400,
        "rows_target": 300,
    }
    return text_run(clusters=4, **{**values, **changes})


def plain_run(**changes: Any) -> ReportData:
    """Run whose page has no figures, unless the changes bring some: quick to render."""
    without_plots = {
        "divergence": Divergence(),
        "points": None,
        "plan": random_plan(1, 10),
        "examples": (),
    }
    return image_run(**{**without_plots, **changes})


def bake_off_trials(methods: int = 14, seeds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    names = [
        "budgeted KL, ratio 0.25", "budgeted KL, hash share", "k-NN KL", "energy distance",
        "published, exact", "published, jump", "DSIR", "classifier ranking", "nearest to target",
        "herding", "stratified random", "GIME", "BM25", "TSDS",
    ][:methods]  # fmt: skip
    rows = []
    for task in ("fashion, two thirds corrupted", "text, four domains", "weather"):
        skill = {n: 0.05 * rng.normal() + 0.06 - 0.01 * i for i, n in enumerate(names)}
        skill |= {"random": 0.0, "oracle": 0.13}
        for measure, higher in (("accuracy", True), ("energy distance", False)):
            for seed in range(seeds):
                for budget in (0.025, 0.05, 0.1, 0.25, 0.5):
                    level = 0.75 + 0.05 * np.log10(budget * 40) + 0.004 * rng.normal()
                    for method, gain in skill.items():
                        value = level + gain * (1 - budget) + 0.004 * rng.normal()
                        rows.append(
                            (task, method, budget, seed, measure, value if higher else 1 - value,
                             higher, 2.0 + 30 * rng.random() * (len(method) % 5), 300.0, None)
                        )  # fmt: skip
                    rows.append((task, "fails", budget, seed, measure, np.nan, higher, 0.1, None,
                                 "MissingExtraError: <b>needs</b> data-selection"))  # fmt: skip
                rows.append(
                    (task, "full data", 1.0, seed, measure, 0.82 if higher else 0.18, higher, 90.0,
                     900.0, None)
                )  # fmt: skip
    return pd.DataFrame(
        rows,
        columns=["task", "method", "budget", "seed", "measure", "value", "higher_is_better",
                 "seconds", "memory_mb", "error"],
    )  # fmt: skip
