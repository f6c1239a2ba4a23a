"""Exact counts without sorting or shuffling rows: thresholds by refining histograms.

Each cluster's threshold is the key of rank `take`. It is bracketed by an interval that is cut
into bins; one pass over the rows counts them, with the smallest and largest key of each bin, and
the bin that holds the wanted rank becomes the next interval. Counts, minima and maxima merge by
sum, min and max, so a pass is a map and a small aggregation, whatever the partitioning. Taking
the bin's own smallest and largest key as the next interval ends ties at once. When few
candidates are left they are fetched and sorted.

Rows of equal key are told apart by their tie, a second hash, refined in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gio_spark.errors import InputError
from gio_spark.explode.rank_keys import (
    HASH_RANGE,
    KEY_LIMIT,
    TAKE_ALL,
    TAKE_NONE,
    TIE_ALL,
    IntArray,
)

log = logging.getLogger(__name__)

BINS = 256
CELLS = 400_000
"""Most numbers (cluster, bin) that a pass brings to the driver: about 16 MB."""
CANDIDATES = 200_000
"""Rows still undecided that may be fetched and sorted instead of refined further."""
MAX_PASSES = 24


@dataclass(frozen=True)
class Histogram:
    """Counts of one pass, one entry per non-empty (cluster, bin), in any order; all int64 (n,)."""

    cluster: IntArray
    bin: IntArray
    rows: IntArray
    low: IntArray
    high: IntArray


@dataclass(frozen=True)
class Refinement:
    """What a pass over the rows needs to know; arrays are indexed by cluster, shape (K,).

    Attributes:
        active: Whether the cluster is still open.
        on_tie: Whether it is the tie that is refined (then only rows of key `threshold` count).
        low, high: Closed interval that holds the wanted value.
        width: Width of a bin, uint64.
        threshold: Key threshold found so far (meaningful where `on_tie`).
    """

    active: npt.NDArray[np.bool_]
    on_tie: npt.NDArray[np.bool_]
    low: IntArray
    high: IntArray
    width: npt.NDArray[np.uint64]
    threshold: IntArray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fields as plain arrays, to be shipped to workers."""
        return {
            "active": self.active,
            "on_tie": self.on_tie,
            "low": self.low,
            "high": self.high,
            "width": self.width,
            "threshold": self.threshold,
        }

    def candidates(
        self, cluster: IntArray, keys: IntArray, ties: IntArray
    ) -> tuple[npt.NDArray[np.intp], IntArray]:
        """Return the positions of rows inside an open interval, and their values (key or tie)."""
        value = np.where(self.on_tie[cluster], ties, keys)
        inside = self.active[cluster]
        inside &= (value >= self.low[cluster]) & (value <= self.high[cluster])
        inside &= ~self.on_tie[cluster] | (keys == self.threshold[cluster])
        at = np.flatnonzero(inside)
        return at, value[at]

    def count(self, cluster: IntArray, keys: IntArray, ties: IntArray) -> Histogram:
        """Return the histogram of one batch of rows, each array of shape (n,)."""
        at, value = self.candidates(cluster, keys, ties)
        own = cluster[at]
        # Differences of int64 wrap correctly in uint64, whatever the sign of the two.
        offset = value.view(np.uint64) - self.low[own].view(np.uint64)
        return _grouped(own, (offset // self.width[own]).astype(np.int64), None, value, value)


def merge(parts: Iterable[Histogram]) -> Histogram:
    """Return the sum of histograms of disjoint rows."""
    every = list(parts)
    if not every:
        none = np.empty(0, dtype=np.int64)
        return Histogram(none, none, none, none, none)
    joined = [np.concatenate([getattr(p, f) for p in every]) for f in Histogram.__annotations__]
    return _grouped(*joined)


def _grouped(
    cluster: IntArray, bins: IntArray, rows: IntArray | None, low: IntArray, high: IntArray
) -> Histogram:
    if cluster.size == 0:
        none = np.empty(0, dtype=np.int64)
        return Histogram(none, none, none, none, none)
    code = cluster * (1 << 20) + bins
    order = np.argsort(code, kind="stable")
    code = code[order]
    first = np.flatnonzero(np.concatenate(([True], code[1:] != code[:-1])))
    counted = (
        np.diff(np.append(first, code.size))
        if rows is None
        else np.add.reduceat(rows[order], first)
    )
    return Histogram(
        cluster=code[first] >> 20,
        bin=code[first] & ((1 << 20) - 1),
        rows=np.asarray(counted, dtype=np.int64),
        low=np.minimum.reduceat(low[order], first),
        high=np.maximum.reduceat(high[order], first),
    )


@dataclass(frozen=True)
class Thresholds:
    """Result: a row of cluster c is kept iff key > threshold[c], or equal and tie >= tie[c].

    Attributes:
        threshold: int64 (K,).
        tie: int64 (K,).
        kept: Rows that the rule keeps, int64 (K,); equals `take` or, where fewer are there, the
            rows of the cluster.
        passes: Passes over the rows that were needed, the last fetch included.
    """

    threshold: IntArray
    tie: IntArray
    kept: IntArray
    passes: int


def find_thresholds(
    take: npt.ArrayLike,
    count: Callable[[Refinement], Histogram],
    fetch: Callable[[Refinement, int], tuple[IntArray, IntArray, IntArray] | None],
    *,
    rows: npt.ArrayLike | None = None,
    candidates: int = CANDIDATES,
    cells: int = CELLS,
) -> Thresholds:
    """Find the thresholds that keep exactly `take[c]` rows of each cluster c.

    Args:
        take: Whole rows to keep per cluster, shape (K,), indexed by cluster id.
        count: One pass over all rows: the merged histogram of a refinement.
        fetch: One pass over all rows: cluster, key and tie of the rows inside open intervals;
            None where they are more than its second argument.
        rows: Rows per cluster, shape (K,), where known: so few that they may be fetched are not
            counted first. It changes the number of passes alone.
        candidates: Undecided rows that may be fetched instead of refined further.
        cells: Most (cluster, bin) numbers a pass may bring back.

    Returns:
        Thresholds; clusters that hold no more than `take` rows keep all of them.

    Raises:
        InputError: If `take` has negative or fractional entries.
    """
    wanted = np.asarray(take, dtype=np.float64)
    if wanted.ndim != 1 or (wanted < 0).any() or (wanted != np.rint(wanted)).any():
        raise InputError(
            "Rows to take per cluster must be whole numbers, 0 or more: round the plan first."
        )
    need = wanted.astype(np.int64)
    k = need.size
    threshold = np.full(k, TAKE_NONE, dtype=np.int64)
    tie = np.full(k, TIE_ALL, dtype=np.int64)
    kept = np.zeros(k, dtype=np.int64)
    above = np.zeros(k, dtype=np.int64)
    inside = np.zeros(k, dtype=np.int64)
    low = np.full(k, -KEY_LIMIT, dtype=np.int64)
    high = np.full(k, KEY_LIMIT, dtype=np.int64)
    on_tie = np.zeros(k, dtype=bool)
    active = need > 0
    if rows is not None and 0 < np.asarray(rows)[active].sum() <= candidates:
        state = Refinement(active, on_tie, low, high, _width(low, high, 1), threshold)
        held = fetch(state, candidates)
        if held is not None:
            return replace(thresholds_of_arrays(*held, wanted, candidates=candidates), passes=1)
    passes = 0
    bins = 1  # the first pass learns rows, smallest and largest key of every cluster
    while active.any() and passes < MAX_PASSES:
        width = _width(low, high, bins)
        state = Refinement(active.copy(), on_tie.copy(), low.copy(), high.copy(), width, threshold)
        if passes and inside[active].sum() <= candidates:
            found_rows = fetch(state, candidates)
            if found_rows is None:
                raise InputError(
                    "The assignments had other rows in the second pass over them than in the "
                    "first: run again on tables that stand still."
                )
            _finish(found_rows, need, above, active, on_tie, threshold, tie, kept)
            passes += 1
            active[:] = False
            break
        found = count(state)
        first = passes == 0
        passes += 1
        cluster, at, before, total = _bins_of_rank(found, need - above)
        all_taken = total <= need[cluster] if first else np.zeros(cluster.size, dtype=bool)
        inside[cluster], low[cluster], high[cluster] = found.rows[at], found.low[at], found.high[at]
        above[cluster] += before
        # Either the whole bin is taken, and its smallest value is the threshold; or all its
        # values are equal, and the tie decides; or all ties are equal too, and nothing can.
        whole = ~all_taken & (above[cluster] + inside[cluster] == need[cluster])
        equal = ~all_taken & ~whole & (low[cluster] == high[cluster])
        hopeless = equal & on_tie[cluster]
        c = cluster[whole | hopeless]
        on = on_tie[c]
        tie[c[on]] = low[c[on]]
        threshold[c[~on]] = low[c[~on]]
        kept[c] = above[c] + inside[c]
        threshold[cluster[all_taken]] = TAKE_ALL
        kept[cluster[all_taken]] = total[all_taken]
        to_tie = cluster[equal & ~hopeless]
        threshold[to_tie], on_tie[to_tie] = low[to_tie], True
        low[to_tie], high[to_tie] = 0, HASH_RANGE - 1
        active[:] = False  # clusters without rows keep TAKE_NONE
        active[cluster[~(all_taken | whole | hopeless)]] = True
        bins = int(np.clip(cells // max(1, int(active.sum())), 4, BINS))
    excess = int(np.maximum(kept - need, 0).sum())
    if excess:
        log.warning("thresholds excess=%d rows share key and tie; ids are not unique?", excess)
    log.debug("thresholds clusters=%d passes=%d kept=%d", k, passes, int(kept.sum()))
    return Thresholds(threshold, tie, kept, passes)


def _width(low: IntArray, high: IntArray, bins: int) -> npt.NDArray[np.uint64]:
    span = high.view(np.uint64) - low.view(np.uint64)
    return np.asarray(span // np.uint64(bins) + np.uint64(1))


def _bins_of_rank(
    found: Histogram, rank: IntArray
) -> tuple[IntArray, npt.NDArray[np.intp], IntArray, IntArray]:
    """Find, in each cluster of a histogram, the bin that holds the rank-th largest value.

    Args:
        found: The histogram.
        rank: Wanted rank per cluster id, 1 or more, shape (K,).

    Returns:
        Cluster ids (m,), position of the bin in `found` (the lowest one where a cluster has fewer
        rows than its rank), rows in the bins above it, and rows of the cluster.
    """
    order = np.lexsort((-found.bin, found.cluster))
    cluster, rows = found.cluster[order], found.rows[order]
    starts = np.flatnonzero(np.diff(cluster, prepend=-1))
    ends = np.append(starts[1:], cluster.size)
    until = np.cumsum(rows)
    base = until[starts] - rows[starts]
    from_top = until - np.repeat(base, ends - starts)
    short = from_top < rank[cluster]
    # Bins that lie wholly above the wanted rank come first in each cluster.
    skipped = np.add.reduceat(short.astype(np.int64), starts) if starts.size else starts
    at = np.minimum(starts + skipped, ends - 1)
    return cluster[starts], order[at], from_top[at] - rows[at], from_top[ends - 1]


def _finish(
    rows: tuple[IntArray, IntArray, IntArray],
    need: IntArray,
    above: IntArray,
    active: npt.NDArray[np.bool_],
    on_tie: npt.NDArray[np.bool_],
    threshold: IntArray,
    tie: IntArray,
    kept: IntArray,
) -> None:
    """Decide the open clusters from their candidate rows, fetched and sorted (in place)."""
    cluster, keys, ties = rows
    order = np.lexsort((-ties, -keys, cluster))
    cluster, keys, ties = cluster[order], keys[order], ties[order]
    start = np.searchsorted(cluster, np.arange(need.size), side="left")
    for c in np.flatnonzero(active):
        last = start[c] + need[c] - above[c] - 1  # the last row that is kept
        threshold[c], tie[c] = keys[last], ties[last]
        end = np.searchsorted(cluster, c, side="right")
        tail = slice(last + 1, end)
        same = int(((keys[tail] == keys[last]) & (ties[tail] == ties[last])).sum())
        if not on_tie[c] and same == 0 and (last + 1 == end or keys[last + 1] != keys[last]):
            tie[c] = TIE_ALL  # nothing left out shares the key: a plain threshold
        kept[c] = need[c] + same


def thresholds_of_arrays(
    cluster: npt.ArrayLike,
    keys: npt.ArrayLike,
    ties: npt.ArrayLike,
    take: npt.ArrayLike,
    *,
    chunk: int = 1 << 20,
    candidates: int = CANDIDATES,
) -> Thresholds:
    """Find exact thresholds for rows held in arrays, each of shape (n,)."""
    c = np.asarray(cluster, dtype=np.int64)
    k = np.asarray(keys, dtype=np.int64)
    t = np.asarray(ties, dtype=np.int64)
    cuts = [slice(i, i + chunk) for i in range(0, max(1, c.size), chunk)]

    def count(state: Refinement) -> Histogram:
        return merge(state.count(c[s], k[s], t[s]) for s in cuts)

    def fetch(state: Refinement, limit: int) -> tuple[IntArray, IntArray, IntArray]:
        at = np.concatenate([state.candidates(c[s], k[s], t[s])[0] + s.start for s in cuts])
        return c[at], k[at], t[at]

    return find_thresholds(take, count, fetch, candidates=candidates)
