"""From labelled tables to a sample that can be measured and a task that can be learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gio_spark.engine import decode_vectors, hash_sample
from gio_spark.errors import InputError
from gio_spark.gime.metrics_api import target_states
from gio_spark.gime.partial_states import as_roles
from gio_spark.gime.profile import Constants, Profile, get_profile
from gio_spark.gime.subsets import Sample
from gio_spark.gime.train import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

# Categories are hashed to so many columns each, so that training and held-out rows agree without a
# dictionary.
_BUCKETS = 32
_AROUND = ("_group", "_partition")


def labelled(
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
    keep: tuple[str, ...] = (),
) -> tuple[Sample, Task, pa.Table]:
    """Bring a hash sample of labelled rows to the driver, as a sample and a task.

    Args:
        pool: Rows with `id`, the label, and the columns of the profile's roles.
        held_out: Labelled rows of the target's law; they must not be in the pool.
        label: Name of the label column; rows without a label are left out.
        constants: From `gime.freeze`.
        profile: Registered name of a profile, or a profile.
        columns: Roles.
        target: Rows that mismatch and coverage are measured against; the held-out ones by default.
        rows: Largest number of rows of each side.
        measure: "accuracy", "auc", "average_precision", "skill"; "auto": skill for labels with
            fractions, auc for two classes, else accuracy.
        proxy: "linear" or "boosting".
        keep: Further columns of the pool.

    Returns:
        The sample, the task, and the further columns with `id`, in the order of the sample.

    Raises:
        InputError: The label is missing, no row has one, or there is nothing to learn from.
    """
    chosen = get_profile(profile)
    tables = {}
    for name, df in (("pool", pool), ("held-out rows", held_out)):
        if label not in df.columns or "id" not in df.columns:
            raise InputError(f"The {name} need the columns 'id' and {label!r}; got {df.columns}.")
        more = keep if name == "pool" else ()
        carried = ("id", df[label].alias("_label"), *more)
        roles, _ = as_roles(df, chosen, columns=columns, keep=carried)
        usable = roles.where("_label IS NOT NULL")
        total = usable.count()
        if total == 0:
            raise InputError(f"No row of the {name} has a label in {label!r}.")
        tables[name] = hash_sample(usable, rows, "gime-sensitivity", total=total)
    here, there = tables["pool"], tables["held-out rows"]
    fields = [n for n in here.column_names if ":" in n]
    if "vector" not in here.column_names and not fields:
        raise InputError(
            "There is nothing to learn from: give a vector column, or numeric and categorical "
            f"features (profile {chosen.name!r})."
        )
    if "vector" in here.column_names:
        here, there = (t.filter(pc.is_valid(t.column("vector"))) for t in (here, there))
    y, y_held, measure = _labels(here.column("_label"), there.column("_label"), measure)
    x, x_held = _features(here, there, fields)
    skip = ("_label", "id", *keep, *_AROUND)
    sample = Sample.from_arrow(
        here.drop_columns([c for c in here.column_names if c in skip]),
        chosen,
        constants,
        None
        if target is not None
        else there.drop_columns([c for c in there.column_names if c in skip]),
    )
    if target is not None:
        known = target_states(target, chosen, constants=constants, columns=columns)
        sample = replace(sample, target=known)
    return sample, Task(x, y, x_held, y_held, measure, proxy), here.select(["id", *keep])


def unlabelled(
    pool: DataFrame,
    *,
    constants: Constants,
    profile: str | Profile = "text",
    columns: Any = None,
    target: DataFrame | None = None,
    rows: int = 20_000,
    keep: tuple[str, ...] = (),
) -> tuple[Sample, pa.Table]:
    """Bring a hash sample of rows to the driver, as a sample without a task.

    Args:
        pool: Rows with `id` and the columns of the profile's roles.
        constants: From `gime.freeze`.
        profile: Registered name of a profile, or a profile.
        columns: Roles.
        target: Rows that mismatch and coverage are measured against.
        rows: Largest number of rows.
        keep: Further columns of the table.

    Returns:
        The sample, and its rows as a table in the same order: `id`, roles, further columns.
    """
    chosen = get_profile(profile)
    carried = ("id", *(k for k in keep if k not in chosen.roles))
    roles, _ = as_roles(pool, chosen, columns=columns, keep=carried)
    table = hash_sample(roles, rows, "gime-sensitivity", total=pool.count())
    if "vector" in table.column_names:
        table = table.filter(pc.is_valid(table.column("vector")))
    inside = table.drop_columns([c for c in table.column_names if c in (*_AROUND, *carried)])
    known = None
    if target is not None:
        known = target_states(target, chosen, constants=constants, columns=columns)
    return replace(Sample.from_arrow(inside, chosen, constants), target=known), table


def _labels(
    here: pa.ChunkedArray, there: pa.ChunkedArray, measure: str
) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Numbers for regression, class codes else, and the measure."""
    if measure == "auto":
        fractions = pa.types.is_floating(here.type) or pa.types.is_decimal(here.type)
        classes = len(pc.unique(here))
        measure = "skill" if fractions and classes > 20 else "auc" if classes == 2 else "accuracy"
    if measure == "skill":
        numbers = (c.cast(pa.float64()).to_numpy(zero_copy_only=False) for c in (here, there))
        y, y_held = numbers
        return y, y_held, measure
    texts = [np.asarray(c.cast(pa.string()).to_pylist(), dtype=str) for c in (here, there)]
    names, codes = np.unique(np.concatenate(texts), return_inverse=True)
    del names
    return codes[: len(texts[0])], codes[len(texts[0]) :], measure


def _features(
    here: pa.Table, there: pa.Table, fields: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if "vector" in here.column_names:
        x = decode_vectors(here.column("vector"))
        return np.array(x), np.array(decode_vectors(there.column("vector"), x.shape[1]))
    sides: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    for name in fields:
        columns = [t.column(name) for t in (here, there)]
        if name.startswith("numeric:"):
            filled = [c.cast(pa.float64()) for c in columns]
            middle = pc.quantile(filled[0].drop_null(), 0.5)[0].as_py() or 0.0
            for side, column in zip(sides, filled, strict=True):
                values = pc.fill_null(column, middle).to_numpy(zero_copy_only=False)
                side.append(np.nan_to_num(values, nan=middle)[:, None])
        else:
            for side, column in zip(sides, columns, strict=True):
                codes = pc.fill_null(column, 0).to_numpy(zero_copy_only=False) % _BUCKETS
                side.append(np.eye(_BUCKETS, dtype=np.float32)[codes])
    x, held = (np.concatenate(side, axis=1).astype(np.float32) for side in sides)
    return x, held
