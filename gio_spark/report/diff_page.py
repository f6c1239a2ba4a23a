"""Page of the difference between two selections: counts, clusters, sources, means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from gio_spark.report.html_page import save_page, write_file
from gio_spark.report.run_tables import TableText
from gio_spark.report.text_format import clean_text, count_text, location_text, number_text

PAGE = "diff.html"
MOST_ROWS = 50
_COUNTS = {
    "rows_a": "rows of A",
    "rows_b": "rows of B",
    "rows_in": "in (only in B)",
    "rows_out": "out (only in A)",
    "rows_both": "in both",
}
_SHORT = {"rows_a": "A", "rows_b": "B", "rows_in": "in", "rows_out": "out"}


def render_diff(
    folder: Path,
    *,
    labels: tuple[str, str],
    facts: Mapping[str, str],
    counts: Mapping[str, int],
    clusters: pd.DataFrame | None,
    sources: pd.DataFrame | None,
    means: pd.DataFrame,
) -> Path:
    """Write the page of a difference and its tables as CSV.

    Args:
        folder: Local folder, created if missing.
        labels: Names of A and B.
        facts: Lines for the head of the page.
        counts: rows_a, rows_b, rows_in, rows_out and rows_both.
        clusters: Columns cluster, rows_a, rows_b, rows_in, rows_out; None if they do not compare.
        sources: The same by source; None without sources.
        means: Columns column, mean_a, mean_b, mean_in, mean_out.

    Returns:
        Path of the HTML file.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("clusters", clusters), ("sources", sources), ("means", means)):
        if table is not None:
            write_file(folder / f"{name}.csv", table.to_csv(index=False).encode())
    a, b = (clean_text(label, 120) for label in labels)
    return save_page(
        folder / PAGE,
        "evaluation.html",
        title=f"From {a} to {b}",
        run=[(clean_text(name, 60), location_text(value, 300)) for name, value in facts.items()],
        summary=_sentences(counts, has_one_codebook=clusters is not None),
        warnings=[],
        plots=[],
        tables=diff_tables(counts, clusters, sources, means),
    )


def _sentences(counts: Mapping[str, int], *, has_one_codebook: bool) -> list[str]:
    """Sentences on top of the page."""
    rows = {name: count_text(count) for name, count in counts.items()}
    came_and_went = (
        f"{rows['rows_in']} rows came in and {rows['rows_out']} went out; {rows['rows_both']} of "
        f"the {rows['rows_b']} rows of B are in A."
    )
    if has_one_codebook:
        return [came_and_went]
    return [came_and_went, "The codebooks differ, so that clusters do not compare."]


def diff_tables(
    counts: Mapping[str, int],
    clusters: pd.DataFrame | None,
    sources: pd.DataFrame | None,
    means: pd.DataFrame,
    most: int = MOST_ROWS,
) -> list[TableText]:
    """Tables of a difference as text; of clusters and sources at most so many lines."""
    tables = [
        TableText(
            "Rows",
            ["", "rows"],
            [[label, count_text(counts[name])] for name, label in _COUNTS.items()],
            [False, True],
        )
    ]
    for title, column, table in (
        ("By cluster", "cluster", clusters),
        ("By source", "source", sources),
    ):
        if table is not None and len(table):
            tables.append(_groups(title, column, table, most))
    if len(means):
        tables.append(
            TableText(
                "Means of numeric columns",
                ["column", "A", "B", "in", "out"],
                [
                    [
                        clean_text(row["column"], 60),
                        *(number_text(row[f"mean_{part}"], 5) for part in ("a", "b", "in", "out")),
                    ]
                    for row in means.head(most).to_dict("records")
                ],
                [False, True, True, True, True],
                note=_left_out(len(means), most),
            )
        )
    return tables


def _groups(title: str, column: str, table: pd.DataFrame, most: int) -> TableText:
    rows = [
        [
            clean_text(row[column], 80) or "(none)",
            *(count_text(row[name]) for name in _SHORT),
        ]
        for row in table.head(most).to_dict("records")
    ]
    note = _left_out(len(table), most)
    return TableText(title, [column, *_SHORT.values()], rows, [False, *[True] * 4], note=note)


def _left_out(count: int, most: int) -> str:
    return f"{count - most:,} more, in which less differs." if count > most else ""
