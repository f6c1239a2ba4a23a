"""Relative paths in a configuration file follow its folder; overrides follow the current one."""

from __future__ import annotations

import pytest
import yaml

from gio_spark.settings.load import load


@pytest.fixture
def write(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "conf", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def write(*overrides, **settings):
        given = {"pool": "data/pool", "target": "data/target", **settings}
        (folder / "run.yml").write_text(yaml.safe_dump(given))
        return load("../conf/run.yml", overrides), folder.resolve()

    return write


def test_inputs_workspace_and_tracking_follow_the_file(write):
    settings, folder = write(
        target=[{"location": "./a.csv", "share": 2}, "../b"],
        held_out="data/held.jsonl",
        workspace="ws",
        tracking={"uri": "mlruns", "artifact_location": "files"},
    )
    assert settings.pool.location == f"{folder}/data/pool"
    assert [one.location for one in settings.target] == [f"{folder}/a.csv", f"{folder}/../b"]
    assert settings.held_out[0].location == f"{folder}/data/held.jsonl"
    assert settings.workspace == f"{folder}/ws"
    assert settings.tracking.uri == f"{folder}/mlruns"
    assert settings.tracking.artifact_location == f"{folder}/files"


def test_the_default_workspace_is_beside_the_file(write):
    settings, folder = write()
    assert settings.workspace == f"{folder}/gio-workspace"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pool": "main.sales.pool"}, "pool.location"),
        ({"pool": "/data/pool"}, "pool.location"),
        ({"pool": "s3://bucket/pool"}, "pool.location"),
        ({"pool": "~/pool"}, "pool.location"),
        ({"pool": {"location": "file:/data/pool"}}, "pool.location"),
        ({"workspace": "main.curation"}, "workspace"),
        ({"workspace": "abfss://c@a/ws"}, "workspace"),
        ({"tracking": {"uri": "databricks"}}, "tracking.uri"),
        ({"tracking": {"uri": "http://server:5000"}}, "tracking.uri"),
        ({"tracking": {"uri": "sqlite:////data/mlflow.db"}}, "tracking.uri"),
        ({"embed": {"model": "minishlab/potion-base-8M"}}, "embed.model"),
    ],
)
def test_names_and_whole_paths_stay(write, settings, key):
    value = write(**settings)[0]
    for part in key.split("."):
        value = getattr(value, part)
    block = next(iter(settings.values()))
    assert value == (next(iter(block.values())) if isinstance(block, dict) else block)


def test_a_plain_name_is_a_path_where_something_of_that_name_is_beside_the_file(write, tmp_path):
    (tmp_path / "conf" / "pool.parquet").write_text("")
    (tmp_path / "conf" / "model").mkdir()
    settings, folder = write(pool="pool.parquet", embedder={"name": "model2vec", "model": "model"})
    assert settings.pool.location == f"{folder}/pool.parquet"
    assert settings.embed.model == f"{folder}/model"


def test_a_sqlite_store_follows_the_file(write):
    settings, folder = write(tracking={"uri": "sqlite:///mlflow.db"})
    assert settings.tracking.uri == f"sqlite:///{folder}/mlflow.db"


def test_overrides_follow_the_current_folder(write):
    settings, folder = write("pool=new/pool", "workspace=here", "target.version=3")
    assert settings.pool.location == "new/pool"
    assert settings.workspace == "here"
    assert settings.target[0].location == f"{folder}/data/target"
    assert settings.target[0].version == 3
