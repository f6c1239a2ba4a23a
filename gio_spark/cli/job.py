"""What every file in jobs/ calls: one command of `gio-spark`, as a job that a scheduler starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gio_spark.cli.main import main


def job(command: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command with this process's arguments: `CONFIG [key=value ...]`.

    Stages that are complete are not run again, so jobs of single stages can follow one another.
    The session is the cluster's own wherever the process was submitted to one.

    Args:
        command: Name of the command, such as run or embed.
        arguments: Instead of those of the process.

    Raises:
        SystemExit: Only where the job failed, with the command's exit code: some schedulers take
            any SystemExit for a failure.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    sys.argv = [f"gio-spark {command}", command, *given]
    try:
        main()
    except SystemExit as end:
        if end.code not in (0, None):
            raise
