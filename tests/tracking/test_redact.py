from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gio_spark.settings.redact import flatten, redact

HIDDEN_WORD = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@db:5432/mlflow",
        "postgresql+psycopg2://me:hunter2@db/x?sslmode=require",
        "https://hunter2@github.com/x",
        "https://u:hunter2@host/path and http://u:hunter2@other",
        "redis://:hunter2@host",
        "abfss://c@a.dfs.core.windows.net/x?sv=1&sig=hunter2&se=2",
        "https://h/x?token=hunter2#part",
        "Endpoint=sb://x;SharedAccessKey=hunter2;Entity=y",
        "sc://host:443/;token=hunter2;use_ssl=true",
        "x password=hunter2 y",
    ],
)
def test_credentials_are_hidden(text):
    assert HIDDEN_WORD not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "/data/pool", "main.schema.table", "https://host/path?x=1", "s3://bucket/key@v1",
        "abfss://container@account.dfs.core.windows.net/path", "200M tokens", "mail a@b.c",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_settings_flatten_with_secrets_out():
    flat = flatten(
        {"a": {"b": [1, 2], "secret_key": HIDDEN_WORD, "empty": {}}, "columns": {"tokens": "n"},
         "targets": [{"path": "x", "password": HIDDEN_WORD}], "none": None}
    )  # fmt: skip
    assert flat == {
        "a.b": "1, 2", "a.secret_key": "***", "a.empty": "", "columns.tokens": "n",
        "targets.0.path": "x", "targets.0.password": "***", "none": "",
    }  # fmt: skip


@given(st.text())
def test_redacting_twice_changes_nothing(text):
    assert redact(redact(text)) == redact(text)
