"""First configuration for a user's own data, with a reason for every guess."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gio_spark.embed.registry import pick_embedder
from gio_spark.pipeline.commands.column_guesses import Guess, guess_columns, guess_target_columns
from gio_spark.pipeline.commands.sampled_input import SAMPLED_ROWS, SampledInput, sample_input
from gio_spark.quantize.cluster_count import auto_clusters
from gio_spark.settings.columns import Columns
from gio_spark.tables.identifiers import is_remote_path, kind_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Pools below this get a larger share, so that the selection is not too small to look at.
_FEW_ROWS = 500


def init_config(spark: SparkSession, pool: str, target: str, file: Path) -> str:
    """Configuration for a pool and a target, as YAML with comments.

    Args:
        spark: Session.
        pool: Path or table of the pool.
        target: Path or table of the target.
        file: Where the configuration will be; paths in it are relative to its folder.

    Raises:
        InputError: An input cannot be read, or no column of it can be the content.
    """
    pool_sample = sample_input(spark, pool, "pool")
    target_sample = sample_input(spark, target, "target")
    guesses = guess_columns(pool_sample, target_sample)
    own = guess_target_columns(guesses, pool_sample, target_sample)
    return _yaml(pool_sample, target_sample, guesses, own, file)


def _yaml(
    pool: SampledInput,
    target: SampledInput,
    guesses: Sequence[Guess],
    own: Sequence[Guess],
    file: Path,
) -> str:
    """Text of the file."""
    place = partial(_location, folder=file.parent)
    columns = Columns.model_validate({g.name: g.value for g in guesses if g.value is not None})
    embedder = pick_embedder(columns)
    clusters = auto_clusters(pool.count, _dimension(pool, columns))
    share = 0.1 if pool.count >= _FEW_ROWS else 0.2
    lines = [
        "# gio-spark: choose the rows of a pool that are worth training on for a target.",
        f"# Guessed from at most {SAMPLED_ROWS:,} rows of each input; each comment says why.",
        f"#   gio-spark validate {file.name}     check tables and columns, print plan and forecast",
        f"#   gio-spark run {file.name}          run; a second run goes on where the first stopped",
        "# `gio-spark init all.yml` writes every setting with its default.",
        "",
        *_comment(f"{pool.count:,} rows, {pool.format}: {pool.types}"),
        f"pool: {_scalar(place(pool.location))}",
        "",
        *_comment(f"{target.count:,} rows, {target.format}: {target.types}"),
    ]
    if own:
        lines += ["target:", f"  location: {_scalar(place(target.location))}"]
        lines += _comment("The target's own columns, since those of the pool do not fit it.", 2)
        lines += ["  columns:", *[line for guess in own for line in _entry(guess, 4)]]
    else:
        lines.append(f"target: {_scalar(place(target.location))}")
    lines += ["", "columns:", *[line for guess in guesses for line in _entry(guess, 2)]]
    lines += [
        "",
        *_comment(
            f"{share:.0%} of {pool.count:,} rows; also a number of rows, tokens ('200M tokens'), "
            "or auto: as many as can have the target's distribution."
        ),
        f"budget: {share}",
        "",
        *_comment(
            f"auto is about {clusters:,} for {pool.count:,} rows; a number sets it, at most the "
            "rows of the pool."
        ),
        "clusters: auto",
        "",
        *_comment(_why_embedder(embedder)),
        f"embedder: {embedder}",
        "",
        *_strategy(columns, target.count),
        *_comment("Folder (or catalog.schema) of all tables that a run writes."),
        "workspace: gio-workspace",
    ]
    return "\n".join(lines) + "\n"


def _strategy(columns: Columns, target_rows: int) -> list[str]:
    """Lines that let the run choose a strategy, where something can judge it."""
    from gio_spark.strategy.strategy_choice import MIN_TARGET_ROWS

    can_judge = columns.text is not None or columns.label is not None
    if columns.output is not None or not can_judge or target_rows < MIN_TARGET_ROWS:
        return []
    return [
        *_comment(
            "auto: before the plan the strategy is chosen on a sample, by target rows that no "
            "candidate has seen (some 20 s); default: quotas per cluster, rows by their density "
            "ratio."
        ),
        "select: {strategy: auto}",
        "",
    ]


def _dimension(pool: SampledInput, columns: Columns) -> int:
    """Length of the vectors, about."""
    column = None if columns.vector is None else pool.column(columns.vector)
    if column is None or not column.present:
        return 256
    first = column.present[0]
    if isinstance(first, bytes):
        return len(first) // 4
    return len(json.loads(first)) if isinstance(first, str) else len(first)


def _why_embedder(name: str) -> str:
    return {
        "vectors": "the vectors are there; to embed a text instead, name columns.text alone.",
        "images": "pixels, scaled; or vectors of your own model in columns.vector.",
        "tabular": "standardized numbers and hashed categories.",
        "wordllama": "static word vectors, installed; or ngrams, model2vec, sentence-transformers.",
        "ngrams": (
            "hashed words, needs no model; wordllama or model2vec (pip install "
            "'gio-spark[static]') and sentence-transformers see meaning."
        ),
    }.get(name, "registered embedder.")


def _entry(guess: Guess, indent: int) -> list[str]:
    pad = " " * indent
    if guess.value is None:
        return _comment(f"{guess.name}: {guess.reason}.", indent)
    entry = f"{pad}{guess.name}: {_scalar(guess.value)}"
    return [*_comment(f"{guess.reason}.", indent), entry]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    text = yaml.safe_dump(value, default_flow_style=True, width=100_000, allow_unicode=True)
    return text.removesuffix("...\n").rstrip("\n")


def _comment(text: str, indent: int = 0) -> list[str]:
    pad = f"{' ' * indent}# "
    plain = " ".join(text.split())
    return textwrap.wrap(
        plain, 98, initial_indent=pad, subsequent_indent=pad, break_long_words=False
    )


def _location(location: str, *, folder: Path) -> str:
    """Location as the file names it: a local path below or near its folder is relative."""
    if is_remote_path(location) or kind_of(location) == "table":
        return location
    path = Path(location).expanduser()
    relative = os.path.relpath(path.resolve(), folder.resolve())
    if path.is_absolute() and relative.startswith(".."):
        return str(path)
    # A plain word could also be the name of a table.
    return relative if "/" in relative else f"./{relative}"
