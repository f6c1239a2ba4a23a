"""Runner of a graph of stages: order, fingerprints, parallel stages (`RunContext.stage` skips one).

A stage says which names of a `RunState` it reads and which it sets. All else follows from that:

- the fingerprint: a hash of the stage's name, its settings and the fingerprints of its inputs;
- the order, and which stages a goal needs: `--until`, a refresh with the models of a run and an
  evaluation are other goals, or begin with more;
- which stages are complete before anything is run: the dry run;
- which queries may begin early: those whose inputs are there, while other stages write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gio_spark.engine import run_in_background, run_lazily, runs_queries_concurrently
from gio_spark.pipeline.run_context import MakeRows, RunContext, fingerprint
from gio_spark.pipeline.run_state import RunState
from gio_spark.tables import Chunk, Record, chunks_for

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.settings.run import RunSettings


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: What people, records and tracked runs call it.
        run: Does the work and sets the outputs. Not given for a query.
        query: Gives the one output and writes nothing, so that it may go on beside other stages
            (where an engine can do that) and is not made where no stage asks for it.
        inputs: Names of the state that it reads; their fingerprints are part of its own.
        reads: Further names that it reads, which its inputs decide already.
        outputs: Names of the state that it sets.
        settings: Paths of the settings that decide what it gives; `*` is each entry of a list.
        key_of_run: Its key is the run's id: it writes what belongs to this run alone.
        keyed_by_content: It sets the fingerprint of its output itself.
    """

    name: str
    run: Callable[[Step, RunState], None] | None = None
    query: Callable[[RunContext, RunState], Any] | None = None
    inputs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    key_of_run: bool = False
    keyed_by_content: bool = False

    def key(self, ctx: RunContext, keys: Mapping[str, str]) -> str | None:
        """Fingerprint of the output; None where that of an input is not known yet."""
        if any(name not in keys for name in self.inputs):
            return None
        if self.key_of_run:
            return ctx.run
        values = {path: setting(ctx.settings, path) for path in self.settings}
        return fingerprint(self.name, values, {name: keys[name] for name in self.inputs})


@dataclass(frozen=True)
class Step:
    """A running stage: its run, its key, and methods to write and record its rows."""

    ctx: RunContext
    stage: Stage
    key: str
    keys: Mapping[str, str]

    def record(
        self,
        make: MakeRows,
        *,
        table: str = "",
        rows: int | None = None,
        fitted_on: int | None = None,
        claim: bool = False,
    ) -> Record:
        """Do the work unless it is recorded as complete; see `RunContext.stage`."""
        return self.ctx.stage(
            self.stage.name, self.key, table, make, rows=rows, fitted_on=fitted_on, claim=claim
        )

    def key_with(self, name: str, key: str) -> str:
        """Key of the same stage on another input of that name."""
        return self.stage.key(self.ctx, {**self.keys, name: key}) or ""

    def write_small(self, table: str, rows: pa.Table) -> int:
        """Write a small table from the driver; gives its rows. See `Workspace.write_arrow`."""
        return self.ctx.write_small(table, rows, key=self.key, stage=self.stage.name)

    def write_rows(self, table: str, rows: DataFrame, *, expected: int | None = None) -> int:
        """Write rows of a stage table; gives their number. See `Workspace.write`."""
        return self.ctx.workspace.write(
            table, rows, fingerprint=self.key, run=self.ctx.run, stage=self.stage.name,
            expected=expected,
        )  # fmt: skip

    def write_chunks(
        self,
        progress: StageProgress,
        table: str,
        make: Callable[[Chunk], DataFrame],
        *,
        expected: int,
    ) -> int:
        """Write rows in chunks where they are many; gives their number.

        A stage that was killed goes on with its first chunk that is not complete. The number of
        chunks is no part of the key: the rows are the same.
        """
        return self.ctx.write_chunks(
            progress,
            table,
            make,
            count=chunks_for(expected, self.ctx.settings.chunk_rows),
            key=self.key,
            stage=self.stage.name,
            expected=expected,
        )


def setting(settings: RunSettings, path: str) -> Any:
    """Plain value of a setting: `quantize.clusters`, `target.*.share`, or a whole section."""
    value: Any = settings
    for number, part in enumerate(parts := path.split(".")):
        if part == "*":
            rest = ".".join(parts[number + 1 :])
            return [setting(one, rest) for one in value]
        value = getattr(value, part)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def stages_for(stages: Sequence[Stage], state: RunState, goals: Iterable[str]) -> list[Stage]:
    """Stages that the goals need beside the present outputs, in the order of the list."""
    makers = {name: stage for stage in stages for name in stage.outputs}
    needed: set[str] = set()
    missing = [name for name in goals if not state.has(name)]
    while missing:
        stage = makers[missing.pop()]
        if stage.name not in needed:
            needed.add(stage.name)
            missing += [n for n in (*stage.inputs, *stage.reads) if not state.has(n)]
    return [stage for stage in stages if stage.name in needed]


def derive_keys(
    ctx: RunContext, stages: Sequence[Stage], keys: Mapping[str, str]
) -> dict[str, str]:
    """Fingerprints of the outputs of stages, where those of their inputs are known."""
    derived = dict(keys)
    for stage in stages:
        key = stage.key(ctx, derived)
        if key is not None and not stage.keyed_by_content:
            for name in stage.outputs:
                derived.setdefault(name, key)
    return derived


def run_stages(
    ctx: RunContext, stages: Sequence[Stage], state: RunState, goals: Iterable[str]
) -> None:
    """Run the stages that the goals need, each as soon as its inputs are there.

    Args:
        ctx: The run.
        stages: The graph; where several stages are ready, the first of them is run.
        state: What is there; the stages set the rest.
        goals: Names of the state that must be there at the end.
    """
    pending = stages_for(stages, state, goals)
    while pending:
        keys = derive_keys(ctx, pending, state.keys)
        ready = [s for s in pending if all(state.has(n) for n in (*s.inputs, *s.reads))]
        if not ready:
            raise ValueError(f"no stage gives what {pending[0].name!r} reads")
        queries = [stage for stage in ready if stage.query is not None]
        for stage in queries or ready[:1]:
            if stage.query is not None:
                _begin_query(ctx, stage, state, early=_is_awaited(ctx, stage, pending, keys))
            else:
                _run_stage(ctx, stage, state, keys)
            pending.remove(stage)
            if not stage.keyed_by_content:
                state.keys |= {name: keys[name] for name in stage.outputs}


def _run_stage(ctx: RunContext, stage: Stage, state: RunState, keys: Mapping[str, str]) -> None:
    key = stage.key(ctx, keys)
    if stage.run is None or key is None:
        raise ValueError(f"stage {stage.name!r}: nothing to run, or an input without a key")
    stage.run(Step(ctx, stage, key, keys), state)


def _begin_query(ctx: RunContext, stage: Stage, state: RunState, *, early: bool) -> None:
    """Set the output of a query to a function that gives its result, now begun or not."""

    def work() -> Any:
        return stage.query(ctx, state) if stage.query else None

    begin = run_in_background if early and runs_queries_concurrently(ctx.spark) else run_lazily
    setattr(state, stage.outputs[0], begin(ctx.spark, work))


def _is_awaited(
    ctx: RunContext, query: Stage, pending: Sequence[Stage], keys: Mapping[str, str]
) -> bool:
    """Whether a stage that is not complete will ask for a query's result."""
    for stage in pending:
        if query.outputs[0] in (*stage.inputs, *stage.reads):
            key = stage.key(ctx, keys)
            if key is None or not ctx.recorded(stage.name, key):
                return True
    return False


@dataclass(frozen=True)
class PlannedStage:
    """A stage that a run would go through.

    Attributes:
        name: What people call it.
        complete: Whether it is complete already.
        note: What it has decided, where the stages after it depend on that.
    """

    name: str
    complete: bool
    note: str = ""


def planned_stages(
    ctx: RunContext, stages: Sequence[Stage], state: RunState, goals: Iterable[str]
) -> list[PlannedStage]:
    """Stages that write or fit on the way to the goals, determined before any of them runs.

    A stage after one whose outcome decides its fingerprint (a fit of the embedder that was not made
    yet) counts as not complete.
    """
    needed = stages_for(stages, state, goals)
    planned = []
    for stage in needed:
        if stage.run is None:
            continue
        keys = derive_keys(ctx, needed, state.keys)
        key = stage.key(ctx, keys)
        complete = key is not None and ctx.recorded(stage.name, key)
        if complete and stage.keyed_by_content:
            _run_stage(ctx, stage, state, keys)
        planned.append(PlannedStage(stage.name, complete))
    return planned
