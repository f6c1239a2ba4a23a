"""Models and plan of a finished run, read from its workspace as a frozen plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark import embed
from gio_spark.explode.rank_keys import TAKE_NONE, TIE_ALL
from gio_spark.explode.row_filter import rank_salt, tie_salt
from gio_spark.kernels import group_centroids
from gio_spark.kernels.xxhash64 import hash53_of_texts
from gio_spark.pipeline.kmeans_checkpoints import fitted_state
from gio_spark.pipeline.stages.density_ratio import load_ratio
from gio_spark.pipeline.stages.frozen_models import check_embedder
from gio_spark.pipeline.stages.frozen_plan import Arrays, FrozenFacts, FrozenPlan
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.pipeline.stages.refresh_chain import Before
from gio_spark.tables.model_arrays import array_text, load_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.pipeline.run_records import RunSummary
    from gio_spark.pipeline.run_state import Plan


def read_frozen_plan(ctx: RunContext, base: RunSummary) -> FrozenPlan:
    """Models of a finished run with its plan, or that of its newest refresh.

    Raises:
        InputError: This process would embed otherwise.
    """
    ws, settings = ctx.workspace, base.carried_out(ctx.settings)
    before = Before.of(ws, base)
    refreshed = "" if before.summary is None else before.summary.keys.plan
    plan = load_plan(ws, refreshed or base.plan_key)
    embedder = embed.make_embedder(settings.embed, settings.pool_columns())
    check_embedder(embedder, base.embedder)
    if embedder.needs_fit:
        embedder = embedder.with_state(load_arrays(ws, base.keys.embed_fit))
    centroids = fitted_state(ws, base.keys.fit).centroids
    arrays: Arrays = {"centroids": centroids}
    if len(centroids) > settings.quantize.two_level_above:
        index = group_centroids(centroids)
        arrays |= {"coarse": index.group_centers, "cells": index.groups}
    if base.keys.ratio:
        ratio = load_ratio(ws, base.keys.ratio)
        arrays |= {f"ratio.{name}": array for name, array in ratio.arrays.items()}
    bounded_sources = settings.select.source_caps or settings.select.source_floors
    strata = load_arrays(ws, plan.key) if bounded_sources else {}
    sources = tuple(array_text(strata["names"])) if strata else ()
    arrays |= _threshold_arrays(plan, strata, clusters=len(centroids), sources=len(sources) or 1)
    gate = plan.facts.gate
    salts = (rank_salt(settings.seed), tie_salt(settings.seed))
    required = [] if gate is None else [row.id for row in gate.required_rows]
    arrays["required"] = hash53_of_texts(required, salts)
    facts = FrozenFacts(
        run=base.run,
        refresh=before.candidate.number if refreshed else 0,
        plan=plan.key,
        embedder=base.embedder,
        score_biases=() if gate is None else gate.score_biases,
        sources=sources,
    )
    return FrozenPlan(facts, settings, embedder, arrays)


def _threshold_arrays(
    plan: Plan, strata: Mapping[str, NDArray[Any]], *, clusters: int, sources: int
) -> Arrays:
    """Threshold and smallest tie per cluster and source; nothing is taken where there is none."""
    threshold = np.full((clusters, sources), TAKE_NONE, np.int64)
    tie = np.full((clusters, sources), TIE_ALL, np.int64)
    if strata:
        filled = np.flatnonzero(strata["rows"] > 0)
        threshold.ravel()[filled] = strata["threshold"][filled]
        tie.ravel()[filled] = strata["tie"][filled]
    else:
        cluster = plan.table["cluster"].to_numpy(np.int64)
        threshold[cluster, 0] = plan.table["threshold"].to_numpy(np.int64)
        tie[cluster, 0] = plan.table["tie"].to_numpy(np.int64)
    return {"threshold": threshold, "tie": tie}
