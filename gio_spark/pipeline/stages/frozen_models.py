"""Models and plan of a finished run, for a refresh: nothing is fitted again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T

from gio_spark.errors import InputError
from gio_spark.pipeline.kmeans_checkpoints import fitted_state
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_state import Codebook, FittedEmbedder, RunState
from gio_spark.pipeline.stages.density_ratio import load_ratio
from gio_spark.pipeline.stages.embed import set_fitted_embedder
from gio_spark.pipeline.stages.plan import load_plan
from gio_spark.tables.model_arrays import load_arrays
from gio_spark.tables.table_schema import is_widened

if TYPE_CHECKING:
    from gio_spark.embed import Embedder
    from gio_spark.pipeline.run_records import RunSummary
    from gio_spark.tables import Input


def set_frozen_embedder(ctx: RunContext, base: RunSummary, state: RunState) -> None:
    """Set the embedder as a run has fitted it.

    Raises:
        InputError: This process would embed otherwise.
    """
    embedder, keys = state.embedder, base.keys
    check_embedder(embedder, base.embedder)
    if embedder.needs_fit:
        embedder = embedder.with_state(load_arrays(ctx.workspace, keys.embed_fit))
    set_fitted_embedder(state, FittedEmbedder(embedder, keys.embed_fit))


def check_embedder(embedder: Embedder, recorded: tuple[str, str]) -> None:
    """Refuse an embedder that is not the one of a run.

    Raises:
        InputError: With both names and revisions.
    """
    if (embedder.name, embedder.revision) != recorded:
        raise InputError(
            f"The run embedded with {list(recorded)}, this process would embed with "
            f"{[embedder.name, embedder.revision]}: set embed.name and embed.revision to the "
            "run's, or run again."
        )


def set_codebook(ctx: RunContext, base: RunSummary, state: RunState, *, warm: bool = False) -> None:
    """Set a run's centroids as the codebook, or as the start of the fit of another one."""
    centroids = fitted_state(ctx.workspace, base.keys.fit).centroids
    if warm:
        state.warm_start, state.keys["warm_start"] = centroids, base.keys.fit
    else:
        state.codebook = Codebook(centroids, base.keys.fit)
        state.keys["codebook"] = base.keys.fit


def set_frozen_models(ctx: RunContext, base: RunSummary, state: RunState) -> None:
    """Set the fitted models and the plan of a run in the state, so that no stage fits others.

    Each stage stands on the rows that it made of the input's earlier version, so that only what
    changed is embedded, assigned and scored.

    Raises:
        InputError: This process would embed otherwise.
    """
    set_frozen_embedder(ctx, base, state)
    set_codebook(ctx, base, state)
    keys = base.keys
    if keys.ratio:
        state.ratio_model = load_ratio(ctx.workspace, keys.ratio)
        state.keys["ratio_model"] = keys.ratio
    state.frozen_plan = load_plan(ctx.workspace, base.plan_key)
    state.keys["frozen_plan"] = base.plan_key


def check_schema(pool: Input, earlier: dict[str, Any]) -> None:
    """Refuse a pool of which a column has another type than the selection that is refreshed.

    Columns may come, go, stand in another order and be widened.

    Raises:
        InputError: With the column and both types.
    """
    types = {f.name: f.dataType for f in T.StructType.fromJson(earlier).fields}
    for field in pool.schema.fields:
        before = types.get(field.name, field.dataType)
        if before != field.dataType and not is_widened(before, field.dataType):
            raise InputError(
                f"{pool.name}: column {field.name!r} of {pool.location} was "
                f"{before.simpleString()} and is {field.dataType.simpleString()} now. Cast it "
                "back, or run `gio-spark run`, which makes a selection of the new columns."
            ).about(location=pool.location, column=field.name)
