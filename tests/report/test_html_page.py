from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gio_spark.report import Divergence, Example, ReportData, RunWarning, StageSummary
from gio_spark.report.html_page import render
from gio_spark.report.run_tables import run_tables

from .sample_reports import image_run, plain_run, random_plan, text_run

EVIL = "<script>alert(1)</script>\x00\x1b[31m\u202e<img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Collects what a browser would load or run, and checks that tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "data"}:
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rendered_page(data: ReportData, folder: Path) -> tuple[str, Page]:
    text = render(data, folder).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def text_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Page]:
    folder = tmp_path_factory.mktemp("text")
    return folder, *rendered_page(text_run(), folder)


def test_the_page_is_whole_in_itself_and_small(text_page):
    _, text, page = text_page
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    assert "http://" not in text
    assert "https://" not in text.replace("https://***@host/pool", "")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#|data:)", text)
    assert page.open == []
    assert len(text) < 2_000_000


def test_ids_inside_all_figures_are_unique_and_all_references_resolve(text_page):
    _, text, page = text_page
    assert len(page.ids) == len(set(page.ids))
    references = set(re.findall(r"url\(#([^)]+)\)", text))
    references |= {load[1:] for load in page.loads if load.startswith("#")}
    assert references <= set(page.ids)


def test_every_figure_is_in_the_page_and_a_png_beside_it(text_page):
    folder, text, page = text_page
    names = {
        "divergence", "divergence_path", "points", "clusters", "sources", "calibration",
        "clusters_error",
    }  # fmt: skip
    assert {p.stem for p in folder.glob("*.png")} == names
    # The points of pool and selection are pictures of their own, so that narrow screens stack them.
    assert page.tags.count("svg") == len(names) + 1
    for name in names:
        assert f"({name}.png)" in text
        with Image.open(folder / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGBA"))
        assert pixels.shape[0] > 200
        assert pixels.shape[1] > 400
        assert (pixels[..., 3] == 255).all()  # opaque, whatever page it is put on
        assert (pixels[0, 0] == 255).all()
        assert len(np.unique(pixels.reshape(-1, 4)[::37], axis=0)) > 10


def test_the_page_begins_with_plain_words_and_the_verdict(text_page):
    _, _, page = text_page
    words = page.text
    assert "From a pool of 205,101 rows this run took 20,510 (10.0 %)" in words
    assert "the selection is 13.9 times nearer to the target" in words
    assert "proved to be the best one" in words
    assert words.index("this run took") < words.index("target out of reach")
    assert words.index("Nearer than random rows") < words.index("Pictures")
    assert words.index("Pictures") < words.index("Details")


def test_secrets_in_settings_are_not_shown(text_page):
    _, text, _ = text_page
    assert "hunter2" not in text
    assert "***" in text


def test_the_whole_plan_stands_beside_the_page(text_page):
    folder, text, _ = text_page
    plan = pd.read_csv(folder / "plan.csv")
    assert len(plan) == 1000
    with_rows = f"of 1,000 clusters, {(plan['take'] > 0).sum()} of them with rows selected"
    assert f"The 40 that give most rows, {with_rows}" in text
    assert f"with a share of target or selection, {with_rows}" in text


def test_equal_data_gives_equal_bytes(tmp_path):
    data = image_run()
    render(data, tmp_path / "a")
    render(data, tmp_path / "b")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_user_data_is_escaped_clipped_and_freed_of_control_characters(tmp_path):
    data = plain_run(
        title=EVIL,
        warnings=(RunWarning(name=EVIL, text=EVIL, action=EVIL),),
        constraints=(EVIL,),
        sources=pd.DataFrame(
            {"source": [EVIL, "$\\frac$ & $x^2$", None], "pool": [3, 2, 1], "selected": [1, 1, 1]}
        ),
        examples=(Example(cluster=1, taken=True, id=EVIL, text=EVIL + "w" * 5000, source=EVIL),),
        settings={EVIL: EVIL},
        versions={EVIL: EVIL},
        tables={EVIL: EVIL},
    )
    text, page = rendered_page(data, tmp_path)
    assert "script" not in page.tags
    assert not page.handlers
    assert "alert(1)" in page.text
    assert not re.search(r"[\x00\x1b\u202e]", text)
    assert "w" * 300 not in text
    assert page.open == []


def test_images_are_shown_small_and_an_unreadable_one_is_named(tmp_path):
    examples = (
        Example(cluster=0, taken=True, id="good", image=np.arange(64.0)),
        Example(cluster=0, taken=True, id="big", image=np.zeros((900, 900, 3), np.uint8)),
        Example(cluster=0, taken=False, id="broken", image=b"\x89PNG not really"),
        Example(cluster=0, taken=False, id="odd", image=np.arange(7.0)),
    )
    text, page = rendered_page(plain_run(examples=examples), tmp_path)
    assert sum(load.startswith("data:image/png") for load in page.loads) >= 2
    assert text.count('alt="row') == 2
    assert text.count("cannot be shown") == 2
    assert len(text) < 300_000


def test_a_run_that_selected_nothing_still_has_a_page(tmp_path):
    text, page = rendered_page(
        ReportData(title="Empty", run_id="r", engine="e", rows_pool=10), tmp_path
    )
    assert "Nothing was selected from the pool of 10 rows" in page.text
    assert "svg" not in page.tags
    assert len(text) < 20_000


def test_a_selection_worse_than_random_is_called_so(tmp_path):
    worse = Divergence(pool=1.0, random=1.0, selection=1.5)
    _, page = rendered_page(plain_run(divergence=worse), tmp_path)
    assert "FARTHER from the target than random rows" in page.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_odd_numbers_break_nothing(tmp_path, value):
    divergence = Divergence(
        pool=value, random=value, selection=value, path_rows=[1, 2, 3], path=[value, 1.0, value]
    )
    plan = random_plan(5, 100).assign(target_mass=0.0, take=0)
    _, page = rendered_page(plain_run(divergence=divergence, plan=plan, unreached=value), tmp_path)
    assert page.open == []
    assert "nan" not in page.text.split()


def test_a_very_large_plan_keeps_the_page_small(tmp_path):
    data = plain_run(plan=random_plan(65_536, 1_000_000), settings={str(i): i for i in range(5000)})
    text, _ = rendered_page(data, tmp_path)
    assert len(text) < 1_000_000


def test_many_notes_are_folded_and_counted(tmp_path):
    notes = tuple(RunWarning(name=f"note {i}", text="seen", action="look") for i in range(45))
    _, page = rendered_page(plain_run(warnings=notes), tmp_path)
    assert "40 more notes" in page.text
    assert "The last 15 are left out" in page.text


def test_a_plan_without_its_columns_is_refused_by_name():
    with pytest.raises(ValueError, match="plan lacks the column\\(s\\) take"):
        ReportData(title="t", run_id="r", engine="e", plan=random_plan(3, 5).drop(columns="take"))


def test_rows_written_along_with_others_have_a_note_and_no_rate():
    without_rate = StageSummary(
        name="embed target", seconds=0.0001, rows=2000, note="written before"
    )
    pool = StageSummary(name="embed pool", seconds=2.0, rows=2000)
    table = next(t for t in run_tables(text_run(stages=(pool, without_rate))) if t.id == "stages")
    rates = {row[0]: (row[3], row[4]) for row in table.rows}
    assert rates["embed pool"] == ("1,000", "")
    assert rates["embed target"] == ("", "written before")
