"""Helpers: states and metric values of a table, computed without Spark."""

from __future__ import annotations

import pyarrow as pa

from gio_spark.gime.metric_profile import Constants, get_profile
from gio_spark.gime.metric_state import State, merge
from gio_spark.gime.metrics_api import _figures
from gio_spark.gime.partial_states import accumulate

DAY = 86_400_000_000


def states_of(table: pa.Table, constants: Constants, profile: str = "text", batches: int = 1):
    """Return group -> merged states; columns are named by role, `_group` is optional."""
    resolved = get_profile(profile)
    roles = [n for n in table.column_names if n in resolved.roles or ":" in n]
    kinds = {role: resolved.kind(role) for role in roles}
    if "_group" not in table.column_names:
        table = table.append_column("_group", pa.array(["all"] * table.num_rows))
    table = table.append_column("_partition", pa.array(["0"] * table.num_rows))
    cut = table.combine_chunks().to_batches(max_chunksize=-(-table.num_rows // batches))
    states_by_group: dict[str, dict[str, State]] = {}
    for part in accumulate(cut, resolved, kinds, constants):
        for group, content in zip(part["group"], part["bytes"], strict=True):
            state = State.from_bytes(content)
            states_by_group.setdefault(group, {})[state.name] = merge([state])
    return states_by_group


def figures(table, constants=None, target=None, profile="text", batches=1):
    """Return (metric, form) -> value for a one-group table."""
    return lookup(_columns(table, constants, target, profile, batches))


def sketched(table, constants=None, target=None, profile="text"):
    """Return the (metric, form) of a one-group table that are not exact."""
    columns = _columns(table, constants, target, profile)
    keys = zip(columns["metric"], columns["form"], strict=True)
    return {key for key, error in zip(keys, columns["error"], strict=True) if error}


def _columns(table, constants, target, profile, batches=1):
    constants = constants or Constants({"clusters": 10})
    states = states_of(table, constants, profile, batches)["all"]
    other = None if target is None else states_of(target, constants, profile)["all"]
    return _figures("all", states, other, get_profile(profile), constants)


def lookup(columns):
    keys = zip(columns["metric"], columns["form"], strict=True)
    return dict(zip(keys, columns["value"], strict=True))
