"""The demo's data: real rows, the same every time, each on one side only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gio_spark.demo.demo_files import CLASS_MIX, build, digits
from gio_spark.demo.paragraphs import read_paragraphs


@pytest.fixture(scope="module")
def images() -> dict:
    return digits()


def test_the_digits_are_the_same_every_time(images):
    repeated = digits()
    assert all(images[role].equals(repeated[role]) for role in images)


def test_every_digit_is_on_one_side_only(images):
    numbers = [i.split("-")[1] for role in images.values() for i in role["id"].to_pylist()]
    assert len(numbers) == len(set(numbers)) == 1797


def test_two_fifths_of_the_pool_and_nothing_else_are_damaged(images):
    damage = np.array(images["pool"]["damage"].to_pylist())
    assert 0.35 < np.mean(damage != "clean") < 0.45
    assert set(images["target"]["damage"].to_pylist()) == {"clean"}
    pixels = images["pool"]["image"].combine_chunks().flatten().to_numpy().reshape(-1, 64)
    assert pixels[damage == "dimmed"].max() < 90 < pixels[damage == "clean"].mean(axis=1).max()


def test_the_target_has_the_skewed_mix(images):
    share = np.bincount(images["target"]["digit"].to_numpy(), minlength=10) / 120
    assert np.abs(share - CLASS_MIX).sum() < 0.25


def test_files_that_are_there_are_left_alone(tmp_path: Path):
    paths = build("images", tmp_path)
    before = {name: path.stat().st_mtime_ns for name, path in paths.items()}
    build("images", tmp_path)
    assert before == {name: path.stat().st_mtime_ns for name, path in paths.items()}
    (tmp_path / "made_from.json").write_text("{}")
    build("images", tmp_path)
    assert before != {name: path.stat().st_mtime_ns for name, path in paths.items()}
    assert pq.read_table(paths["target"]).num_rows == 120


def test_paragraphs_are_the_same_with_the_backport_of_importlib_metadata():
    code = (
        "import sys, json; {}from gio_spark.demo.paragraphs import read_paragraphs as r;"
        "print(json.dumps([[p.key, p.text] for p in r(('joblib', 'packaging'))]))"
    )
    plain, ported = (
        subprocess.run(
            [sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True
        ).stdout
        for first in ("", "import importlib_metadata; ")
    )
    assert "README#" in plain
    assert plain == ported


def test_paragraphs_are_prose_and_each_text_comes_once():
    paragraphs = read_paragraphs(("joblib", "threadpoolctl", "packaging"))
    assert {paragraph.package for paragraph in paragraphs} == {
        "joblib",
        "threadpoolctl",
        "packaging",
    }
    assert {paragraph.kind for paragraph in paragraphs} == {"docstring", "readme", "licence"}
    folded = [paragraph.text.casefold() for paragraph in paragraphs]
    assert len(folded) == len(set(folded)) > 200
    assert all(12 <= len(paragraph.text.split()) <= 220 for paragraph in paragraphs)
    assert paragraphs == read_paragraphs(("packaging", "joblib", "threadpoolctl"))


def test_a_package_that_is_not_there_is_left_out():
    assert read_paragraphs(("no-such-package-anywhere",)) == []
