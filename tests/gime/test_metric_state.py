"""States: merging, bytes, refusals; sketches that repeat to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gio_spark.errors import ConfigError, InputError
from gio_spark.gime import Accumulator, Column, Constants, Metric, Profile, Rows, State, merge
from gio_spark.gime.accumulators import CLUSTER_COUNTS, DELAY, TIME, VECTORS, VOLUME, distinct_of
from gio_spark.gime.distinct_sketch import count_distinct, distinct, merge_distinct
from gio_spark.gime.mergeable_sums import on_grid
from gio_spark.gime.metric_profile import check_states

ACCUMULATORS = (VOLUME, TIME, DELAY, CLUSTER_COUNTS, VECTORS, distinct_of("content", "content"))
CONSTANTS = Constants({"clusters": 20, "sketch_log_size": 6, "dimension": 8})


def some_rows(n: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)

    def column(values):
        return Column(values, rng.random(n) > 0.1)

    return Rows(
        n,
        {
            "tokens": column(rng.integers(0, 99, n)),
            "event_time": column(rng.integers(0, 10**14, n)),
            "ingest_time": column(rng.integers(0, 10**14, n)),
            "cluster": column(rng.integers(0, 20, n)),
            "content": column(rng.integers(0, 200, n)),
            "unit": column(on_grid(rng.standard_normal((n, 8)))),
        },
    )


def states_of(rows: Rows) -> dict[str, State]:
    return {a.name: a.state(rows, CONSTANTS, "v1") for a in ACCUMULATORS}


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 300), st.integers(0, 10**6), st.integers(1, 6), st.randoms())
def test_any_cut_order_and_nesting_of_merges_gives_the_same_bytes(n, seed, cuts, random):
    rows = some_rows(n, seed)
    order = np.random.default_rng(seed + 1).permutation(n)
    at_once = states_of(rows)
    parts = [states_of(rows.take(i)) for i in np.array_split(order, cuts) if i.size]
    random.shuffle(parts)
    for one in ACCUMULATORS:
        pieces = [p[one.name] for p in parts]
        flat = merge(pieces, one.merges)
        nested = pieces[0]
        for piece in pieces[1:]:
            nested = merge([piece, nested], one.merges)
        expected = merge([at_once[one.name]], one.merges).to_bytes()
        assert flat.to_bytes() == nested.to_bytes() == expected, one.name


def test_states_survive_their_bytes():
    for state in states_of(some_rows(50, 0)).values():
        again = State.from_bytes(state.to_bytes())
        assert again.to_bytes() == state.to_bytes()
        assert again.merges == state.merges


def test_garbled_bytes_are_an_error():
    with pytest.raises(InputError, match="not a metric state"):
        State.from_bytes(b"\x05\x00\x00\x00hello")


def test_other_codebook_probes_or_version_refuse_to_merge():
    rows = some_rows(10, 0)
    version = CLUSTER_COUNTS.full_version(
        "text", Constants({"clusters": 20, "codebook_version": "a"})
    )
    other_version = CLUSTER_COUNTS.full_version(
        "text", Constants({"clusters": 20, "codebook_version": "b"})
    )
    first, second = (CLUSTER_COUNTS.state(rows, CONSTANTS, v) for v in (version, other_version))
    with pytest.raises(InputError, match="cannot merge"):
        merge([first, second])


def test_float_sums_are_refused():
    wrong = Accumulator("x", 1, lambda r, c: {"s": np.array([0.5])}, {"s": "sum"})
    with pytest.raises(InputError, match="must hold integers"):
        wrong.state(some_rows(3, 0), CONSTANTS, "v")


def test_a_custom_operator_merges_and_its_absence_is_named():
    one = Accumulator(
        "longest",
        1,
        lambda r, c: {"n": np.array([r.count])},
        {"n": lambda parts: np.max(np.stack(parts), axis=0)},
    )
    parts = [one.state(some_rows(n, 0), CONSTANTS, "v") for n in (3, 9, 5)]
    assert merge(parts, one.merges).number("n") == 9
    with pytest.raises(InputError, match="own merge operator"):
        merge(parts)


def test_a_profile_with_unknown_states_or_operators_is_refused():
    with pytest.raises(ConfigError, match="unknown states"):
        check_states(Profile("p1", {}, (VOLUME,), (Metric("m", ("nope",), lambda s, t, c: []),)))
    odd = Accumulator("odd", 1, lambda r, c: {}, {"f": "median"})
    with pytest.raises(ConfigError, match="unknown operators"):
        check_states(Profile("p2", {}, (odd,), ()))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 9), st.integers(0, 99))
def test_distinct_counts_repeat_under_any_cut(n, cuts, seed):
    values = np.random.default_rng(seed).integers(-(2**62), 2**62, n)
    at_once = distinct(values, 7)
    parts = [distinct(p, 7) for p in np.array_split(values[::-1], cuts) if p.size]
    assert merge_distinct(parts).tobytes() == merge_distinct([at_once]).tobytes()


def test_distinct_counts_are_exact_when_small_and_within_bounds_when_large():
    assert count_distinct(distinct(np.arange(100) % 40, 12)) == (40.0, 0.0)
    estimate, error = count_distinct(distinct(np.arange(100_000), 12))
    assert 0 < error < 0.04
    assert abs(estimate / 100_000 - 1) < error


def test_sketches_of_two_sizes_refuse_to_merge():
    with pytest.raises(InputError, match="sizes"):
        merge_distinct([distinct(np.arange(9), 6), distinct(np.arange(9), 7)])
