"""Checks of settings and inputs before any expensive work."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from gio_spark import gime
from gio_spark.engine import bounded
from gio_spark.errors import BudgetError, ConfigError, InputError, TooManyBadRowsError
from gio_spark.gio.selection_problem import OBJECTIVES
from gio_spark.gio.source_limits import largest_budget, source_bounds
from gio_spark.settings.budget import parse_budget
from gio_spark.settings.strategy_settings import DECIDED, DEFAULT_STRATEGY, WHOLE_POOL
from gio_spark.strategy.registered_scorers import SCORERS
from gio_spark.tables import quoted_column
from gio_spark.tables.content_expressions import SAMPLED_ROWS

if TYPE_CHECKING:
    from pyspark.sql import Column

    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.settings.budget import Budget
    from gio_spark.settings.columns import Columns
    from gio_spark.settings.run import RunSettings
    from gio_spark.tables import Input

# Columns that `selected` has beside the pool's own.
_ADDED = frozenset(
    (
        "gio_id", "gio_cluster", "gio_reason", "gio_log_ratio", "gio_repeat", "gio_weight",
        "gio_run", "gio_input_version",
    )
)  # fmt: skip
_MOST_SOURCES = 10_000
# Vectors whose length is looked at before a run.
_LOOKED_AT = 100


def check_choices(settings: RunSettings) -> None:
    """Refuse an unknown objective, and budgets and caps that lack their column.

    Raises:
        ConfigError: With what to set.
    """
    OBJECTIVES.get(settings.select.objective)
    columns = settings.pool_columns()
    # Texts without a column of tokens are counted in words.
    counted = columns.tokens is not None or columns.text is not None
    if parse_budget(settings.budget)[0] == "tokens" and not counted:
        raise ConfigError(
            f"The budget {settings.budget!r} counts tokens, so columns.tokens must name the pool's "
            "column with the tokens of a row."
        )
    if (settings.select.source_caps or settings.select.source_floors) and columns.source is None:
        raise ConfigError(
            "select.source_caps and select.source_floors need columns.source, the pool's column "
            "with the source of a row."
        )
    _check_pairs(settings)
    _check_repeat(settings)
    _check_strategy(settings)
    gime.check_profiles(settings.gime, columns.source)


def _check_pairs(settings: RunSettings) -> None:
    """Refuse pairs that the targets do not have, and what would not see their second half.

    Raises:
        ConfigError: With the settings.
    """
    others = {
        name: one.columns or settings.columns
        for name, one in settings.datasets().items()
        if name != "pool"
    }
    paired = settings.pool_columns().output is not None
    differing = [name for name, one in others.items() if (one.output is not None) != paired]
    if differing:
        raise ConfigError(
            f"columns.output is set for {'the pool' if paired else differing[0]}, but not for "
            f"{differing[0] if paired else 'the pool'}: name the second half of a pair for every "
            "input, or for none."
        )
    conflicts = {
        "select.strategy: auto": settings.select.strategy == "auto",
        f"explode.estimator: {settings.explode.estimator}": (
            settings.explode.estimator != "classifier"
        ),
    }
    names = [name for name, is_set in conflicts.items() if is_set]
    if paired and names:
        raise ConfigError(
            f"columns.output cannot be combined with {', '.join(names)}, which would not see the "
            "second half of a pair. Leave one of them out."
        )


def _check_repeat(settings: RunSettings) -> None:
    """Refuse what the repetition of rows cannot be combined with.

    Raises:
        ConfigError: With the settings.
    """
    select = settings.select
    if select.repeat is None:
        return
    conflicts = {
        f"select.objective: {select.objective}": select.objective != "budgeted_kl",
        "select.source_caps": bool(select.source_caps),
        "select.source_floors": bool(select.source_floors),
        "gime.thresholds": bool(settings.gime.thresholds),
        "gime.level": settings.gime.performance_level is not None,
        "refresh.budget: float": settings.refresh.budget == "float",
    }
    names = [name for name, is_set in conflicts.items() if is_set]
    if names:
        raise ConfigError(
            f"select.repeat cannot be combined with {', '.join(names)}: rows repeat under the "
            "objective budgeted_kl, with a budget that is held, without caps, floors and "
            "thresholds. Leave one of them out."
        )


def _check_strategy(settings: RunSettings) -> None:
    """Refuse settings that a strategy decides itself, and what a plan without quotas cannot do.

    Raises:
        ConfigError: With the settings.
    """
    scorer = settings.select.scorer
    if scorer is not None:
        SCORERS.get(scorer)
        if settings.select.strategy != "auto":
            raise ConfigError(
                f"select.scorer: {scorer!r} judges the strategies that auto tries: set "
                "select.strategy to auto, or leave the scorer out."
            )
    if settings.select.strategy == "auto":
        default = settings.with_strategy(DEFAULT_STRATEGY)
        decided = [path for path in DECIDED if _value(settings, path) != _value(default, path)]
        if decided:
            raise ConfigError(
                f"select.strategy: auto chooses {', '.join(decided)} itself: leave these out, or "
                "set select.strategy to default."
            )
    conflicts = whole_pool_conflicts(settings)
    if settings.select.objective == WHOLE_POOL and conflicts:
        raise ConfigError(
            f"select.objective: {WHOLE_POOL} cannot be combined with {', '.join(conflicts)}: rows "
            "are ranked in the whole pool, without quotas. Use budgeted_kl, or leave these out."
        )


def _value(settings: RunSettings, path: str) -> object:
    section, field = path.split(".")
    return getattr(getattr(settings, section), field)


def whole_pool_conflicts(settings: RunSettings) -> list[str]:
    """Settings that a plan without quotas per cluster cannot honour."""
    select = settings.select
    conflicts = {
        "a budget in tokens": parse_budget(settings.budget).unit == "tokens",
        "select.source_caps": bool(select.source_caps),
        "select.source_floors": bool(select.source_floors),
        "select.replay": select.replay > 0,
        "select.repeat": select.repeat is not None,
        "select.use_quality": select.use_quality,
        "gime.thresholds": bool(settings.gime.thresholds),
        "gime.level": settings.gime.performance_level is not None,
        "explode.within_cluster: hash_share": settings.explode.within_cluster == "hash_share",
    }
    return [name for name, is_set in conflicts.items() if is_set]


def check_own_columns(pool: Input) -> None:
    """Refuse a pool whose own columns have names that the selection needs.

    Raises:
        InputError: With the columns, as where the pool is the selection of an earlier run.
    """
    taken = [c for c in pool.own_columns if c.lower() in _ADDED]
    if taken:
        raise InputError(
            f"{pool.name}: {pool.location} has columns named {', '.join(taken)}, which a selection "
            "adds itself (is it the selection of an earlier run?). Rename them or leave them out."
        )


def check_dimensions(opened: dict[str, Input]) -> None:
    """Refuse ready-made vectors of pool and target that differ in length, from a few rows of each.

    Raises:
        InputError: With both lengths.
    """
    dimensions: dict[str, int] = {}
    for name, one in opened.items():
        column = one.columns.vector
        if column is None:
            continue
        vector = F.col(quoted_column(column))
        is_bytes = dict(one.rows.dtypes)[column] == "binary"
        length = F.length(vector) / 4 if is_bytes else F.size(vector)
        rows = one.rows.where(vector.isNotNull()).select(length.cast("int").alias("n"))
        lengths = bounded(rows.limit(_LOOKED_AT), _LOOKED_AT, "lengths")["n"].to_pylist()
        if lengths:
            dimensions[name] = max(sorted(set(lengths)), key=lengths.count)
    if len(set(dimensions.values())) > 1:
        dimensions_text = ", ".join(f"{name} {length}" for name, length in dimensions.items())
        raise InputError(
            f"Vectors have different dimensions ({dimensions_text}): pool and target must come "
            "from the same embedder."
        )


def warn_of_unusual_roles(ctx: RunContext, opened: dict[str, Input]) -> None:
    """Warn of messages of unknown roles, which are not part of the text of their rows."""
    for name, one in opened.items():
        if not one.unusual_roles:
            continue
        roles = ", ".join(f"{role} ({n:,})" for role, n in one.unusual_roles.items())
        ctx.warn(
            "messages left out",
            f"{name}: messages of these roles are no part of the text; in the first "
            f"{SAMPLED_ROWS:,} rows: {roles}.",
            "Name the roles that are in columns.chat_roles, which is "
            f"[{', '.join(one.columns.chat_roles)}].",
        )


def check_ids(settings: RunSettings, opened: dict[str, Input]) -> None:
    """Refuse an input of which too many rows have no id or that of another row, before any work.

    Raises:
        TooManyBadRowsError: Their share is above `quarantine.max_share`.
    """
    most = settings.quarantine.max_share
    for name, one in opened.items():
        if one.columns.id is not None and one.quarantined > most * one.count:
            raise TooManyBadRowsError(
                f"{name}: {one.quarantined:,} of the {one.count:,} rows of {one.location} have no "
                f"id or the id of another row (columns.id = {one.columns.id!r}). That is above "
                f"quarantine.max_share = {most:g}. Name another column, or none (then a hash of "
                "the content is the id), or allow a larger share."
            )


def tokens_in_words(settings: RunSettings) -> str:
    """Definition of tokens, for display after a budget of tokens; "" for other budgets."""
    columns = settings.pool_columns()
    if parse_budget(settings.budget).unit != "tokens":
        return ""
    if columns.tokens is not None:
        return f" (column {columns.tokens!r})"
    return " (words between blanks, since columns.tokens names no column)"


def check_sizes(settings: RunSettings, pool: Input) -> None:
    """Refuse a budget that the pool cannot fill, and more clusters than rows.

    Tokens and rows per source are counted where the budget or the caps need them.

    Raises:
        InputError: With the largest value that works.
    """
    budget, caps = parse_budget(settings.budget), settings.select.source_caps
    copies = settings.select.repeat.max if settings.select.repeat else 1
    largest_rows = copies * pool.count
    if budget.unit == "rows" and budget.amount > largest_rows:
        repeated = f", {largest_rows:,} with every row {copies} times" if copies > 1 else ""
        raise InputError(
            f"The budget of {budget.amount:,.0f} rows is above the pool, which has "
            f"{pool.count:,}{repeated}: ask for at most {largest_rows:,}."
        )
    by_source = bool(caps or settings.select.source_floors)
    if by_source or budget.unit == "tokens":
        _check_amounts(settings, pool, budget, by_source=by_source)
    clusters = settings.quantize.clusters
    if isinstance(clusters, int) and clusters > pool.count:
        raise InputError(
            f"{clusters:,} clusters are more than the pool's {pool.count:,} rows: "
            f"set clusters to at most {pool.count:,}, or to auto."
        )


def _check_amounts(settings: RunSettings, pool: Input, budget: Budget, *, by_source: bool) -> None:
    """Refuse a budget above what the pool holds of it, or above what caps and floors allow.

    The target's clusters hold less than the pool, so the plan may still refuse a budget.
    """
    by_tokens, columns = budget.unit == "tokens", pool.columns
    source = F.lit("")
    if by_source and columns.source is not None:
        source = F.coalesce(F.col(quoted_column(columns.source)).cast("string"), F.lit(""))
    amount = tokens_of(columns) if by_tokens else F.lit(1).cast("bigint")
    summed = pool.rows.groupBy(source.alias("source")).agg(F.sum(amount).alias("amount"))
    table = bounded(summed.limit(_MOST_SOURCES + 1), _MOST_SOURCES + 1, "sources").to_pydict()
    amounts = np.array(table["amount"], np.float64)
    requested = budget.amount
    if budget.unit == "share":
        requested = max(1.0, round(budget.amount * pool.count))
    copies = settings.select.repeat.max if settings.select.repeat else 1
    if by_tokens and requested > copies * amounts.sum():
        repeated = f" (times {copies}, with every row repeated)" if copies > 1 else ""
        raise BudgetError(
            f"The budget of {requested:,.0f} tokens{tokens_in_words(settings)} is above the pool, "
            f"which has {amounts.sum():,.0f}{repeated}: ask for at most that.",
            largest=copies * float(amounts.sum()),
        )
    if not by_source or len(amounts) > _MOST_SOURCES:
        return
    select = settings.select
    for name in (*select.source_caps, *select.source_floors):
        if name not in table["source"]:
            raise InputError(
                f"select.source_caps or source_floors: the pool has no row of source {name!r}. "
                f"Sources in {columns.source!r}: {', '.join(sorted(table['source'])[:10])}."
            )
    cap, floor = source_bounds(table["source"], select.source_caps, select.source_floors)
    largest = largest_budget(amounts, cap, floor)
    if budget.unit != "auto" and requested > largest:
        raise BudgetError(
            f"The budget is {requested:,.0f} {'tokens' if by_tokens else 'rows'}, but with "
            f"select.source_caps and select.source_floors the pool's sources fill {largest:,} at "
            "most: raise a cap, lower a floor, or ask for less.",
            largest=largest,
        )


def tokens_of(columns: Columns) -> Column:
    """Tokens of a row: those of the user's column, else its words, else 1."""
    words = F.lit(1).cast("bigint")
    if columns.text is not None:
        halves = [name for name in (columns.text, columns.output) if name is not None]
        texts = [F.trim(F.coalesce(F.col(quoted_column(name)), F.lit(""))) for name in halves]
        counts = [F.size(F.split(text, r"\s+")).cast("bigint") for text in texts]
        words = reduce(add, counts)
    if columns.tokens is None:
        return words
    return F.coalesce(F.col(quoted_column(columns.tokens)).cast("bigint"), words)
