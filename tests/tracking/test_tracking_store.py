from __future__ import annotations

import importlib.util

import pytest

from gio_spark.errors import ConfigError, MissingExtraError, TrackingError
from gio_spark.tracking import store_check, tracking_store
from tests.tracking.failing_server import failing_server


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)


def without_sql(monkeypatch):
    find_spec = importlib.util.find_spec
    missing = ("sqlalchemy", "alembic")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )


def test_the_default_is_an_sqlite_file_in_the_workspace_with_its_artifacts_beside_it(tmp_path):
    resolved = tracking_store.resolve(None, None, tmp_path / "w s")
    assert resolved.path == tmp_path / "w s" / "mlflow.db"
    assert resolved.artifacts == (tmp_path / "w s" / "mlartifacts").as_uri()
    assert resolved.origin == "workspace"


def test_without_sqlalchemy_the_default_is_a_folder_of_files(tmp_path, monkeypatch):
    without_sql(monkeypatch)
    resolved = tracking_store.resolve(None, None, tmp_path)
    assert resolved.kind == "file"
    assert resolved.path == tmp_path / "mlruns"


def test_settings_come_before_environment_before_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert tracking_store.resolve(None, None, tmp_path).kind == "databricks"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_store.resolve(None, None, tmp_path).origin == "environment"
    assert tracking_store.resolve("databricks://prod", None, tmp_path).kind == "databricks"


def test_checking_creates_nothing(tmp_path):
    store_check.check(tracking_store.resolve(None, None, tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["gopher://x", "htp://server", "s3://bucket/x"])
def test_an_unknown_scheme_is_refused_with_advice(tmp_path, uri):
    with pytest.raises(ConfigError, match=r"knows no scheme .* tracking.enabled"):
        store_check.check(tracking_store.resolve(uri, None, tmp_path))


def test_a_database_store_without_sqlalchemy_names_the_extra(tmp_path, monkeypatch):
    without_sql(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"gio-spark\[local\]"):
        store_check.check(tracking_store.resolve("sqlite:////tmp/x.db", None, tmp_path))


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, not a database")
    with pytest.raises(ConfigError, match="not an SQLite database"):
        store_check.check(tracking_store.resolve(f"sqlite:///{path}", None, tmp_path))
    with pytest.raises(ConfigError, match="a file, not a folder"):
        store_check.check(tracking_store.resolve(str(path), None, tmp_path))
    with pytest.raises(ConfigError, match="a folder, not a database"):
        store_check.check(tracking_store.resolve(f"sqlite:///{tmp_path}", None, tmp_path))
    assert path.read_text() == "my notes, not a database"


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        store_check.check(
            tracking_store.resolve(f"sqlite:///{tmp_path}/file/mlflow.db", None, tmp_path)
        )


def test_a_silent_server_is_found_before_any_work_and_its_password_is_not_said(tmp_path):
    address = tracking_store.resolve("http://me:hunter2@127.0.0.1:9/", None, tmp_path)
    with pytest.raises(TrackingError, match="does not answer") as caught:
        store_check.check(address)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in address.redacted_uri


@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_server_that_refuses_is_found_before_any_work(tmp_path, code):
    with failing_server(code) as server:
        with pytest.raises(TrackingError, match="does not answer as it should") as caught:
            store_check.check(tracking_store.resolve(server.uri, None, tmp_path))
        assert "\n" not in str(caught.value)
        assert len(server.requests) <= 2
