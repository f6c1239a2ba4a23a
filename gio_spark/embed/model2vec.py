"""model2vec embedder: distilled static word vectors, from a folder or the hub."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gio_spark.embed.embedder import Embedder, Result, check_vectors, load_once, text_column
from gio_spark.embed.model_files import is_folder, resolve_model
from gio_spark.embed.static_vectors import pool_tokens
from gio_spark.errors import ConfigError, InputError, MissingExtraError

_PURPOSE = "Embedder 'model2vec'"


@dataclass(frozen=True)
class Model2VecEmbedder(Embedder):
    """Texts as the average of the vectors of their tokens.

    A smaller dimension uses the first coordinates (the models order them by a PCA).
    """

    name: ClassVar[str] = "model2vec"
    knows_dimension: ClassVar[bool] = False

    @property
    def revision(self) -> str:
        """Format version, model and its revision."""
        return f"1:{self.settings.model}@{self._load().revision}"

    @property
    def dimension(self) -> int:
        """Dimension of the settings, else that of the model."""
        return self.settings.dimension or int(self._load().model.dim)

    @property
    def normalize(self) -> bool:
        """Whether vectors are scaled to length one (the default here)."""
        return self.settings.normalize is not False

    @property
    def reads(self) -> tuple[str, ...]:
        """The text column."""
        if self.columns.text is None:
            raise InputError("Embedder 'model2vec' needs columns.text: name the text column.")
        return (self.columns.text,)

    def prepare(self) -> Model2VecEmbedder:
        """Load the model and fix its revision."""
        loaded = self._load()
        width = int(loaded.model.dim)
        if self.dimension > width:
            raise ConfigError(
                f"embedder.dimension is {self.dimension}; model '{self.settings.model}' has "
                f"{width}."
            )
        if loaded.from_hub:
            fixed = self.settings.model_copy(update={"revision": loaded.revision})
            return replace(self, settings=fixed)
        return self

    def embed(self, rows: pa.Table) -> Result:
        """Embed texts."""
        texts, reasons = text_column(rows, self.reads[0])
        loaded = self._load()
        model = loaded.model
        strings = texts.to_pylist()
        if (
            model.max_length is not None
        ):  # as the library does: the tokenizer would truncate the rest
            limit = model.max_length * model.median_token_length
            strings = [text[:limit] for text in strings]
        if model.token_mapping is None and model.weights is None:
            token_ids = model.tokenize(strings)
            vectors = pool_tokens(token_ids, loaded.table)
            vectors = np.ascontiguousarray(vectors[:, : self.dimension])
        else:  # a quantized vocabulary has its own weights
            with loaded.lock:  # encode temporarily changes the settings of the tokenizer
                encoded = model.encode(strings, use_multiprocessing=False, normalize=False)
            vectors = encoded.astype(np.float32)
            vectors = np.ascontiguousarray(vectors[:, : self.dimension])
        return check_vectors(vectors, reasons, normalize=self.normalize)

    def _load(self) -> _LoadedModel:
        model, revision = self.settings.model, self.settings.revision
        return load_once(("model2vec", model, revision), lambda: _load_model(model, revision))


@dataclass(frozen=True)
class _LoadedModel:
    model: Any
    table: np.ndarray
    revision: str
    from_hub: bool
    lock: threading.Lock = field(default_factory=threading.Lock)


def _load_model(name: str | None, revision: str | None) -> _LoadedModel:
    try:
        from model2vec import StaticModel
    except ImportError as error:
        raise MissingExtraError("model2vec", "static", _PURPOSE) from error
    folder, resolved_revision = resolve_model(name, revision, embedder="model2vec", extra="static")
    try:
        model = StaticModel.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Folder '{folder}' holds no model2vec model: {error}") from error
    return _LoadedModel(
        model=model,
        table=np.ascontiguousarray(model.embedding, dtype=np.float32),
        revision=resolved_revision,
        from_hub=not is_folder(name),
    )
