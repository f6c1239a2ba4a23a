"""Embedders by name, and which one `auto` picks."""

from __future__ import annotations

from gio_spark.embed.base import Embedder
from gio_spark.embed.images import ImageEmbedder
from gio_spark.embed.model2vec import Model2VecEmbedder
from gio_spark.embed.ngrams import NgramEmbedder
from gio_spark.embed.sentence_transformers import SentenceTransformerEmbedder
from gio_spark.embed.tabular import TabularEmbedder
from gio_spark.embed.vectors import VectorEmbedder
from gio_spark.embed.wordllama import WordLlamaEmbedder, installed
from gio_spark.errors import ConfigError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

_EMBEDDERS: dict[str, type[Embedder]] = {
    kind.name: kind
    for kind in (
        VectorEmbedder,
        NgramEmbedder,
        WordLlamaEmbedder,
        Model2VecEmbedder,
        SentenceTransformerEmbedder,
        ImageEmbedder,
        TabularEmbedder,
    )
}


def pick_embedder(columns: Columns) -> str:
    """Return the name of the embedder that `auto` stands for.

    The first content column that is set decides: vector, image, text, features. Text takes
    wordllama where it is installed; the choice enters the run's record and fingerprint, so a later
    run without it is seen as another embedder.

    Raises:
        ConfigError: There is no content column.
    """
    if columns.vector is not None:
        return "vectors"
    if columns.image is not None:
        return "images"
    if columns.text is not None:
        return "wordllama" if installed() else "ngrams"
    if columns.numeric or columns.categorical:
        return "tabular"
    raise ConfigError(
        "No content column: set one of columns.text, columns.vector, columns.image, "
        "columns.numeric or columns.categorical."
    )


def make_embedder(settings: EmbedSettings, columns: Columns) -> Embedder:
    """Return the embedder that the settings name, checked: extras and models are there.

    Raises:
        MissingExtraError: Its packages are not installed; the message names the extra.
        ConfigError, InputError: A setting, a column or a model does not fit.
    """
    name = pick_embedder(columns) if settings.name == "auto" else settings.name
    embedder = _EMBEDDERS[name](settings=settings, columns=columns)
    if not embedder.reads:
        raise ConfigError(f"Embedder '{name}' has no column to read.")
    return embedder.prepare()
