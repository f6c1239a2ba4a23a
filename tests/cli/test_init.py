"""`gio-spark init POOL TARGET`: the file that it writes passes validate and run as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import write_deltalake
from typer.testing import CliRunner

from gio_spark.cli import app
from tests.pipeline import jobs

pytestmark = pytest.mark.embedded

TOPICS = (
    "weather rain wind cloud storm",
    "python class method import list",
    "soup salt onion oven",
)


def texts(rows: int, topic: int | None = None, seed: int = 0) -> list[dict]:
    """Rows about three topics, or about one, with all optional columns."""
    random = np.random.default_rng(seed)
    table = []
    for i in range(rows):
        words = TOPICS[i % 3 if topic is None else topic].split()
        text = " ".join(random.choice(words, 14))
        table.append(
            {
                "doc_id": f"d{seed}-{i}",
                "text": f"{text} {i}",
                "source": ("web", "books")[i % 2],
                "n_tokens": 15,
                "quality": round(float(random.uniform()), 3),
                "published": f"2024-01-{1 + i % 28:02d}T00:00:00Z",
                "lang": "en",
            }
        )
    return table


def lines(rows: list[dict], place: Path, files: int = 1) -> None:
    place.mkdir(parents=True)
    for i in range(files):
        (place / f"{i}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[i::files]))


def chats(rows: int, topic: int | None = None, seed: int = 0) -> list[dict]:
    return [
        {
            "conversations": [
                {"from": "human", "value": row["text"][:30]},
                {"from": "gpt", "value": row["text"]},
            ]
        }
        for row in texts(rows, topic, seed)
    ]


def first_hour(folder: Path, pool: str, target: str) -> dict:
    """Run init, validate and run, and return the configuration."""
    file = folder / "curate.yml"
    words = ["init", pool, target, "-o", str(file), "--engine", "embedded"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    settings = ("engine=embedded", "tracking.enabled=false", "report.sample=50")
    for command in ("validate", "run"):
        done = CliRunner().invoke(app, [command, str(file), *settings])
        assert done.exit_code == 0, (done.stderr, file.read_text())
    return yaml.safe_load(file.read_text())


def test_a_folder_of_jsonl(spark, folder):
    lines(texts(3000), folder / "pool", files=3)
    lines([{"doc_id": r["doc_id"], "text": r["text"]} for r in texts(100, 1, 5)], folder / "target")
    config = first_hour(folder, str(folder / "pool"), str(folder / "target"))
    assert config["pool"] == "./pool" and config["target"] == "./target"
    assert config["columns"] == {
        "id": "doc_id",
        "text": "text",
        "source": "source",
        "tokens": "n_tokens",
        "quality": "quality",
        "event_time": "published",
    }
    assert config["budget"] == 0.1 and config["clusters"] == "auto"
    assert config["select"] == {"strategy": "auto"}
    text = (folder / "curate.yml").read_text()
    assert "3,000 rows, jsonl" in text and "auto is about 110" in text
    assert "# its values differ in all rows" in text
    assert "# label: no column seems to be" in text


def test_a_chat_array(spark, folder):
    (folder / "chat.json").write_text(json.dumps(chats(600)))
    (folder / "good.json").write_text(json.dumps(chats(60, 1, 7)))
    config = first_hour(folder, str(folder / "chat.json"), str(folder / "good.json"))
    assert config["columns"] == {"text": "conversations"}
    assert "# id: no column named id, uuid, key" in (folder / "curate.yml").read_text()


def test_parquet_with_vectors(spark, folder):
    jobs.write(jobs.vector_pool(), folder / "pool.parquet")
    jobs.write(jobs.vector_target(), folder / "target.parquet")
    config = first_hour(folder, str(folder / "pool.parquet"), str(folder / "target.parquet"))
    assert config["columns"] == {"id": "id", "vector": "vector"} | (
        {"source": "site"} if "source" in config["columns"] else {}
    )
    assert config["embedder"] == "vectors"


def test_a_delta_table(spark, folder):
    write_deltalake(str(folder / "pool"), pa.Table.from_pylist(texts(600)))
    write_deltalake(str(folder / "target"), pa.Table.from_pylist(texts(60, 2, 9)))
    config = first_hour(folder, str(folder / "pool"), str(folder / "target"))
    # Texts of a Delta table are texts: a time is a column of a type for times.
    assert "event_time" not in config["columns"] and config["columns"]["tokens"] == "n_tokens"
    assert "select" not in config  # 60 target rows are too few to judge strategies
    assert "600 rows, delta" in (folder / "curate.yml").read_text()


def test_csv(spark, folder):
    for name, rows in (("pool", texts(600)), ("target", texts(60, 0, 3))):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    config = first_hour(folder, str(folder / "pool.csv"), str(folder / "target.csv"))
    assert config["columns"]["tokens"] == "n_tokens" and config["columns"]["quality"] == "quality"
    assert config["columns"]["event_time"] == "published"


def test_a_table_of_features(spark, folder):
    random = np.random.default_rng(0)
    for name, rows, shift in (("pool", 600, 0.0), ("target", 60, 1.0)):
        table = pa.table(
            {
                "height": random.normal(shift, 1, rows),
                "age": random.integers(1, 90, rows),
                "city": [("Oslo", "Rome")[i % 2] for i in range(rows)],
                "label": random.integers(0, 2, rows),
            }
        )
        pq.write_table(table, folder / f"{name}.parquet")
    config = first_hour(folder, str(folder / "pool.parquet"), str(folder / "target.parquet"))
    assert config["columns"] == {
        "numeric": ["height", "age"],
        "categorical": ["city"],
        "label": "label",
    }


def test_a_prompt_and_its_answer_and_a_target_with_other_columns(spark, folder):
    pool = [
        {"instruction": r["text"], "input": "", "output": r["text"][:20], "size": 3}
        for r in texts(600)
    ]
    (folder / "alpaca.json").write_text(json.dumps(pool))
    lines([{"question_text": r["text"], "size": 3} for r in texts(60, 1, 4)], folder / "target")
    config = first_hour(folder, str(folder / "alpaca.json"), str(folder / "target"))
    assert config["columns"] == {"text": "{instruction}\n{input}\n{output}"}
    assert config["target"] == {"location": "./target", "columns": {"text": "question_text"}}


@pytest.mark.parametrize("names", [("prompt", "response"), ("source", "target")])
def test_two_halves_that_both_inputs_have_are_a_pair(spark, folder, names):
    for name, rows in (("pool", texts(600)), ("target", texts(120, 1, 4))):
        halves = [(row["text"], " ".join(w[::-1] for w in row["text"].split())) for row in rows]
        lines([dict(zip(names, pair, strict=True)) for pair in halves], folder / name)
    words = ["init", str(folder / "pool"), str(folder / "target"), "--engine", "embedded", "-o"]
    done = CliRunner().invoke(app, [*words, str(folder / "curate.yml")])
    assert done.exit_code == 0, done.stderr
    config = yaml.safe_load((folder / "curate.yml").read_text())
    assert config["columns"] == {"text": names[0], "output": names[1]}
    assert "select" not in config  # auto is not made for pairs


def test_ids_that_repeat_are_no_ids(spark, folder):
    rows = texts(600)
    for i, row in enumerate(rows):
        row["doc_id"] = f"d{i % 590}"
    lines(rows, folder / "pool")
    lines(texts(60, 1, 5), folder / "target")
    config = first_hour(folder, str(folder / "pool"), str(folder / "target"))
    assert "id" not in config["columns"]


def test_what_cannot_be_guessed_is_refused(spark, folder):
    pq.write_table(pa.table({"id": ["a", "b"]}), folder / "ids.parquet")
    words = ["init", str(folder / "ids.parquet"), str(folder / "ids.parquet"), "-o"]
    done = CliRunner().invoke(app, [*words, str(folder / "x.yml"), "--engine", "embedded"])
    assert done.exit_code == 2 and "can be the content" in done.stderr
    assert not (folder / "x.yml").exists()
    done = CliRunner().invoke(app, ["init", "pool", "--engine", "embedded"])
    assert done.exit_code == 2 and "gio-spark init POOL TARGET" in done.stderr
