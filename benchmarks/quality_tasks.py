"""Arenas from public data sets: images, texts, weather and tables, each with an oracle.

A seed draws everything anew: damage, split, sample and clusters. The rows that judge are at least
8,000 where the data has them, and no method sees them.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from gio_spark import embed
from gio_spark.gio.target_mass import kernel_mass, kernel_width, nearest_clusters
from gio_spark.kernels import nearest
from gio_spark.quantize import auto_clusters
from gio_spark.settings.columns import Columns
from gio_spark.settings.embed import EmbedSettings
from gio_spark.strategy.evaluation_dataset import EvaluationDataset
from gio_spark.strategy.methods import get, methods

TARGET, HELD = 1_650, 8_350
DIMENSION = 64


@dataclass(frozen=True)
class QualityTask:
    """One task.

    Attributes:
        name: As tables call it.
        build: (data folder, seed, options) -> dataset.
        score: The measure that decides here; the others stand beside it.
        measures: All measures.
        about: One line for people.
        apart: Whether the two-sample test has features of its own, which no method is fitted on.
        version: Raised when the task gives other datasets, so that stored cells lapse.
        extra: Measures on top, computed only where asked for and shown where they are there.
        needs: The field of `Options` without which no dataset can be built; its cells can be shown.
    """

    name: str
    build: Callable[[Path, int, Options], EvaluationDataset]
    score: str
    measures: tuple[str, ...]
    about: str
    apart: bool = True
    version: int = 2
    extra: tuple[str, ...] = ()
    needs: str = ""

    def methods(self) -> list[str]:
        """Return the methods that the task's datasets allow, without building one."""
        there = {"vectors", "target_vectors", "good"}
        if "cross_entropy" in self.measures:
            there |= {"texts", "target_texts"}
        return [name for name in methods() if set(get(name).needs) <= there]


@dataclass(frozen=True)
class Options:
    """What an ablation varies; the defaults are the tasks as they are.

    Attributes:
        clusters: K; 0: the product's own choice.
        target: Rows of the target that methods see.
        width: Factor on the kernel's width.
        noise: Share of damaged rows, where a task has them; below 0: its own.
        vectors: File of vectors of all texts, as minilm_vectors.py makes it.
        dilution: Rows of the pool for each row of the task's own: all others are foreign.
        pixels: Images are seen by proxies as so many pixels squared: 7, or 14 for a CNN.
    """

    clusters: int = 0
    target: int = TARGET
    width: float = 1.0
    noise: float = -1.0
    vectors: str = ""
    dilution: int = 1
    pixels: int = 7


def _arena(
    vectors: np.ndarray,
    target: np.ndarray,
    held: np.ndarray,
    seed: int,
    options: Options,
    **more: object,
) -> EvaluationDataset:
    """Cluster the pool, spread the target over the clusters, and put it all together."""
    rng = np.random.default_rng([seed, 7])
    clusters = options.clusters or auto_clusters(*vectors.shape)
    target, target_texts = target[: options.target], more.pop("target_texts", None)
    target_labels: Any = more.pop("target_labels", None)
    fitted = MiniBatchKMeans(
        clusters, n_init=1, batch_size=8192, max_iter=8, random_state=seed, reassignment_ratio=0.0,
        init_size=max(4096, 2 * clusters),
    ).fit(vectors)  # fmt: skip
    centroids = fitted.cluster_centers_.astype(np.float32)
    cluster = nearest(vectors, centroids)[0].astype(np.int32)
    near = nearest_clusters(target, centroids, 2)[1]
    width = options.width * kernel_width(near, clusters, len(target))
    mass = kernel_mass(target, centroids, width, neighbors=8).mass
    return EvaluationDataset(
        vectors=np.ascontiguousarray(vectors, np.float32),
        hashes=np.sort(rng.integers(0, 2**63, len(vectors)).astype(np.uint64)),
        target_vectors=np.ascontiguousarray(target, np.float32),
        centroids=centroids,
        cluster=cluster,
        target_mass=mass / mass.sum(),
        held_vectors=np.ascontiguousarray(held, np.float32),
        target_texts=None if target_texts is None else target_texts[: options.target],
        target_labels=None if target_labels is None else target_labels[: options.target],
        **more,  # type: ignore[arg-type]
    )


def mixed_oracle(kinds: np.ndarray, shares: dict, rng: np.random.Generator) -> np.ndarray:
    """Return how good rows are so that the best of any number have the target's shares of kinds."""
    good = np.full(len(kinds), -np.inf)
    noise = rng.random(len(kinds))
    for kind, share in shares.items():
        own = np.flatnonzero(kinds == kind)
        own = own[np.argsort(noise[own])]
        good[own] = -(np.arange(len(own)) + 0.5) / max(share, 1e-9)
    return good


def diluted(pool: np.ndarray, foreign: np.ndarray, options: Options) -> np.ndarray:
    """Return as many rows of a pool as foreign ones allow, at random places among the foreign."""
    if options.dilution == 1:
        return pool
    own = pool[: len(foreign) // options.dilution]
    others = np.setdiff1d(foreign, own)[: len(own) * (options.dilution - 1)]
    return np.random.default_rng(len(own)).permutation(np.concatenate([own, others]))


# -- images ---------------------------------------------------------------------------------------


@cache
def _fashion(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(data / "fashion_mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    return (
        read("train-images-idx3-ubyte.gz", 16).reshape(-1, 784),
        read("train-labels-idx1-ubyte.gz", 8).astype(np.int64),
        read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784),
        read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64),
    )


def _small(pixels: np.ndarray, side: int) -> np.ndarray:
    """Average squares of pixels: 7 x 7 or 14 x 14, which no method is fitted on.

    A linear model of 7 x 7 comes within .02 of one of 14 x 14 pixels, at a third of the time.
    """
    block = 28 // side
    found = pixels.reshape(-1, side, block, side, block).mean(axis=(2, 4))
    return found.reshape(-1, side * side).astype(np.float32)


def _image_arena(parts: tuple, seed: int, options: Options, **more: object) -> EvaluationDataset:
    pool, target, held = parts
    pca = PCA(DIMENSION, random_state=seed)
    pca.fit(pool[np.random.default_rng(seed).permutation(len(pool))[:10_000]])
    vectors = [pca.transform(p).astype(np.float32) for p in (pool, target, held)]
    return _arena(
        *vectors, seed, options, features=_small(pool, options.pixels),
        held_features=_small(held, options.pixels), **more,
    )  # fmt: skip


def _damaged(data: Path, seed: int, options: Options, *, scale: tuple, noise: float,
             wrong: float) -> EvaluationDataset:  # fmt: skip
    images, labels, test, test_labels = _fashion(data)
    rng = np.random.default_rng([seed, 1])
    order = rng.permutation(len(images))
    share = 2 / 3 if options.noise < 0 else options.noise
    if options.dilution > 1:
        share = 1 - 1 / options.dilution
    bad = rng.random(len(images)) < share
    images, labels = images[order], labels[order].copy()
    factor = rng.uniform(*scale, len(images)).astype(np.float32)[:, None]
    pixels = images.astype(np.float32) / 255
    shaken = pixels * factor + rng.random(pixels.shape, dtype=np.float32) * noise
    pixels = np.where(bad[:, None], np.clip(shaken, 0, 1), pixels)
    change = bad & (rng.random(len(labels)) < wrong)
    labels[change] = rng.integers(0, 10, int(change.sum()))
    split = rng.permutation(len(test))
    clean = test.astype(np.float32) / 255
    target, held = split[:TARGET], split[TARGET : TARGET + HELD]
    return _image_arena(
        (pixels, clean[target], clean[held]), seed, options,
        labels=labels, target_labels=test_labels[target], held_labels=test_labels[held],
        good=(~bad).astype(np.float64),
    )  # fmt: skip


def images_damaged(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """Two thirds of the pool dimmed and noisy, half of those labels random."""
    return _damaged(data, seed, options, scale=(0.2, 0.6), noise=0.5, wrong=0.5)


def images_faint(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """Two thirds hardly dimmed and hardly noisy, four fifths of those labels random."""
    return _damaged(data, seed, options, scale=(0.7, 1.0), noise=0.15, wrong=0.8)


_CLASS_SHARES = np.array([0.30, 0.20, 0.14, 0.10, 0.08, 0.06, 0.05, 0.03, 0.02, 0.02])


def images_skewed(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """A clean pool of all classes alike, and a target in which some are rare."""
    images, labels, test, test_labels = _fashion(data)
    pixels = np.concatenate([images, test]).astype(np.float32) / 255
    truth = np.concatenate([labels, test_labels])
    rng = np.random.default_rng([seed, 2])
    named = rng.permutation(10)  # which class has which share
    wanted = np.floor(_CLASS_SHARES * (TARGET + HELD)).astype(int)
    aside = []
    for kind, rows in zip(named, wanted, strict=True):
        aside.append(rng.permutation(np.flatnonzero(truth == kind))[:rows])
    apart = rng.permutation(np.concatenate(aside))
    pool = rng.permutation(np.setdiff1d(np.arange(len(truth)), apart))
    # As many of each class as the rarest has, so that the pool says nothing of the target.
    least = np.bincount(truth[pool]).min()
    pool = rng.permutation(np.concatenate([pool[truth[pool] == k][:least] for k in range(10)]))
    # Foreign images are dim and noisy and have labels at random: three draws of the pool's.
    rows, draws = len(truth), np.random.default_rng([seed, 8])
    pool = diluted(pool, (pool + rows * np.arange(1, 4)[:, None]).ravel(), options)
    is_foreign = pool >= rows
    images = pixels[pool % rows]
    labels = np.where(is_foreign, draws.integers(0, 10, len(pool)), truth[pool % rows])
    for row in np.flatnonzero(is_foreign):
        noise = draws.random(images.shape[1], dtype=np.float32) * 0.5
        images[row] = np.clip(images[row] * draws.uniform(0.2, 0.6) + noise, 0, 1)
    target, held = apart[:TARGET], apart[TARGET:]
    shares = dict(zip(named.tolist(), _CLASS_SHARES.tolist(), strict=True))
    return _image_arena(
        (images, pixels[target], pixels[held]), seed, options, labels=labels,
        target_labels=truth[target], held_labels=truth[held],
        good=mixed_oracle(np.where(is_foreign, -1, labels), shares, rng),
    )  # fmt: skip


# -- text -----------------------------------------------------------------------------------------

MIXTURES = {
    "a": {"banking77": 0.4, "wikidump": 0.5, "novel_dickens": 0.1},
    "b": {"tatoeba_eng": 0.5, "clinc_wiki_sents": 0.3, "clinc_banking": 0.1, "clinc_travel": 0.1},
    "c": {"novel_trollope": 0.1, "novel_eliot": 0.1, "novel_hardy": 0.1, "novel_james": 0.1,
          "wikidump": 0.3, "banking77": 0.3},
}  # fmt: skip
_MINILM = "minilm"
_TEXT_POOL, _TEXT_ROWS, _TEXT_HELD = 60_000, 13_000, 8_000


@cache
def _texts(data: Path) -> tuple[np.ndarray, np.ndarray]:
    file = next((data / "text_pool").glob("*.tsv.gz"))
    rows = pd.read_csv(file, sep="\t", quoting=3, keep_default_na=False)
    rows = rows[rows["domain"] != "domain"]
    return rows["domain"].to_numpy(str), rows["text"].to_numpy(object)


def pool_texts(data: Path) -> np.ndarray:
    """Return all texts, in the order of the rows of a file of vectors."""
    return _texts(data)[1]


@cache
def kept_vectors(data: Path, file: str) -> np.ndarray:
    """Open a file of vectors, one row per text, or stop with one line that says what is wrong."""
    try:
        found = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise SystemExit(f"--vectors {file}: {error}") from error
    rows = len(pool_texts(data))
    if found.ndim != 2 or len(found) != rows:
        raise SystemExit(
            f"--vectors {file}: its shape is {found.shape}, but there are {rows:,} texts; make it "
            "with minilm_vectors.py of the same data."
        )
    return found


@cache
def _embedded(data: Path, name: str) -> np.ndarray:
    """Embed all texts at once: every seed and mixture takes its rows of the same vectors."""
    texts = pool_texts(data)
    maker = embed.make_embedder(EmbedSettings(name=name), Columns(text="text")).prepare()
    parts = np.array_split(np.arange(len(texts)), max(1, len(texts) // 4096))
    return np.concatenate(
        [maker.embed(pa.table({"text": pa.array(texts[p], pa.string())}))[0] for p in parts]
    )


def _style(texts: np.ndarray) -> np.ndarray:
    """Lengths and shares of kinds of characters: how a text is written, not what it says."""
    column = pa.array(texts, pa.string())

    def count(pattern: str) -> np.ndarray:
        return pc.count_substring_regex(column, pattern).to_numpy().astype(np.float64)

    length = np.maximum(1.0, pc.utf8_length(column).to_numpy())
    words = count(r"\S+")
    kinds = [r"\p{Lu}", r"\p{Nd}", ",", "[.;:!?]", r"""["'()-]"""]
    return np.stack(
        [np.log(length), np.log1p(words), length / np.maximum(1.0, words),
         *(count(kind) / length for kind in kinds), count(r"^\p{Lu}"), count(r"""[.!?"']$""")],
        axis=1,
    ).astype(np.float32)  # fmt: skip


@cache
def _judged(data: Path) -> np.ndarray:
    """Return what the two-sample test sees of all texts: topics of TF-IDF words, and style."""
    texts = pool_texts(data)
    words = TfidfVectorizer(min_df=3, sublinear_tf=True, max_features=30_000)
    topics = TruncatedSVD(32, random_state=0).fit_transform(words.fit_transform(texts))
    return np.hstack([topics, _style(texts)]).astype(np.float32)


def _text_task(mixture: str, embedder: str) -> Callable[[Path, int, Options], EvaluationDataset]:
    def build(data: Path, seed: int, options: Options) -> EvaluationDataset:
        domains, texts = _texts(data)
        rng = np.random.default_rng([seed, 3])
        shares = MIXTURES[mixture]
        apart = []
        for domain, share in shares.items():
            own = rng.permutation(np.flatnonzero(domains == domain))
            apart.append(own[: round(share * _TEXT_ROWS)])
        aside = rng.permutation(np.concatenate(apart))
        pool = rng.permutation(np.setdiff1d(np.arange(len(texts)), aside))[:_TEXT_POOL]
        # Foreign texts are those of domains without a share in the target.
        pool = diluted(pool, np.flatnonzero(~np.isin(domains, list(shares))), options)
        target, held = aside[_TEXT_HELD:][: max(options.target, TARGET)], aside[:_TEXT_HELD]
        kept = embedder == _MINILM
        whole = kept_vectors(data, options.vectors) if kept else _embedded(data, embedder)
        judged = _judged(data)
        vectors = [np.asarray(whole[p], np.float32) for p in (pool, target, held)]
        return _arena(
            *vectors, seed, options,
            texts=pa.array(texts[pool], pa.string()),
            target_texts=pa.array(texts[target], pa.string()),
            held_texts=pa.array(texts[held], pa.string()),
            features=judged[pool],
            held_features=judged[held],
            good=mixed_oracle(domains[pool], shares, rng),
        )  # fmt: skip

    return build


# -- tables and weather ---------------------------------------------------------------------------


def _joint_oracle(pool: tuple, held: tuple, rng: np.random.Generator) -> np.ndarray:
    """Score rows by a classifier that sees the held-out rows with their labels, and draw by it."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    both = [np.column_stack([x, y]) for x, y in (pool, held)]
    truth = np.r_[np.zeros(len(both[0])), np.ones(len(both[1]))]
    model = HistGradientBoostingClassifier(max_iter=80, random_state=0, early_stopping=False)
    model.fit(np.concatenate(both), truth)
    odds = model.decision_function(both[0])
    return odds + rng.gumbel(size=len(odds))


def _standard(frame: pd.DataFrame, numeric: list[str], categorical: list[str]) -> np.ndarray:
    numbers = frame[numeric].astype(float)
    numbers = numbers.fillna(numbers.median())
    numbers = (numbers - numbers.mean()) / numbers.std().replace(0, 1)
    if not categorical:
        return numbers.clip(-5, 5).to_numpy(np.float32)
    hot = pd.get_dummies(frame[categorical], dummy_na=True, dtype=np.float32)
    return np.hstack([numbers.clip(-5, 5).to_numpy(np.float32), hot.to_numpy(np.float32)])


def _table_arena(features: np.ndarray, label: np.ndarray, inside: np.ndarray, left: int,
                 seed: int, options: Options) -> EvaluationDataset:  # fmt: skip
    """Make target and held-out rows of a slice; the pool is the rest and a little of the slice."""
    rng = np.random.default_rng([seed, 4])
    own = rng.permutation(np.flatnonzero(inside))
    held_rows = min(HELD, len(own) - 1_000 - left)
    target, held = own[:1_000], own[1_000 : 1_000 + held_rows]
    pool = np.r_[np.flatnonzero(~inside), own[1_000 + held_rows : 1_000 + held_rows + left]]
    pool = rng.permutation(pool)
    good = _joint_oracle((features[pool], label[pool]), (features[held], label[held]), rng)
    return _arena(
        features[pool], features[target], features[held], seed, options,
        labels=label[pool], target_labels=label[target], held_labels=label[held], good=good,
    )  # fmt: skip


def adult(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """Income, from a pool of which half is muddled: fields of other people, labels at random."""
    frame = pd.read_csv(data / "tabular/income_evaluation.csv.gz", skipinitialspace=True)
    frame.columns = [c.strip() for c in frame.columns]
    frame = frame.replace("?", np.nan)
    label = (frame.pop("income") == ">50K").astype(int).to_numpy()
    frame = frame.drop(columns=["fnlwgt"])
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]
    categorical = [c for c in frame if c not in numeric]
    features = _standard(frame, numeric, categorical)
    rng = np.random.default_rng([seed, 6])
    order = rng.permutation(len(frame))
    target, held, pool = order[:1_000], order[1_000 : 1_000 + HELD], order[1_000 + HELD :]
    share = 0.5 if options.noise < 0 else options.noise
    # Foreign rows are muddled ones, of five draws.
    rows = len(order)
    pool = diluted(pool, (pool + rows * np.arange(1, 6)[:, None]).ravel(), options)
    bad = (rng.random(len(pool)) < share) | (pool >= rows)
    pool = pool % rows
    # Each field of a bad row, all its columns together, comes from someone else or stays.
    field = np.r_[np.arange(len(numeric)), _field_of(frame, categorical) + len(numeric)]
    mine = features[pool].copy()
    for one in range(field.max() + 1):
        moved = bad & (rng.random(len(pool)) < 0.5)
        columns = np.flatnonzero(field == one)
        mine[np.ix_(moved, columns)] = features[np.ix_(rng.choice(order, moved.sum()), columns)]
    answers = label[pool].copy()
    answers[bad] = rng.integers(0, 2, int(bad.sum()))
    return _arena(
        mine, features[target], features[held], seed, options,
        labels=answers, target_labels=label[target], held_labels=label[held],
        good=(~bad).astype(np.float64),
    )  # fmt: skip


def _field_of(frame: pd.DataFrame, categorical: list[str]) -> np.ndarray:
    """Return which category each column of `get_dummies` belongs to."""
    widths = [frame[c].nunique() + 1 for c in categorical]
    return np.repeat(np.arange(len(categorical)), widths)


def bank(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """The last 11,000 calls of a campaign, learnt from those before and a few of them."""
    frame = pd.read_csv(data / "tabular/bank-full.csv.gz").replace("unknown", np.nan)
    label = (frame.pop("y") == "yes").astype(int).to_numpy()
    inside = np.arange(len(frame)) >= len(frame) - 11_000
    # The duration of a call is known only after its outcome; the date would give the slice away.
    frame = frame.drop(columns=["duration", "day", "month"])
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]
    categorical = [c for c in frame if c not in numeric]
    return _table_arena(_standard(frame, numeric, categorical), label, inside, 1_600, seed, options)


def weather(data: Path, seed: int, options: Options) -> EvaluationDataset:
    """Fine dust a day ahead at one station, learnt from the eleven others."""
    frame = pd.read_csv(next((data / "beijing_air").glob("*.csv.xz")))
    frame["ahead"] = frame.groupby("station")["PM2.5"].shift(-24)
    frame = frame[frame["ahead"].notna()].reset_index(drop=True)
    rng = np.random.default_rng([seed, 5])
    station = frame["station"].to_numpy()
    own = rng.permutation(np.flatnonzero(station == "Gucheng"))[: 5_000 + HELD]
    rest = rng.permutation(np.flatnonzero(station != "Gucheng"))[:40_000]
    numeric = ["PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "WSPM"]
    angle = 2 * np.pi * np.stack([frame["hour"] / 24, frame["month"] / 12], axis=1)
    whole = np.hstack([_standard(frame, numeric, []), np.sin(angle), np.cos(angle)])
    whole = whole.astype(np.float32)
    ahead = frame["ahead"].to_numpy(np.float64)
    target, held = own[:5_000], own[5_000:]
    good = _joint_oracle((whole[rest], ahead[rest]), (whole[held], ahead[held]), rng)
    return _arena(
        whole[rest], whole[target], whole[held], seed, options,
        labels=ahead[rest], target_labels=ahead[target], held_labels=ahead[held], good=good,
        sources=station[rest].astype(str),
    )  # fmt: skip


# -- all ------------------------------------------------------------------------------------------

_COMMON = ("energy", "jsd", "coverage", "two_sample_auc")
_IMAGES = (*_COMMON, "proxy_linear")
_TABLES = (*_COMMON, "proxy_boosting")
_TEXT = (*_COMMON, "cross_entropy")


def _task(name: str, build: Callable, score: str, measures: tuple[str, ...], about: str = "",
          **more: Any) -> QualityTask:  # fmt: skip
    told = about or (build.__doc__ or "").split("\n")[0]
    return QualityTask(name, build, score, measures, told, **more)


def all_tasks() -> dict[str, QualityTask]:
    """Return the tasks by name, those that cannot be built here too: their cells can be shown."""
    found = [
        _task(build.__name__, build, "proxy_linear", _IMAGES, extra=("proxy_cnn",))
        for build in (images_damaged, images_faint, images_skewed)
    ]
    for embedder, short in (("wordllama", "static"), ("ngrams", "hashed"), (_MINILM, "minilm")):
        for mixture, shares in MIXTURES.items():
            mix = ", ".join(f"{k} {v:.0%}" for k, v in shares.items())
            found.append(
                _task(f"text_{mixture}_{short}", _text_task(mixture, embedder), "cross_entropy",
                      _TEXT, f"{short} vectors; target: {mix}.",
                      needs="vectors" if embedder == _MINILM else "")
            )  # fmt: skip
    found += [
        _task(build.__name__, build, "proxy_boosting", _TABLES, apart=False)
        for build in (weather, adult, bank)
    ]
    return {t.name: t for t in found}
