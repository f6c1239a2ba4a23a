from __future__ import annotations

import pytest

from gio_spark.report.text_format import (
    clean_text,
    count_text,
    duration_text,
    location_text,
    number_text,
    percent_text,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (1234567, "1,234,567"), (0.000012, "1.2e-05"), (0.1234, "0.123"), (12.34, "12.3"),
     (None, "–"), (float("nan"), "–"), (float("inf"), "infinite"), (-0.5, "-0.500"),
     (-0.0, "0")],
)  # fmt: skip
def test_numbers_read_well_at_any_size(value, expected):
    assert number_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.1, "10.0 %"), (1, "100 %"), (0.0003, "< 0.1 %"), (0, "0.0 %"), (-0.0, "0.0 %")],
)
def test_shares_are_per_cent(value, expected):
    assert percent_text(value) == expected


def test_counts_and_times():
    assert count_text(20510.4) == "20,510"
    assert (duration_text(3.21), duration_text(75), duration_text(7322)) == (
        "3.2 s",
        "1 min 15 s",
        "2 h 02 min",
    )


def test_text_is_one_clean_clipped_line():
    assert clean_text("a\n\tb\x00\x07 c\u202e") == "a b c"
    assert clean_text("x" * 300, 10) == "x" * 9 + "…"
    assert clean_text("नमस्ते 👩\u200d🔬") == "नमस्ते 👩\u200d🔬"
    assert clean_text(None) == ""


def test_a_long_location_keeps_both_ends_and_no_secret():
    location = location_text("https://me:pw@host/" + "deep/" * 200 + "rows.parquet")
    assert location.startswith("https://***@host/")
    assert location.endswith("rows.parquet")
    assert len(location) <= 160
