"""The rank key of a row: one int64 per row, larger is better, the same on every engine.

A row is kept when its key reaches its cluster's threshold, so the rule is a map over rows and it
serves rows that come later unchanged. Two kinds of key share that form:

- hash key: `2^53 - 1 - hash`, so that `key >= 2^53 - share * 2^53` is `hash < share * 2^53`;
- ratio key: fixed point of `log ratio + T * Gumbel(hash) + pull` in the upper 33 bits, hash bits
  below; the pull, 0 unless metrics are held by it, moves a row up or down in its cell.
  Adding Gumbel noise and keeping the largest draws without replacement in proportion to
  `exp(log ratio / T)` (Yellott 1977; Kool, van Hoof, Welling 2019); T = 0 is strict ranking.

A second hash of the id, the tie, decides between rows of equal key.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gio_spark.errors import ConfigError

HASH_BITS = 53
HASH_RANGE = 1 << HASH_BITS
TAKE_NONE = np.iinfo(np.int64).max
TAKE_ALL = np.iinfo(np.int64).min
TIE_ALL = 0
KEY_LIMIT = 1 << 62
"""All keys lie strictly between minus this and this."""

LOG_RATIO_LIMIT = 30.0
"""Log ratios beyond this are cut: exp(30) already is more than any pool has rows."""

PULL_LIMIT = 100.0
"""Pulls beyond this are cut, so that keys stay within their range."""

PINNED = KEY_LIMIT - 1
"""Key of a row that comes first in its cluster whatever its score."""

_FRACTION_BITS = 20
_LOW_BITS = 31
MAX_TEMPERATURE = 50.0

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def gumbel(hashes: npt.ArrayLike) -> FloatArray:
    """Return the standard Gumbel number that belongs to each 53-bit hash.

    Args:
        hashes: Integers in [0, 2^53), shape (n,).

    Returns:
        Float64 (n,), finite, between -3.7 and 37.5: `-log(-log((hash + 1/2) / 2^53))`.
    """
    h = np.asarray(hashes, dtype=np.int64)
    # (h + 1/2)/2^53 rounds to 1 at the top end; counting from there keeps all bits.
    low = h < HASH_RANGE // 2
    near_zero = (h.astype(np.float64) + 0.5) / HASH_RANGE
    near_one = ((HASH_RANGE - 1 - h).astype(np.float64) + 0.5) / HASH_RANGE
    exponential = np.where(
        low, -np.log(np.where(low, near_zero, 0.5)), -np.log1p(-np.where(low, 0.5, near_one))
    )
    return -np.log(exponential)


def hash_keys(hashes: npt.ArrayLike) -> IntArray:
    """Return keys that rank rows by hash alone, shape (n,): a random order fixed by the id."""
    return np.asarray(HASH_RANGE - 1 - np.asarray(hashes, dtype=np.int64))


def ratio_keys(
    log_ratio: npt.ArrayLike,
    hashes: npt.ArrayLike,
    *,
    temperature: float,
    pull: npt.ArrayLike | None = None,
) -> IntArray:
    """Return keys that rank rows by noisy log density ratio, shape (n,).

    Args:
        log_ratio: Log density ratio target over pool, shape (n,); a missing one (NaN) counts as
            0, the pool's average.
        hashes: 53-bit hash of each id, shape (n,).
        temperature: Scale T of the Gumbel noise, 0 to 50.
        pull: Added to the score of each row, shape (n,); a missing one (NaN) counts as 0.

    Raises:
        ConfigError: If the temperature is outside its range.
    """
    if not 0.0 <= temperature <= MAX_TEMPERATURE:
        raise ConfigError(
            f"explode.temperature is {temperature}: use a number from 0 to {MAX_TEMPERATURE:g}."
        )
    h = np.asarray(hashes, dtype=np.int64)
    score = np.nan_to_num(
        np.asarray(log_ratio, dtype=np.float64),
        nan=0.0,
        posinf=LOG_RATIO_LIMIT,
        neginf=-LOG_RATIO_LIMIT,
    )
    score = np.clip(score, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if temperature > 0:
        score = score + temperature * gumbel(h)
    if pull is not None:
        added = np.nan_to_num(np.asarray(pull, dtype=np.float64), nan=0.0)
        score = score + np.clip(added, -PULL_LIMIT, PULL_LIMIT)
    fixed = np.floor(score * (1 << _FRACTION_BITS)).astype(np.int64)
    low = (HASH_RANGE - 1 - h) >> (HASH_BITS - _LOW_BITS)
    return np.asarray((fixed << _LOW_BITS) | low)


def rank_keys(
    rule: str,
    hashes: npt.ArrayLike,
    log_ratio: npt.ArrayLike | None,
    *,
    temperature: float,
    pull: npt.ArrayLike | None = None,
) -> IntArray:
    """Return the keys of a within-cluster rule.

    Args:
        rule: `hash_share`, `exact_count` or `density_ratio`.
        hashes: 53-bit hash of each id, shape (n,).
        log_ratio: Log density ratios, shape (n,); needed by `density_ratio` only.
        temperature: Scale of the Gumbel noise for `density_ratio`.
        pull: Pull of each row, shape (n,); None: there is none. Rules that draw by hash then draw
            with odds exp(pull).

    Raises:
        ConfigError: If the rule is unknown or its log ratios are missing.
    """
    if rule in ("hash_share", "exact_count"):
        if pull is None:
            return hash_keys(hashes)
        # The smallest hashes stay first where pulls are alike, so a small pull changes few rows.
        turned = hash_keys(hashes)
        return ratio_keys(np.zeros(turned.size), turned, temperature=1.0, pull=pull)
    if rule != "density_ratio":
        raise ConfigError(
            f"Unknown within_cluster rule '{rule}': use hash_share, exact_count or density_ratio."
        )
    if log_ratio is None:
        raise ConfigError(
            "within_cluster is density_ratio but the assignments carry no log_ratio: score the "
            "rows first (gio_spark.explode.score), or use exact_count."
        )
    return ratio_keys(log_ratio, hashes, temperature=temperature, pull=pull)


def share_thresholds(take: npt.ArrayLike, rows: npt.ArrayLike) -> IntArray:
    """Return the hash-key threshold of each cluster for taking `take` of `rows` on average.

    Args:
        take: Rows to take per cluster, shape (K,); may be fractional.
        rows: Rows there per cluster, shape (K,).

    Returns:
        int64 (K,): a row is kept when its hash key is at least this. The number kept is
        binomial, so a whole budget B is met within about `4 sqrt(B)`.
    """
    t = np.asarray(take, dtype=np.float64)
    n = np.asarray(rows, dtype=np.float64)
    share = np.divide(t, n, out=np.zeros_like(t), where=n > 0)
    return np.asarray(HASH_RANGE - np.rint(np.clip(share, 0.0, 1.0) * HASH_RANGE).astype(np.int64))


def keep(
    keys: IntArray, ties: IntArray, threshold: IntArray, tie_from: IntArray
) -> npt.NDArray[np.bool_]:
    """Return which rows are kept, shape (n,), given each row's own cluster's threshold and tie."""
    return np.asarray((keys > threshold) | ((keys == threshold) & (ties >= tie_from)))
