"""Opening of a run: session, workspace and tracker, then its inputs, pinned and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gio_spark.engine import describe, run_concurrently, session
from gio_spark.engine.engine_errors import engine_errors
from gio_spark.engine.progress import Progress
from gio_spark.pipeline.run_context import RunContext, fingerprint
from gio_spark.pipeline.run_state import FittedEmbedder, Role, RunState, role_of
from gio_spark.pipeline.stages.embed import (
    embedder_identity,
    make_embedder,
    set_fitted_embedder,
)
from gio_spark.pipeline.stages.failure_cause import find_cause
from gio_spark.pipeline.stages.input_checks import (
    check_choices,
    check_dimensions,
    check_ids,
    check_own_columns,
    check_sizes,
    warn_of_unusual_roles,
)
from gio_spark.pipeline.stages.input_snapshots import pin_view
from gio_spark.pipeline.stages.purged_rows import leave_out_purged, marked_pin
from gio_spark.registry import load_modules
from gio_spark.settings.strategy_settings import DEFAULT_STRATEGY
from gio_spark.tables import Input, PinnedInput, Workspace, open_input, pin_input
from gio_spark.tables.output_folders import local_folder
from gio_spark.tables.purge_list import PurgeList
from gio_spark.tracking import NullTracker, TrackedInput, tracker

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from gio_spark.embed import Embedder
    from gio_spark.settings.inputs import InputSettings, Verify
    from gio_spark.settings.run import RunSettings

ALL_ROLES: tuple[Role, ...] = ("pool", "target", "held-out")

# Settings that change how a run is done, shown or recorded, not what it selects.
OUTSIDE = frozenset(
    {
        "tracking", "report", "engine", "workspace", "evaluate", "chunk_rows", "inputs", "name",
        "publish", "refresh", "retention", "concurrency", "modules",
    }
)  # fmt: skip
# How inputs are pinned says nothing of what was read; their versions do.
_PINNING: dict[str, Any] = {
    "pool": {"verify"},
    "target": {"__all__": {"verify"}},
    "held_out": {"__all__": {"verify"}},
}


def open_context(
    settings: RunSettings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    dry: bool = False,
    run: str = "",
) -> RunContext:
    """Find or start a session, and open workspace and tracker.

    Args:
        settings: Of the run.
        spark: Session; none: as `engine` says.
        progress: Where people see what is going on.
        dry: Whether nothing is to be written: no workspace is made and nothing is recorded.
        run: Id of the run, where it is known.

    Raises:
        GioSparkError: The engine, the workspace or the tracker's address cannot be used.
    """
    load_modules(settings.modules)
    spark = spark or session(settings.engine)
    progress = progress or Progress()
    progress.say(describe(spark).line())
    workspace = Workspace(spark, settings.workspace, writable=not dry)
    if dry:
        workspace.store.check_place()
    watch = tracker(settings.tracking, local_folder(workspace) / "tracking")
    watch.check()
    return RunContext(spark, settings, workspace, run, progress, NullTracker() if dry else watch)


@dataclass(frozen=True)
class PinnedInputs:
    """Versions that a run reads; they are determined without reading rows.

    Attributes:
        ctx: The run.
        inputs: Dataset -> its settings; a view is replaced by its snapshot.
        pins: Dataset -> version.
        embedder: Checked embedder.
        basis: Run whose codebook the run begins with, see `RunSummary`; empty for others.
    """

    ctx: RunContext
    inputs: dict[str, InputSettings]
    pins: dict[str, PinnedInput]
    embedder: Embedder
    basis: dict[str, str] = field(default_factory=dict)

    def of_roles(self, *roles: Role) -> PinnedInputs:
        """Only the inputs of these roles."""
        names = [name for name in self.inputs if role_of(name) in roles]
        return replace(
            self,
            inputs={name: self.inputs[name] for name in names},
            pins={name: self.pins[name] for name in names},
        )

    @property
    def run_id(self) -> str:
        """Id of the run: the same settings and versions again are the same run."""
        versions = {name: (pin.table_id, pin.version) for name, pin in self.pins.items()}
        embedder = json.dumps(embedder_identity(self.embedder))
        parts: list[Any] = [identity(self.ctx.settings), versions, embedder]
        if self.basis:
            parts.append(self.basis)
        return "run-" + fingerprint("run", *parts)[:12]

    def open(self) -> RunState:
        """Open every input at its pin, check columns and types, count rows.

        Raises:
            InputError: An input or the budget cannot be used; before any expensive work.
        """
        ctx = self.ctx
        spark, settings = ctx.spark, ctx.settings

        def opening(name: str, one: InputSettings) -> Callable[[], Input]:
            columns = one.columns or settings.columns
            return lambda: open_input(spark, one, columns, name, self.pins[name])

        openings = [opening(name, one) for name, one in self.inputs.items()]
        inputs = dict(zip(self.inputs, run_concurrently(spark, openings), strict=True))
        if "pool" in inputs:
            check_own_columns(inputs["pool"])
            # A refresh, which reads no target, may find fewer rows than the run's budget.
            if any(role_of(name) == "target" for name in inputs):
                check_sizes(settings, inputs["pool"])
        purged = PurgeList(ctx.workspace)
        if purged.exists:
            inputs = {name: leave_out_purged(ctx, purged, one) for name, one in inputs.items()}
        check_ids(settings, inputs)
        if settings.embed.name in ("auto", "vectors"):
            check_dimensions(inputs)
        for name, pin in self.pins.items():
            if pin.files is not None and pin.files.left_out:
                few = ", ".join(pin.files.left_out[:3])
                ctx.warn(
                    "files left out",
                    f"{name}: {len(pin.files.left_out):,} files are no {pin.format}: {few}.",
                    "Move them elsewhere, or set the format to what should be read.",
                )
        warn_of_unusual_roles(ctx, inputs)
        keys = {f"inputs.{name}": one.fingerprint() for name, one in inputs.items()}
        keys["embedder"] = fingerprint("embedder", embedder_identity(self.embedder))
        embedder = self.embedder
        if "pool" in inputs:
            embedder = embedder.with_columns(inputs["pool"].columns)
        state = RunState(inputs, embedder, keys, basis=self.basis)
        if not embedder.needs_fit:
            set_fitted_embedder(state, FittedEmbedder(embedder, ""))
        return state


def pin_inputs(
    ctx: RunContext,
    roles: Sequence[Role] = ALL_ROLES,
    *,
    verify: Mapping[str, Verify] | None = None,
) -> PinnedInputs:
    """Check settings and embedder, and pin the inputs of these roles.

    Args:
        ctx: The run.
        roles: Whose inputs.
        verify: Dataset -> method of pinning, where it is another than that of the settings.

    Raises:
        ConfigError: Settings contradict one another; before anything is read.
        InputError: An input is not there.
    """
    spark, settings = ctx.spark, ctx.settings
    check_choices(settings)
    embedder = make_embedder(ctx)
    named = {n: one for n, one in settings.datasets().items() if role_of(n) in roles}
    for name, method in (verify or {}).items():
        if name in named:
            named[name] = named[name].model_copy(update={"verify": method})
    inputs = {
        name: pin_view(spark, ctx.workspace, one, name, (one.columns or settings.columns).id)
        for name, one in named.items()
    }
    purged = PurgeList(ctx.workspace)
    pins = {
        name: marked_pin(purged, named[name].location, pin_input(spark, one, name))
        for name, one in inputs.items()
    }
    return PinnedInputs(ctx, inputs, pins, embedder)


def identity(settings: RunSettings) -> dict[str, Any]:
    """Settings that determine the selection of a run, as plain values."""
    outside = {**dict.fromkeys(OUTSIDE, True), **_PINNING}
    return requested(settings).model_dump(mode="json", exclude=outside)


def requested(settings: RunSettings) -> RunSettings:
    """Settings without what a run has chosen itself where the strategy is auto."""
    is_chosen = settings.select.strategy == "auto"
    return settings.with_strategy(DEFAULT_STRATEGY) if is_chosen else settings


@contextmanager
def opened_run(
    ctx: RunContext, pinned: PinnedInputs, tags: dict[str, str], *, name: str = ""
) -> Iterator[RunState]:
    """Open the inputs of a run, and record what is done with them as a tracked run.

    Args:
        ctx: The run.
        pinned: Its inputs.
        tags: Of the tracked run.
        name: Name of the tracked run; "": the run's id. `tracking.run_name` goes before it.
    """
    state = pinned.open()
    with engine_errors(), tracked(ctx, name, tags):
        ctx.tracker.params(ctx.settings.model_dump(mode="json"))
        ctx.tracker.inputs(
            TrackedInput(
                name=name,
                location=one.location,
                format=one.format,
                version=one.version,
                context=role_of(name),
            )
            for name, one in state.inputs.items()
        )
        try:
            yield state
        except Exception as error:
            ctx.workspace.flush()
            cause = find_cause(error, state.inputs, ctx.workspace)
            if cause is None:
                raise
            raise cause from error
        # Not on Ctrl-C: the records that are missing are those of a few short stages.
        ctx.workspace.flush()


@contextmanager
def tracked(ctx: RunContext, name: str, tags: dict[str, str]) -> Iterator[None]:
    """Record a block as a tracked run, and report at its end what could not be recorded.

    Args:
        ctx: The run.
        name: Name of the tracked run; see `opened_run`.
        tags: Its tags.

    Raises:
        TrackingError: It could not be recorded, and `tracking.on_error` is stop.
    """
    tracked_name = ctx.settings.tracking.run_name or name or ctx.run
    try:
        with ctx.tracker:
            ctx.tracker.start(tracked_name, {"gio.run": ctx.run, **tags})
            yield
    finally:
        outcome = ctx.tracker.end()  # closed already: how it went
        if outcome.problem:
            ctx.progress.say(f"tracking: {outcome.problem}")
