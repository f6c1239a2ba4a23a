"""Run of the demo: selections of images and texts, with their comparison to random rows."""

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

from gio_spark.demo.demo_files import Kind, build
from gio_spark.demo.paragraphs import SCIENTIFIC
from gio_spark.demo.random_comparison import Comparison, compare, image_measures, text_measures

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.pipeline import Curation


@dataclass(frozen=True)
class Case:
    """Part of the demo: kind of data, title, budget and settings."""

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
class CaseResult:
    """Result of a case: the run, its selected rows and their comparison with random rows."""

    case: Case
    curation: Curation
    rows: int
    digest: str
    comparisons: list[Comparison]
    examples: list[str]
    seconds: float


def run(engine: str = "auto", folder: str | Path = "demo-output") -> list[CaseResult]:
    """Run both cases on an engine and print their results.

    A second run with the same packages reuses all stages of the first.

    Args:
        engine: `embedded`, `spark` or `auto`.
        folder: Folder of data, workspaces and reports; each engine has its own workspaces.
    """
    from gio_spark.engine import describe, session

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(100, console.width)  # a log file has no width
    spark = session(engine)  # type: ignore[arg-type]
    kind = describe(spark).kind
    results = []
    for case in CASES:
        console.print(f"\n[bold]{case.title}[/bold]")
        result = _run_case(case, spark, Path(folder).absolute(), kind)
        _print_result(console, result)
        results.append(result)
    return results


def _run_case(case: Case, spark: SparkSession, folder: Path, engine: str) -> CaseResult:
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
        measures = image_measures(pq.read_table(paths["target"]), held_out)
        examples = _count_digits(pool, ids)
    else:
        measures = text_measures(held_out, SCIENTIFIC)
        examples = _first_texts(pool, ids)
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]
    return CaseResult(
        case, curation, len(ids), digest, compare(pool, ids, measures), examples, seconds
    )


def _count_digits(pool: pa.Table, ids: set[str]) -> list[str]:
    rows = pool.to_pylist()
    digits = [row["digit"] for row in rows if row["id"] in ids]
    mix = ", ".join(f"{digits.count(digit)} x {digit}" for digit in range(10))
    return [f"digits chosen: {mix}"]


def _first_texts(pool: pa.Table, ids: set[str], count: int = 4) -> list[str]:
    selected = sorted((row for row in pool.to_pylist() if row["id"] in ids), key=_mixed_order)
    return [f"{row['package']}: {row['text'][:90]}" for row in selected[:count]]


def _mixed_order(row: dict[str, Any]) -> str:
    return hashlib.sha256(row["id"].encode()).hexdigest()


def _print_result(console: Console, result: CaseResult) -> None:
    console.print()
    table = Table(box=None, pad_edge=False)
    for heading in (f"{result.rows} rows", "selected", "random", "", ""):
        table.add_column(heading, justify="left" if heading.endswith("rows") else "right")
    for comparison in result.comparisons:
        table.add_row(
            comparison.measure.name,
            f"{comparison.selected:.2f}",
            f"{comparison.random:.2f} ± {comparison.spread:.2f}",
            comparison.measure.unit,
            "better" if comparison.better else "not better",
        )
    console.print(table)
    for line in result.examples:
        console.print(f"  {line}", markup=False)
    console.print(f"rows chosen (sha256 of their ids): {result.digest}")
    report = os.path.relpath(result.curation.report or "")
    console.print(f"report: {report}   ({result.seconds:.0f} s)", markup=False)
