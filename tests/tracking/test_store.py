from __future__ import annotations

import importlib.util
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gio_spark.errors import ConfigError, MissingExtraError
from gio_spark.tracking import store


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)


def without_sql(monkeypatch):
    find = importlib.util.find_spec
    gone = ("sqlalchemy", "alembic")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in gone else find(n))


def test_the_default_is_an_sqlite_file_in_the_workspace_with_its_artifacts_beside_it(tmp_path):
    found = store.resolve(None, None, tmp_path / "w s")
    assert found.path == tmp_path / "w s" / "mlflow.db"
    assert found.artifacts == (tmp_path / "w s" / "mlartifacts").as_uri()
    assert found.chosen == "workspace"


def test_without_sqlalchemy_the_default_is_a_folder_of_files(tmp_path, monkeypatch):
    without_sql(monkeypatch)
    found = store.resolve(None, None, tmp_path)
    assert found.kind == "file"
    assert found.path == tmp_path / "mlruns"


def test_settings_come_before_environment_before_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert store.resolve(None, None, tmp_path).kind == "databricks"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert store.resolve(None, None, tmp_path).chosen == "environment"
    assert store.resolve("databricks://prod", None, tmp_path).kind == "databricks"


def test_checking_creates_nothing(tmp_path):
    store.check(store.resolve(None, None, tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["gopher://x", "htp://server", "s3://bucket/x"])
def test_an_unknown_scheme_is_refused_with_advice(tmp_path, uri):
    with pytest.raises(ConfigError, match=r"knows no scheme .* tracking.enabled"):
        store.check(store.resolve(uri, None, tmp_path))


def test_a_database_store_without_sqlalchemy_names_the_extra(tmp_path, monkeypatch):
    without_sql(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"gio-spark\[local\]"):
        store.check(store.resolve("sqlite:////tmp/x.db", None, tmp_path))


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, not a database")
    with pytest.raises(ConfigError, match="not an SQLite database"):
        store.check(store.resolve(f"sqlite:///{path}", None, tmp_path))
    with pytest.raises(ConfigError, match="a file, not a folder"):
        store.check(store.resolve(str(path), None, tmp_path))
    with pytest.raises(ConfigError, match="a folder, not a database"):
        store.check(store.resolve(f"sqlite:///{tmp_path}", None, tmp_path))
    assert path.read_text() == "my notes, not a database"


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        store.check(store.resolve(f"sqlite:///{tmp_path}/file/mlflow.db", None, tmp_path))


def test_a_silent_server_is_found_before_any_work_and_its_password_is_not_said(tmp_path):
    address = store.resolve("http://me:hunter2@127.0.0.1:9/", None, tmp_path)
    with pytest.raises(ConfigError, match="does not answer") as caught:
        store.check(address)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in address.shown


def test_a_server_that_is_not_mlflow_is_refused(tmp_path):
    class NotFound(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(404)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ConfigError, match="does not answer"):
            store.check(store.resolve(uri, None, tmp_path))
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def empty_database(tmp_path, monkeypatch) -> Path:
    """A stand-in for the kept empty database, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = store._template()
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as base:
        base.execute("create table runs (id text)")
        base.execute("create table alembic_version (version_num text)")
        base.execute("insert into alembic_version values ('x')")
    base.close()
    return path


def test_a_new_store_is_a_copy_of_the_kept_one_and_an_old_store_is_left_alone(
    tmp_path, empty_database
):
    wanted = store.resolve(None, None, tmp_path / "a")
    store.prepare(wanted)
    assert wanted.path.read_bytes() == empty_database.read_bytes()
    wanted.path.write_bytes(b"runs of a year")
    store.prepare(wanted)
    assert wanted.path.read_bytes() == b"runs of a year"
    assert [p.name for p in wanted.path.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("damage", ["used", "unfinished", "torn", "missing"])
def test_a_kept_database_that_is_not_whole_and_empty_is_not_used(empty_database, damage):
    assert store._sound(empty_database)
    if damage == "torn":
        empty_database.write_bytes(empty_database.read_bytes()[:5000])
    elif damage == "missing":
        empty_database.unlink()
    else:
        with sqlite3.connect(empty_database) as base:
            base.execute(
                "insert into runs values ('1')"
                if damage == "used"
                else "delete from alembic_version"
            )
        base.close()
    assert not store._sound(empty_database)
