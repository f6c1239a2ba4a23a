"""What every file in jobs/ calls: read the configuration, run the stages, set the exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from gio_spark.errors import ConfigError, GioSparkError

FAILED, BAD_CONFIGURATION = 1, 2


def job(stage: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run all stages up to `stage` (none: all) with a configuration file, as a job of a cluster.

    Stages that are complete are not run again, so jobs of single stages can follow one another.
    The session is the cluster's own wherever the process was submitted to one.

    Raises:
        SystemExit: Only where the job failed: some schedulers take any SystemExit for a failure.
    """
    settings_of = _parser(stage).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("gio_spark").setLevel(settings_of.log_level)
    overrides = list(settings_of.set)
    for name in ("pool", "target", "budget", "workspace"):
        value = getattr(settings_of, name)
        if value is not None:
            overrides.append(f"{name}={value}")
    try:
        _run(settings_of.config, overrides, stage)
    except GioSparkError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(BAD_CONFIGURATION if isinstance(error, ConfigError) else FAILED)


def _run(config: str, overrides: list[str], stage: str | None) -> None:
    # Imported here: `--help` answers at once, and a wrong argument starts no Spark.
    from gio_spark.pipeline import run
    from gio_spark.settings.load import load

    curation = run(load(config, overrides), until=stage)
    what = "nothing was left to do" if not curation.did_work else "done"
    sys.stdout.write(f"{curation.run_id}: {what}\n")
    for table, place in curation.tables.items():
        sys.stdout.write(f"  {table}: {place}\n")
    if curation.report is not None:
        sys.stdout.write(f"  report: {curation.report}\n")


def _parser(stage: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Run the stages up to {stage}." if stage else "Run all stages."
    )
    parser.add_argument("--config", required=True, help="YAML file; `gio-spark init` writes one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override a setting, such as --set quantize.clusters=500; may be repeated",
    )  # fmt: skip
    parser.add_argument("--pool", help="override the pool: a path or a table's name")
    parser.add_argument("--target", help="override the target")
    parser.add_argument("--budget", help="override the budget: rows, a share or tokens")
    parser.add_argument("--workspace", help="override the workspace: a folder or catalog.schema")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING"])
    return parser
