"""Proxy models: trained on the selected rows, judged on held-out rows of the target."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.errors import InputError, MissingExtraError
from gio_spark.evaluate.dataset import EvaluationDataset
from gio_spark.gime.proxy_training import Task, train_one
from gio_spark.process import no_warnings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.evaluate.measure_inputs import MeasureInputs

_NUMBERS = 20  # more distinct values than this, with fractions, are a quantity and no classes


def features(dataset: EvaluationDataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what proxies and the two-sample test see of pool and held-out rows."""
    if dataset.features is None or dataset.held_features is None:
        return dataset.vectors, dataset.held_vectors
    return dataset.features, dataset.held_features


def kind_of(dataset: EvaluationDataset) -> str:
    """Return what a proxy is judged by: skill (numbers), auc (labels 0 and 1) or accuracy."""
    if dataset.held_labels is None:
        raise InputError("Proxy models need labels of the held-out target rows.")
    held = dataset.held_labels
    if np.asarray(held).dtype.kind == "f" and len(np.unique(held)) > _NUMBERS:
        return "skill"
    return "auc" if set(np.unique(held).tolist()) == {0, 1} else "accuracy"


def linear(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    """Train a linear model on the rows and return its score on held-out rows."""
    del ruler
    return _train(dataset, rows, seed, "linear")


def boosting(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    """Train boosted trees on the rows and return their score on held-out rows."""
    del ruler
    return _train(dataset, rows, seed, "boosting")


def _train(dataset: EvaluationDataset, rows: NDArray[np.intp], seed: int, proxy: str) -> float:
    task, index = _task(dataset, rows, proxy)
    # A model that stops at its last iteration is as good as the task asks for.
    with no_warnings():
        return train_one(task, index, seed)[0]


def _task(
    dataset: EvaluationDataset, rows: NDArray[np.intp], proxy: str
) -> tuple[Task, NDArray[np.intp]]:
    if dataset.labels is None or dataset.held_labels is None:
        raise InputError("Proxy models need labels of pool and held-out target rows.")
    mine, held = features(dataset)
    task = Task(
        mine, dataset.labels, held, dataset.held_labels, kind_of(dataset), proxy, small=True
    )  # fmt: skip
    return task, rows


def has_torch() -> bool:
    """Tell whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def cnn(
    dataset: EvaluationDataset, ruler: MeasureInputs, rows: NDArray[np.intp], seed: int
) -> float:
    """Train a small convolutional network on square grey images and return its accuracy.

    Two convolutions with pooling and one hidden layer; four passes of Adam over the rows, or 600
    steps where that is more, since fewer leave small selections untrained; the rate falls to 0.
    One thread of the processor and a generator of its own: the same rows and seed give the same
    network beside others in the process.

    Raises:
        MissingExtraError: torch is not installed.
        InputError: The features are no square images, or labels are missing.
    """
    del ruler
    if not has_torch():
        raise MissingExtraError("torch", "text", "The measure 'proxy_cnn'")
    task, index = _task(dataset, rows, "linear")
    side = math.isqrt(task.features.shape[1])
    if side * side != task.features.shape[1] or side < 8:
        raise InputError(
            f"The measure 'proxy_cnn' needs square images; rows have {task.features.shape[1]} "
            "numbers."
        )
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fit_cnn(task, index, seed, side)
    finally:
        torch.set_num_threads(threads)


def _fit_cnn(task: Task, index: NDArray[np.intp], seed: int, side: int) -> float:
    import torch
    from torch import nn

    classes = np.unique(np.r_[task.labels, task.test_labels])
    generator = torch.Generator().manual_seed(seed)
    last = 32 * (side // 4) ** 2
    net: Any = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(last, 64), nn.ReLU(), nn.Linear(64, len(classes)),
    )  # fmt: skip
    with torch.no_grad():
        for layer in net:
            if hasattr(layer, "weight"):
                # torch's own start, but not from the one generator that all threads share
                bound = layer.weight[0].numel() ** -0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

    chosen = task.features[index]
    middle, spread = float(chosen.mean()), float(chosen.std()) or 1.0

    def images(values: NDArray[np.float32]) -> Any:
        values = (np.asarray(values, np.float32) - middle) / spread
        return torch.from_numpy(values).reshape(-1, 1, side, side)

    x = images(chosen)
    y = torch.from_numpy(np.searchsorted(classes, task.labels[index]))
    optimiser = torch.optim.Adam(net.parameters())
    steps = max(600, 4 * len(index) // 64)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        part = torch.randint(len(index), (64,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[part]), y[part]).backward()
        optimiser.step()
    with torch.no_grad():
        told = [net(images(block)).argmax(1).numpy()
                for block in np.array_split(task.test_features, 8)]  # fmt: skip
    return float(np.mean(classes[np.concatenate(told)] == task.test_labels))
