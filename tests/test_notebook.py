"""The quickstart notebook runs from top to bottom and gives what its text says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


@pytest.mark.embedded
def test_the_quickstart_runs_and_finds_the_wanted_rows(tmp_path, monkeypatch, spark):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "quickstart"}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are kept out of the repository"
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    comparison = names["comparison"]
    assert (comparison["selected"] > comparison["pool"] + 0.2).all()
    assert len(names["selected"]) == 150
    assert names["curation"].report.exists()
