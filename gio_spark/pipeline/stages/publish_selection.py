"""Publication of a selection, or its hold where the gate or drift found problems.

A run or refresh writes a candidate, a table of its own. Its audit is recorded; only where it
passed, one atomic commit moves the name to it. Whatever is cut short goes on at the next start, and
a decision that a person made by hand is not undone by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gio_spark.engine import session
from gio_spark.errors import ConcurrentRunError, InputError
from gio_spark.pipeline.run_context import fingerprint
from gio_spark.tables import SELECTION, PublishEvent, PublishLog, Record, Workspace
from gio_spark.tables.publish_log import check_name, view_name

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gio_spark.settings.run import RunSettings

AUDIT = "audit"
REFRESH = "refresh"
SELECT = "select rows"


@dataclass(frozen=True)
class Candidate:
    """A selection that was written.

    Attributes:
        run: Run whose selection it is; refreshes keep the run's id.
        table: Its table.
        rows: Its rows.
        input_version: Version of the pool that it was made from.
        number: 0 for the run itself, then the number of the refresh.
        key: Fingerprint of the stage that wrote it.
    """

    run: str
    table: str
    rows: int
    input_version: str
    number: int
    key: str


@dataclass(frozen=True)
class Publication:
    """Outcome of the publication of a candidate.

    Attributes:
        name: Published name.
        number: Publish that shows the candidate; None where none does.
        failed: Why its audit failed; "" where it passed.
        note: What people should know beside that; "" where there is nothing.
    """

    name: str
    number: int | None
    failed: str = ""
    note: str = ""


def refreshes_of(workspace: Workspace, run: str) -> list[Record]:
    """Refreshes of a run, each made on the one before, oldest first.

    Of two that were made at once on the same one, the chain of the newer counts.
    """
    recorded = {r.fingerprint: r for r in workspace.records(run) if r.stage == REFRESH}
    if not recorded:
        return []
    chain = [max(recorded.values(), key=lambda r: (r.detail["number"], r.finished, r.record))]
    while chain[0].detail["before"]:
        chain.insert(0, recorded[chain[0].detail["before"]])
    return chain


def newest_candidate(workspace: Workspace, run: str) -> Candidate | None:
    """Selection that a run or its newest refresh wrote, judged or not."""
    refreshes = refreshes_of(workspace, run)
    if refreshes:
        last = refreshes[-1]
        return Candidate(
            run, last.table, last.rows, last.detail["version"], last.detail["number"],
            last.fingerprint,
        )  # fmt: skip
    if workspace.complete(SELECT, run) is None:
        return None
    return selection_of_run(workspace, run)


def selection_of_run(workspace: Workspace, run: str) -> Candidate:
    """Selection that a run itself wrote, whatever refreshes followed.

    Raises:
        InputError: It is gone.
    """
    record = workspace.complete(SELECT, run)
    if record is None:
        raise InputError(f"The selection of {run} is gone from {workspace.location}.")
    return Candidate(run, record.table, record.rows, record.detail["version"], 0, run)


def find_candidate(workspace: Workspace, run: str) -> Candidate:
    """Newest selection of a run, or an error where there is none.

    Raises:
        InputError: The run is not known, or its selection is not there.
    """
    candidate = newest_candidate(workspace, run)
    if candidate is None or not workspace.store.exists(candidate.table, look=True):
        runs = sorted({r.run for r in workspace.records() if r.table.startswith(SELECTION)})
        raise InputError(
            f"{workspace.location} holds no selection of {run!r}. Runs with one: "
            f"{', '.join(runs[-10:]) or 'none'}."
        )
    return candidate


def audit_and_publish(
    workspace: Workspace,
    settings: RunSettings,
    candidate: Candidate,
    problems: Sequence[str],
    say: Callable[[str], None],
) -> Publication:
    """Record the audit of a candidate, and publish it where it passed.

    The rows were counted when they were written, so a candidate that is there is whole.

    Args:
        workspace: Where.
        settings: Of the run.
        candidate: The selection.
        problems: What the gate and the drift of metrics have against it; none: it passed.
        say: Shows a line to people.
    """
    name = settings.published_name()
    key = _audit_key(name, candidate)
    if not workspace.recorded(AUDIT, key):
        workspace.record(
            run=candidate.run, stage=AUDIT, fingerprint=key, table="", rows=candidate.rows,
            seconds=0.0, detail={"name": name, "table": candidate.table, "failed": list(problems)},
        )  # fmt: skip
    return publish_audited(workspace, settings, candidate, say)


def is_audited(workspace: Workspace, settings: RunSettings, candidate: Candidate) -> bool:
    """Whether the audit of a candidate is recorded under the name of the settings."""
    return bool(workspace.recorded(AUDIT, _audit_key(settings.published_name(), candidate)))


def publish_audited(
    workspace: Workspace,
    settings: RunSettings,
    candidate: Candidate,
    say: Callable[[str], None],
) -> Publication:
    """Publish a candidate whose audit is recorded, unless that was done or decided already."""
    name = settings.published_name()
    audits = workspace.recorded(AUDIT, _audit_key(name, candidate))
    if not audits:
        return Publication(name, None, note="its audit is not finished")
    log = PublishLog(workspace)
    published = log.publishes(name)
    showing = [e for e in published if e.table == candidate.table]
    if showing:
        show_published(workspace, settings, name)
        note = ""
        if published[-1].table != candidate.table:
            note = (
                f"{name} shows publish {published[-1].number}, of {published[-1].run}; `gio-spark "
                f"publish {candidate.run}` moves to {candidate.run}"
            )
        return Publication(name, showing[-1].number, note=note)
    problems = audits[-1].detail["failed"]
    if problems:
        return Publication(name, None, failed="; ".join(problems))
    if not settings.publish.automatic:
        note = f"publish.automatic is off: `gio-spark publish {candidate.run}` publishes it"
        return Publication(name, None, note=note)
    why = "run" if candidate.number == 0 else f"refresh {candidate.number}"
    try:
        event = log.publish(
            name, run=candidate.run, table=candidate.table, rows=candidate.rows,
            input_version=candidate.input_version, why=why,
            # A refresh follows its own run: what another run published meanwhile is newer.
            only_after=None if candidate.number == 0 else (candidate.run,),
        )  # fmt: skip
    except ConcurrentRunError as error:
        return Publication(name, None, note=str(error))
    show_published(workspace, settings, name)
    say(f"published: {name} {event.number}, {event.rows:,} rows of {event.run}")
    return Publication(name, event.number)


def publish_by_hand(
    workspace: Workspace, run: str, *, name: str | None, copy_rows: bool = False
) -> PublishEvent:
    """Move a name to the newest selection of a run, whatever its audit said.

    Raises:
        InputError: There is no such selection.
    """
    candidate = find_candidate(workspace, run)
    if name is None:
        audits = [r for r in workspace.records(run) if r.stage == AUDIT]
        name = audits[-1].detail["name"] if audits else "selection"
    event = PublishLog(workspace).publish(
        check_name(name), run=run, table=candidate.table, rows=candidate.rows,
        input_version=candidate.input_version, why="by hand",
    )  # fmt: skip
    _show(workspace, name, copy_rows=copy_rows)
    return event


def roll_back(workspace: Workspace, name: str, *, copy_rows: bool = False) -> PublishEvent:
    """Move a name back to the selection before the current one.

    Raises:
        InputError: There is none.
    """
    event = PublishLog(workspace).rollback(name)
    _show(workspace, name, copy_rows=copy_rows)
    return event


def show_published(workspace: Workspace, settings: RunSettings, name: str) -> None:
    """Bring the view of a name, in a catalog, and its copied table up to date."""
    _show(workspace, name, copy_rows=settings.publish.copy_rows)


def _show(workspace: Workspace, name: str, *, copy_rows: bool) -> None:
    """Update view and copy to the current publish; both follow the log."""
    current = PublishLog(workspace).current(name)
    if current is None or not workspace.store.exists(current.table):
        return
    table = view_name(name)
    copies = copy_rows or bool(workspace.recorded("copy", fingerprint("copied", name)))
    if copies:
        key = fingerprint("copy", name, current.sequence)
        if workspace.recorded("copy", key):
            return
        note = {"name": name, "publish": current.number}
        workspace.store.overwrite(table, workspace.read_table(current.table), note)
        for fingerprint_of in (key, fingerprint("copied", name)):
            workspace.record(
                run=current.run, stage="copy", fingerprint=fingerprint_of, table="",
                rows=current.rows, seconds=0.0, detail=note, later=True, only=(),
            )  # fmt: skip
        workspace.flush()
    elif workspace.in_catalog:
        workspace.store.show_as_view(table, current.table)


def _audit_key(name: str, candidate: Candidate) -> str:
    return fingerprint("audit", name, candidate.table)


def read_selection(
    name: str,
    *,
    workspace: str | Path = "gio-workspace",
    publish: int | None = None,
    spark: SparkSession | None = None,
    engine: str = "auto",
) -> DataFrame:
    """Rows that a published name shows.

    A publish is a table that is written once: its rows stay the same whatever is published later,
    as long as it is retained (`retention.publishes`, `gio-spark pin`).

    Args:
        name: Published name.
        workspace: Folder, or `catalog.schema`, of the tables.
        publish: Number of the publish; None: the current one.
        spark: Session; none: found or started as `engine` says.
        engine: auto, embedded, spark or cluster.

    Returns:
        The pool's own columns and gio_id, gio_cluster, gio_reason, gio_log_ratio,
        gio_input_version, gio_run.

    Raises:
        InputError: Nothing was published under the name, or the publish is no longer retained.
    """
    spark = spark or session(engine)  # type: ignore[arg-type]
    return PublishLog(Workspace(spark, str(workspace), writable=False)).read(name, publish)
