"""A configuration of a small job, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from gio_spark.cli import app
from tests.pipeline import jobs


@dataclass(frozen=True)
class Project:
    """A folder with inputs and a configuration."""

    folder: Path
    config: Path

    def __call__(self, command: str, *words: str) -> Result:
        """Run `gio-spark COMMAND CONFIG WORDS`."""
        return CliRunner().invoke(app, [command, str(self.config), *words])


def project(folder: Path, **changes: Any) -> Project:
    """Write inputs and configuration of a small job."""
    jobs.write(jobs.vector_pool(300), folder / "pool.parquet")
    jobs.write(jobs.vector_target(60), folder / "target.parquet")
    given = {
        "pool": str(folder / "pool.parquet"),
        "target": str(folder / "target.parquet"),
        "columns": {"id": "id", "vector": "vector", "source": "site"},
        "budget": 30,
        "workspace": str(folder / "ws"),
        "engine": "embedded",
        "clusters": 8,
        "quantize": {"max_passes": 2, "target_clusters": 3},
        "within_cluster": "exact_count",
        "tracking": {"enabled": False},
        "report": {"sample": 50, "examples": 1, "plots": False},
        **changes,
    }
    config = folder / "run.yml"
    config.write_text(yaml.safe_dump(given))
    return Project(folder, config)


@pytest.fixture
def make(spark, tmp_path) -> Callable[..., Project]:
    """Make a project of the test's own, with changed settings."""
    return lambda **changes: project(tmp_path, **changes)


@pytest.fixture(scope="module")
def finished(spark, tmp_path_factory) -> tuple[Project, Result, Result]:
    """A project that was run twice."""
    made = project(tmp_path_factory.mktemp("cli"))
    return made, made("run"), made("run")
