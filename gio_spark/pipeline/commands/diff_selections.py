"""`gio-spark diff`: what differs between two selections of a workspace."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gio_spark.engine import session
from gio_spark.pipeline.commands.compared_rows import SideRows
from gio_spark.pipeline.commands.find_selections import SelectionRef, find_selection, run_summary
from gio_spark.pipeline.commands.row_output import check_format, rows_folder, write_rows
from gio_spark.pipeline.commands.run_history import history
from gio_spark.report.diff_page import render_diff
from gio_spark.tables import Workspace
from gio_spark.tables.identifiers import absolute, is_remote_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.settings.run import RunSettings


@dataclass(frozen=True, eq=False)
class SelectionDiff:
    """Difference between two selections, A and B.

    Attributes:
        a: The first selection.
        b: The second one.
        rows_a: Rows of A.
        rows_b: Rows of B.
        rows_in: Rows of B that A has not.
        rows_out: Rows of A that B has not.
        rows_both: Rows of both.
        clusters: Columns cluster, rows_a, rows_b, rows_in, rows_out of the clusters in which most
            differs; None where the two have different codebooks.
        sources: The same by source; None where a selection has no column of sources.
        means: Columns column, mean_a, mean_b, mean_in, mean_out: means of numeric columns.
        page: HTML page, None where it was not asked for or the folder is not local.
        output: Folder of the ids that differ, or "".
    """

    a: SelectionRef
    b: SelectionRef
    rows_a: int
    rows_b: int
    rows_in: int
    rows_out: int
    rows_both: int
    clusters: pd.DataFrame | None
    sources: pd.DataFrame | None
    means: pd.DataFrame
    page: Path | None = None
    output: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of rows by name."""
        names = ("rows_a", "rows_b", "rows_in", "rows_out", "rows_both")
        return {name: getattr(self, name) for name in names}

    def plain(self) -> dict[str, Any]:
        """Values fit for JSON."""
        means = [
            {name: None if pd.isna(value) else value for name, value in line.items()}
            for line in self.means.to_dict("records")
        ]
        return {
            "a": asdict(self.a),
            "b": asdict(self.b),
            **self.counts,
            "clusters": None if self.clusters is None else self.clusters.to_dict("records"),
            "sources": None if self.sources is None else self.sources.to_dict("records"),
            "means": means,
            "page": None if self.page is None else str(self.page),
            "output": self.output,
        }


def diff_selections(
    settings: RunSettings,
    a: str,
    b: str,
    *,
    output: str | None = None,
    file_format: str = "parquet",
    spark: SparkSession | None = None,
) -> SelectionDiff:
    """Compare two selections of the workspace of these settings.

    Args:
        settings: Of a run: workspace, engine, and the name that a bare number belongs to.
        a: Run id (its newest selection), `NAME@3`, `NAME` (the current publish) or `3`.
        b: The selection that A is compared with, in the same forms.
        output: Folder for the page, its tables as CSV, and the ids that differ as `rows`.
        file_format: parquet or csv, for `rows`.
        spark: Session; None: as `engine` says.

    Raises:
        InputError: A selection is not there; the message names those that are.
    """
    check_format(file_format)
    place = "" if output is None else rows_folder(output)
    spark = spark or session(settings.engine)
    history(spark, settings.workspace)
    workspace = Workspace(spark, settings.workspace, writable=False)
    name = settings.published_name()
    first, second = (find_selection(workspace, text, name) for text in (a, b))
    rows = SideRows.of(workspace, first, second)
    counts = rows.counts()
    diff = SelectionDiff(
        first,
        second,
        rows_a=counts["a", True] + counts["a", False],
        rows_b=counts["b", True] + counts["b", False],
        rows_in=counts["b", False],
        rows_out=counts["a", False],
        rows_both=counts["a", True],
        clusters=rows.by_group("cluster") if _share_codebook(workspace, first, second) else None,
        sources=rows.by_group("source") if rows.has_sources else None,
        means=rows.means(),
    )
    if output is None:
        return diff
    write_rows(rows.changes(), place, file_format)
    page = None
    if not is_remote_path(output):
        facts = {"A": first.place, "B": second.place, "workspace": workspace.location}
        page = render_diff(
            Path(absolute(output)), labels=(first.label, second.label), facts=facts,
            counts=diff.counts,
            clusters=diff.clusters, sources=diff.sources, means=diff.means,
        )  # fmt: skip
    return replace(diff, page=page, output=place)


def _share_codebook(workspace: Workspace, a: SelectionRef, b: SelectionRef) -> bool:
    """Whether cluster numbers of two selections mean the same."""
    if a.run == b.run:
        return True
    first, second = (run_summary(workspace, one.run) for one in (a, b))
    return first is not None and second is not None and first.keys.fit == second.keys.fit
