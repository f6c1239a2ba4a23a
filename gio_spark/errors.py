"""Errors of gio_spark. Every message says what is wrong, where, and what to do."""

from __future__ import annotations

from typing import Any

from typing_extensions import Self


class GioSparkError(Exception):
    """Root of all errors that gio_spark raises on purpose.

    Attributes:
        location: Table, folder or workspace, as it was given; None where it is not known, as below.
        path: File or folder that the trouble lies in.
        version: Version of a Delta table.
        column: Name of a column.
        cause: What the engine calls it: an error condition, a class, or its message's first line.
    """

    location: str | None = None
    path: str | None = None
    version: int | None = None
    column: str | None = None
    cause: str | None = None

    def about(self, **facts: Any) -> Self:
        """Set attributes, and return the error."""
        for name, value in facts.items():
            setattr(self, name, value)
        return self


class ConfigError(GioSparkError, ValueError):
    """A setting is missing, unknown, of the wrong type or contradicts another one."""


class IdentifierError(ConfigError):
    """A table, column or catalog name is not a plain identifier."""


class InputError(GioSparkError, ValueError):
    """Input rows, columns, types or files cannot be used as they are."""


class DataFileError(InputError):
    """A data file, named in `path`, is corrupt, cut short or missing."""


class BudgetError(InputError):
    """A budget cannot be met. `largest` is the largest one that can, in the budget's own unit."""

    def __init__(self, message: str, largest: float | None = None) -> None:
        super().__init__(message)
        self.largest = largest


class TooManyBadRowsError(InputError):
    """More rows went to quarantine than the settings allow."""


class EngineError(GioSparkError):
    """The engine cannot do what was asked, or is not installed."""


class MissingExtraError(GioSparkError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'gio-spark[{extra}]'"
        )


class TrackingError(GioSparkError):
    """The tracking store does not answer or refuses, and the settings say that nothing goes on."""


def missing_spark(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Error that names the extra, where the module that is missing is pyspark; else None."""
    if (error.name or "").split(".")[0] != "pyspark":
        return None
    purpose = "An engine (embedded without Java, or spark)"
    return MissingExtraError("pyspark", "embedded]' or 'gio-spark[spark", purpose)


class WorkspaceError(GioSparkError):
    """The workspace cannot be written, or what was read back is not what was written."""


class SnapshotExpiredError(WorkspaceError):
    """A pinned input version is gone or its files changed during the run.

    Attributes:
        location: The input, where known.
        path: The first file of it that differs; for a table, its location.
    """

    def __init__(
        self, message: str, *, location: str | None = None, path: str | None = None
    ) -> None:
        super().__init__(message)
        self.location = location
        self.path = path


class ConcurrentRunError(WorkspaceError):
    """Another run committed to the same stage table at the same time."""


class EmptySelectionError(GioSparkError):
    """Nothing in the pool is worth selecting for this target."""


class NoVerdictError(GioSparkError):
    """The data cannot tell whether a selection is good: no label to compare, nothing learned."""
