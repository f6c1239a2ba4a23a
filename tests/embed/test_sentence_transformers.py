"""sentence-transformers: a real, tiny model made on the spot where the extra is installed."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pyarrow as pa
import pytest

from gio_spark.embed import make_embedder
from gio_spark.errors import ConfigError, InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

COLUMNS = Columns(text="text")
TEXTS = ["a short text", "another one, a little longer", "naïve café", "x", "a short text"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    library = pytest.importorskip(
        "sentence_transformers", reason="extra 'text' (sentence-transformers) is not installed"
    )
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    bert, where = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("model")
    letters = "abcdefghijklmnopqrstuvwxyzéï,"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += ["##" + letter for letter in letters]
    (bert / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.BertModel(config).save_pretrained(bert, safe_serialization=True)
    transformers.BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    models = importlib.import_module("sentence_transformers.models")
    words = models.Transformer(str(bert), max_seq_length=32)
    pooling = models.Pooling(16, "mean")
    library.SentenceTransformer(modules=[words, pooling], device="cpu").save(str(where))
    return where


def make(folder, **settings):
    return make_embedder(
        EmbedSettings(name="sentence-transformers", model=str(folder), device="cpu", **settings),
        COLUMNS,
    )


def rows(texts):
    return pa.table({"text": pa.array(texts, pa.string())})


def test_vectors_are_those_of_the_bare_library(folder):
    from sentence_transformers import SentenceTransformer

    bare = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    embedder = make(folder)
    vectors, reasons = embedder.embed(rows(TEXTS))
    np.testing.assert_allclose(vectors, bare, atol=1e-6)
    assert reasons.tolist() == [None] * 5
    assert embedder.dimension == 16
    np.testing.assert_allclose(vectors[0], vectors[4], atol=1e-6)


def test_rows_without_text_are_left_out_of_the_forward_pass(folder):
    vectors, reasons = make(folder).embed(rows([None, "a", " ", None]))
    assert reasons.tolist() == ["null content", None, "empty content", "null content"]
    np.testing.assert_allclose(np.linalg.norm(vectors[1]), 1, rtol=1e-5)


def test_a_smaller_dimension_takes_the_first_coordinates_and_a_larger_one_is_refused(folder):
    full, _ = make(folder, normalize=False).embed(rows(TEXTS))
    cut, _ = make(folder, normalize=False, dimension=4).embed(rows(TEXTS))
    np.testing.assert_allclose(cut, full[:, :4], atol=1e-6)
    with pytest.raises(ConfigError, match="has 16"):
        make(folder, dimension=17)


def test_pickled_weights_are_never_loaded(folder, tmp_path):
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            copy = tmp_path / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle would be here")
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        make(tmp_path)


def test_code_in_a_model_folder_is_never_run(folder, tmp_path):
    for file in folder.rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Model: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config.update({"auto_map": {"AutoModel": "evil.Model"}, "model_type": "unheard-of"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        make(tmp_path)
    assert not marker.exists()
