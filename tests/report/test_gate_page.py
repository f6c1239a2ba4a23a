"""Page of the gate: a verdict where thresholds are set, and none where nothing was asked."""

from __future__ import annotations

import pandas as pd
import pytest

from gio_spark.report.gate_page import render_gate

CHECK = {
    "metric": "scope", "value": 0.9, "bound": 0.5, "upper": None, "direction": "more",
    "kind": "by hand", "passed": True, "best": 0.95,
}  # fmt: skip
WAYS = pd.DataFrame({"metric": ["scope"], "unit": [""], "direction": ["more"], "pool": [1.0],
                     "random": [0.4], "both": [0.9]})  # fmt: skip


@pytest.mark.parametrize(
    ("checks", "title", "marks"),
    [([CHECK], "Gate: passed", 1), ([], "Gate: no threshold set", 0)],
)
def test_the_page_says_passed_only_where_something_was_asked(tmp_path, checks, title, marks):
    page = render_gate(
        pd.DataFrame(checks, columns=list(CHECK)), WAYS, tmp_path,
        verdict={"passed": True, "why": "Because.", "notes": ()},
        passes={"both": True, "random": False},
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert f"<title>{title}</title>" in text
    assert text.count('<td class="n">pass</td>') == marks
