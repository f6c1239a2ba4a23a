"""Definition of a metric (accumulators and values), and profiles of metrics by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gio_spark.errors import ConfigError, InputError
from gio_spark.gime.metric_state import OPERATORS, Merge, State
from gio_spark.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gio_spark.gime.row_batch import Rows
    from gio_spark.settings.gime import GimeSettings

METRICS = (
    "volume",
    "delay",
    "scope",
    "granularity",
    "variety",
    "duration",
    "sampling_rate",
    "aggregation",
    "coverage",
    "distortion",
    "mismatch",
)


@dataclass(frozen=True)
class Constants:
    """Constants that states depend on; each is part of the versions of the states that use it.

    Attributes:
        values: Numbers, texts and arrays by name (codebook, probes, basis, clusters, ...).
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Value of a constant, or the default where it is absent or None."""
        value = self.values.get(name)
        return default if value is None else value

    def digest(self, names: Iterable[str]) -> str:
        """Digest of the named constants' content, 12 hex characters."""
        content = hashlib.sha256()
        for name in sorted(names):
            value = self.values.get(name)
            if isinstance(value, np.ndarray):
                content.update(f"{name}:{value.dtype.str}:{value.shape}".encode())
                content.update(np.ascontiguousarray(value).tobytes())
            else:
                content.update(f"{name}={value!r}".encode())
        return content.hexdigest()[:12]


@dataclass(frozen=True)
class Accumulator:
    """Function from rows to a state, and the operators that merge its fields.

    Attributes:
        name: Unique in its profile; it is the `metric` column of stored states.
        version: Raised whenever the meaning of a field changes.
        update: Rows (at least one, all of one group) and constants -> arrays by field.
        merges: Operator per field: sum, min, max, histogram, distinct, same, or a function from a
            list of arrays to an array (associative and commutative).
        uses: Names of the constants that the state depends on.
        needs: Roles without which there is no state (the metric is then null, with a caveat).
    """

    name: str
    version: int
    update: Callable[[Rows, Constants], Mapping[str, NDArray[Any]]]
    merges: Mapping[str, Merge]
    uses: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def state(self, rows: Rows, constants: Constants, version: str) -> State:
        """Compute the state of some rows.

        Raises:
            InputError: A field is missing, or is summed and does not hold integers.
        """
        fields = dict(self.update(rows, constants))
        if set(fields) != set(self.merges):
            raise InputError(
                f"State {self.name}: fields {sorted(fields)} are not the declared "
                f"{sorted(self.merges)}."
            )
        for name, array in fields.items():
            if self.merges[name] == "sum" and np.asarray(array).dtype.kind not in "iub":
                raise InputError(
                    f"State {self.name}: field {name!r} is summed, so it must hold integers "
                    "(float sums depend on their order; use split_sum and 'histogram')."
                )
        names = {k: v if isinstance(v, str) else "custom" for k, v in self.merges.items()}
        return State(self.name, version, {k: np.asarray(v) for k, v in fields.items()}, names)

    def full_version(self, profile: str, constants: Constants) -> str:
        """Version that states carry: profile, format, digest of the constants used."""
        return f"{profile}/{self.name}@{self.version}#{constants.digest(self.uses)}"


@dataclass(frozen=True)
class Value:
    """One value of a metric.

    Attributes:
        form: "robust" (the one to use), "literal" (OIT's own form), or the name of a further form.
        value: None where it cannot be computed; `caveat` then says why.
        unit: Unit of the value.
        direction: "more", "less" or "unknown": which change is better.
        error: Relative error bound of a sketch (95 %), 0 for exact ones.
        nulls: Rows without the columns that this metric reads.
        caveat: Reason of a missing value, or what to know of the value.
    """

    form: str
    value: float | None
    unit: str
    direction: str
    error: float = 0.0
    nulls: int = 0
    caveat: str = ""


@dataclass(frozen=True)
class Metric:
    """Metric with a name, its accumulators, and the function from merged states to values.

    Attributes:
        name: One of METRICS, or a user's own name.
        states: Names of the accumulators it reads.
        value: (merged states by name, the target's states by name or None, constants) -> figures.
            An accumulator whose roles are missing is absent from the mapping.
        version: Raised whenever the definition of a value changes.
    """

    name: str
    states: tuple[str, ...]
    value: Callable[[Mapping[str, State], Mapping[str, State] | None, Constants], Iterable[Value]]
    version: int = 1


@dataclass(frozen=True)
class Profile:
    """Metrics of one kind of data.

    Attributes:
        name: Registered name.
        roles: Role -> kind: "key" (hashed), "whole" (int64), "real" (float64), "time"
            (microseconds), "vector" (float32 matrix), "arrow" (as it comes). A role "numeric*"
            takes any number of columns; they are then roles "numeric:age", and so on.
        accumulators: By which states are made.
        metrics: Metrics computed from them.
        prepare: Adds derived columns to a batch before it is cut into groups.
        defaults: Constants of its own.
    """

    name: str
    roles: Mapping[str, str]
    accumulators: tuple[Accumulator, ...]
    metrics: tuple[Metric, ...]
    prepare: Callable[[Rows, Constants], Rows] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def kind(self, role: str) -> str:
        """Kind of a role; "numeric:age" is of the kind of "numeric*"."""
        return self.roles[role.split(":")[0] + "*" if ":" in role else role]

    def accumulator(self, name: str) -> Accumulator:
        """Accumulator by name.

        Raises:
            InputError: This profile has none of that name.
        """
        for accumulator in self.accumulators:
            if accumulator.name == name:
                return accumulator
        raise InputError(f"Profile {self.name!r} has no state {name!r}.")

    def versions(self, constants: Constants) -> dict[str, str]:
        """Version that each accumulator's states carry under these constants."""
        return {a.name: a.full_version(self.name, constants) for a in self.accumulators}

    def extended(
        self,
        name: str,
        metrics: Iterable[Metric],
        accumulators: Iterable[Accumulator] = (),
        roles: Mapping[str, str] | None = None,
    ) -> Profile:
        """Profile with further metrics, or with own ones in place of those of a name."""
        added, states = tuple(metrics), tuple(accumulators)
        replaced_metrics = {m.name for m in added}
        replaced_accumulators = {a.name for a in states}
        return replace(
            self,
            name=name,
            roles={**self.roles, **(roles or {})},
            metrics=(*(m for m in self.metrics if m.name not in replaced_metrics), *added),
            accumulators=(
                *(a for a in self.accumulators if a.name not in replaced_accumulators),
                *states,
            ),
        )


PROFILES: Registry[Profile] = Registry("metric profile")


def register_entry(name: str, profile: Profile | Callable[[], Profile]) -> Profile:
    """Register a profile, or what a function gives, as `name`; users call `gio_spark.register`.

    Raises:
        ConfigError: The name is one of gio_spark's own, a metric reads an unknown state, or this is
            no profile.
    """
    owner = __name__ if isinstance(profile, Profile) else profile.__module__
    if not isinstance(profile, Profile):
        profile = profile()
        if not isinstance(profile, Profile):
            raise ConfigError(f"The function of the profile {name!r} must return a gime.Profile.")
        profile = replace(profile, name=name)
    check_states(profile)
    return PROFILES.add(name, profile, owner=owner)


def check_states(profile: Profile) -> None:
    """Check that a profile has the states that its metrics read, and knows how they merge.

    Raises:
        ConfigError: A metric reads an unknown state, or a state has an unknown operator.
    """
    known = {a.name for a in profile.accumulators}
    for metric in profile.metrics:
        unknown = set(metric.states) - known
        if unknown:
            raise ConfigError(f"Metric {metric.name!r} reads unknown states {sorted(unknown)}.")
    for accumulator in profile.accumulators:
        wrong = {
            m for m in accumulator.merges.values() if isinstance(m, str) and m not in OPERATORS
        }
        if wrong:
            raise ConfigError(
                f"State {accumulator.name!r}: unknown operators {sorted(wrong)}; "
                f"known are {sorted(OPERATORS)}, or give a function."
            )


def get_profile(profile: str | Profile) -> Profile:
    """Registered profile by name; a profile is returned as it is.

    Raises:
        ConfigError: No such profile; the message lists the known ones.
    """
    if isinstance(profile, Profile):
        return profile
    return PROFILES.get(profile)


def check_profiles(settings: GimeSettings, source: str | None) -> None:
    """Check profiles, roles and source column.

    Args:
        settings: Settings of the metrics.
        source: The column of sources, where there is one.

    Raises:
        ConfigError: A profile or role is unknown, or profiles per source lack a source
            column.
    """
    used = (settings.profile, *settings.profiles.values())
    roles = {role for profile in used for role in get_profile(profile).roles}
    unknown = sorted(set(settings.columns) - {r for r in roles if not r.endswith("*")})
    if unknown:
        raise ConfigError(
            f"gime.columns: no profile of this run has the role {unknown[0]!r}. Roles are "
            f"{', '.join(sorted(roles))}."
        )
    if settings.profiles and source is None:
        raise ConfigError(
            "gime.profiles needs columns.source, the column with the source of a row."
        )
