"""Strategies that a run can carry out, and the settings that carry each of them out."""

from __future__ import annotations

DEFAULT_STRATEGY = "kl_ratio_t025"
"""Strategy of a run that sets nothing: quotas per cluster, rows by the classifier's ratio."""
RANDOM_STRATEGY = "random"
WHOLE_POOL = "whole_pool"
"""Objective without quotas: the rows that rank highest in the whole pool."""

_CLASSIFIER: dict[str, str | float] = {
    "explode.within_cluster": "density_ratio",
    "explode.estimator": "classifier",
}
_KNN: dict[str, str | float] = {**_CLASSIFIER, "explode.estimator": "knn"}
_QUOTAS: dict[str, str | float] = {"select.objective": "budgeted_kl"}
_NO_QUOTAS: dict[str, str | float] = {"select.objective": WHOLE_POOL}
_AT_RANDOM: dict[str, str | float] = {"explode.within_cluster": "exact_count"}

STRATEGIES: dict[str, dict[str, str | float]] = {
    DEFAULT_STRATEGY: {**_QUOTAS, **_CLASSIFIER, "explode.temperature": 0.25},
    "kl_ratio_t0": {**_QUOTAS, **_CLASSIFIER, "explode.temperature": 0.0},
    "kl_ratio_t1": {**_QUOTAS, **_CLASSIFIER, "explode.temperature": 1.0},
    "kl_knn_t0": {**_QUOTAS, **_KNN, "explode.temperature": 0.0},
    "kl_knn_t025": {**_QUOTAS, **_KNN, "explode.temperature": 0.25},
    "kl_knn_t1": {**_QUOTAS, **_KNN, "explode.temperature": 1.0},
    "knn_retrieval": {
        **_NO_QUOTAS,
        **_CLASSIFIER,
        "explode.estimator": "retrieval",
        "explode.temperature": 0.0,
    },
    "kl_hash": {**_QUOTAS, **_AT_RANDOM},
    "classifier_top": {**_NO_QUOTAS, **_CLASSIFIER, "explode.temperature": 0.0},
    "classifier_resample": {**_NO_QUOTAS, **_CLASSIFIER, "explode.temperature": 1.0},
    RANDOM_STRATEGY: {**_NO_QUOTAS, **_AT_RANDOM},
}
"""Strategy -> its settings; those that it does not name have their defaults."""

DECIDED = (
    "select.objective", "explode.within_cluster", "explode.estimator", "explode.temperature",
)  # fmt: skip
"""Settings that a strategy decides."""
