"""sentence-transformers embedder: neural text embeddings, on a GPU where available.

Forward passes pad texts to the longest of a batch, so a vector may depend on the other texts of its
batch, on the device and on the version of the library, by about 1e-6.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gio_spark.embed.embedder import (
    Embedder,
    Result,
    check_vectors,
    load_once,
    text_column,
    usable,
)
from gio_spark.embed.model_files import is_folder, resolve_model
from gio_spark.errors import ConfigError, InputError, MissingExtraError


@dataclass(frozen=True)
class SentenceTransformerEmbedder(Embedder):
    """Texts embedded by a sentence-transformers model; no remote code, safetensors only."""

    name: ClassVar[str] = "sentence-transformers"
    knows_dimension: ClassVar[bool] = False

    @property
    def revision(self) -> str:
        """Format version, model and its revision."""
        return f"1:{self.settings.model}@{self._load().revision}"

    @property
    def dimension(self) -> int:
        """Dimension of the settings, else that of the model."""
        return self.settings.dimension or self._load().width

    @property
    def normalize(self) -> bool:
        """Whether vectors are scaled to length one (the default here)."""
        return self.settings.normalize is not False

    @property
    def reads(self) -> tuple[str, ...]:
        """The text column."""
        if self.columns.text is None:
            raise InputError(
                "Embedder 'sentence-transformers' needs columns.text: name the text column."
            )
        return (self.columns.text,)

    def prepare(self) -> SentenceTransformerEmbedder:
        """Load the model and fix its revision."""
        loaded = self._load()
        if self.dimension > loaded.width:
            raise ConfigError(
                f"embedder.dimension is {self.dimension}; model '{self.settings.model}' has "
                f"{loaded.width}."
            )
        if loaded.from_hub:
            fixed = self.settings.model_copy(update={"revision": loaded.revision})
            return replace(self, settings=fixed)
        return self

    def embed(self, rows: pa.Table) -> Result:
        """Embed texts."""
        texts, reasons = text_column(rows, self.reads[0])
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        is_usable = usable(reasons)
        if is_usable.any():
            loaded = self._load()
            # On the embedded engine threads share the process: one forward pass already uses all
            # cores, and tokenizers cannot be used by two threads ("Already borrowed").
            with loaded.lock:
                encoded = loaded.model.encode(
                    texts.filter(pa.array(is_usable)).to_pylist(),
                    batch_size=self.settings.model_batch,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                    normalize_embeddings=False,
                )
            vectors[is_usable] = encoded[:, : self.dimension]
        return check_vectors(vectors, reasons, normalize=self.normalize)

    def _load(self) -> _LoadedModel:
        model, revision, device = (
            self.settings.model,
            self.settings.revision,
            self.settings.device,
        )
        return load_once(
            ("sentence-transformers", model, revision, device),
            lambda: _load_model(model, revision, device),
        )


@dataclass(frozen=True)
class _LoadedModel:
    model: Any
    revision: str
    from_hub: bool
    width: int
    lock: threading.Lock = field(default_factory=threading.Lock)


def _load_model(name: str | None, revision: str | None, device: str | None) -> _LoadedModel:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError(
            "sentence-transformers", "text", "Embedder 'sentence-transformers'"
        ) from error
    folder, resolved_revision = resolve_model(
        name, revision, embedder="sentence-transformers", extra="text"
    )
    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"Folder '{folder}' holds no sentence-transformers model: {error}"
        ) from error
    model.eval()
    # Renamed in version 6 of the library.
    get_width = getattr(model, "get_embedding_dimension", None) or (
        model.get_sentence_embedding_dimension
    )
    return _LoadedModel(
        model=model,
        revision=resolved_revision,
        from_hub=not is_folder(name),
        width=int(get_width()),
    )
