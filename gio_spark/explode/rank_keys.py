"""Rank key of a row: one int64 per row, larger is better, the same on every engine.

A row is selected when its key reaches the threshold of its cluster, so the rule is a map over rows
and applies unchanged to rows that come later. There are two kinds of key:

- hash key: `2^53 - 1 - hash`, so that `key >= 2^53 - share * 2^53` is `hash < share * 2^53`;
- ratio key: fixed point of `log ratio + T * Gumbel(hash) + score bias` in the upper 33 bits and
  bits of the hash below. The score bias raises or lowers a row inside its cluster so that a
  constraint on a metric holds; without constraints it is 0. Adding Gumbel noise and taking the
  largest keys draws rows without replacement in proportion to `exp(log ratio / T)` (Yellott 1977;
  Kool, van Hoof, Welling 2019); T = 0 is strict ranking.

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
"""Log ratios are clipped to this range: exp(30) is more than any pool has rows."""

SCORE_BIAS_LIMIT = 100.0
"""Score biases are clipped to this range, so that keys stay within `KEY_LIMIT`."""

REQUIRED_KEY = KEY_LIMIT - 1
"""Key of a required row, which comes first in its cluster whatever its score."""

_FRACTION_BITS = 20
_LOW_BITS = 31
RATIO_UNIT = float(1 << (_FRACTION_BITS + _LOW_BITS))
"""Unit of ratio keys: a key over it is the score."""

HASH_UNIT = float(HASH_RANGE)
"""Unit of hash keys, which then are in [0, 1)."""

MAX_TEMPERATURE = 50.0

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def gumbel(hashes: npt.ArrayLike) -> FloatArray:
    """Standard Gumbel number of each 53-bit hash.

    Args:
        hashes: Integers in [0, 2^53), shape (n,).

    Returns:
        Float64 (n,), finite, between -3.7 and 37.5: `-log(-log((hash + 1/2) / 2^53))`.

    Example:
        >>> gumbel([0, 2**52]).round(3).tolist()
        [-3.622, 0.367]
    """
    hash_array = np.asarray(hashes, dtype=np.int64)
    # (hash + 1/2) / 2^53 rounds to 1 at the top end; the distance to 1 keeps all bits.
    in_lower_half = hash_array < HASH_RANGE // 2
    near_zero = (hash_array.astype(np.float64) + 0.5) / HASH_RANGE
    near_one = ((HASH_RANGE - 1 - hash_array).astype(np.float64) + 0.5) / HASH_RANGE
    exponential = np.where(
        in_lower_half,
        -np.log(np.where(in_lower_half, near_zero, 0.5)),
        -np.log1p(-np.where(in_lower_half, 0.5, near_one)),
    )
    return -np.log(exponential)


def hash_keys(hashes: npt.ArrayLike) -> IntArray:
    """Keys that rank rows by hash alone, int64 (n,): a random order that is fixed by the ids.

    Args:
        hashes: 53-bit hash of each id, shape (n,).

    Example:
        >>> hash_keys([0, 2**53 - 1]).tolist()
        [9007199254740991, 0]
    """
    return np.asarray(HASH_RANGE - 1 - np.asarray(hashes, dtype=np.int64))


def ratio_keys(
    log_ratio: npt.ArrayLike,
    hashes: npt.ArrayLike,
    *,
    temperature: float,
    score_bias: npt.ArrayLike | None = None,
) -> IntArray:
    """Keys that rank rows by log density ratio plus Gumbel noise, int64 (n,).

    Args:
        log_ratio: Log density ratio of target over pool, shape (n,); NaN counts as 0, the average
            of the pool.
        hashes: 53-bit hash of each id, shape (n,).
        temperature: Scale T of the Gumbel noise, 0 to 50.
        score_bias: Added to the score of each row, shape (n,); NaN counts as 0.

    Raises:
        ConfigError: If the temperature is outside its range.

    Example:
        >>> ratio_keys([0.5, 2.0, -1.0], [11, 12, 13], temperature=0.0).argsort().tolist()
        [2, 0, 1]
    """
    if not 0.0 <= temperature <= MAX_TEMPERATURE:
        raise ConfigError(
            f"explode.temperature is {temperature}: use a number from 0 to {MAX_TEMPERATURE:g}."
        )
    hash_array = np.asarray(hashes, dtype=np.int64)
    score = np.nan_to_num(
        np.asarray(log_ratio, dtype=np.float64),
        nan=0.0,
        posinf=LOG_RATIO_LIMIT,
        neginf=-LOG_RATIO_LIMIT,
    )
    score = np.clip(score, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if temperature > 0:
        score = score + temperature * gumbel(hash_array)
    if score_bias is not None:
        bias = np.nan_to_num(np.asarray(score_bias, dtype=np.float64), nan=0.0)
        score = score + np.clip(bias, -SCORE_BIAS_LIMIT, SCORE_BIAS_LIMIT)
    fixed_point = np.floor(score * (1 << _FRACTION_BITS)).astype(np.int64)
    low_bits = (HASH_RANGE - 1 - hash_array) >> (HASH_BITS - _LOW_BITS)
    return np.asarray((fixed_point << _LOW_BITS) | low_bits)


def rank_keys(
    rule: str,
    hashes: npt.ArrayLike,
    log_ratio: npt.ArrayLike | None,
    *,
    temperature: float,
    score_bias: npt.ArrayLike | None = None,
) -> IntArray:
    """Rank keys of a within-cluster rule, int64 (n,).

    Args:
        rule: `hash_share`, `exact_count` or `density_ratio`.
        hashes: 53-bit hash of each id, shape (n,).
        log_ratio: Log density ratios, shape (n,); needed by `density_ratio` only.
        temperature: Scale of the Gumbel noise for `density_ratio`.
        score_bias: Score bias of each row, shape (n,), or None. With a score bias, rules that draw
            by hash draw rows with odds exp(score_bias).

    Raises:
        ConfigError: If the rule is unknown or its log ratios are missing.

    Example:
        >>> rank_keys("exact_count", [30, 10, 20], None, temperature=0.25).argsort().tolist()
        [0, 2, 1]
    """
    if rule in ("hash_share", "exact_count"):
        if score_bias is None:
            return hash_keys(hashes)
        # Rows of equal bias stay in the order of their hashes, so a small bias changes few rows.
        keys = hash_keys(hashes)
        return ratio_keys(np.zeros(keys.size), keys, temperature=1.0, score_bias=score_bias)
    if rule != "density_ratio":
        raise ConfigError(
            f"Unknown within_cluster rule '{rule}': use hash_share, exact_count or density_ratio."
        )
    if log_ratio is None:
        raise ConfigError(
            "within_cluster is density_ratio but the assignments carry no log_ratio: score the "
            "rows first (gio_spark.explode.score), or use exact_count."
        )
    return ratio_keys(log_ratio, hashes, temperature=temperature, score_bias=score_bias)


def share_thresholds(take: npt.ArrayLike, rows: npt.ArrayLike) -> IntArray:
    """Hash-key threshold of each cluster that selects `take` of `rows` rows on average.

    Args:
        take: Allocation per cluster, shape (K,); may be fractional.
        rows: Rows per cluster, shape (K,).

    Returns:
        int64 (K,): a row is selected when its hash key is at least this. The number of selected
        rows is binomial, so a budget of B rows is met within about `4 sqrt(B)`.

    Example:
        >>> share_thresholds([1, 0], [4, 4]).tolist() == [3 * 2**51, 2**53]
        True
    """
    requested = np.asarray(take, dtype=np.float64)
    available = np.asarray(rows, dtype=np.float64)
    share = np.divide(requested, available, out=np.zeros_like(requested), where=available > 0)
    return np.asarray(HASH_RANGE - np.rint(np.clip(share, 0.0, 1.0) * HASH_RANGE).astype(np.int64))


def passes_threshold(
    keys: IntArray, ties: IntArray, threshold: IntArray, tie_from: IntArray
) -> npt.NDArray[np.bool_]:
    """Mask of the selected rows, bool (n,).

    Args:
        keys: Rank key of each row, int64 (n,).
        ties: Second hash of each row, int64 (n,).
        threshold: Threshold of the cluster of each row, int64 (n,).
        tie_from: Smallest tie that is selected where the key equals the threshold, int64 (n,).
    """
    return np.asarray((keys > threshold) | ((keys == threshold) & (ties >= tie_from)))
