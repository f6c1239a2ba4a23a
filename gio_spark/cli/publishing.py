"""Commands on published selections: publish, rollback, pin, forget; and what `show NAME` prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from gio_spark.cli.options import (
    EngineOption,
    WorkspaceOption,
    clear_errors,
    out,
    start_session,
)
from gio_spark.cli.show import text_table

if TYPE_CHECKING:
    from rich.console import Console

    from gio_spark.pipeline.stages.publish_selection import Publication
    from gio_spark.tables import Pruned, PublishEvent, Workspace


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    for command in (publish, rollback, pin, forget):
        app.command()(command)


def publish(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run whose selection to publish.")],
    name: Annotated[
        str | None, typer.Option(help="Published name; none: the one that the run was made for.")
    ] = None,
    workspace: WorkspaceOption = "gio-workspace",
    engine: EngineOption = None,
) -> None:
    """Have a name show the newest selection of a run, whatever its audit said."""
    with clear_errors(), _opened(workspace, engine) as tables:
        from gio_spark.pipeline.stages.publish_selection import publish_by_hand

        print_event(out, tables, publish_by_hand(tables, run_id, name=name))


def rollback(
    name: Annotated[str, typer.Argument(help="Published name.")],
    workspace: WorkspaceOption = "gio-workspace",
    engine: EngineOption = None,
) -> None:
    """Have a name show the selection that it showed before."""
    with clear_errors(), _opened(workspace, engine) as tables:
        from gio_spark.pipeline.stages.publish_selection import roll_back

        print_event(out, tables, roll_back(tables, name))


def pin(
    name: Annotated[str, typer.Argument(help="Published name.")],
    number: Annotated[
        int | None, typer.Argument(metavar="PUBLISH", help="Number; none: the current one.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin away.")] = False,
    workspace: WorkspaceOption = "gio-workspace",
    engine: EngineOption = None,
) -> None:
    """Keep the rows of a publish for good, whatever retention says."""
    with clear_errors(), _opened(workspace, engine) as tables:
        from gio_spark.tables import PublishLog

        print_event(out, tables, PublishLog(tables).pin(name, number, keep=not remove))


def forget(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run to forget.")],
    hours: Annotated[
        float, typer.Option(help="Age from which files that no table holds are deleted.")
    ] = 168.0,
    workspace: WorkspaceOption = "gio-workspace",
    engine: EngineOption = None,
) -> None:
    """Take away the selection, rows and records of a run that no other run reads."""
    with clear_errors(), _opened(workspace, engine) as tables:
        from gio_spark.settings.run import RetentionSettings
        from gio_spark.tables import forget as forget_run

        print_pruned(out, run_id, forget_run(tables, run_id, RetentionSettings(hours=hours)))


@contextmanager
def _opened(workspace: str, engine: str | None) -> Iterator[Workspace]:
    """Open a workspace that is there."""
    from gio_spark.pipeline.commands.run_history import history
    from gio_spark.tables import Workspace

    spark = start_session(engine)
    history(spark, workspace)
    yield Workspace(spark, workspace)


def print_publication(out: Console, publication: Publication | None) -> bool:
    """Print what became of a selection; returns whether its audit passed."""
    if publication is None:
        return True
    if publication.failed:
        out.print(
            f"not published as {publication.name}: {publication.failed}",
            style="red",
            markup=False,
        )
        return False
    if publication.number is not None:
        out.print(f"published: {publication.name}, publish {publication.number}", markup=False)
    elif publication.note:
        out.print(f"not published as {publication.name}: {publication.note}", markup=False)
        return True
    if publication.note:
        out.print(publication.note, markup=False)
    return True


def print_event(out: Console, workspace: Workspace, event: PublishEvent) -> None:
    """Print what a command on a name did."""
    what = {
        "publish": f"shows {event.run}",
        "rollback": f"is {event.why} and shows {event.run}",
        "pin": f"publish {event.number} is pinned",
        "unpin": f"publish {event.number} is no longer pinned",
    }[event.event]
    number = f", publish {event.number}" if event.event in ("publish", "rollback") else ""
    out.print(f"{event.name} {what}{number}: {workspace.place(event.table)}", markup=False)


def print_publishes(out: Console, workspace: Workspace, name: str, number: int | None) -> None:
    """Print the publishes of a name, and where the rows of one of them are.

    Raises:
        InputError: There is no such publish.
    """
    from gio_spark.tables import PublishLog

    log = PublishLog(workspace)
    one = log.find(name, number)
    published, pinned = log.publishes(name), log.pinned()
    table = text_table(f"Publishes of {name}", "publish", "at (UTC)", "rows", "run", "why", "state")
    for event in published:
        states = ["current"] if event is published[-1] else []
        states += ["pinned"] if (name, event.number) in pinned else []
        if not workspace.store.exists(event.table, look=True):
            states.append("no longer retained")
        table.add_row(
            str(event.number),
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            f"{event.rows:,}",
            event.run,
            event.why,
            ", ".join(states),
        )
    out.print(table)
    out.print(
        f"publish {one.number} of {name}: {log.read(name, one.number).count():,} rows of "
        f"{one.run}: {workspace.place(one.table)}",
        markup=False,
    )


def print_pruned(out: Console, run: str, pruned: Pruned) -> None:
    """Print what forgetting a run took away."""
    print_pruned_rows(out, pruned)
    out.print(f"{run} is forgotten; what other runs read as well has stayed.", markup=False)


def print_pruned_rows(out: Console, pruned: Pruned) -> None:
    """Print the rows and tables that retention took away."""
    for table, attempts in pruned.attempts.items():
        out.print(f"{table}: rows of {attempts} attempts deleted", markup=False)
    for name in pruned.tables:
        out.print(f"{name}: dropped", markup=False)
