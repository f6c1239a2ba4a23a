"""Thresholds that select exact counts per cluster, by refining histograms instead of sorting rows.

The threshold of a cluster is the key of rank `take`. It lies in an interval that is divided into
bins. One pass over the rows counts the rows of each bin and takes the smallest and largest key of
each bin; the bin that contains the requested rank becomes the next interval. Counts, minima and
maxima merge by sum, min and max, so a pass is a map and a small aggregation and does not depend on
the partitioning. Because the next interval ends at keys that occur, equal keys end the search at
once. When few candidates are left they are fetched and sorted.

Rows of equal key are ordered by their tie, a second hash, which is refined in the same way.
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
MAX_HISTOGRAM_ENTRIES = 400_000
"""Most (cluster, bin) entries that a pass collects on the driver: about 16 MB."""
CANDIDATES = 200_000
"""Most undecided rows that are fetched and sorted instead of refined further."""
MAX_PASSES = 24


@dataclass(frozen=True)
class Histogram:
    """Histogram of one pass: one entry per non-empty (cluster, bin), in any order; int64 (n,)."""

    cluster: IntArray
    bin: IntArray
    rows: IntArray
    low: IntArray
    high: IntArray


@dataclass(frozen=True)
class Refinement:
    """State of the search that a pass over the rows reads; one entry per cluster, shape (K,).

    Attributes:
        active: Whether the threshold of the cluster is still undecided.
        on_tie: Whether the tie is refined; then only rows whose key is `threshold` count.
        low, high: Closed interval that contains the threshold (or the tie).
        width: Width of a bin, uint64.
        threshold: Key threshold; defined where `on_tie`.
    """

    active: npt.NDArray[np.bool_]
    on_tie: npt.NDArray[np.bool_]
    low: IntArray
    high: IntArray
    width: npt.NDArray[np.uint64]
    threshold: IntArray

    def arrays(self) -> dict[str, np.ndarray]:
        """Fields as plain arrays, for a broadcast to workers."""
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
        """Positions of the rows inside the interval of their cluster, and their keys or ties."""
        value = np.where(self.on_tie[cluster], ties, keys)
        inside = self.active[cluster]
        inside &= (value >= self.low[cluster]) & (value <= self.high[cluster])
        inside &= ~self.on_tie[cluster] | (keys == self.threshold[cluster])
        positions = np.flatnonzero(inside)
        return positions, value[positions]

    def count(self, cluster: IntArray, keys: IntArray, ties: IntArray) -> Histogram:
        """Histogram of one batch of rows; each array has shape (n,)."""
        positions, value = self.candidates(cluster, keys, ties)
        cluster_of_row = cluster[positions]
        # Differences of int64 wrap correctly in uint64, whatever the sign of the two.
        offset = value.view(np.uint64) - self.low[cluster_of_row].view(np.uint64)
        return _group_by_bin(
            cluster_of_row,
            (offset // self.width[cluster_of_row]).astype(np.int64),
            None,
            value,
            value,
        )


def merge_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Sum of histograms of disjoint rows."""
    parts = list(histograms)
    if not parts:
        empty = np.empty(0, dtype=np.int64)
        return Histogram(empty, empty, empty, empty, empty)
    concatenated = [
        np.concatenate([getattr(p, f) for p in parts]) for f in Histogram.__annotations__
    ]
    return _group_by_bin(*concatenated)


def _group_by_bin(
    cluster: IntArray, bins: IntArray, rows: IntArray | None, low: IntArray, high: IntArray
) -> Histogram:
    if cluster.size == 0:
        empty = np.empty(0, dtype=np.int64)
        return Histogram(empty, empty, empty, empty, empty)
    bin_codes = cluster * (1 << 20) + bins
    order = np.argsort(bin_codes, kind="stable")
    bin_codes = bin_codes[order]
    group_starts = np.flatnonzero(np.concatenate(([True], bin_codes[1:] != bin_codes[:-1])))
    row_counts = (
        np.diff(np.append(group_starts, bin_codes.size))
        if rows is None
        else np.add.reduceat(rows[order], group_starts)
    )
    return Histogram(
        cluster=bin_codes[group_starts] >> 20,
        bin=bin_codes[group_starts] & ((1 << 20) - 1),
        rows=np.asarray(row_counts, dtype=np.int64),
        low=np.minimum.reduceat(low[order], group_starts),
        high=np.maximum.reduceat(high[order], group_starts),
    )


@dataclass(frozen=True)
class Thresholds:
    """Thresholds per cluster.

    A row of cluster c is selected if its key is above `threshold[c]`, or if its key equals
    `threshold[c]` and its tie is at least `tie[c]`.

    Attributes:
        threshold: int64 (K,).
        tie: int64 (K,).
        selected_rows: Rows that the rule selects, int64 (K,): `take`, or all rows of a cluster
            that has fewer.
        passes: Number of passes over the rows, including the last fetch.
    """

    threshold: IntArray
    tie: IntArray
    selected_rows: IntArray
    passes: int


def find_thresholds(
    take: npt.ArrayLike,
    count: Callable[[Refinement], Histogram],
    fetch: Callable[[Refinement, int], tuple[IntArray, IntArray, IntArray] | None],
    *,
    rows: npt.ArrayLike | None = None,
    candidates: int = CANDIDATES,
    max_entries: int = MAX_HISTOGRAM_ENTRIES,
) -> Thresholds:
    """Thresholds that select exactly `take[c]` rows of each cluster c.

    Args:
        take: Allocation, whole rows per cluster, shape (K,), indexed by cluster id.
        count: One pass over all rows that gives the merged histogram of a refinement.
        fetch: One pass over all rows that gives cluster, key and tie of the rows inside the open
            intervals, or None if there are more of them than its second argument.
        rows: Rows per cluster, shape (K,), if known: rows that are few enough are fetched without
            a counting pass first. This changes the number of passes only.
        candidates: Most undecided rows that are fetched instead of refined further.
        max_entries: Most (cluster, bin) entries that a pass may return.

    Returns:
        Thresholds; a cluster with at most `take` rows is selected entirely.

    Raises:
        InputError: If `take` has negative or fractional entries.
    """
    requested = np.asarray(take, dtype=np.float64)
    if requested.ndim != 1 or (requested < 0).any() or (requested != np.rint(requested)).any():
        raise InputError(
            "Rows to take per cluster must be whole numbers, 0 or more: round the plan first."
        )
    required = requested.astype(np.int64)
    cluster_count = required.size
    threshold = np.full(cluster_count, TAKE_NONE, dtype=np.int64)
    tie = np.full(cluster_count, TIE_ALL, dtype=np.int64)
    selected_rows = np.zeros(cluster_count, dtype=np.int64)
    decided_above = np.zeros(cluster_count, dtype=np.int64)
    undecided = np.zeros(cluster_count, dtype=np.int64)
    low = np.full(cluster_count, -KEY_LIMIT, dtype=np.int64)
    high = np.full(cluster_count, KEY_LIMIT, dtype=np.int64)
    on_tie = np.zeros(cluster_count, dtype=bool)
    active = required > 0
    if rows is not None and 0 < np.asarray(rows)[active].sum() <= candidates:
        state = Refinement(active, on_tie, low, high, _width(low, high, 1), threshold)
        few_rows = fetch(state, candidates)
        if few_rows is not None:
            return replace(
                thresholds_of_arrays(*few_rows, requested, candidates=candidates), passes=1
            )
    passes = 0
    bins = 1  # the first pass counts rows, with the smallest and largest key of every cluster
    while active.any() and passes < MAX_PASSES:
        width = _width(low, high, bins)
        state = Refinement(active.copy(), on_tie.copy(), low.copy(), high.copy(), width, threshold)
        if passes and undecided[active].sum() <= candidates:
            candidate_rows = fetch(state, candidates)
            if candidate_rows is None:
                raise InputError(
                    "The assignments had other rows in the second pass over them than in the "
                    "first: run again on tables that stand still."
                )
            _decide_by_sorting(
                candidate_rows,
                required,
                decided_above,
                active,
                on_tie,
                threshold,
                tie,
                selected_rows,
            )
            passes += 1
            active[:] = False
            break
        histogram = count(state)
        is_first_pass = passes == 0
        passes += 1
        cluster, entry, rows_above, total = _bins_at_rank(histogram, required - decided_above)
        all_taken = (
            total <= required[cluster] if is_first_pass else np.zeros(cluster.size, dtype=bool)
        )
        undecided[cluster], low[cluster], high[cluster] = (
            histogram.rows[entry],
            histogram.low[entry],
            histogram.high[entry],
        )
        decided_above[cluster] += rows_above
        # If the bin is taken entirely, its smallest value is the threshold. If all its values are
        # equal, the tie decides. If all ties are equal as well, the rows cannot be separated.
        bin_taken = ~all_taken & (decided_above[cluster] + undecided[cluster] == required[cluster])
        single_value = ~all_taken & ~bin_taken & (low[cluster] == high[cluster])
        undecidable = single_value & on_tie[cluster]
        decided = cluster[bin_taken | undecidable]
        by_tie = on_tie[decided]
        tie[decided[by_tie]] = low[decided[by_tie]]
        threshold[decided[~by_tie]] = low[decided[~by_tie]]
        selected_rows[decided] = decided_above[decided] + undecided[decided]
        threshold[cluster[all_taken]] = TAKE_ALL
        selected_rows[cluster[all_taken]] = total[all_taken]
        tie_clusters = cluster[single_value & ~undecidable]
        threshold[tie_clusters], on_tie[tie_clusters] = low[tie_clusters], True
        low[tie_clusters], high[tie_clusters] = 0, HASH_RANGE - 1
        active[:] = False  # clusters without rows keep TAKE_NONE
        active[cluster[~(all_taken | bin_taken | undecidable)]] = True
        bins = int(np.clip(max_entries // max(1, int(active.sum())), 4, BINS))
    excess = int(np.maximum(selected_rows - required, 0).sum())
    if excess:
        log.warning("thresholds excess=%d rows share key and tie; ids are not unique?", excess)
    log.debug(
        "thresholds clusters=%d passes=%d kept=%d", cluster_count, passes, int(selected_rows.sum())
    )
    return Thresholds(threshold, tie, selected_rows, passes)


def _width(low: IntArray, high: IntArray, bins: int) -> npt.NDArray[np.uint64]:
    span = high.view(np.uint64) - low.view(np.uint64)
    return np.asarray(span // np.uint64(bins) + np.uint64(1))


def _bins_at_rank(
    histogram: Histogram, rank: IntArray
) -> tuple[IntArray, npt.NDArray[np.intp], IntArray, IntArray]:
    """Bin of the rank-th largest value in each cluster of a histogram.

    Args:
        histogram: Histogram of a pass.
        rank: Wanted rank per cluster id, 1 or more, shape (K,).

    Returns:
        Cluster ids (m,), entry of the bin in `histogram` (the lowest bin where a cluster has
        fewer rows than its rank), rows in the bins above it, and rows of the cluster.
    """
    order = np.lexsort((-histogram.bin, histogram.cluster))
    cluster, rows = histogram.cluster[order], histogram.rows[order]
    starts = np.flatnonzero(np.diff(cluster, prepend=-1))
    ends = np.append(starts[1:], cluster.size)
    cumulative = np.cumsum(rows)
    rows_before = cumulative[starts] - rows[starts]
    from_top = cumulative - np.repeat(rows_before, ends - starts)
    below_rank = from_top < rank[cluster]
    # Bins that lie entirely above the requested rank come first in each cluster.
    bins_above = np.add.reduceat(below_rank.astype(np.int64), starts) if starts.size else starts
    entry = np.minimum(starts + bins_above, ends - 1)
    return cluster[starts], order[entry], from_top[entry] - rows[entry], from_top[ends - 1]


def _decide_by_sorting(
    candidate_rows: tuple[IntArray, IntArray, IntArray],
    required: IntArray,
    decided_above: IntArray,
    active: npt.NDArray[np.bool_],
    on_tie: npt.NDArray[np.bool_],
    threshold: IntArray,
    tie: IntArray,
    selected_rows: IntArray,
) -> None:
    """Decide the open clusters by sorting their candidate rows; the arrays change in place."""
    cluster, keys, ties = candidate_rows
    order = np.lexsort((-ties, -keys, cluster))
    cluster, keys, ties = cluster[order], keys[order], ties[order]
    first_row = np.searchsorted(cluster, np.arange(required.size), side="left")
    for open_cluster in np.flatnonzero(active):
        last_selected = (
            first_row[open_cluster] + required[open_cluster] - decided_above[open_cluster] - 1
        )
        threshold[open_cluster], tie[open_cluster] = keys[last_selected], ties[last_selected]
        end = np.searchsorted(cluster, open_cluster, side="right")
        tail = slice(last_selected + 1, end)
        equal_rows = int(
            ((keys[tail] == keys[last_selected]) & (ties[tail] == ties[last_selected])).sum()
        )
        if (
            not on_tie[open_cluster]
            and equal_rows == 0
            and (last_selected + 1 == end or keys[last_selected + 1] != keys[last_selected])
        ):
            tie[open_cluster] = TIE_ALL  # no row that is left out shares the key: a plain threshold
        selected_rows[open_cluster] = required[open_cluster] + equal_rows


def thresholds_of_arrays(
    cluster: npt.ArrayLike,
    keys: npt.ArrayLike,
    ties: npt.ArrayLike,
    take: npt.ArrayLike,
    *,
    chunk: int = 1 << 20,
    candidates: int = CANDIDATES,
) -> Thresholds:
    """Exact thresholds of rows in arrays.

    Args:
        cluster: Cluster of each row, shape (n,).
        keys: Rank key of each row, int64 (n,).
        ties: Second hash of each row, int64 (n,).
        take: Allocation, whole rows per cluster, shape (K,).
        chunk: Rows that are counted at a time.
        candidates: Most undecided rows that are sorted instead of refined further.

    Raises:
        InputError: If `take` has negative or fractional entries.

    Example:
        >>> thresholds = thresholds_of_arrays([0, 0, 0, 1], [7, 9, 8, 5], [0, 0, 0, 0], [2, 0])
        >>> int(thresholds.threshold[0]), thresholds.selected_rows.tolist()
        (8, [2, 0])
    """
    cluster_array = np.asarray(cluster, dtype=np.int64)
    key_array = np.asarray(keys, dtype=np.int64)
    tie_array = np.asarray(ties, dtype=np.int64)
    slices = [slice(i, i + chunk) for i in range(0, max(1, cluster_array.size), chunk)]

    def count(state: Refinement) -> Histogram:
        return merge_histograms(
            state.count(cluster_array[part], key_array[part], tie_array[part]) for part in slices
        )

    def fetch(state: Refinement, limit: int) -> tuple[IntArray, IntArray, IntArray]:
        positions = np.concatenate(
            [
                state.candidates(cluster_array[part], key_array[part], tie_array[part])[0]
                + part.start
                for part in slices
            ]
        )
        return cluster_array[positions], key_array[positions], tie_array[positions]

    return find_thresholds(take, count, fetch, candidates=candidates)
