"""Samples of tables on the driver, with or without a labeled task."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import decode_vectors, hash_sample
from gio_spark.errors import InputError, NoVerdictError
from gio_spark.gime.metric_profile import Constants, Profile, get_profile
from gio_spark.gime.metrics_api import target_states
from gio_spark.gime.partial_states import as_roles
from gio_spark.gime.proxy_training import Task, frequency_codes
from gio_spark.gime.tilted_subsets import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame

_AROUND = ("_group", "_partition")


def labeled_sample(
    pool: DataFrame,
    held_out: DataFrame,
    label: str,
    *,
    constants: Constants,
    profile: str | Profile = "text",
    columns: Any = None,
    target: DataFrame | None = None,
    rows: int = 20_000,
    measure: str = "auto",
    proxy: str = "linear",
    extra_columns: tuple[str, ...] = (),
) -> tuple[Sample, Task, pa.Table]:
    """Bring a hash sample of labeled rows to the driver, as a sample and a task.

    Args:
        pool: Rows with `id`, the label, and the columns of the profile's roles.
        held_out: Labeled rows of the target's distribution; they must not be in the pool.
        label: Name of the label column; rows without a label are left out.
        constants: From `gime.freeze`.
        profile: Registered name of a profile, or a profile.
        columns: Roles.
        target: Rows that mismatch and coverage are measured against; the held-out ones by default.
        rows: Largest number of rows of pool and held-out rows, each.
        measure: "accuracy", "auc", "average_precision", "skill"; "auto": skill for labels with
            fractions, auc for two classes, else accuracy.
        proxy: "linear" or "boosting".
        extra_columns: Further columns of the pool.

    Returns:
        The sample, the task, and the further columns with `id`, in the order of the sample.

    Raises:
        InputError: The label is missing, no row has one, or there is nothing to learn from.
        NoVerdictError: No label of the held-out rows occurs in the pool.
    """
    resolved = get_profile(profile)
    tables = {}
    for name, df in (("pool", pool), ("held-out rows", held_out)):
        if label not in df.columns or "id" not in df.columns:
            raise InputError(f"The {name} need the columns 'id' and {label!r}; got {df.columns}.")
        further_columns = extra_columns if name == "pool" else ()
        kept_columns: tuple[str | Column, ...] = ("id", df[label].alias("_label"), *further_columns)
        roles, _ = as_roles(df, resolved, columns=columns, extra_columns=kept_columns)
        usable = roles.where("_label IS NOT NULL")
        total = usable.count()
        if total == 0:
            raise InputError(f"No row of the {name} has a label in {label!r}.")
        tables[name] = hash_sample(usable, rows, "gime-sensitivity", total=total)
    pool_table, held_out_table = tables["pool"], tables["held-out rows"]
    fields = [n for n in pool_table.column_names if ":" in n]
    if "vector" not in pool_table.column_names and not fields:
        raise InputError(
            "There is nothing to learn from: give a vector column, or numeric and categorical "
            f"features (profile {resolved.name!r})."
        )
    if "vector" in pool_table.column_names:
        pool_table, held_out_table = (
            t.filter(pc.is_valid(t.column("vector"))) for t in (pool_table, held_out_table)
        )
    y, y_held, measure = _labels(
        pool_table.column("_label"), held_out_table.column("_label"), measure
    )
    if measure != "skill" and not np.isin(y_held, y).any():
        raise NoVerdictError(
            "No label of the held-out rows occurs in the pool (pool: "
            f"{_first_labels(pool_table)}; held-out rows: {_first_labels(held_out_table)}), so no "
            "model can be judged. See that columns.label names the same labels in both."
        )
    features = _features(pool_table, held_out_table, fields)
    dropped = ("_label", "id", *extra_columns, *_AROUND)
    sample = Sample.from_arrow(
        pool_table.drop_columns([c for c in pool_table.column_names if c in dropped]),
        resolved,
        constants,
        None
        if target is not None
        else held_out_table.drop_columns([c for c in held_out_table.column_names if c in dropped]),
    )
    if target is not None:
        target_metric_states = target_states(target, resolved, constants=constants, columns=columns)
        sample = replace(sample, target=target_metric_states)
    return (
        sample,
        Task(
            features[0],
            y,
            features[1],
            y_held,
            measure,
            proxy,
            categories=features[2],
            test_categories=features[3],
        ),
        pool_table.select(["id", *extra_columns]),
    )


def unlabeled_sample(
    pool: DataFrame,
    *,
    constants: Constants,
    profile: str | Profile = "text",
    columns: Any = None,
    target: DataFrame | None = None,
    rows: int = 20_000,
    extra_columns: tuple[str, ...] = (),
) -> tuple[Sample, pa.Table]:
    """Bring a hash sample of rows to the driver, as a sample without a task.

    Args:
        pool: Rows with `id` and the columns of the profile's roles.
        constants: From `gime.freeze`.
        profile: Registered name of a profile, or a profile.
        columns: Roles.
        target: Rows that mismatch and coverage are measured against.
        rows: Largest number of rows.
        extra_columns: Further columns of the table.

    Returns:
        The sample, and its rows as a table in the same order: `id`, roles, further columns.
    """
    resolved = get_profile(profile)
    kept_columns = ("id", *(k for k in extra_columns if k not in resolved.roles))
    roles, _ = as_roles(pool, resolved, columns=columns, extra_columns=kept_columns)
    table = hash_sample(roles, rows, "gime-sensitivity", total=pool.count())
    if "vector" in table.column_names:
        table = table.filter(pc.is_valid(table.column("vector")))
    role_table = table.drop_columns(
        [c for c in table.column_names if c in (*_AROUND, *kept_columns)]
    )
    target_metric_states = None
    if target is not None:
        target_metric_states = target_states(target, resolved, constants=constants, columns=columns)
    return replace(
        Sample.from_arrow(role_table, resolved, constants), target=target_metric_states
    ), table


def _first_labels(rows: pa.Table) -> str:
    """Some labels of rows, for messages."""
    labels = pc.unique(rows.column("_label")).to_pylist()
    return ", ".join(map(repr, labels[:4])) + (", ..." if len(labels) > 4 else "")


def _labels(
    pool_labels: pa.ChunkedArray, held_out_labels: pa.ChunkedArray, measure: str
) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Labels of pool and held-out rows (numbers for regression, else class codes), and measure."""
    if measure == "auto":
        fractions = pa.types.is_floating(pool_labels.type) or pa.types.is_decimal(pool_labels.type)
        classes = len(pc.unique(pool_labels))
        measure = "skill" if fractions and classes > 20 else "auc" if classes == 2 else "accuracy"
    if measure == "skill":
        numbers = (
            c.cast(pa.float64()).to_numpy(zero_copy_only=False)
            for c in (pool_labels, held_out_labels)
        )
        y, y_held = numbers
        return y, y_held, measure
    texts = [
        np.asarray(c.cast(pa.string()).to_pylist(), dtype=str)
        for c in (pool_labels, held_out_labels)
    ]
    names, codes = np.unique(np.concatenate(texts), return_inverse=True)
    del names
    return codes[: len(texts[0])], codes[len(texts[0]) :], measure


def _features(
    pool_table: pa.Table, held_out_table: pa.Table, fields: list[str]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Vectors or numbers of pool and held-out rows, and the codes of categorical fields."""
    if "vector" in pool_table.column_names:
        x = decode_vectors(pool_table.column("vector"))
        held_out = decode_vectors(held_out_table.column("vector"), x.shape[1])
        return np.array(x), np.array(held_out), None, None
    numbers: tuple[list[Any], list[Any]] = ([], [])
    categories: tuple[list[Any], list[Any]] = ([], [])
    for name in fields:
        columns = [t.column(name) for t in (pool_table, held_out_table)]
        if name.startswith("numeric:"):
            floats = [c.cast(pa.float64()) for c in columns]
            median = pc.quantile(floats[0].drop_null(), 0.5)[0].as_py() or 0.0
            for matrix, column in zip(numbers, floats, strict=True):
                values = pc.fill_null(column, median).to_numpy(zero_copy_only=False)
                matrix.append(np.nan_to_num(values, nan=median))
        else:
            keys = (pc.fill_null(c, 0).to_numpy(zero_copy_only=False) for c in columns)
            for matrix, codes in zip(categories, frequency_codes(*keys), strict=True):
                matrix.append(codes)
    sides = (pool_table.num_rows, held_out_table.num_rows)
    x, x_held = (
        np.stack(matrix, axis=1).astype(np.float32) if matrix else np.zeros((rows, 0), np.float32)
        for matrix, rows in zip(numbers, sides, strict=True)
    )
    if not categories[0]:
        return x, x_held, None, None
    codes, codes_held = (np.stack(matrix, axis=1) for matrix in categories)
    return x, x_held, codes, codes_held
