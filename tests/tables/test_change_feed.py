"""Rows that Delta's change data feed names, beside a comparison of all rows of both versions."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from gio_spark import embed
from gio_spark.pipeline.stages.changed_rows import changed_rows
from gio_spark.tables.change_feed import changed_ids
from gio_spark.tables.inputs import Input, open_input
from tests.pipeline import jobs

# Some minutes: with the other slow ones. One refresh by the feed is in test_refresh_on_spark.py.
pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(900)]

COLUMNS = {
    "by id": {"id": "id", "text": "text", "tokens": "words", "vector": None, "source": None},
    "by content": {"id": None, "text": "text", "vector": None, "source": None},
}


class Pool:
    """A Delta table with its change data feed on, and random changes of it by seed."""

    def __init__(self, spark: Any, folder: Path, *, seed: int) -> None:
        self.spark, self.folder, self.random = spark, folder, random.Random(seed)
        self.name, self.version = f"delta.`{folder}`", 0
        feed = {"delta.enableChangeDataFeed": "true"}
        self.rows("p", 40).write.format("delta").options(**feed).save(str(folder))

    def rows(self, name: str, count: int) -> Any:
        texts = [f"text {self.random.randrange(20)}" for _ in range(count)]
        rows = [(f"{name}{i}", text, i) for i, text in enumerate(texts)]
        return self.spark.createDataFrame(rows, "id string, text string, words long").coalesce(1)

    def sql(self, text: str) -> None:
        self.spark.sql(text.format(pool=self.name)).collect()
        self.version += 1

    def some(self) -> str:
        """A condition that a few rows of any version fulfil."""
        return f"hash(id) % 5 = {self.random.randrange(5)}"

    def append(self) -> None:
        self.rows(f"n{self.version}-", 5).write.format("delta").mode("append").save(
            str(self.folder)
        )
        self.version += 1

    def update(self) -> None:
        self.sql(f"UPDATE {{pool}} SET text = concat(text, '+') WHERE {self.some()}")

    def update_and_back(self) -> None:
        where = self.some()
        self.sql(f"UPDATE {{pool}} SET words = words + 100 WHERE {where}")
        self.sql(f"UPDATE {{pool}} SET words = words - 100 WHERE {where}")

    def rename(self) -> None:
        self.sql(f"UPDATE {{pool}} SET id = concat('r', id) WHERE {self.some()}")

    def delete(self) -> None:
        self.sql(f"DELETE FROM {{pool}} WHERE {self.some()}")

    def overwrite(self) -> None:
        old = "SELECT * FROM {pool} WHERE words < 9"
        new = f"SELECT id, concat(text, '!') AS text, words FROM {{pool}} WHERE {self.some()}"
        self.sql(f"INSERT OVERWRITE {{pool}} {old} UNION ALL {new}")

    def merge(self) -> None:
        self.sql(
            f"MERGE INTO {{pool}} t USING (SELECT * FROM {{pool}} WHERE {self.some()}) s "
            "ON t.id = s.id AND t.text = s.text AND t.words = s.words "
            "WHEN MATCHED AND t.words % 2 = 0 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET words = t.words + 1 "
        )

    def compact(self) -> None:
        self.sql("OPTIMIZE {pool}")
        self.version = self.spark.sql(f"DESCRIBE HISTORY {self.name} LIMIT 1").first()["version"]

    def open(self, columns: dict[str, Any], version: int | None = None) -> Input:
        place = {"location": str(self.folder), "version": version}
        settings = jobs.settings(self.folder, engine="spark", pool=place, columns=columns)
        return open_input(self.spark, settings.pool, settings.pool_columns(), "pool")


def differences(pool: Pool, since: int, columns: dict[str, Any], *, by_feed: bool) -> list[Any]:
    """Rows that differ between a version and the newest one, sorted by id."""
    settings = jobs.settings(pool.folder, columns=columns, embedder={"name": "ngrams"})
    embedder = embed.make_embedder(settings.embed, settings.pool_columns())
    before, now = pool.open(columns, since), pool.open(columns)
    rows = [before.rows, now.rows]
    if by_feed:
        ids, why = changed_ids(pool.spark, now, since, most=10_000)
        assert ids is not None, why
        rows = [frame.join(ids, "id", "left_semi") for frame in rows]
    hashes = [
        embed.describe_rows(frame, embedder, columns=now.columns).select(
            "id", "content_hash", "row_hash"
        )
        for frame in rows
    ]
    return changed_rows(*hashes).toArrow().sort_by("id").to_pylist()


def check_same(pool: Pool, since: int) -> None:
    for columns in COLUMNS.values():
        compared = differences(pool, since, columns, by_feed=False)
        assert differences(pool, since, columns, by_feed=True) == compared
        assert compared


def test_the_feed_names_the_rows_that_a_comparison_finds_or_says_why_not(local_spark, folder):
    pool = Pool(local_spark, folder / "pool", seed=1)
    for change in (pool.append, pool.update_and_back, pool.rename, pool.delete, pool.overwrite):
        change()
    pool.update()
    check_same(pool, since=0)

    def why(since: int | None, most: int = 10_000) -> str:
        ids, reason = changed_ids(local_spark, pool.open(COLUMNS["by id"]), since, most)
        assert ids is None
        return reason

    now = pool.version
    assert why(now - 2, most=3) == "more than 3 rows were written"
    assert why(None).startswith("the version before is that of another table")
    assert why(now).startswith(f"version {now} is not a later one")
    shutil.rmtree(folder / "pool" / "_change_data")  # as VACUUM leaves it
    local_spark.sparkContext.setLogLevel("OFF")
    assert why(now - 1) == "files of it cannot be read; VACUUM removes them in time"
    local_spark.sparkContext.setLogLevel("ERROR")
    pool.sql("ALTER TABLE {pool} SET TBLPROPERTIES (delta.enableChangeDataFeed = false)")
    assert why(now) == ""
    pool.sql("ALTER TABLE {pool} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    assert why(now) == f"version {now + 1} is SET TBLPROPERTIES"
    pool.sql("RESTORE TABLE {pool} TO VERSION AS OF 1")
    assert why(now + 2) == f"version {now + 3} is RESTORE"


@pytest.mark.parametrize("seed", range(4))
def test_after_random_changes_the_feed_names_what_a_comparison_finds(local_spark, folder, seed):
    pool = Pool(local_spark, folder / "pool", seed=seed)
    changes = [
        pool.append, pool.update, pool.update_and_back, pool.rename, pool.delete, pool.overwrite,
        pool.merge, pool.compact,
    ]  # fmt: skip
    for _ in range(6):
        pool.random.choice(changes)()
    pool.append()
    check_same(pool, since=0)
    check_same(pool, since=pool.random.randrange(1, pool.version))
