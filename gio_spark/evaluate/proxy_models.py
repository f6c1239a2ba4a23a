"""Proxy models, trained on the selected rows and scored on held-out rows of the target."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.errors import InputError, MissingExtraError
from gio_spark.gime.proxy_training import Task, score_kind, train_one
from gio_spark.process import no_warnings
from gio_spark.strategy.evaluation_dataset import EvaluationDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.measure_inputs import MeasureInputs


def features(dataset: EvaluationDataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of pool rows and held-out rows for proxy models and the two-sample test."""
    if dataset.features is None or dataset.held_features is None:
        return dataset.vectors, dataset.held_vectors
    return dataset.features, dataset.held_features


def linear(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    """Held-out score of a linear model that is trained on the rows."""
    del inputs
    return _train(dataset, rows, seed, "linear")


def boosting(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    """Held-out score of boosted trees that are trained on the rows."""
    del inputs
    return _train(dataset, rows, seed, "boosting")


def _train(dataset: EvaluationDataset, rows: NDArray[np.intp], seed: int, proxy: str) -> float:
    task, index = _task(dataset, rows, proxy)
    # Suppress the warning that a model stopped at its last iteration; that is accurate enough.
    with no_warnings():
        return train_one(task, index, seed)[0]


def _task(
    dataset: EvaluationDataset, rows: NDArray[np.intp], proxy: str
) -> tuple[Task, NDArray[np.intp]]:
    if dataset.labels is None or dataset.held_labels is None:
        raise InputError("Proxy models need labels of pool and held-out target rows.")
    pool_features, held_features = features(dataset)
    task = Task(
        pool_features,
        dataset.labels,
        held_features,
        dataset.held_labels,
        score_kind(dataset.held_labels),
        proxy,
        small=True,
        categories=dataset.categories,
        test_categories=dataset.held_categories,
    )
    return task, rows


def has_torch() -> bool:
    """Whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def cnn(
    dataset: EvaluationDataset, inputs: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    """Held-out accuracy of a small convolutional network on square gray images.

    Two convolutions with pooling and one hidden layer, trained by Adam for four passes over the
    rows or 600 steps, whichever is more, with a learning rate that falls to 0. Training uses one
    thread and its own random generator, so that the same rows and seed give the same network
    whatever else runs in the process.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: The features are not square images, or labels are missing.
    """
    del inputs
    if not has_torch():
        raise MissingExtraError("torch", "text", "The measure 'proxy_cnn'")
    task, index = _task(dataset, rows, "linear")
    image_side = math.isqrt(task.features.shape[1])
    if image_side * image_side != task.features.shape[1] or image_side < 8:
        raise InputError(
            f"The measure 'proxy_cnn' needs square images; rows have {task.features.shape[1]} "
            "numbers."
        )
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fit_cnn(task, index, seed, image_side)
    finally:
        torch.set_num_threads(threads)


def _fit_cnn(task: Task, index: NDArray[np.intp], seed: int, image_side: int) -> float:
    import torch
    from torch import nn

    classes = np.unique(np.r_[task.labels, task.test_labels])
    generator = torch.Generator().manual_seed(seed)
    last = 32 * (image_side // 4) ** 2
    network: Any = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(last, 64), nn.ReLU(), nn.Linear(64, len(classes)),
    )  # fmt: skip
    with torch.no_grad():
        for layer in network:
            if hasattr(layer, "weight"):
                # torch's default initialization, from a generator that no other thread uses
                bound = layer.weight[0].numel() ** -0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

    selected = task.features[index]
    mean, deviation = float(selected.mean()), float(selected.std()) or 1.0

    def images(values: NDArray[np.float32]) -> Any:
        values = (np.asarray(values, np.float32) - mean) / deviation
        return torch.from_numpy(values).reshape(-1, 1, image_side, image_side)

    pixels = images(selected)
    classes_of_rows = torch.from_numpy(np.searchsorted(classes, task.labels[index]))
    optimizer = torch.optim.Adam(network.parameters())
    steps = max(600, 4 * len(index) // 64)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        batch = torch.randint(len(index), (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pixels[batch]), classes_of_rows[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        predictions = [network(images(block)).argmax(1).numpy()
                for block in np.array_split(task.test_features, 8)]  # fmt: skip
    return float(np.mean(classes[np.concatenate(predictions)] == task.test_labels))
