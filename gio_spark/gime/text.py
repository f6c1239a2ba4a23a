"""The text and embedding profile: eleven metrics over ids, cells, vectors, times and sources.

Definitions are ours where OIT leaves them free (docs/gime.md says which); each figure names its
unit and direction. "robust" is the form to select by, "literal" is OIT's own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gio_spark.gime import divergences
from gio_spark.gime.accumulators import (
    CELLS,
    CLASSES,
    DELAY,
    DISTANCE,
    PROBES,
    QUALITY,
    TIME,
    VECTORS,
    VOLUME,
    distinct_of,
)
from gio_spark.gime.exact import GRID, on_grid, total
from gio_spark.gime.profile import Constants, Metric, Profile, Value, register
from gio_spark.gime.rows import Column, Rows
from gio_spark.gime.shared_values import (
    NO_CELLS,
    NO_TARGET,
    States,
    absent,
    counted,
    delay,
    disagreement,
    duration,
    sampling_rate,
)
from gio_spark.gime.sketch import count_distinct
from gio_spark.kernels import nearest, row_squares

NO_VECTORS = "needs vectors, and these rows carry none"


def prepare(rows: Rows, constants: Constants) -> Rows:
    """Add the nearest cell and the unit vectors, where the batch carries vectors."""
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
    # From here on only the unit vectors are read: the raw ones need not be sorted by group.
    rows = rows.with_columns(unit=Column(unit, valid & (squares > 0)), vector=Column(valid, valid))
    codebook = constants.get("codebook")
    if "cluster" in rows or not isinstance(codebook, np.ndarray):
        return rows
    cluster = np.zeros(rows.count, np.int64)
    distance = np.zeros(rows.count, np.float64)
    if valid.any():
        cluster[valid], distance[valid] = nearest(Column(values, valid).kept(), codebook)
    return rows.with_columns(cluster=Column(cluster, valid), distance=Column(distance, valid))


def volume(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Tokens (robust); stored bytes or rows (literal: the measure of the stored set)."""
    held = states["volume"]
    rows, tokens = held.number("rows"), held.number("tokens")
    missing = rows - held.number("token_rows")
    if missing == rows:
        yield Value("robust", rows, "rows", "more", nulls=missing, caveat="no token counts: rows")
    else:
        yield Value("robust", tokens, "tokens", "more", nulls=missing)
    if held.number("bytes"):
        yield Value("literal", held.number("bytes"), "bytes", "more")
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
    """Share of occupied cells (robust); their number (literal); distinct sources."""
    if "cells" not in states:
        why = NO_CELLS
        yield absent("robust", "share", "more", why)
        yield absent("literal", "cells", "more", why)
    else:
        held = states["cells"]
        occupied, clusters = held["cells"].shape[1], held.number("clusters")
        nulls = held.number("nulls")
        if clusters:
            yield Value("robust", occupied / clusters, "share", "more", 0.0, nulls)
        else:
            yield absent("robust", "share", "more", "the number of cells is not given", nulls)
        yield Value("literal", occupied, "cells", "more", 0.0, nulls)
    yield from counted(states, "sources", "sources", "sources")


def granularity(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean squared distance to the centroid (robust); mean tokens of a row (literal)."""
    if "distance" in states and states["distance"].number("known"):
        held = states["distance"]
        mean = total(held["total"]) / held.number("known")
        yield Value("robust", mean, "distance^2", "less", 0.0, held.number("nulls"))
    else:
        yield absent("robust", "distance^2", "less", "no distances to centroids")
    held = states["volume"]
    known = held.number("token_rows")
    nulls = held.number("rows") - known
    if known:
        mean = held.number("tokens") / known
        yield Value("literal", mean, "tokens/row", "less", 0.0, nulls)
    else:
        yield absent("literal", "tokens/row", "less", "no token counts", nulls)


def variety(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Effective number of cells (robust); number of distinct classes (literal)."""
    if "cells" in states and states["cells"]["cells"].size:
        held = states["cells"]
        nulls = held.number("nulls")
        counts = held["cells"][1]
        yield Value("robust", divergences.effective_classes(counts), "classes", "more", 0.0, nulls)
        classes = states.get("classes")
        if classes is not None and classes["classes"].size:
            both, nulls = classes["classes"], classes.number("nulls")
            yield Value("literal", both.shape[1], "(cell, label)", "more", 0.0, nulls)
            labelled = divergences.effective_classes(both[1])
            yield Value("labelled", labelled, "(cell, label)", "more", 0.0, nulls)
        else:
            yield Value("literal", counts.size, "cells", "more", 0.0, nulls)
    else:
        for form in ("robust", "literal"):
            yield absent(form, "classes", "more", NO_CELLS)
    if "vectors" in states and states["vectors"].number("known") > 1:
        held = states["vectors"]
        _, covariance = divergences.moments(held.number("known"), held["low_sum"], held["low_gram"])
        value = divergences.spectral_classes(covariance)
        note = _projection_note(constants)
        yield Value("spectral", value, "directions", "more", 0.0, held.number("nulls"), note)


def _projection_note(constants: Constants) -> str:
    basis = constants.get("basis")
    return "" if basis is None else f"of vectors projected to {len(basis)} directions"


def aggregation(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean pairwise cosine (robust); pairs in one cell per row (literal: relations / states)."""
    held = states.get("vectors")
    if held is None:
        yield absent("robust", "cosine", "unknown", NO_VECTORS)
    elif held.number("known") < 2:
        yield absent("robust", "cosine", "unknown", "fewer than two rows", held.number("nulls"))
    else:
        value = divergences.mean_pairwise_cosine(
            held.number("known"), held["sum"], held.number("squares")
        )
        yield Value("robust", value, "cosine", "unknown", 0.0, held.number("nulls"))
    if "cells" in states and states["cells"]["cells"].size:
        counts = states["cells"]["cells"][1]
        n, together = int(counts.sum()), divergences.pairs(counts)
        nulls = states["cells"].number("nulls")
        yield Value("literal", together / n, "pairs/row", "unknown", 0.0, nulls)
        if n > 1:
            share = together / (n * (n - 1) // 2)
            yield Value("co_membership", share, "share", "unknown", 0.0, nulls)
    else:
        yield absent("literal", "pairs/row", "unknown", NO_CELLS)


def coverage(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Mean best cosine of the target's probes (robust); copies per distinct row (literal)."""
    held = states.get("probes")
    if held is None:
        why = NO_VECTORS if "vectors" not in states else NO_TARGET
        yield absent("robust", "cosine", "more", why)
    elif int(held["best"][0]) < -2 * GRID * GRID:
        yield absent("robust", "cosine", "more", "no row has a vector", held.number("nulls"))
    else:
        best = held["best"].astype(np.float64) / GRID**2
        nulls = held.number("nulls")
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
        mine, theirs = divergences.aligned(states["cells"]["cells"], target["cells"]["cells"])
        reached = float(np.sum(theirs[mine > 0]))
        yield Value("cells", reached, "share of target", "more", 0.0, nulls)


def distortion(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """1 - mean quality (robust); mean distance to the centroid (literal: true to restored)."""
    held = states["volume"]
    if "quality" in states and states["quality"].number("known"):
        quality = states["quality"]
        mean = total(quality["total"]) / quality.number("known")
        yield Value("robust", 1.0 - mean, "share", "less", 0.0, quality.number("nulls"))
    else:
        yield absent("robust", "share", "less", "no quality given", held.number("rows"))
    if "distance" in states and states["distance"].number("known"):
        away = states["distance"]
        mean = total(away["transformed"]) / away.number("known")
        yield Value("literal", mean, "distance", "less", 0.0, away.number("nulls"))
    else:
        yield absent("literal", "distance", "less", "no distances to centroids")
    rows = held.number("rows")
    unusable = held.number("unusable")
    if "cells" in states:
        unusable = max(unusable, states["cells"].number("nulls"))
    yield Value("unusable", unusable / rows, "share", "less")
    yield from disagreement(states)


def mismatch(states: States, target: States | None, constants: Constants) -> Iterable[Value]:
    """Jensen-Shannon divergence of the cells (robust); distance of mean vectors (literal)."""
    target = target or {}
    why = "" if target else NO_TARGET
    mine, theirs = states.get("cells"), target.get("cells")
    if mine is None or theirs is None or not mine["cells"].size or not theirs["cells"].size:
        yield absent("robust", "bits", "less", why or NO_CELLS)
    else:
        nulls = mine.number("nulls")
        value = divergences.jensen_shannon_bits(mine["cells"], theirs["cells"])
        yield Value("robust", value, "bits", "less", 0.0, nulls)
        value = divergences.total_variation(mine["cells"], theirs["cells"])
        yield Value("total_variation", value, "share", "less", 0.0, nulls)
    own, other = states.get("vectors"), target.get("vectors")
    if own is None or other is None or not own.number("known") or not other.number("known"):
        yield absent("literal", "distance", "less", why or NO_VECTORS)
        return
    n, m, nulls = own.number("known"), other.number("known"), own.number("nulls")
    gap = own["sum"] / (n * GRID) - other["sum"] / (m * GRID)
    yield Value("literal", float(np.sqrt(np.sum(gap * gap))), "distance", "less", 0.0, nulls)
    value = divergences.frechet(
        divergences.moments(n, own["low_sum"], own["low_gram"]),
        divergences.moments(m, other["low_sum"], other["low_gram"]),
    )
    note = _projection_note(constants)
    yield Value("frechet", value, "distance^2", "less", 0.0, nulls, note)


TEXT = register(
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
            CELLS,
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
    )
)
