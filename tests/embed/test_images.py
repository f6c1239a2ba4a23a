"""Images: PCA against scikit-learn, bits that do not depend on the batch, unreadable files."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from gio_spark.embed import make_embedder
from gio_spark.errors import ConfigError, InputError
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings

COLUMNS = Columns(image="px")
DIGITS = load_digits().data


def fitted(array: pa.Array, **settings: object):
    rows = pa.table({"px": array})
    embedder = make_embedder(EmbedSettings(**settings), COLUMNS)
    return embedder.with_state(embedder.fit(rows)), rows


@pytest.mark.parametrize(
    ("array", "scale"),
    [
        (pa.array(DIGITS.astype(int).tolist(), pa.list_(pa.int32())), 1 / 255),
        (pa.array(DIGITS.tolist(), pa.list_(pa.float32())), 1.0),
        (pa.array([row.astype(np.uint8).tobytes() for row in DIGITS]), 1 / 255),
    ],
    ids=["integers", "floats", "raw bytes"],
)
def test_components_are_those_of_scikit_learn(array, scale):
    embedder, rows = fitted(array, dimension=12, image_bytes="raw")
    vectors, reasons = embedder.embed(rows)
    expected = PCA(12, svd_solver="full").fit_transform(DIGITS * scale)
    signs = np.sign((vectors * expected).sum(axis=0))
    np.testing.assert_allclose(vectors * signs, expected, atol=2e-4 * scale * 16)
    assert all(reason is None for reason in reasons)
    assert vectors.dtype == np.float32


def test_the_sign_of_a_component_is_fixed():
    embedder, _ = fitted(pa.array(DIGITS.tolist(), pa.list_(pa.float32())), dimension=5)
    components = embedder.state["components"]
    assert (components[np.arange(5), np.abs(components).argmax(axis=1)] > 0).all()


def test_vectors_have_the_same_bits_in_every_batch():
    embedder, rows = fitted(pa.array(DIGITS.tolist(), pa.list_(pa.float32())), dimension=12)
    whole, _ = embedder.embed(rows)
    for size in (1, 7, 100):
        part, _ = embedder.embed(rows.slice(300, size))
        assert part.tobytes() == whole[300 : 300 + size].tobytes()


def test_the_fit_has_the_same_bits_whatever_the_order_of_the_sample():
    rows = pa.table({"px": pa.array(DIGITS.astype(int).tolist(), pa.list_(pa.int16()))})
    embedder = make_embedder(EmbedSettings(dimension=8), COLUMNS)
    one = embedder.fit(rows)
    other = embedder.fit(rows.take(pa.array(np.random.default_rng(0).permutation(len(DIGITS)))))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=kind)
    return out.getvalue()


def test_encoded_images_are_scaled_and_unreadable_ones_have_a_reason():
    rng = np.random.default_rng(1)
    files = [encoded(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), "PNG") for _ in range(12)]
    grey = encoded(rng.integers(0, 255, (9, 9), dtype=np.uint8), "JPEG")
    array = pa.array([*files, grey, b"not an image", files[0][:60], None, b""])
    embedder, rows = fitted(array, image_size=8, dimension=4)
    vectors, reasons = embedder.embed(rows)
    assert vectors.shape == (17, 4)
    assert reasons.tolist() == [
        *[None] * 13,
        "unreadable image",
        "unreadable image",
        "null content",
        "empty content",
    ]
    assert len(np.unique(vectors[:13, 0])) == 13


def test_arrays_of_another_length_are_found():
    embedder, _ = fitted(pa.array(DIGITS.tolist(), pa.list_(pa.float32())), dimension=4)
    rows = pa.table({"px": pa.array([[1.0] * 3, None, [float("nan")] * 64, DIGITS[0].tolist()])})
    _, reasons = embedder.embed(rows)
    assert reasons.tolist() == [
        "wrong length: 3 instead of 64",
        "null content",
        "NaN or infinite value",
        None,
    ]


def test_integers_after_a_fit_on_floats_are_refused():
    embedder, _ = fitted(pa.array(DIGITS.tolist(), pa.list_(pa.float32())), dimension=4)
    rows = pa.table({"px": pa.array([[1] * 64])})
    with pytest.raises(InputError, match="give all inputs one type"):
        embedder.embed(rows)


def test_images_too_large_to_analyse_are_refused_before_any_work():
    with pytest.raises(ConfigError, match="image_size"):
        make_embedder(EmbedSettings(image_size=512), COLUMNS)
    rows = pa.table({"px": pa.array([[0.0] * 9000] * 3)})
    with pytest.raises(InputError, match="9000 numbers"):
        make_embedder(EmbedSettings(), COLUMNS).fit(rows)


def test_a_sample_without_two_readable_images_is_refused():
    rows = pa.table({"px": pa.array([b"no", None])})
    with pytest.raises(InputError, match="0 of 2 sampled images"):
        make_embedder(EmbedSettings(), COLUMNS).fit(rows)


def test_equal_images_make_no_infinite_components():
    embedder, rows = fitted(pa.array([[5] * 16] * 6), dimension=3)
    vectors, _ = embedder.embed(rows)
    assert np.array_equal(vectors, np.zeros((6, 3), np.float32))
