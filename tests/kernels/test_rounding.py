"""Largest remainders: exact sums within bounds, by an independent slow version."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gio_spark.kernels.rounding import largest_remainders


def one_at_a_time(exact, total, low, high):
    """Give or take one at a time, always where the remainder is largest and a bound allows it."""
    bounded = zip(exact, low, high, strict=True)
    rounded = [int(min(max(np.floor(x + 1e-9), a), b)) for x, a, b in bounded]
    start = list(rounded)
    while sum(rounded) != total:
        sign = 1 if sum(rounded) < total else -1
        candidates = [
            (sign * (x - w), -i)
            for i, (x, w, a, b) in enumerate(zip(exact, rounded, low, high, strict=True))
            if (w < b if sign > 0 else w > a)
        ]
        # A round gives each at most one before any gets a second.
        least_moved = min((abs(rounded[-i] - start[-i]) for _, i in candidates), default=None)
        candidates = [(r, i) for r, i in candidates if abs(rounded[-i] - start[-i]) == least_moved]
        if not candidates:
            break
        rounded[-max(candidates)[1]] += sign
    return rounded


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=8),
    st.integers(0, 60),
    st.data(),
)
def test_rounding_agrees_with_one_at_a_time_within_bounds(exact, total, data):
    low = [data.draw(st.integers(0, 4)) for _ in exact]
    high = [a + data.draw(st.integers(0, 12)) for a in low]
    rounded = largest_remainders(np.array(exact), total, least=low, most=high)
    assert (rounded >= low).all() and (rounded <= high).all()
    assert rounded.sum() == min(max(total, sum(low)), sum(high))
    if np.abs(np.subtract(exact, rounded)).max() < 2:
        assert rounded.tolist() == one_at_a_time(exact, total, low, high)


def test_the_first_of_equal_remainders_counts_and_a_hair_below_a_whole_number_is_that_number():
    assert largest_remainders(np.array([0.5, 0.5, 1.0]), 2).tolist() == [1, 0, 1]
    assert largest_remainders(np.array([2 - 1e-12, 1.9]), 3).tolist() == [2, 1]
    assert largest_remainders(np.array([2 - 1e-12, 1.9]), 3, slack=0.0).tolist() == [2, 1]
    assert largest_remainders(np.array([5.0, 5.0]), 3, most=[1, 1]).tolist() == [1, 1]
