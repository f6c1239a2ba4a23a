"""Settings of the stage that turns rows into vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gio_spark.settings.base import StageSettings


class EmbedSettings(StageSettings):
    """Embedding of rows as vectors.

    Unset fields take the embedder's own default, so that one settings model serves all embedders.
    """

    name: str = Field(
        "auto",
        description=(
            "Embedder: auto chooses by the content column (vector: vectors, image: images, "
            "text: wordllama if installed else ngrams, features: tabular), ngrams, wordllama, "
            "model2vec, sentence-transformers, images, tabular, vectors, or one you registered."
        ),
    )
    dimension: int | None = Field(
        None,
        ge=1,
        le=65536,
        description=(
            "Length of a vector; unset: that of the data or the model, 256 for ngrams, "
            "64 for images."
        ),
    )
    model: str | None = Field(
        None, description="Folder or hub name of a model (model2vec, sentence-transformers)."
    )
    revision: str | None = Field(
        None, description="Revision of a hub model: a commit hash pins it for good."
    )
    normalize: bool | None = Field(
        None,
        description=(
            "Scaling of vectors to length one (cosine distance); unset: yes for text, no otherwise."
        ),
    )
    fit_rows: int = Field(
        20_000, ge=10, description="Rows of the hash sample that an embedder is fitted on."
    )
    batch_rows: int = Field(4096, ge=1, le=65536, description="Rows embedded at once on a worker.")
    max_bytes: int = Field(
        8 * 2**20,
        ge=1024,
        description=(
            "Longest text in bytes of UTF-8; longer ones go to quarantine, since one of them costs "
            "as much as thousands of rows."
        ),
    )
    device: str | None = Field(
        None,
        description="Device of sentence-transformers, such as cpu or cuda; unset: GPU if any.",
    )
    model_batch: int = Field(
        64, ge=1, description="Texts that sentence-transformers encodes in one forward pass."
    )
    image_size: int = Field(
        32,
        ge=1,
        le=1024,
        description="Width and height in pixels that encoded images are scaled to.",
    )
    image_mode: Literal["RGB", "L"] = Field(
        "RGB", description="Color (RGB) or gray levels (L) of encoded images."
    )
    image_bytes: Literal["encoded", "raw"] = Field(
        "encoded",
        description="Binary images: an image file (encoded) or one byte per pixel (raw).",
    )
    category_dimension: int = Field(
        64, ge=1, le=65536, description="Length of the hashed part for categorical features."
    )
    seed: int = Field(
        0, ge=0, description="Seed of the fixed random projection of n-grams and categories."
    )
