"""WordLlama embedder: static word vectors of the wordllama package (256 dimensions), offline."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gio_spark.embed.embedder import Embedder, Result, check_vectors, load_once, text_column
from gio_spark.embed.static_vectors import pool_tokens
from gio_spark.errors import ConfigError, InputError, MissingExtraError

_CONFIG, _WIDTH = "l2_supercat", 256
_WIDTHS = (64, 128, 256)


@dataclass(frozen=True)
class WordLlamaEmbedder(Embedder):
    """Texts as the average of the vectors of their tokens.

    A smaller dimension (64, 128) uses the first coordinates, as the vectors were trained for.
    """

    name: ClassVar[str] = "wordllama"

    @property
    def revision(self) -> str:
        """Format version, package version and name of the weights."""
        return f"1:{version('wordllama')}:{_CONFIG}"

    @property
    def dimension(self) -> int:
        """Dimension of the settings, 256 by default."""
        return self.settings.dimension or _WIDTH

    @property
    def normalize(self) -> bool:
        """Whether vectors are scaled to length one (the default here)."""
        return self.settings.normalize is not False

    @property
    def reads(self) -> tuple[str, ...]:
        """The text column."""
        if self.columns.text is None:
            raise InputError("Embedder 'wordllama' needs columns.text: name the text column.")
        return (self.columns.text,)

    def prepare(self) -> WordLlamaEmbedder:
        """Check the dimension and load the model."""
        if self.dimension not in _WIDTHS:
            raise ConfigError(f"embedder.dimension is {self.dimension}; wordllama has {_WIDTHS}.")
        _load()
        return self

    def embed(self, rows: pa.Table) -> Result:
        """Embed texts."""
        texts, reasons = text_column(rows, self.reads[0])
        tokenizer, embedding = _load()
        encodings = tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        vectors = pool_tokens([encoding.ids for encoding in encodings], embedding)
        vectors = np.ascontiguousarray(vectors[:, : self.dimension])
        return check_vectors(vectors, reasons, normalize=self.normalize)


def is_installed() -> bool:
    """Whether the wordllama package is installed, without importing it."""
    return find_spec("wordllama") is not None


def _load() -> tuple[Any, np.ndarray]:
    """Tokenizer and word vectors, loaded once per process."""
    return load_once(("wordllama",), _load_model)


def _load_model() -> tuple[Any, np.ndarray]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import wordllama
    except ImportError as error:
        raise MissingExtraError("wordllama", "static", "Embedder 'wordllama'") from error
    finally:
        # The package configures the root logger on import, which only an application should do.
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)
    model = wordllama.WordLlama.load(
        config=_CONFIG,
        cache_dir=Path(wordllama.__file__).parent,
        dim=_WIDTH,
        disable_download=True,
    )
    tokenizer = model.tokenizer
    tokenizer.no_padding()  # pooling here needs no padding
    return tokenizer, model.embedding
