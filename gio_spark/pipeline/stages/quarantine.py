"""Stage quarantine: unusable rows of all inputs with their reason, and counts of usable rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.errors import InputError, TooManyBadRowsError
from gio_spark.pipeline.run_context import RunContext
from gio_spark.pipeline.run_state import Dataset, Datasets, RunState
from gio_spark.pipeline.stage_runner import Stage, Step
from gio_spark.tables import count_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

    from gio_spark.engine.progress import Stage as StageProgress
    from gio_spark.tables import Input

# Rows that are in quarantine because another row says the same are no sign of bad data.
HARMLESS = ("copy of another row",)

_CONTENT = ("text", "vector", "image")


def quarantine_stage(names: Sequence[str]) -> Stage:
    """Write unusable rows to quarantine, count the others, and check the length of vectors.

    Args:
        names: Of all inputs.
    """
    return Stage(
        "quarantine",
        _quarantine,
        inputs=tuple(f"embeddings.{name}" for name in names),
        reads=("fitted_embedder",),
        outputs=("datasets", "dimension"),
    )


def _quarantine(step: Step, state: RunState) -> None:
    """Set the datasets.

    Raises:
        TooManyBadRowsError: Their share of an input is above `quarantine.max_share`.
        InputError: An input has no usable row left, or vectors of different lengths.
    """
    ws = step.ctx.workspace
    embedded = {
        name: (state.inputs[name], state.keys[f"embeddings.{name}"]) for name in state.embeddings
    }

    def make(_: StageProgress) -> tuple[int, dict[str, Any]]:
        sources = [source for source, _ in embedded.values()]
        if all(s.bad is None for s in sources) and not any(
            count_values(ws, "embeddings", k, "reason") != 0 for _, k in embedded.values()
        ):
            return 0, {"counts": []}  # the log says that no row has a reason: nothing to look for
        frames: list[DataFrame] = []
        for name, (source, embeddings) in embedded.items():
            rows = ws.read("embeddings", embeddings).where(F.col("reason").isNotNull())
            frames.append(
                rows.select(
                    "id",
                    "reason",
                    F.lit(None).cast("string").alias("detail"),
                    F.lit(name).alias("side"),
                )
            )
            if source.bad is not None:
                frames.append(
                    source.bad.select("id", "reason", "detail", F.lit(name).alias("side"))
                )
        both = _joined(frames)
        counted = both.groupBy("side", "reason").count()
        counts = bounded(counted, 10_000, "reasons").to_pylist()
        total = sum(int(r["count"]) for r in counts)
        if total:
            step.write_rows("quarantine", both, expected=total)
        return total, {"counts": [[r["side"], r["reason"], r["count"]] for r in counts]}

    record = step.record(make, table="quarantine")
    datasets = {}
    for name, (source, embeddings) in embedded.items():
        bad = {reason: n for dataset, reason, n in record.detail["counts"] if dataset == name}
        unusable = sum(n for reason, n in bad.items() if _in_embeddings(reason))
        rows = state.embeddings[name]
        datasets[name] = Dataset(
            name, source, embeddings, rows - unusable, dict(sorted(bad.items()))
        )
        _judge(step.ctx, datasets[name], rows)
    state.datasets = Datasets.of(datasets)
    state.dimension = _dimension(step.ctx, state)


def _joined(frames: list[DataFrame]) -> DataFrame:
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return union


def _in_embeddings(reason: str) -> bool:
    return not reason.startswith(("malformed", "null id", "duplicate id", "copy of another row"))


def _judge(ctx: RunContext, dataset: Dataset, rows: int) -> None:
    """Stop where too many rows are unusable."""
    harmful = {r: n for r, n in dataset.bad.items() if not r.startswith(HARMLESS)}
    total = rows + sum(n for r, n in dataset.bad.items() if not _in_embeddings(r))
    bad = sum(harmful.values())
    reasons_text = ", ".join(
        f"{n:,} {r}" for r, n in sorted(harmful.items(), key=lambda x: -x[1])[:6]
    )
    where = ctx.workspace.place("quarantine")
    source = f"{dataset.source.location} ({content_columns(dataset.source)})"
    if dataset.usable == 0:
        raise InputError(
            f"{dataset.name}: none of the {total:,} rows of {source} can be used: {reasons_text}. "
            f"See {where}; name the column that holds the content, or mend the input."
        )
    if bad > ctx.settings.quarantine.max_share * total:
        raise TooManyBadRowsError(
            f"{dataset.name}: {bad:,} of {total:,} rows of {source} cannot be used: "
            f"{reasons_text}. That is above quarantine.max_share = "
            f"{ctx.settings.quarantine.max_share:g}. Look at {where}, mend the "
            "input, or allow a larger share."
        )


def content_columns(source: Input) -> str:
    """An input's content columns with their roles, for messages."""
    columns = source.settings_columns
    roles = {c: f"columns.{r}" for r, c in columns.named().items() if r in _CONTENT}
    return ", ".join(f"{roles.get(c, 'feature')} {c!r}" for c in columns.content())


def _dimension(ctx: RunContext, state: RunState) -> int:
    """Common length of the vectors of all datasets, from one vector of each.

    Raises:
        InputError: They differ.
    """
    embedder = state.fitted_embedder.embedder
    if embedder.knows_dimension:
        return embedder.dimension
    first = [
        ctx.workspace.read("embeddings", one.key)
        .where(F.col("reason").isNull())
        .limit(1)
        .select(F.lit(one.name).alias("side"), F.length("vector").alias("n"))
        for one in state.datasets
    ]
    rows = bounded(_joined(first), len(first), "one vector per input")
    lengths = {r["side"]: int(r["n"]) // 4 for r in rows.to_pylist()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"Vectors have different dimensions ({lengths}): pool and target must come from the "
            "same embedder."
        )
    return lengths["pool"]
