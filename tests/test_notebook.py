"""The notebooks run from top to bottom and give what their text says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import notebooks  # noqa: E402

KEPT = sorted(path.name for path in notebooks.FOLDER.glob("*.ipynb"))


def code_cells(content: dict) -> list[dict]:
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def kinds(cell: dict) -> list[list[str]]:
    return [sorted(o.get("data", [o["output_type"]])) for o in cell["outputs"]]


@pytest.fixture
def fresh(tmp_path, spark):
    """Run a notebook here; check that it shows as much as the kept one; give its names."""

    def run(name: str) -> dict:
        kept = code_cells(json.loads((notebooks.FOLDER / name).read_text(encoding="utf-8")))
        content, names = notebooks.run(notebooks.FOLDER / name, tmp_path)
        made = code_cells(content)
        assert [kinds(c) for c in made] == [kinds(c) for c in kept], "run tools/notebooks.py"
        return names

    return run


@pytest.mark.parametrize("name", KEPT)
def test_kept_outputs_are_small_and_name_no_folder_of_the_machine(name: str):
    text = (notebooks.FOLDER / name).read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    cells = code_cells(json.loads(text))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = json.dumps([o for c in cells for o in c["outputs"] if "image/png" not in str(kinds(c))])
    for place in ("/tmp/", "/home/", "/root/", "/Users/", str(ROOT)):  # noqa: S108
        assert place not in shown


@pytest.mark.embedded
def test_the_quickstart_finds_the_wanted_rows_and_follows_the_pool(fresh):
    names = fresh("quickstart.ipynb")
    comparison = names["comparison"]
    assert names["before"].count() == 150
    assert (comparison["selected"] > comparison["pool"] + 0.2).all()
    assert (comparison["refreshed"] >= comparison["selected"] - 0.05).all()
    assert names["curation"].report.exists()
    refreshed = names["refreshed"]
    assert refreshed.new_rows > 0 and refreshed.added == refreshed.dropped > 0
    assert refreshed.after == refreshed.plan.spent == 150
    assert {row["digit"] for row in names["change"].select("digit").collect()} == {5}


@pytest.mark.embedded
def test_in_two_dimensions_quotas_and_ratio_copy_the_target(fresh):
    names = fresh("gio_in_two_dimensions.ipynb")
    distance, held = names["distance"], names["held"]
    assert names["stop"] < names["BUDGET"] / 4
    assert distance["Quotas, k-NN ratio"] < distance["Quotas, random rows"] / 2
    assert distance["Quotas, random rows"] < distance["Published, 300 picks"] / 5
    assert distance["Nearest, no objective"] < 2 * distance["Published, start jump"]
    assert held.loc["Published, 300 picks", ["blob", "small blob"]].sum() < 0.02
    assert (held.loc["Quotas, k-NN ratio"] - held.loc["Target"]).abs().max() < 0.06


@pytest.mark.embedded
def test_the_gate_stops_a_plan_that_is_only_judged_and_lets_the_held_one_pass(fresh):
    names = fresh("gime_sensitivity_and_gate.ipynb")
    assert len(names["wide"]) == 11
    classes = set(names["learnt"].table["class"])
    assert "low" in classes and classes & {"high", "moderate"}
    assert "distortion" in {one.metric for one in names["thresholds"]}
    judged, held = names["judged"], names["held_run"]
    assert not judged.summary["gate"]["passed"] and judged.publication.number is None
    assert held.summary["gate"]["passed"] and held.publication.number == 1
    verdict = names["verdict"]
    assert verdict.passes["both"] and not verdict.passes["random"]
    scores = verdict.scores.set_index("way")["score"]
    assert scores["both"] > scores["random"]
