"""Divergences from their definitions, pair by pair, to compare the package's figures with."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import gammaln


def knn_divergence(target, selection, k):
    """KL(target || selection) from distances to the k-th neighbour.

    Source: Wang, Kulkarni, Verdu 2009, eq. 5: (d/n) sum log(nu_k / rho_k) + log(m / (n-1)).
    """
    (n, d), m = target.shape, len(selection)
    rho = np.sort(cdist(target, target), axis=1)[:, k]  # the row itself comes first
    nu = np.sort(cdist(target, selection), axis=1)[:, k - 1]
    return d * np.log(nu / rho).mean() + np.log(m / (n - 1))


def published_divergence(target, selection, k=5):
    """The estimate of KL(target || selection) that the published code minimises."""
    (n, d), m = target.shape, len(selection)
    rho = np.sort(cdist(target, target), axis=1)[:, k]
    mean = np.log(cdist(target, selection) + 1e-8).mean() - np.log(rho + 1e-8).mean()
    return d * mean + np.log(k) - np.log(n - 1) + np.log(m) - gammaln(m + 1) / m
