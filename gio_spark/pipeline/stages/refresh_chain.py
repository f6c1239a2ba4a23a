"""Refreshes of a run, one after another: the selection before, and whether it is current."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gio_spark.pipeline.refresh_records import RefreshSummary
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.open_inputs import PinnedInputs, pin_inputs
from gio_spark.pipeline.stages.publish_selection import Candidate, find_candidate, refreshes_of

if TYPE_CHECKING:
    from gio_spark.pipeline.run_context import RunContext
    from gio_spark.pipeline.run_state import Role
    from gio_spark.settings.inputs import Verify
    from gio_spark.settings.refresh import RefreshSettings
    from gio_spark.tables import PinnedInput, Record, Workspace


@dataclass(frozen=True)
class Before:
    """State of a selection before a refresh: what the run and its refreshes have left.

    Attributes:
        base: Summary of the run.
        newest: Record of its newest refresh; None where there is none.
        summary: Summary of that.
        candidate: Newest selection.
    """

    base: RunSummary
    newest: Record | None
    summary: RefreshSummary | None
    candidate: Candidate

    @classmethod
    def of(cls, workspace: Workspace, base: RunSummary) -> Before:
        """Look it up."""
        chain = refreshes_of(workspace, base.run)
        newest = chain[-1] if chain else None
        summary = None if newest is None else RefreshSummary.of(newest)
        return cls(base, newest, summary, find_candidate(workspace, base.run))

    @property
    def pool_version(self) -> tuple[str, str]:
        """Identity and version of the pool's table."""
        one = self.summary or self.base
        version = self.base.versions["pool"] if self.summary is None else self.summary.version
        return one.table_id, version

    def is_current(self, pinned: PinnedInputs, settings: RefreshSettings) -> bool:
        """Whether the newest selection is that of these inputs and settings."""
        pool, others = pinned.pins["pool"], other_versions(pinned, settings)
        refreshed = self.summary.others if self.summary is not None else None
        read = {**_versions_of(self.base), **(refreshed or {})}
        same = (pool.table_id, pool.version) == self.pool_version
        same = same and not any(_differs(read, pinned, name) for name in others)
        # The run itself meets its budget either way.
        return same and (self.summary is None or self.summary.budget == settings.budget)

    def changed_targets(self, pinned: PinnedInputs) -> list[str]:
        """Targets at another version than the run's."""
        read, targets = _versions_of(self.base), pinned.of_roles("target").pins
        return [name for name in targets if _differs(read, pinned, name)]

    @property
    def embeddings(self) -> str:
        """Key of the pool's embeddings."""
        return self.base.keys.embeddings["pool"] if self.summary is None else (
            self.summary.keys.embeddings
        )  # fmt: skip

    @property
    def quarantine(self) -> tuple[str, str]:
        """Keys of the quarantine."""
        keys = self.base.keys if self.summary is None else self.summary.keys
        return keys.quarantine, keys.removed_rows


def pin_as_read(ctx: RunContext, base: RunSummary) -> PinnedInputs:
    """Pin the inputs, those beside the pool by the method of the run, so that versions compare."""
    verify: dict[str, Verify] = {}
    for name, role in (("target", "target"), ("held_out", "held-out")):
        inputs = base.settings.get(name) or ()
        single = name == "target" and len(inputs) == 1
        for number, one in enumerate(inputs, 1):
            verify[role if single else f"{role}-{number}"] = one.get("verify", "listing")
    return pin_inputs(ctx, verify=verify)


def other_versions(pinned: PinnedInputs, settings: RefreshSettings) -> dict[str, str]:
    """Versions of the inputs beside the pool that a refresh reacts to."""
    roles: list[Role] = ["held-out"] if settings.drift.target == "keep" else ["held-out", "target"]
    return {name: _version(pin) for name, pin in pinned.of_roles(*roles).pins.items()}


def _version(pin: PinnedInput) -> str:
    """Version of an input with the identity of its table, which may have been created again."""
    return f"{pin.version} of {pin.table_id}"


def _versions_of(base: RunSummary) -> dict[str, str]:
    """Versions that a run has read; records of earlier versions know no identities."""
    tables = base.table_ids
    return {n: f"{v} of {tables[n]}" if n in tables else v for n, v in base.versions.items()}


def _differs(read: dict[str, str], pinned: PinnedInputs, name: str) -> bool:
    pin = pinned.pins[name]
    return read.get(name) not in (_version(pin), pin.version)


@dataclass(frozen=True)
class ChainLink:
    """Place of a refresh among those of its run.

    Attributes:
        key: Its fingerprint.
        previous: Fingerprint of the refresh before, "" for the first.
        number: From 1.
        before: State of the selection before it.
        was_audited: Whether it was made, counted and audited by an earlier call.
        others: Versions of the inputs beside the pool.
    """

    key: str
    previous: str
    number: int
    before: Before
    was_audited: bool
    others: dict[str, str]
