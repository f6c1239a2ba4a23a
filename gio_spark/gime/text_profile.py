"""Profile "text" for texts and embeddings: metrics of ids, clusters, vectors, times and sources.

Definitions are our own where OIT leaves them open (docs/gime.md says which); each value has its
unit and direction. "robust" is the form to select by, "literal" is OIT's own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gio_spark.gime import divergences
from gio_spark.gime.accumulators import (
    CLASSES,
    CLUSTER_COUNTS,
    DELAY,
    DISTANCE,
    PROBES,
    QUALITY,
    TIME,
    VECTORS,
    VOLUME,
    distinct_of,
)
from gio_spark.gime.distinct_sketch import count_distinct
from gio_spark.gime.mergeable_sums import GRID, on_grid, total
from gio_spark.gime.metric_profile import Constants, Metric, Profile, Value, register_entry
from gio_spark.gime.row_batch import Column, Rows
from gio_spark.gime.shared_values import (
    NO_CLUSTERS,
    NO_TARGET,
    States,
    absent,
    counted,
    delay,
    disagreement,
    duration,
    sampling_rate,
)
from gio_spark.kernels import nearest, row_squares

NO_VECTORS = "needs vectors, and these rows carry none"


def prepare(rows: Rows, constants: Constants) -> Rows:
    """Add the nearest cluster and the unit vectors, if the batch has vectors."""
    if "vector" not in rows:
        return rows
    column = rows["vector"]
    squares = row_squares(column.values)
    valid = column.valid & np.isfinite(squares)
    values = column.values
    if not np.isfinite(squares).all():
        values = np.where(np.isfinite(squares)[:, None], values, np.float32(0))
        squares = np.where(np.isfinite(squares), squares, 0.0)
    unit = on_grid(values, squares)
    # Only the unit vectors are read after this: the raw ones need not be sorted by group.
    rows = rows.with_columns(unit=Column(unit, valid & (squares > 0)), vector=Column(valid, valid))
    codebook = constants.get("codebook")
    if "cluster" in rows or not isinstance(codebook, np.ndarray):
        return rows
    cluster = np.zeros(rows.count, np.int64)
    distance = np.zeros(rows.count, np.float64)
    if valid.any():
        cluster[valid], distance[valid] = nearest(Column(values, valid).valid_values(), codebook)
    return rows.with_columns(cluster=Column(cluster, valid), distance=Column(distance, valid))


def volume(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Tokens (robust); stored bytes or rows (literal: the measure of the stored set)."""
    state = states["volume"]
    rows, tokens = state.number("rows"), state.number("tokens")
    missing = rows - state.number("token_rows")
    if missing == rows:
        yield Value("robust", rows, "rows", "more", nulls=missing, caveat="no token counts: rows")
    else:
        yield Value("robust", tokens, "tokens", "more", nulls=missing)
    if state.number("bytes"):
        yield Value("literal", state.number("bytes"), "bytes", "more")
    else:
        yield Value("literal", rows, "rows", "more", caveat="no stored sizes: rows counted")
    yield Value("rows", rows, "rows", "more")
    if "cells" in states and states["cells"]["cells"].size:
        counts = states["cells"]["cells"][1]
        bits = int(counts.sum()) * divergences.entropy_bits(counts)
        yield Value("bits", bits, "bits", "more", nulls=states["cells"].number("nulls"))
    if "content" in states:
        count, error = count_distinct(states["content"]["distinct"])
        yield Value("distinct", count, "rows", "more", error, states["content"].number("nulls"))


def scope(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Share of occupied clusters (robust); their number (literal); distinct sources."""
    if "cells" not in states:
        reason = NO_CLUSTERS
        yield absent("robust", "share", "more", reason)
        yield absent("literal", "cells", "more", reason)
    else:
        state = states["cells"]
        occupied, clusters = state["cells"].shape[1], state.number("clusters")
        nulls = state.number("nulls")
        if clusters:
            yield Value("robust", occupied / clusters, "share", "more", 0.0, nulls)
        else:
            yield absent("robust", "share", "more", "the number of cells is not given", nulls)
        yield Value("literal", occupied, "cells", "more", 0.0, nulls)
    yield from counted(states, "sources", "sources", "sources")


def granularity(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean squared distance to the centroid (robust); mean tokens of a row (literal)."""
    if "distance" in states and states["distance"].number("known"):
        state = states["distance"]
        mean = total(state["total"]) / state.number("known")
        yield Value("robust", mean, "distance^2", "less", 0.0, state.number("nulls"))
    else:
        yield absent("robust", "distance^2", "less", "no distances to centroids")
    state = states["volume"]
    known = state.number("token_rows")
    nulls = state.number("rows") - known
    if known:
        mean = state.number("tokens") / known
        yield Value("literal", mean, "tokens/row", "less", 0.0, nulls)
    else:
        yield absent("literal", "tokens/row", "less", "no token counts", nulls)


def variety(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Effective number of clusters (robust); number of distinct classes (literal)."""
    if "cells" in states and states["cells"]["cells"].size:
        state = states["cells"]
        nulls = state.number("nulls")
        counts = state["cells"][1]
        yield Value("robust", divergences.effective_classes(counts), "classes", "more", 0.0, nulls)
        classes = states.get("classes")
        if classes is not None and classes["classes"].size:
            labeled_classes, nulls = classes["classes"], classes.number("nulls")
            yield Value("literal", labeled_classes.shape[1], "(cell, label)", "more", 0.0, nulls)
            labeled = divergences.effective_classes(labeled_classes[1])
            yield Value("labelled", labeled, "(cell, label)", "more", 0.0, nulls)
        else:
            yield Value("literal", counts.size, "cells", "more", 0.0, nulls)
    else:
        for form in ("robust", "literal"):
            yield absent(form, "classes", "more", NO_CLUSTERS)
    if "vectors" in states and states["vectors"].number("known") > 1:
        state = states["vectors"]
        _, covariance = divergences.moments(
            state.number("known"), state["low_sum"], state["low_gram"]
        )
        value = divergences.spectral_classes(covariance)
        note = _projection_note(constants)
        yield Value("spectral", value, "directions", "more", 0.0, state.number("nulls"), note)


def _projection_note(constants: Constants) -> str:
    basis = constants.get("basis")
    return "" if basis is None else f"of vectors projected to {len(basis)} directions"


def aggregation(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean pairwise cosine (robust); pairs in one cluster per row (literal: relations / states)."""
    vectors = states.get("vectors")
    if vectors is None:
        yield absent("robust", "cosine", "unknown", NO_VECTORS)
    elif vectors.number("known") < 2:
        yield absent("robust", "cosine", "unknown", "fewer than two rows", vectors.number("nulls"))
    else:
        value = divergences.mean_pairwise_cosine(
            vectors.number("known"), vectors["sum"], vectors.number("squares")
        )
        yield Value("robust", value, "cosine", "unknown", 0.0, vectors.number("nulls"))
    if "cells" in states and states["cells"]["cells"].size:
        counts = states["cells"]["cells"][1]
        n, pairs_in_cluster = int(counts.sum()), divergences.pairs(counts)
        nulls = states["cells"].number("nulls")
        yield Value("literal", pairs_in_cluster / n, "pairs/row", "unknown", 0.0, nulls)
        if n > 1:
            share = pairs_in_cluster / (n * (n - 1) // 2)
            yield Value("co_membership", share, "share", "unknown", 0.0, nulls)
    else:
        yield absent("literal", "pairs/row", "unknown", NO_CLUSTERS)


def coverage(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean best cosine of the target's probes (robust); copies per distinct row (literal)."""
    probes = states.get("probes")
    if probes is None:
        reason = NO_VECTORS if "vectors" not in states else NO_TARGET
        yield absent("robust", "cosine", "more", reason)
    elif int(probes["best"][0]) < -2 * GRID * GRID:
        yield absent("robust", "cosine", "more", "no row has a vector", probes.number("nulls"))
    else:
        best = probes["best"].astype(np.float64) / GRID**2
        nulls = probes.number("nulls")
        yield Value("robust", float(np.mean(best)), "cosine", "more", 0.0, nulls)
        tau = float(constants.get("tau", 0.8))
        above = float(np.mean(best >= tau))
        yield Value("above_tau", above, "share", "more", 0.0, nulls, f"cosine at least {tau:g}")
    if "content" in states:
        count, error = count_distinct(states["content"]["distinct"])
        nulls = states["content"].number("nulls")
        known = states["volume"].number("rows") - nulls
        if count:
            copies = known / count
            yield Value("literal", copies, "copies/row", "more", error, nulls, "rewards duplicates")
        else:
            yield absent("literal", "copies/row", "more", "no content keys", nulls)
    else:
        yield absent("literal", "copies/row", "more", "no content keys")
    if target is not None and "cells" in states and "cells" in target:
        _, nulls = states["cells"]["cells"], states["cells"].number("nulls")
        shares, target_shares = divergences.aligned(
            states["cells"]["cells"], target["cells"]["cells"]
        )
        reached_mass = float(np.sum(target_shares[shares > 0]))
        yield Value("cells", reached_mass, "share of target", "more", 0.0, nulls)


def distortion(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """1 - mean quality (robust); mean distance to the centroid (literal: true to restored)."""
    state = states["volume"]
    if "quality" in states and states["quality"].number("known"):
        quality = states["quality"]
        mean = total(quality["total"]) / quality.number("known")
        yield Value("robust", 1.0 - mean, "share", "less", 0.0, quality.number("nulls"))
    else:
        yield absent("robust", "share", "less", "no quality given", state.number("rows"))
    if "distance" in states and states["distance"].number("known"):
        distance = states["distance"]
        mean = total(distance["transformed"]) / distance.number("known")
        yield Value("literal", mean, "distance", "less", 0.0, distance.number("nulls"))
    else:
        yield absent("literal", "distance", "less", "no distances to centroids")
    rows = state.number("rows")
    unusable = state.number("unusable")
    if "cells" in states:
        unusable = max(unusable, states["cells"].number("nulls"))
    yield Value("unusable", unusable / rows, "share", "less")
    yield from disagreement(states)


def mismatch(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Jensen-Shannon divergence of the clusters (robust); distance of mean vectors (literal)."""
    target = target or {}
    reason = "" if target else NO_TARGET
    clusters, target_clusters = states.get("cells"), target.get("cells")
    if (
        clusters is None
        or target_clusters is None
        or not clusters["cells"].size
        or not target_clusters["cells"].size
    ):
        yield absent("robust", "bits", "less", reason or NO_CLUSTERS)
    else:
        nulls = clusters.number("nulls")
        value = divergences.jensen_shannon_bits(clusters["cells"], target_clusters["cells"])
        yield Value("robust", value, "bits", "less", 0.0, nulls)
        value = divergences.total_variation(clusters["cells"], target_clusters["cells"])
        yield Value("total_variation", value, "share", "less", 0.0, nulls)
    vectors, target_vectors = states.get("vectors"), target.get("vectors")
    if (
        vectors is None
        or target_vectors is None
        or not vectors.number("known")
        or not target_vectors.number("known")
    ):
        yield absent("literal", "distance", "less", reason or NO_VECTORS)
        return
    n, m, nulls = vectors.number("known"), target_vectors.number("known"), vectors.number("nulls")
    gap = vectors["sum"] / (n * GRID) - target_vectors["sum"] / (m * GRID)
    yield Value("literal", float(np.sqrt(np.sum(gap * gap))), "distance", "less", 0.0, nulls)
    value = divergences.frechet(
        divergences.moments(n, vectors["low_sum"], vectors["low_gram"]),
        divergences.moments(m, target_vectors["low_sum"], target_vectors["low_gram"]),
    )
    note = _projection_note(constants)
    yield Value("frechet", value, "distance^2", "less", 0.0, nulls, note)


TEXT = register_entry(
    "text",
    Profile(
        name="text",
        roles={
            "cluster": "whole",
            "distance": "real",
            "vector": "vector",
            "tokens": "whole",
            "bytes": "whole",
            "source": "key",
            "label": "key",
            "content": "key",
            "reason": "key",
            "quality": "real",
            "event_time": "time",
            "ingest_time": "time",
        },
        accumulators=(
            VOLUME,
            distinct_of("content", "content"),
            DELAY,
            TIME,
            CLUSTER_COUNTS,
            CLASSES,
            DISTANCE,
            distinct_of("source", "sources"),
            QUALITY,
            VECTORS,
            PROBES,
        ),
        metrics=(
            Metric("volume", ("volume", "cells", "content"), volume),
            Metric("delay", ("volume", "delay"), delay),
            Metric("scope", ("cells", "sources"), scope),
            Metric("granularity", ("volume", "distance"), granularity),
            Metric("variety", ("cells", "classes", "vectors"), variety),
            Metric("duration", ("volume", "time"), duration),
            Metric("sampling_rate", ("volume", "time"), sampling_rate),
            Metric("aggregation", ("vectors", "cells"), aggregation),
            Metric("coverage", ("volume", "content", "cells", "probes", "vectors"), coverage),
            Metric("distortion", ("volume", "quality", "distance", "cells", "classes"), distortion),
            Metric("mismatch", ("cells", "vectors"), mismatch),
        ),
        prepare=prepare,
    ),
)
