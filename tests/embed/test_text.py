"""Text embedders: bits, batches, Unicode, and the bare libraries' own results."""

from __future__ import annotations

import hashlib
import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.embed import embed_rows, make_embedder
from gio_spark.embed.ngrams import ngram_sums
from gio_spark.errors import ConfigError, InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

COLUMNS = Columns(text="text")
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "the QUICK brown fox jumps over the lazy dog.",
    "How do I reset my card PIN?",
    "  many   spaces\tand\nlines  ",
    "日本語のテキスト、空白なし",
    "naïve café — “quotes” … 🦊🦊",
    "العربية من اليمين إلى اليسار",
    "e\u0301 combining, \u200bzero width, \u3000wide space",
    "a",
    "x" * 5000,
    "\x00 control \x07 characters",
]


def rows(texts: list[str | None], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"text": pa.array(texts, kind or pa.string())})


@pytest.fixture(scope="module", params=["ngrams", "wordllama", "model2vec"])
def embedder(request, tmp_path_factory):
    if request.param == "wordllama":
        pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    model = None
    if request.param == "model2vec":
        model = str(tiny_model(tmp_path_factory.mktemp("m2v")))
    return make_embedder(EmbedSettings(name=request.param, model=model), COLUMNS)


def tiny_model(folder, dtype=np.float32):
    model2vec = pytest.importorskip("model2vec", reason="extra 'static' is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="extra 'static' is not installed")
    letters = "abcdefghijklmnopqrstuvwxyzéàï日本語のテキスト"
    vocabulary = {"[UNK]": 0, "[PAD]": 1}
    for letter in letters:
        vocabulary[letter] = len(vocabulary)
        vocabulary["##" + letter] = len(vocabulary)
    pieces = {"unk_token": "[UNK]", "max_input_chars_per_word": 9000}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, **pieces))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).normal(size=(len(vocabulary), 8)).astype(dtype)
    model2vec.StaticModel(vectors, tokenizer, {"normalize": False}).save_pretrained(folder)
    return folder


def test_bits_do_not_depend_on_the_batch(embedder):
    whole, _ = embedder.embed(rows(TEXTS))
    for size in (1, 2, 4, 7):
        parts = [embedder.embed(rows(TEXTS[i : i + size])) for i in range(0, len(TEXTS), size)]
        joined = np.concatenate([vectors for vectors, _ in parts])
        fine = [reason is None for _, reasons in parts for reason in reasons]
        assert joined[fine].tobytes() == whole[fine].tobytes()


def test_large_strings_slices_and_dictionaries_change_nothing(embedder):
    whole, _ = embedder.embed(rows(TEXTS))
    large, _ = embedder.embed(rows(TEXTS, pa.large_string()))
    sliced, _ = embedder.embed(rows(["first", *TEXTS, "last"]).slice(1, len(TEXTS)))
    coded, _ = embedder.embed(pa.table({"text": pa.array(TEXTS).dictionary_encode()}))
    assert whole.tobytes() == large.tobytes() == sliced.tobytes() == coded.tobytes()


def test_vectors_have_length_one_and_the_stated_dimension(embedder):
    vectors, reasons = embedder.embed(rows(TEXTS))
    fine = np.array([reason is None for reason in reasons])
    assert fine.sum() >= 8
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors[fine], axis=1), 1, rtol=1e-5)


def test_null_and_blank_texts_have_a_reason(embedder):
    _, reasons = embedder.embed(rows([None, "", " \t\n\u3000\u00a0", "text"]))
    assert reasons.tolist() == ["null content", "empty content", "empty content", None]


def test_a_column_of_nulls_is_all_null_content(embedder):
    _, reasons = embedder.embed(pa.table({"text": pa.nulls(3)}))
    assert reasons.tolist() == ["null content"] * 3


def test_bytes_that_are_not_utf8_have_a_reason(embedder):
    broken = pa.StringArray.from_buffers(
        3,
        pa.py_buffer(np.array([0, 4, 6, 11], np.int32)),
        pa.py_buffer(b"good\xff\xfeagain"),
    )
    _, reasons = embedder.embed(pa.table({"text": broken}))
    assert reasons.tolist() == [None, "text is not UTF-8", None]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_text_above_the_limit_goes_to_quarantine_and_changes_no_other_row(kind):
    limited = make_embedder(EmbedSettings(name="ngrams", max_bytes=1024), Columns(text="text"))
    texts = ["a short text", "\u00e9" * 513, "\u00e9" * 512, None, "another text"]
    table = rows(texts, kind).append_column("id", pa.array([str(i) for i in range(5)]))
    embedded = embed_rows(table, limited)
    reasons = [None, "text above embed.max_bytes", None, "null content", None]
    assert embedded["reason"].to_pylist() == reasons
    assert [v is None for v in embedded["vector"].to_pylist()] == [r is not None for r in reasons]
    alone = embed_rows(table.take([0, 2, 4]), limited)
    assert alone["vector"].to_pylist() == embedded.take([0, 2, 4])["vector"].to_pylist()
    # The row keeps the hash of its own content.
    assert len(set(embedded["content_hash"].to_pylist())) == 5


def test_an_empty_batch_gives_an_empty_matrix(embedder):
    vectors, reasons = embedder.embed(rows([]))
    assert vectors.shape == (0, embedder.dimension)
    assert len(reasons) == 0


def test_a_column_that_is_no_text_is_refused(embedder):
    with pytest.raises(InputError, match="int64, not text"):
        embedder.embed(pa.table({"text": [1]}))
    with pytest.raises(InputError, match="'text' is missing"):
        embedder.embed(pa.table({"body": ["a"]}))


def test_wordllama_gives_what_the_bare_library_gives():
    wordllama = pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    from pathlib import Path

    ours = make_embedder(EmbedSettings(name="wordllama", normalize=False), COLUMNS)
    bare = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, disable_download=True
    )
    vectors, _ = ours.embed(rows(TEXTS))
    assert vectors.tobytes() == bare.embed(TEXTS).tobytes()
    small = make_embedder(EmbedSettings(name="wordllama", normalize=False, dimension=64), COLUMNS)
    assert small.embed(rows(TEXTS))[0].tobytes() == vectors[:, :64].tobytes()


def test_wordllama_leaves_the_root_logger_alone():
    pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    before = (list(logging.getLogger().handlers), logging.getLogger().level)
    make_embedder(EmbedSettings(name="wordllama"), COLUMNS)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


def test_wordllama_refuses_a_dimension_it_has_not():
    pytest.importorskip("wordllama", reason="extra 'static' is not installed")
    with pytest.raises(ConfigError, match="100"):
        make_embedder(EmbedSettings(name="wordllama", dimension=100), COLUMNS)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_model2vec_gives_what_the_bare_library_gives(tmp_path, dtype):
    folder = tiny_model(tmp_path, dtype)
    from model2vec import StaticModel

    ours = make_embedder(
        EmbedSettings(name="model2vec", model=str(folder), normalize=False), COLUMNS
    )
    texts = ["hello world", "abc", "z" * 900, "a b c d e"]
    vectors, _ = ours.embed(rows(texts))
    bare = StaticModel.from_pretrained(folder).encode(texts)
    np.testing.assert_allclose(vectors, bare, rtol=2e-3 if dtype == np.float16 else 2e-6)


def test_a_text_without_a_known_token_has_zero_norm(tmp_path):
    settings_ = EmbedSettings(name="model2vec", model=str(tiny_model(tmp_path)))
    _, reasons = make_embedder(settings_, COLUMNS).embed(rows(["abc", "123 456"]))
    assert reasons.tolist() == [None, "zero norm"]


def test_the_revision_of_a_folder_changes_with_its_files(tmp_path):
    folder = tiny_model(tmp_path)
    first = make_embedder(EmbedSettings(name="model2vec", model=str(folder)), COLUMNS).revision
    config = json.loads((folder / "config.json").read_text())
    other = tmp_path.parent / (tmp_path.name + "-copy")
    other.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    same = make_embedder(EmbedSettings(name="model2vec", model=str(other)), COLUMNS).revision
    assert first.split("@")[1] == same.split("@")[1]
    third = tmp_path.parent / (tmp_path.name + "-changed")
    third.mkdir()
    for file in other.iterdir():
        (third / file.name).write_bytes(file.read_bytes())
    (third / "config.json").write_text(json.dumps({**config, "language": ["xx"]}))
    changed = make_embedder(EmbedSettings(name="model2vec", model=str(third)), COLUMNS).revision
    assert first.split("@")[1] != changed.split("@")[1]


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    pytest.importorskip("model2vec", reason="extra 'static' is not installed")
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        make_embedder(EmbedSettings(name="model2vec", model=str(tmp_path)), COLUMNS)
    with pytest.raises(ConfigError, match=r"embedder\.model is unset"):
        make_embedder(EmbedSettings(name="model2vec"), COLUMNS)


def test_ngrams_have_the_same_bits_on_every_machine():
    embedder = make_embedder(EmbedSettings(name="ngrams"), COLUMNS)
    vectors, _ = embedder.embed(rows(TEXTS))
    # Recorded once; sums are exact, so that any platform must agree.
    assert hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()[:16] == "4ed05c60e3142931"


def test_ngrams_do_not_see_case_or_runs_of_space():
    embedder = make_embedder(EmbedSettings(name="ngrams"), COLUMNS)
    vectors, _ = embedder.embed(rows([*TEXTS[:2], "Two  words", " two\u2003WORDS\n"]))
    assert vectors[0].tobytes() == vectors[1].tobytes()
    assert vectors[2].tobytes() == vectors[3].tobytes()


def test_ngrams_put_similar_texts_near_and_others_far():
    embedder = make_embedder(EmbedSettings(name="ngrams", dimension=512), COLUMNS)
    vectors, _ = embedder.embed(
        rows(["how to reset my card pin", "how do i reset a card pin", "ships sailed at dawn"])
    )
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.4
    assert abs(far) < 0.2


def test_the_projection_depends_on_the_seed_and_the_dimension_is_free():
    one = make_embedder(EmbedSettings(name="ngrams", dimension=100), COLUMNS)
    other = make_embedder(EmbedSettings(name="ngrams", dimension=100, seed=1), COLUMNS)
    a, b = one.embed(rows(TEXTS))[0], other.embed(rows(TEXTS))[0]
    assert a.shape == (len(TEXTS), 100)
    assert not np.array_equal(a, b)
    with pytest.raises(ConfigError, match="32768"):
        make_embedder(EmbedSettings(name="ngrams", dimension=40000), COLUMNS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_ngram_sums_of_a_text_never_depend_on_its_neighbours(texts):
    padded = pa.array([f" {text} " for text in texts], pa.large_string())
    together = ngram_sums(padded, 32, 0)
    alone = [ngram_sums(padded.slice(i, 1), 32, 0)[0] for i in range(len(texts))]
    assert np.array_equal(together, np.array(alone))
