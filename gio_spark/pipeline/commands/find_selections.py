"""Selections of a workspace by run, published name or number of a publish."""

from __future__ import annotations

from dataclasses import dataclass

from gio_spark.errors import InputError
from gio_spark.pipeline.run_records import RunSummary
from gio_spark.pipeline.stages.publish_selection import newest_candidate
from gio_spark.tables import SELECTION, PublishLog, Workspace

_LISTED = 20


@dataclass(frozen=True)
class SelectionRef:
    """A selection that is compared.

    Attributes:
        label: `run-...` or `NAME@3`.
        run: Run whose plan selected it.
        table: Name of its table.
        place: Path or name of its table.
        pool_version: Version of the pool that it was made from.
    """

    label: str
    run: str
    table: str
    place: str
    pool_version: str


def find_selection(workspace: Workspace, text: str, name: str) -> SelectionRef:
    """Find a selection by run id, `NAME@3`, `NAME`, or the number of a publish of a name.

    Raises:
        InputError: It is not there; the message names the selections that are.
    """
    published = PublishLog(workspace).by_name()
    stem, at, number = text.rpartition("@")
    if not at:
        stem, number = (name, text) if text.isdecimal() else (text, "")
    if any(r.run == text for r in workspace.records()):
        candidate = newest_candidate(workspace, text)
        if candidate is not None and workspace.store.exists(candidate.table, look=True):
            return SelectionRef(
                text, text, candidate.table, workspace.place(candidate.table),
                candidate.input_version,
            )  # fmt: skip
    events = published.get(stem, [])
    if not at and not number:
        events = events[-1:]
    elif number.isdecimal():
        events = [e for e in events if e.number == int(number)]
    else:
        events = []
    for event in events:
        if workspace.store.exists(event.table, look=True):
            return SelectionRef(
                f"{event.name}@{event.number}", event.run, event.table,
                workspace.place(event.table), event.input_version,
            )  # fmt: skip
    runs = list(dict.fromkeys(
        r.run for r in workspace.records()
        if r.table.startswith(SELECTION) and workspace.store.exists(r.table, look=True)
    ))  # fmt: skip
    publishes = [
        f"{e.name}@{e.number}"
        for of_name in published.values()
        for e in of_name[-_LISTED:]
        if workspace.store.exists(e.table, look=True)
    ]
    raise InputError(
        f"{workspace.location} holds no selection {text!r}. Runs: "
        f"{', '.join(runs[-_LISTED:]) or 'none'}. Publishes: "
        f"{', '.join(publishes[-_LISTED:]) or 'none'}."
    )


def run_summary(workspace: Workspace, run: str) -> RunSummary | None:
    """Summary of a run, None where it has not finished."""
    finished = [r for r in workspace.records(run) if r.stage == "run"]
    return RunSummary.of(finished[-1]) if finished else None
