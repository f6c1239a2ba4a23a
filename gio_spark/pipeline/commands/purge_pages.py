"""Example rows of purged rows in reports, on disk and among the artifacts of tracked runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from gio_spark.engine import bounded
from gio_spark.report.example_rows import example_hashes, without_examples
from gio_spark.report.html_page import write_file
from gio_spark.tables.output_folders import local_folder
from gio_spark.tables.purge_list import ID_HASH
from gio_spark.tracking import TrackedPage, TrackedPages

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Workspace

_MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True)
class PageExamples:
    """Purged rows that a page shows."""

    place: str
    rows: int


class PurgedPages:
    """Pages of a workspace that show purged rows as examples.

    Args:
        workspace: Whose.
        settings: Of its runs; `tracking` names the store of tracked runs.
        hashes: Hashes of the purged ids.
    """

    def __init__(self, workspace: Workspace, settings: RunSettings, hashes: DataFrame) -> None:
        self._workspace = workspace
        folder = local_folder(workspace)
        self._reports = folder / "reports"
        self._tracked = TrackedPages(settings.tracking, folder / "tracking")
        self._hashes = hashes
        self.count = 0
        """Pages that were searched last."""

    def examples(self) -> list[PageExamples]:
        """Pages that show purged rows."""
        return [
            PageExamples(_place(page), len(rows)) for page, rows in self._purged_examples().items()
        ]

    def remove(self) -> None:
        """Take purged rows out of all pages; nothing else of a page changes."""
        for page, rows in self._purged_examples().items():
            text = without_examples(self._read(page), rows)
            if isinstance(page, Path):
                write_file(page, text.encode())
            else:
                self._tracked.replace(page, text)

    @cached_property
    def _tracked_pages(self) -> list[TrackedPage]:
        """Pages of tracked runs; listing them is a call for each folder of each run."""
        return self._tracked.list()

    def _purged_examples(self) -> dict[Path | TrackedPage, set[str]]:
        examples = {page: example_hashes(self._read(page)) for page in self._pages()}
        self.count = len(examples)
        every = sorted({one for hashes in examples.values() for one in hashes})
        if not every:
            return {}
        frame = self._workspace.frame(pa.table({ID_HASH: pa.array(every, pa.string())}))
        rows = frame.join(self._hashes, ID_HASH, "left_semi")
        purged = set(bounded(rows, _MOST_EXAMPLES, "examples")[ID_HASH].to_pylist())
        affected = {page: purged & set(hashes) for page, hashes in examples.items()}
        return {page: hashes for page, hashes in affected.items() if hashes}

    def _pages(self) -> Iterator[Path | TrackedPage]:
        yield from sorted(self._reports.rglob("*.html"))
        yield from self._tracked_pages

    def _read(self, page: Path | TrackedPage) -> str:
        if isinstance(page, Path):
            return page.read_text(encoding="utf-8", errors="replace")
        return self._tracked.read(page)


def _place(page: Path | TrackedPage) -> str:
    return str(page) if isinstance(page, Path) else f"tracked run {page.run}: {page.path}"
