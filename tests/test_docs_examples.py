"""Commands, Python and messages of the README and of the first pages are those of the package."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from deltalake import write_deltalake
from typer.testing import CliRunner

from gio_spark.cli import app
from tests.cli.test_init import chats, texts
from tests.pipeline import jobs

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "gio_spark").rglob("*.py"))
# Of the README's commands: they take minutes, need labels, thresholds or names of runs, and are
# run by tests of their own.
ELSEWHERE = {"sensitivity", "gate", "evaluate", "rollback"}


@pytest.fixture(scope="module")
def corpus(spark, tmp_path_factory) -> Path:
    """A folder with the inputs that the pages name: 3,000 rows and some chats."""
    folder = tmp_path_factory.mktemp("docs")
    place = folder / "corpus"
    (place / "pool").mkdir(parents=True)
    rows = texts(3000)
    (place / "pool" / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = texts(100, 1, 5)
    (place / "target.jsonl").write_text("".join(json.dumps(row) + "\n" for row in target))
    (place / "chats.json").write_text(json.dumps(chats(600)))
    (place / "good_chats.json").write_text(json.dumps(chats(60, 1, 7)))
    write_deltalake(str(place / "table"), pa.Table.from_pylist(rows[:600]))
    return folder


def run(words: list[str]) -> Result:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.stdout, done.stderr)
    return done


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page, in order."""
    return re.findall(r"```(sh|python)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.embedded
def test_the_pages_of_the_first_hour_run(corpus, monkeypatch):
    monkeypatch.chdir(corpus)
    names: dict = {}
    for page in ("docs/your_data.md", "docs/troubleshooting.md"):
        for language, text in blocks(page):
            if language == "python":
                exec(compile(text, page, "exec"), names)  # noqa: S102 - the project's own page
                continue
            for line in text.splitlines():
                run(shlex.split(line)[1:])
    assert len(names["chosen"]) == 300 and len(names["texts"]) == 300
    assert set(names["texts"].columns) == {"doc_id", "text", "gio_cluster"}


@pytest.mark.embedded
def test_the_readme_runs_on_three_thousand_rows(spark, folder, monkeypatch):
    random = np.random.default_rng(0)
    for name, rows, seed in (("pool", texts(3000), 0), ("target.parquet", texts(100, 1, 5), 1)):
        table = [
            {
                "id": f"{seed}-{i}",
                "text": row["text"],
                "source": row["source"],
                "tokens": int(random.integers(9, 99)),
            }
            for i, row in enumerate(rows)
        ]
        (folder / "corpus").mkdir(exist_ok=True)
        files = 2 if name == "pool" else 1
        jobs.write(pa.Table.from_pylist(table), folder / "corpus" / name, files=files)
    monkeypatch.chdir(folder)
    text = (ROOT / "README.md").read_text()
    section = text.split("## From the command line")[1].split("\n## ")[0]
    lines = re.findall(r"^    (gio-spark [^#\n]*)", section, re.MULTILINE)
    commands = [shlex.split(line)[1:] for line in lines]
    assert {words[0] for words in commands} >= {"init", "validate", "run", "refresh", *ELSEWHERE}
    for words in commands:
        if words[0] not in ELSEWHERE:
            run(["corpus/pool" if word == "TABLE" else word for word in words])
    (changed,) = re.findall(r"# with a change: (.*)", section)
    run(shlex.split(changed))
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(compile(python, "README.md", "exec"), names)  # noqa: S102 - the project's own page
    assert names["curation"].selected.count() == 300


def test_the_messages_of_the_page_on_troubles_are_those_of_the_package():
    constants = {
        node.value
        for file in PACKAGE
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    rows = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    messages = [message for row in rows for message in re.findall(r"`([^`]*)`", row)]
    assert len(messages) > 25
    fragments = [part.strip() for message in messages for part in message.split("…")]
    unknown = [
        part
        for part in fragments
        if len(part) > 3 and not any(part in constant for constant in constants)
    ]
    assert unknown == []
