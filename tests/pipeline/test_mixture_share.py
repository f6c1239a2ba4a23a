"""Targets that nothing in the pool resembles are noticed, whatever the budget."""

from __future__ import annotations

import hashlib
import random

import pyarrow as pa
import pytest

from gio_spark.errors import EmptySelectionError
from tests.pipeline import jobs

GERMAN = (
    "die Katze sitzt auf dem alten Dach und wartet der Mann geht heute nicht zur Arbeit weil "
    "es stark regnet Kinder spielen im Garten mit einem neuen Ball wir haben gestern Abend"
)


def _hex(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _german(number: int) -> str:
    return " ".join(random.Random(number).choices(GERMAN.split(), k=12))


def _like(number: int) -> str:
    """A text of the pool's first kind of rows: every fourth row of it is one."""
    words = random.Random(f"like {number}")
    low = number % 4 * 100
    return " ".join(f"word{words.randint(low, low + 100)}" for _ in range(12))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Vectors of pool and target are alike, as static ones of unlike texts can be."""
    folder = tmp_path_factory.mktemp("mixture")
    pool = jobs.vector_pool(2000)
    texts = pa.array([_like(i) for i in range(2000)])
    jobs.write(pool.append_column("text", texts), folder / "pool.parquet")
    target = jobs.vector_target(300)
    for name, make in (("hex", _hex), ("german", _german), ("like", lambda i: _like(-4 * i - 4))):
        texts = pa.array([make(i) for i in range(300)])
        jobs.write(target.append_column("text", texts), folder / f"{name}.parquet")
    return folder


def _settings(place, target, **changes):
    return jobs.settings(
        place,
        target=str(place / f"{target}.parquet"),
        columns={"text": "text"},
        embed={"name": "vectors"},
        within_cluster="density_ratio",
        **changes,
    )


def _warnings(curation):
    return [name for name, _, _ in curation.summary["cautions"]]


@pytest.mark.parametrize("target", ["hex", "german"])
def test_a_target_unlike_the_whole_pool_is_a_warning_with_the_figure(place, target):
    curation = jobs.go(_settings(place, target))
    assert "pool unlike target" in _warnings(curation)
    assert curation.summary["mixture"]["share"] == 0
    assert curation.selected.count() == 100


def test_a_run_stops_at_a_target_unlike_the_pool_where_told_to(place):
    stop = {"on_low_mixture": "stop"}
    with pytest.raises(EmptySelectionError, match=r"about 0 of its 2,000 rows"):
        jobs.go(_settings(place, "german", select=stop))
    # What was made before is kept; the same settings stop again.
    with pytest.raises(EmptySelectionError, match="about 0 of"):
        jobs.go(_settings(place, "german", select=stop))


@pytest.mark.parametrize("budget", [100, 0.2, "3000 tokens"])
def test_a_target_like_part_of_the_pool_is_no_warning(place, budget):
    curation = jobs.go(_settings(place, "like", budget=budget))
    assert "pool unlike target" not in _warnings(curation)
    assert 0.01 < curation.summary["mixture"]["share"] < 0.6
    assert "Pool like the target" in curation.report.read_text(encoding="utf-8")
