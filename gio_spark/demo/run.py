"""Curate images and text that are on this machine, and say what came of it."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from gio_spark.demo.compare import Comparison, compare, image_figures, text_figures
from gio_spark.demo.data import Kind, build
from gio_spark.demo.paragraphs import SCIENTIFIC

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.pipeline import Curation


@dataclass(frozen=True)
class Case:
    """One part of the demo: what it is about and the settings it runs with."""

    kind: Kind
    title: str
    budget: int
    settings: dict[str, Any]


CASES = (
    Case(
        "images",
        "Handwritten digits: mostly threes, fives and eights are wanted, two fifths are damaged",
        150,
        {"columns": {"id": "id", "image": "image"}, "quantize": {"clusters": 60}},
    ),
    Case(
        "text",
        "Documentation of installed packages: text like that of numpy, scipy, scikit-learn",
        1_200,
        {
            "columns": {"id": "id", "text": "text", "source": "package"},
            "quantize": {"clusters": 200},
        },
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What one case gave: the run, its rows and how they compare."""

    case: Case
    curation: Curation
    rows: int
    digest: str
    comparisons: list[Comparison]
    examples: list[str]
    seconds: float


def run(engine: str = "auto", folder: str | Path = "demo-output") -> list[Outcome]:
    """Curate both cases on an engine and print what was chosen.

    A second run with the same packages finds every stage done and does none of them again.

    Args:
        engine: `embedded`, `spark` or `auto`.
        folder: Data, workspaces and reports go here; each engine has workspaces of its own.
    """
    from gio_spark.engine import describe, session

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(100, console.width)  # a log has no width of its own
    spark = session(engine)  # type: ignore[arg-type]
    kind = describe(spark).kind
    outcomes = []
    for case in CASES:
        console.print(f"\n[bold]{case.title}[/bold]")
        outcome = _run_case(case, spark, Path(folder).absolute(), kind)
        _show(console, outcome)
        outcomes.append(outcome)
    return outcomes


def _run_case(case: Case, spark: SparkSession, folder: Path, engine: str) -> Outcome:
    from gio_spark import curate
    from gio_spark.engine import bounded

    start = time.perf_counter()
    paths = build(case.kind, folder / "data" / case.kind)
    curation = curate(
        str(paths["pool"]),
        str(paths["target"]),
        case.budget,
        workspace=str(folder / engine / case.kind),
        spark=spark,
        **case.settings,
    )
    ids = set(bounded(curation.selected.select("id"), 10_000, "rows of the demo")["id"].to_pylist())
    seconds = time.perf_counter() - start
    pool = pq.read_table(paths["pool"])
    held_out = pq.read_table(paths["held_out"])
    if case.kind == "images":
        figures = image_figures(pq.read_table(paths["target"]), held_out)
        examples = _count_digits(pool, ids)
    else:
        figures = text_figures(held_out, SCIENTIFIC)
        examples = _first_texts(pool, ids)
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]
    return Outcome(case, curation, len(ids), digest, compare(pool, ids, figures), examples, seconds)


def _count_digits(pool: pa.Table, ids: set[str]) -> list[str]:
    rows = pool.to_pylist()
    digits = [row["digit"] for row in rows if row["id"] in ids]
    mix = ", ".join(f"{digits.count(digit)} x {digit}" for digit in range(10))
    return [f"digits chosen: {mix}"]


def _first_texts(pool: pa.Table, ids: set[str], count: int = 4) -> list[str]:
    chosen = sorted((row for row in pool.to_pylist() if row["id"] in ids), key=_mixed_order)
    return [f"{row['package']}: {row['text'][:90]}" for row in chosen[:count]]


def _mixed_order(row: dict[str, Any]) -> str:
    return hashlib.sha256(row["id"].encode()).hexdigest()


def _show(console: Console, outcome: Outcome) -> None:
    console.print()
    table = Table(box=None, pad_edge=False)
    for heading in (f"{outcome.rows} rows", "selected", "random", "", ""):
        table.add_column(heading, justify="left" if heading.endswith("rows") else "right")
    for found in outcome.comparisons:
        table.add_row(
            found.figure.name,
            f"{found.selected:.2f}",
            f"{found.random:.2f} ± {found.spread:.2f}",
            found.figure.unit,
            "better" if found.better else "not better",
        )
    console.print(table)
    for line in outcome.examples:
        console.print(f"  {line}", markup=False)
    console.print(f"rows chosen (sha256 of their ids): {outcome.digest}")
    report = os.path.relpath(outcome.curation.report or "")
    console.print(f"report: {report}   ({outcome.seconds:.0f} s)", markup=False)
