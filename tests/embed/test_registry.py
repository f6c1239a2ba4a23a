"""Which embedder is taken, and what is said when its packages are missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gio_spark
from gio_spark.embed import make_embedder, pick_embedder
from gio_spark.errors import ConfigError, InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

ROOT = Path(gio_spark.__file__).parents[1]


def without(package: str, program: str) -> str:
    """Run a program in a process where a package cannot be found; return what it prints."""
    blocked = f"""
    import sys

    class Without:
        def __init__(self, finder):
            self.finder = finder

        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == {package!r}:
                return None
            return self.finder.find_spec(name, path, target)

        def __getattr__(self, name):
            return getattr(self.finder, name)

    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    from gio_spark.embed import make_embedder, pick_embedder
    from gio_spark.errors import MissingExtraError
    from gio_spark.settings.columns import Columns
    from gio_spark.settings.embed import EmbedSettings
    """
    code = textwrap.dedent(blocked) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("wordllama", "wordllama", "static"),
        ("model2vec", "model2vec", "static"),
        ("sentence-transformers", "sentence_transformers", "text"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name, package, extra):
    said = without(
        package,
        f"""
        try:
            make_embedder(EmbedSettings(name={name!r}, model="."), Columns(text="t"))
        except MissingExtraError as error:
            print(error)
        """,
    )
    assert f"gio-spark[{extra}]" in said
    assert f"Embedder '{name}'" in said


def test_auto_takes_ngrams_for_text_without_wordllama():
    said = without("wordllama", "print(make_embedder(EmbedSettings(), Columns(text='t')).name)")
    assert said == "ngrams"


def test_auto_takes_wordllama_for_text_where_it_is_installed():
    pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    assert pick_embedder(Columns(text="t")) == "wordllama"


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (Columns(vector="v", text="t", image="i", numeric=("a",)), "vectors"),
        (Columns(image="i", text="t"), "images"),
        (Columns(numeric=("a",)), "tabular"),
        (Columns(categorical=("a",)), "tabular"),
    ],
)
def test_auto_goes_by_the_content_column(columns, name):
    assert pick_embedder(columns) == name
    assert make_embedder(EmbedSettings(), columns).name == name


def test_no_content_column_is_refused():
    with pytest.raises(ConfigError, match="No content column"):
        make_embedder(EmbedSettings(), Columns(id="id"))


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vectors", "columns.vector"),
        ("ngrams", "columns.text"),
        ("wordllama", "columns.text"),
        ("model2vec", "columns.text"),
        ("sentence-transformers", "columns.text"),
        ("images", "columns.image"),
        ("tabular", "columns.numeric"),
    ],
)
def test_an_embedder_without_its_column_says_which_role_to_set(name, role):
    with pytest.raises(InputError, match=role):
        make_embedder(EmbedSettings(name=name), Columns(id="id"))


def test_importing_the_stage_imports_no_optional_package():
    said = without(
        "no_such_package",
        """
        optional = {"wordllama", "model2vec", "sentence_transformers", "torch", "PIL", "pyspark"}
        print(sorted(optional & set(sys.modules)))
        """,
    )
    assert said == "[]"
