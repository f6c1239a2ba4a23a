"""Published selections: a log of events per name, each in an atomic commit with its own number.

A selection is a table that is written once. Publishing adds one row to `publishes` that names it;
the newest publish of a name is what readers get. Every event has a sequence number, and a row is
added only where that number is still free, so that of two writers one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as F

from gio_spark.engine import bounded
from gio_spark.errors import ConcurrentRunError, ConfigError, InputError
from gio_spark.settings.run import PUBLISHED_NAME
from gio_spark.tables import delta
from gio_spark.tables.stage_records import new_token

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gio_spark.tables.workspace import Workspace

TABLE = "publishes"
SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("sequence", pa.int64()),
        pa.field("token", pa.string()),
        pa.field("event", pa.string()),
        pa.field("number", pa.int64()),
        pa.field("source_number", pa.int64()),
        pa.field("run", pa.string()),
        pa.field("table", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("input_version", pa.string()),
        pa.field("why", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC")),
    ]
)
_MOST = 100_000
_TRIES = 20
_SHOWS_ROWS = ("publish", "rollback")


@dataclass(frozen=True)
class PublishEvent:
    """A row of `publishes`.

    Attributes:
        name: Published name.
        sequence: Number of the event among those of its name, from 1.
        event: publish, rollback, pin or unpin.
        number: Number of the publish that it made (publish, rollback) or concerns (pin, unpin).
        source_number: For a rollback, the publish whose rows came back; else `number`.
        run: Run whose selection it is.
        table: Table of the selection.
        rows: Rows of it.
        input_version: Version of the pool that the selection was made from.
        why: Reason, for display.
        at: When, by the writer's clock.
        token: Of the writer.
    """

    name: str
    sequence: int
    event: str
    number: int
    source_number: int
    run: str
    table: str
    rows: int
    input_version: str
    why: str
    at: datetime
    token: str


def check_name(name: str) -> str:
    """Raise where a text cannot be a published name.

    Raises:
        ConfigError: It is empty, too long or holds other characters.
    """
    if not PUBLISHED_NAME.fullmatch(name):
        raise ConfigError(
            f"name: {name!r} cannot be the name of a selection. Use letters, digits, '_', '-' and "
            "'.', beginning with a letter or a digit, at most 100."
        )
    return name


def view_name(name: str) -> str:
    """Name of the view (in a catalog) or of the copied table of a published name."""
    return "published_" + re.sub(r"[^A-Za-z0-9_]", "_", name).lower()


class PublishLog:
    """Published names of a workspace.

    Args:
        workspace: Whose.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def events(self, name: str | None = None) -> list[PublishEvent]:
        """Events of a name, or of all, in order."""
        if not self._workspace.exists(TABLE):
            return []
        rows = self._workspace.store.read(TABLE)
        if name is not None:
            rows = rows.where(F.col("name") == name)
        table = bounded(rows.select(*SCHEMA.names), _MOST, "publishes")
        events = [PublishEvent(**row) for row in table.to_pylist()]
        return sorted(events, key=lambda e: (e.name, e.sequence, e.token))

    def publishes(self, name: str) -> list[PublishEvent]:
        """Publishes of a name, oldest first; the last one is the current one."""
        return [e for e in self.events(name) if e.event in _SHOWS_ROWS]

    def current(self, name: str) -> PublishEvent | None:
        """Current publish of a name, or None where nothing was published."""
        published = self.publishes(name)
        return published[-1] if published else None

    def names(self) -> list[str]:
        """All published names."""
        return sorted({e.name for e in self.events()})

    def by_name(self) -> dict[str, list[PublishEvent]]:
        """Publishes of every name, oldest first, by one look at the table."""
        published: dict[str, list[PublishEvent]] = {}
        for event in self.events():
            if event.event in _SHOWS_ROWS:
                published.setdefault(event.name, []).append(event)
        return published

    def pinned(self) -> set[tuple[str, int]]:
        """(name, number) of publishes that are protected from retention."""
        pinned: set[tuple[str, int]] = set()
        for event in self.events():
            if event.event == "pin":
                pinned.add((event.name, event.number))
            elif event.event == "unpin":
                pinned.discard((event.name, event.number))
        return pinned

    def find(self, name: str, number: int | None = None) -> PublishEvent:
        """A publish by its number, or the current one.

        Raises:
            InputError: There is none.
        """
        published = self.publishes(name)
        if not published:
            known = ", ".join(self.names()) or "none"
            raise InputError(
                f"Nothing is published as {name!r} in {self._workspace.location}. Names: {known}. "
                "`gio-spark show` lists the runs; `gio-spark publish RUN` publishes one."
            )
        if number is None:
            return published[-1]
        matching = [e for e in published if e.number == number]
        if not matching:
            last = published[-1].number
            raise InputError(f"{name} has no publish {number}: they are 1 to {last}.")
        return matching[0]

    def read(self, name: str, number: int | None = None) -> DataFrame:
        """Rows of a publish, the current one by default.

        Raises:
            InputError: There is no such publish, or its rows are no longer retained.
        """
        event = self.find(name, number)
        if not self._workspace.store.exists(event.table, look=True):
            raise InputError(
                f"The rows of publish {event.number} of {name} are no longer there: "
                "retention.publishes says how many are kept, and `gio-spark pin` keeps one for "
                "good."
            )
        return self._workspace.read_table(event.table)

    def publish(
        self,
        name: str,
        *,
        run: str,
        table: str,
        rows: int,
        input_version: str,
        why: str,
        only_after: tuple[str, ...] | None = None,
    ) -> PublishEvent:
        """Move a name to a selection, in one atomic commit.

        Args:
            name: Published name.
            run: Run whose selection it is.
            table: Table of the selection.
            rows: Its rows.
            input_version: Version of the pool that it was made from.
            why: Reason.
            only_after: Runs of which one must be the current one; None: any run.

        Raises:
            ConcurrentRunError: Another run was published in the meantime; nothing is changed.
        """

        def next_event(events: Sequence[PublishEvent]) -> PublishEvent:
            published = [e for e in events if e.event in _SHOWS_ROWS]
            if only_after is not None and published and published[-1].run not in only_after:
                now = published[-1]
                raise ConcurrentRunError(
                    f"{name} shows publish {now.number}, of {now.run}, so the selection of {run} "
                    f"was not published. `gio-spark publish {run}` moves to it all the same."
                )
            number = 1 + max((e.number for e in published), default=0)
            return PublishEvent(
                name, 0, "publish", number, number, run, table, rows, input_version, why,
                datetime.now(timezone.utc), new_token(),
            )  # fmt: skip

        return self._add(name, next_event)

    def rollback(self, name: str) -> PublishEvent:
        """Move a name back to the selection before the one that readers get now.

        Raises:
            InputError: There is none before it, or its rows are no longer retained.
        """

        def next_event(events: Sequence[PublishEvent]) -> PublishEvent:
            published = [e for e in events if e.event in _SHOWS_ROWS]
            if not published:
                self.find(name)
            by_number = {e.number: e for e in published}
            source = published[-1].source_number
            earlier = [
                e
                for n, e in sorted(by_number.items())
                if n < source and e.event == "publish" and e.table != published[-1].table
            ]
            if not earlier:
                raise InputError(f"{name} has no publish before number {source} to go back to.")
            back = earlier[-1]
            self.read(name, back.number)
            now = published[-1].number
            return replace(
                back,
                event="rollback",
                number=1 + now,
                source_number=back.number,
                why=f"rolled back from {now} to {back.number}",
                at=datetime.now(timezone.utc),
                token=new_token(),
            )

        return self._add(name, next_event)

    def pin(self, name: str, number: int | None, *, keep: bool) -> PublishEvent:
        """Protect a publish from retention, or end the protection.

        Raises:
            InputError: There is no such publish.
        """
        target = self.find(name, number)

        def next_event(_: Sequence[PublishEvent]) -> PublishEvent:
            return replace(
                target,
                event="pin" if keep else "unpin",
                why="",
                at=datetime.now(timezone.utc),
                token=new_token(),
            )

        return self._add(name, next_event)

    def _add(
        self, name: str, next_event: Callable[[Sequence[PublishEvent]], PublishEvent]
    ) -> PublishEvent:
        """Add the event that follows those of a name, anew where another one came before it."""
        self._check_new(name)
        for _ in range(_TRIES):
            events = self.events(name)
            sequence = 1 + max((e.sequence for e in events), default=0)
            event = replace(next_event(events), sequence=sequence)
            try:
                self._insert(event)
            except ConcurrentRunError:
                continue
            taken = [e for e in self.events(name) if e.sequence == sequence]
            if taken and taken[0].token == event.token:
                return event
        raise ConcurrentRunError(
            f"Others published {name} in {self._workspace.location} at the same time, "
            f"{_TRIES} times over. Run `gio-spark publish` again."
        )

    def _check_new(self, name: str) -> None:
        """Refuse a name whose view or copy another name has.

        Raises:
            ConfigError: With the other name.
        """
        check_name(name)
        others = [n for n in self.names() if n != name and view_name(n) == view_name(name)]
        if others:
            raise ConfigError(
                f"name: {name!r} and the published name {others[0]!r} would have one view, "
                f"{view_name(name)}. Use another name."
            )

    def _insert(self, event: PublishEvent) -> None:
        """Add a row where its name and sequence are free, and fail where they are taken meanwhile.

        Raises:
            ConcurrentRunError: Another writer added one.
        """
        store = self._workspace.store
        row = {n: getattr(event, n) for n in SCHEMA.names}
        frame = self._workspace.frame(pa.Table.from_pylist([row], schema=SCHEMA))
        if not self._workspace.exists(TABLE):
            empty = self._workspace.frame(SCHEMA.empty_table())
            note = {"made for": event.name}
            store.append_again(TABLE, empty, partition_by=("name",), note=note)
        delta.insert_where_free(
            self._workspace.spark, store.place(TABLE), frame, ("name", "sequence"), SCHEMA.names
        )
