"""Embedders by name, and the choice of `auto`."""

from __future__ import annotations

from gio_spark.embed.embedder import Embedder
from gio_spark.embed.images import ImageEmbedder
from gio_spark.embed.model2vec import Model2VecEmbedder
from gio_spark.embed.ngrams import NgramEmbedder
from gio_spark.embed.sentence_transformers import SentenceTransformerEmbedder
from gio_spark.embed.tabular import TabularEmbedder
from gio_spark.embed.vectors import VectorEmbedder
from gio_spark.embed.wordllama import WordLlamaEmbedder, is_installed
from gio_spark.errors import ConfigError
from gio_spark.registry import Registry
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

EMBEDDERS: Registry[type[Embedder]] = Registry("embedder")


def register_entry(name: str, embedder_class: type[Embedder]) -> None:
    """Register a class of embedders as `name`; users call `gio_spark.register`.

    Raises:
        ConfigError: The name is one of gio_spark's own, or this is no class of embedders.
    """
    if not (isinstance(embedder_class, type) and issubclass(embedder_class, Embedder)):
        raise ConfigError(f"The embedder {name!r} must be a class derived from Embedder.")
    EMBEDDERS.add(name, embedder_class, owner=embedder_class.__module__)
    embedder_class.name = name


for built_in in (
    VectorEmbedder,
    NgramEmbedder,
    WordLlamaEmbedder,
    Model2VecEmbedder,
    SentenceTransformerEmbedder,
    ImageEmbedder,
    TabularEmbedder,
):
    register_entry(built_in.name, built_in)


def pick_embedder(columns: Columns) -> str:
    """Name of the embedder that `auto` selects.

    The first content column that is set decides: vector, image, text, features. For text it is
    wordllama where installed; the choice enters the record and fingerprint of the run, so a later
    run without it has another embedder.

    Raises:
        ConfigError: No content column is set.
    """
    if columns.vector is not None:
        return "vectors"
    if columns.image is not None:
        return "images"
    if columns.text is not None:
        return "wordllama" if is_installed() else "ngrams"
    if columns.numeric or columns.categorical:
        return "tabular"
    raise ConfigError(
        "No content column: set one of columns.text, columns.vector, columns.image, "
        "columns.numeric or columns.categorical."
    )


def make_embedder(settings: EmbedSettings, columns: Columns) -> Embedder:
    """Create the embedder of the settings and check that its extras and models are available.

    Raises:
        MissingExtraError: Its packages are not installed; the message names the extra.
        ConfigError, InputError: A setting, column or model is invalid.
    """
    name = pick_embedder(columns) if settings.name == "auto" else settings.name
    embedder = EMBEDDERS.get(name)(settings=settings, columns=columns)
    if not embedder.reads:
        raise ConfigError(f"Embedder '{name}' has no column to read.")
    return embedder.prepare()
