"""Small proxy models trained in parallel on executors, each on one subset of a labeled sample."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from gio_spark.engine import bounded, broadcast_arrays, describe, map_arrow
from gio_spark.errors import ConfigError, InputError, NoVerdictError
from gio_spark.process import no_warnings, one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

PROXIES = ("linear", "boosting")
# Standard errors above chance (one-sided 95 %) from which on a model counts as having learned.
Z = 1.64

# Labels with fractions and more distinct values than this are numbers, not classes.
_MAX_CLASSES = 20
MEASURES = ("auc", "accuracy", "average_precision", "skill")
_SCHEMA = (
    "subset bigint, seed bigint, proxy string, rows bigint, score double, seconds double, "
    "problem string"
)


@dataclass(frozen=True, eq=False)
class Task:
    """Learning task: features and labels of a sample, held-out rows, measure and proxy model.

    Attributes:
        features: (n, d) of the sample's rows, in the order of the sample; NaN only for boosting.
        labels: (n,) class codes, or numbers.
        test_features: (m, d) held-out rows of the target.
        test_labels: (m,).
        measure: "accuracy", "auc" (two classes), "average_precision" (ranking, two classes), or
            "skill" (regression: 1 - RMSE / spread of the test labels, 0 for the mean).
        proxy: "linear" or "boosting".
        members: Rows of each block, where subsets are of blocks; None: they are of rows.
        small: Boost 40 trees of 15 leaves instead of 60 of 31: half the time, and no worse on
            some hundred rows.
        categories: (n, c) int32 codes of categorical fields, in the order of their frequency
            (`frequency_codes`); the linear model sees each as indicators, boosting the most
            frequent ones of each field.
        test_categories: (m, c) codes of the held-out rows.
    """

    features: NDArray[np.float32]
    labels: NDArray[Any]
    test_features: NDArray[np.float32]
    test_labels: NDArray[Any]
    measure: str = "accuracy"
    proxy: str = "linear"
    members: tuple[NDArray[np.intp], ...] | None = None
    small: bool = False
    categories: NDArray[np.int32] | None = None
    test_categories: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        """Check shapes and names.

        Raises:
            InputError: A shape, a label or a name is not allowed.
        """
        if self.measure not in MEASURES or self.proxy not in PROXIES:
            raise InputError(
                f"measure {self.measure!r} or proxy {self.proxy!r} is unknown; measures are "
                f"{MEASURES}, proxies {PROXIES}."
            )
        if len(self.features) != len(self.labels) or len(self.test_features) != len(
            self.test_labels
        ):
            raise InputError("Features and labels of a task have different lengths.")
        if len(self.test_labels) == 0:
            raise InputError("A task needs held-out rows with labels to be scored on.")
        binary = self.measure in ("auc", "average_precision")
        if binary and set(np.unique(self.test_labels).tolist()) != {0, 1}:
            raise InputError(f"Measure {self.measure!r} needs held-out labels 0 and 1, both.")

    def chance(self) -> tuple[float, float]:
        """Score of a model that has learned nothing, and about its standard error."""
        rows = len(self.test_labels)
        if self.measure == "skill":
            return 0.0, float(np.sqrt(1.0 / (2.0 * rows)))
        counts = np.unique(self.test_labels, return_counts=True)[1]
        if self.measure == "auc":
            ones, zeros = float(counts[-1]), float(counts[0])
            return 0.5, float(np.sqrt((ones + zeros + 1.0) / (12.0 * ones * zeros)))
        share = float(counts.max() if self.measure == "accuracy" else counts[-1]) / rows
        return share, float(np.sqrt(share * (1.0 - share) / rows))

    def check_learned(self, score: float) -> None:
        """Refuse a score of all rows that is no better than chance.

        Raises:
            NoVerdictError: With both figures.
        """
        level, error = self.chance()
        if score <= level + Z * error:
            raise NoVerdictError(
                f"The proxy model learns nothing from all rows of the sample: {self.measure} "
                f"{score:.3f}, where guessing gives {level:.3f} (+- {error:.3f}). No selection can "
                "be judged by it. See that the labels belong to the rows, name features that tell "
                "them, or set gime.measure, gime.proxy or gime.scorer."
            )


def score_kind(labels: NDArray[Any]) -> str:
    """Measure for labels: skill (numbers), auc (labels 0 and 1) or accuracy (classes).

    Example:
        >>> score_kind(np.array([0, 1, 1])), score_kind(np.array(["a", "b"]))
        ('auc', 'accuracy')
    """
    if np.asarray(labels).dtype.kind == "f" and len(np.unique(labels)) > _MAX_CLASSES:
        return "skill"
    return "auc" if set(np.unique(labels).tolist()) == {0, 1} else "accuracy"


@dataclass(frozen=True, eq=False)
class CustomScore:
    """Scoring function of the user, in place of labels and a proxy.

    Attributes:
        rows: The sample, in its order, with the columns that the function reads.
        function: "package.module:function", importable on executors; it takes an Arrow table of
            the subset's rows and a seed, and returns a number, higher for better.
    """

    rows: pa.Table
    function: str
    measure: str = "own score"
    proxy: str = "own"

    def resolve(self) -> Callable[[pa.Table, int], float]:
        """Import the scoring function.

        Raises:
            ConfigError: The function cannot be imported.
        """
        return _function(self.function)


def _function(name: str) -> Callable[[pa.Table, int], float]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The scoring function {name!r} cannot be found ({error}); write module:function."
        ) from error
    return cast("Callable[[pa.Table, int], float]", function)


def row_count_of(task: Task | CustomScore) -> int:
    """Number of rows, or blocks, that subsets are drawn from."""
    if isinstance(task, CustomScore):
        return task.rows.num_rows
    return len(task.features) if task.members is None else len(task.members)


def frequency_codes(
    values: NDArray[Any], test_values: NDArray[Any]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Codes of the values of a categorical field: 0 for the most frequent value, and so on.

    Labels play no part in it. Values of the held-out rows alone have codes as well, and no model
    learns anything about them.

    Args:
        values: (n,) values of the sample.
        test_values: (m,) values of the held-out rows.

    Example:
        >>> frequency_codes(np.array(["b", "a", "b"]), np.array(["c", "b"]))
        (array([0, 1, 0], dtype=int32), array([2, 0], dtype=int32))
    """
    names, codes = np.unique(np.concatenate([values, test_values]), return_inverse=True)
    counts = np.bincount(codes[: len(values)], minlength=len(names))
    rank = np.empty(len(names), np.int32)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names), dtype=np.int32)
    ranked = rank[codes]
    return ranked[: len(values)], ranked[len(values) :]


def _model(task: Task, seed: int) -> Any:
    """Untrained proxy of a task."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    regression = task.measure == "skill"
    numbers = task.features.shape[1]
    fields = list(
        range(numbers, numbers + (0 if task.categories is None else task.categories.shape[1]))
    )
    if task.proxy == "linear":
        # Five digits of convergence move scores by less than a seed does, at a third of the time.
        last = Ridge(1.0) if regression else LogisticRegression(max_iter=150, tol=1e-3, C=3.0)
        if not fields:
            return make_pipeline(StandardScaler(), last)
        indicators = OneHotEncoder(handle_unknown="ignore", dtype=np.float32)
        columns = make_column_transformer(
            (StandardScaler(), list(range(numbers))), (indicators, fields)
        )
        return make_pipeline(columns, last)
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    size = (
        {"max_iter": 40, "learning_rate": 0.15, "max_leaf_nodes": 15, "max_bins": 63}
        if task.small
        else {"max_iter": 60, "learning_rate": 0.12}
    )
    return kind(
        **size, random_state=seed, early_stopping=False, categorical_features=fields or None
    )


def _inputs(
    task: Task, features: NDArray[np.float32], categories: NDArray[np.int32] | None
) -> NDArray[np.float32]:
    """Features with the codes of categories as further columns."""
    if categories is None:
        return features
    if task.proxy == "boosting":
        # Trees take so many categories of a field; its rarer ones count as one.
        categories = np.minimum(categories, (63 if task.small else 255) - 1)
    return np.concatenate([features, categories], axis=1, dtype=np.float32)


def train_one(task: Task, index: NDArray[np.intp], seed: int) -> tuple[float, float]:
    """Train on some rows: held-out score, and processor seconds of the training."""
    predicted, seconds = predict_one(task, index, seed)
    return _score(task, predicted), seconds


def predict_one(task: Task, index: NDArray[np.intp], seed: int) -> tuple[NDArray[Any], float]:
    """Train on some rows: predictions of the held-out rows, and processor seconds of the training.

    Returns:
        (m,) predicted classes (accuracy), probabilities of class 1 (auc, average_precision) or
        numbers (skill), and seconds.
    """
    labels = task.labels[index]
    if task.measure != "skill" and np.unique(labels).size < 2:
        # One class only: the model is the best constant.
        return np.full(len(task.test_labels), labels[0]), 0.0
    model = _model(task, seed)
    # Processor time of this thread: models train in parallel, and wall time would count the others.
    start = time.thread_time()
    categories = None if task.categories is None else task.categories[index]
    model.fit(_inputs(task, task.features[index], categories), labels)
    seconds = time.thread_time() - start
    held_out = _inputs(task, task.test_features, task.test_categories)
    if task.measure in ("accuracy", "skill"):
        return model.predict(held_out), seconds
    return model.predict_proba(held_out)[:, list(model.classes_).index(1)], seconds


def _score(task: Task, predicted: NDArray[Any]) -> float:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if task.measure == "accuracy":
        return float(np.mean(predicted == task.test_labels))
    if task.measure == "skill":
        gap = predicted - task.test_labels
        return 1.0 - float(np.sqrt(np.mean(gap**2)) / np.std(task.test_labels))
    judge = roc_auc_score if task.measure == "auc" else average_precision_score
    return float(judge(task.test_labels, predicted))


def train_many(
    spark: SparkSession | None,
    task: Task | CustomScore,
    subsets: Sequence[NDArray[np.intp]],
    *,
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Train one model per (subset, seed), in parallel on executors.

    Args:
        spark: The session; None trains in this process, one after the other.
        task: The task; its arrays are broadcast once.
        subsets: Rows of the sample, one array per subset.
        seeds: Repeats of each (they differ in the model's own randomness only).

    Returns:
        One row per (subset, seed): rows, score (NaN with the `problem` where training failed),
        seconds of training.
    """
    jobs = pd.DataFrame(
        [(s, seed) for s in range(len(subsets)) for seed in seeds], columns=["subset", "seed"]
    )
    if isinstance(task, Task) and task.members is not None:
        members = task.members
        subsets = [np.concatenate([members[i] for i in s]) for s in subsets]
    lengths = np.array([len(s) for s in subsets], np.int64)
    index = np.concatenate([np.asarray(s, np.int64) for s in subsets])
    arrays = {"index": index, "ends": np.cumsum(lengths)}
    measure, proxy = task.measure, task.proxy
    if isinstance(task, CustomScore):
        measure = task.function
        arrays["sample"] = _packed(task.rows)
    else:
        arrays |= {
            "features": task.features,
            "labels": np.asarray(task.labels),
            "test_features": task.test_features,
            "test_labels": np.asarray(task.test_labels),
            "small": np.array(task.small),
        }
        if task.categories is not None and task.test_categories is not None:
            arrays |= {"categories": task.categories, "test_categories": task.test_categories}
    if spark is None:
        columns = _train(arrays, measure, proxy, jobs["subset"].tolist(), jobs["seed"].tolist())
        return pd.DataFrame(columns)
    broadcast = broadcast_arrays(spark, arrays)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, list[Any]]]:
        for batch in batches:
            subset_index, seed = (batch.column(k).to_pylist() for k in ("subset", "seed"))
            yield _train(broadcast.load(), measure, proxy, subset_index, seed)

    frame = spark.createDataFrame(jobs)
    # Tasks of the embedded engine are threads of this process and share its cores.
    embedded = describe(spark).kind == "embedded"
    slots = (os.cpu_count() or 1) if embedded else len(jobs)
    frame = frame.repartition(max(1, min(slots, len(jobs), 200)))
    table = bounded(map_arrow(frame, run, _SCHEMA, batch_rows=1), len(jobs), "scores")
    return table.to_pandas().sort_values(["subset", "seed"]).reset_index(drop=True)


def _packed(table: pa.Table) -> NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return np.frombuffer(memoryview(sink.getvalue()), np.uint8)


def _scoring(
    arrays: dict[str, Any], measure: str, proxy: str
) -> Callable[[NDArray[np.int64], int], tuple[float, float]]:
    """Build a function from (rows, seed) to (score, seconds)."""
    if "sample" in arrays:
        table = pa.ipc.open_stream(pa.py_buffer(arrays["sample"].tobytes())).read_all()
        function = _function(measure)

        def scored(index: NDArray[np.int64], seed: int) -> tuple[float, float]:
            start = time.thread_time()
            return float(function(table.take(pa.array(index)), seed)), time.thread_time() - start

        return scored
    task = Task(
        arrays["features"],
        arrays["labels"],
        arrays["test_features"],
        arrays["test_labels"],
        measure,
        proxy,
        small=bool(arrays["small"]),
        categories=arrays.get("categories"),
        test_categories=arrays.get("test_categories"),
    )
    return lambda index, seed: train_one(task, index, seed)


def _train(
    arrays: dict[str, Any],
    measure: str,
    proxy: str,
    subset_index: Sequence[int],
    seeds: Sequence[int],
) -> dict[str, list[Any]]:
    score_of = _scoring(arrays, measure, proxy)
    starts = np.r_[0, arrays["ends"]]
    columns: dict[str, list[Any]] = {part.split()[0]: [] for part in _SCHEMA.split(", ")}
    for subset, seed in zip(subset_index, seeds, strict=True):
        index = arrays["index"][starts[subset] : starts[subset + 1]]
        score, seconds, problem = float("nan"), 0.0, ""
        try:
            # One thread per model: executors train as many models as they have cores. scikit-learn
            # warns of joblib's settings in threads, which this does not use.
            with one_thread(), no_warnings():
                score, seconds = score_of(index, int(seed))
        except ValueError as reason:
            problem = str(reason)
        row = (int(subset), int(seed), proxy, int(index.size), score, seconds, problem)
        for name, entry in zip(columns, row, strict=True):
            columns[name].append(entry)
    return columns
