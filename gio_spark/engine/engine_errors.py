"""Errors of all engines, raised again as what they are: the cause, the place, the way out.

Spark and Delta name their causes by conditions and Java classes, delta-rs by classes; the embedded
engine has messages alone. An error is judged by the first that its engine offers. What is not known
here passes unchanged.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gio_spark import errors
from gio_spark.engine import data_files
from gio_spark.errors import (
    ConcurrentRunError,
    DataFileError,
    GioSparkError,
    InputError,
    SnapshotExpiredError,
    WorkspaceError,
)

# A worker's error arrives as the text of its traceback, whose last line is "module.Class: message".
# Spark says its own state after it, and its trace.
_RAISED = re.compile(
    r"gio_spark\.errors\.(\w+): (.+?)\s*(?:\n\s*\n|\n\s+at |\n\s*SQLSTATE: |\Z)", re.DOTALL
)
_CONDITION = re.compile(r"\s*\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
_CAUSED_BY = re.compile(r"^(?:Caused by: )?((?:\w+\.)+\w*(?:Exception|Error))(?:: (.*))?$", re.M)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_DEEPEST = 20


@contextmanager
def engine_errors(*, location: str | None = None, version: int | None = None) -> Iterator[None]:
    """Raise an engine's error again as the error of gio_spark that names its cause.

    Args:
        location: What is read or written, for the message; the engine's own words may name none.
        version: Version of the Delta table that is read.

    Raises:
        ConcurrentRunError: Another commit was first.
        WorkspaceError: The disk is full, or a place cannot be written.
        DataFileError: A file is corrupt, cut short or missing.
        SnapshotExpiredError: A version of a Delta table is gone, or its files are.
        InputError: A column, a value or a permission is not what was assumed.
        GioSparkError: A worker raised it, as what it was there.
    """
    try:
        yield
    except GioSparkError as error:
        # An inner block without a place may have translated the engine's error already.
        first = error.__cause__
        if error.cause is None or error.location is not None or location is None or first is None:
            raise
        placed = translated(first, location, version)
        if placed is None:
            raise
        raise placed from first
    except Exception as error:
        ours = translated(error, location, version)
        if ours is None:
            raise
        raise ours from error


def translated(
    error: BaseException, location: str | None = None, version: int | None = None
) -> GioSparkError | None:
    """Return the error of gio_spark for an engine's error, None where its cause is not known."""
    ours = _of_worker(error)
    if ours is not None:
        return ours
    case = _Case(error, location, version)
    if case.from_python:
        return _full_disk_of_worker(case)
    for kind in _KINDS:
        ours = kind(case)
        if ours is not None:
            return ours
    return None


def _of_worker(error: BaseException) -> GioSparkError | None:
    raised = _RAISED.findall(str(error))
    if not raised:
        return None
    name, message = raised[-1]
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, GioSparkError)):
        return None
    if kind is errors.MissingExtraError:  # its message is made from other arguments
        kind = errors.EngineError
    return kind(" ".join(message.split()))


@dataclass(frozen=True)
class _Link:
    """One error of a chain of causes: its class, its condition and its message."""

    kind: str
    condition: str
    message: str

    @property
    def name(self) -> str:
        """Class without its package."""
        return self.kind.rpartition(".")[2]


class _Case:
    """An engine's error and what was being done."""

    def __init__(self, error: BaseException, location: str | None, version: int | None) -> None:
        self.error = error
        self.location = location
        self.version = version

    @cached_property
    def links(self) -> list[_Link]:
        """The error and its causes, outermost first."""
        links = [_link(_qualified(self.error), _message(self.error), _condition(self.error))]
        java = getattr(self.error, "java_exception", None) or getattr(self.error, "_origin", None)
        try:
            for _ in range(_DEEPEST):
                if java is None:
                    break
                links.append(_link(java.getClass().getName(), java.getMessage() or "", None))
                java = java.getCause()
        except Exception:  # noqa: BLE001 - the JVM may be gone; the text is there
            java = None
        # A Spark Connect server sends its trace as text, if it sends one.
        trace = getattr(self.error, "_stacktrace", None) or getattr(self.error, "_stackTrace", None)
        if len(links) == 1 and isinstance(trace, str):
            links += [_link(kind, said, None) for kind, said in _CAUSED_BY.findall(trace)]
        return links

    @cached_property
    def from_python(self) -> bool:
        """Whether Python code on a worker failed, whose words say nothing about the engine."""
        return any(
            link.name == "PythonException" or link.condition == "PYTHON_EXCEPTION"
            for link in self.links
        )

    @property
    def where(self) -> str:
        return self.location or "the table"

    def condition(self, *starts: str) -> _Link | None:
        """Return the first link whose condition starts with one of some texts."""
        return next((x for x in self.links if x.condition.startswith(starts)), None)

    def named(self, names: frozenset[str]) -> _Link | None:
        """Return the first link of one of some classes."""
        return next((x for x in self.links if x.name in names), None)

    def says(self, pattern: str) -> re.Match[str] | None:
        """Return the first match of a pattern in the messages, the innermost first."""
        for link in reversed(self.links):
            match = re.search(pattern, link.message)
            if match:
                return match
        return None

    def path(self) -> str | None:
        """Return the file or folder that the messages name."""
        for pattern in _PATHS:
            match = self.says(pattern)
            if match:
                return data_files.plain(match.group(1), self.location)
        return None

    def facts(self, **more: Any) -> dict[str, Any]:
        cause = next((x.condition for x in self.links if x.condition), None)
        cause = cause or next((x.kind for x in reversed(self.links) if "." in x.kind), None)
        if cause is None or cause.startswith(("pyspark.", "py4j.", "builtins.", "_internal.")):
            lines = self.links[0].message.strip().splitlines() or [type(self.error).__name__]
            cause = lines[0][:200]
        return {"location": self.location, "version": self.version, "cause": cause, **more}


def _qualified(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _message(error: BaseException) -> str:
    said = str(error).partition("\n\nJVM stacktrace:")[0]
    if hasattr(error, "java_exception"):  # its text goes on with the whole trace
        said = ""
    return _COLOUR.sub("", said)


def _condition(error: BaseException) -> str | None:
    ask = getattr(error, "getCondition", None)
    try:
        return ask() if ask is not None else None
    except Exception:  # noqa: BLE001 - the JVM may be gone
        return None


def _link(kind: str, message: str, condition: str | None) -> _Link:
    named = _CONDITION.match(message)
    return _Link(kind, condition or (named.group(1) if named else ""), message)


# Where messages name a file or folder, the most certain first.
_PATHS = (
    r"Object at location (.+?) not found",
    r"(?:while reading|Unable to (?:open|create|read|copy)) file (.+?)(?:\.\s|:\s|\.?$|\n)",
    r"Failed to fetch metadata for file (.+?): ",
    r"(?:Unable to create dir|IO error for operation on) (.+?)(?::\s|\n|$)",
    r"Could not create local directory: (.+?)(?:\n|$)",
    r"((?:[a-z0-9]+:)?/.+?) is not a Parquet file",
    r"Cannot create (.+?)(?:/_delta_log)?$",
    r"Mkdirs failed to create (.+?)(?:/_temporary.*)? \(",
    r"[Ff]ile (\S+) does not exist",
    r"writing rows to (.+?)\.\s",
    r"^(/.+?)(?:: Permission denied|\s\(Permission denied\))",
    r"\[PATH_NOT_FOUND\] Path does not exist: (.+?)\.\s",
    r"Permission denied: .*inode=\"(.+?)\"",
)

_FULL = (
    r"(?:^|: |\] )(?:No space left on device|Disk quota exceeded|There is not enough space on the"
    r" disk)|\(os error (?:28|122)\)"
)


def _full_disk(case: _Case) -> GioSparkError | None:
    number = getattr(case.error, "errno", None)
    if number not in (errno.ENOSPC, errno.EDQUOT) and not case.says(_FULL):
        return None
    return _full(case, case.path() or getattr(case.error, "filename", None))


def _full_disk_of_worker(case: _Case) -> GioSparkError | None:
    # The last error of the traceback; Spark Connect says a line of its own after it.
    pattern = r"^(?:OSError: \[Errno (?:28|122)\] [^\n']+(?:'([^\n]+)')?)\s*(?:\[|SQLSTATE|JVM|\Z)"
    match = re.search(pattern, case.links[0].message, re.MULTILINE)
    return _full(case, match.group(1)) if match else None


def _full(case: _Case, path: str | None) -> GioSparkError:
    place = path or case.location
    at = f"at {place}" if place else "where the engine writes"
    return WorkspaceError(
        f"No space is left {at}. Make room there or choose another place; also look at the "
        "engine's folder for temporary files (spark.local.dir, TMPDIR). Then run again: what is "
        "complete is not computed twice."
    ).about(**case.facts(path=path))


_CONFLICTS = frozenset(
    {
        "CommitFailedError",
        "ConcurrentAppendException",
        "ConcurrentDeleteDeleteException",
        "ConcurrentDeleteReadException",
        "ConcurrentTransactionException",
        "ConcurrentWriteException",
        "DeltaConcurrentModificationException",
        "MetadataChangedException",
        "ProtocolChangedException",
    }
)


def _conflict(case: _Case) -> GioSparkError | None:
    known = (
        case.condition("DELTA_CONCURRENT_", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED")
        or case.named(_CONFLICTS)
        # The embedded engine says this, and after it the tries it made or the kind of conflict.
        or case.says(r"^(?:Failed to commit transaction: |Tried committing existing table version)")
    )
    if not known:
        return None
    return ConcurrentRunError(
        f"Another run wrote {case.where} at the same time. Run again; what is complete is not "
        "computed twice."
    ).about(**case.facts())


_DENIED = frozenset({"AccessDeniedException", "AccessControlException", "PermissionError"})
_DENIES = (
    r"Permission denied|kind: PermissionDenied|lacked the necessary privileges"
    r"|lacked valid authentication"
)
_NO_FOLDER = r"^Mkdirs failed to create |^Not a directory \(os error 20\)"


def _denied(case: _Case) -> GioSparkError | None:
    denied = (
        case.named(_DENIED)
        or case.says(_DENIES)
        or case.condition("INSUFFICIENT_PERMISSIONS")
        or getattr(case.error, "errno", None) in (errno.EACCES, errno.EPERM)
    )
    no_folder = case.condition("DELTA_CANNOT_CREATE_LOG_PATH") or case.says(_NO_FOLDER)
    if not denied and not no_folder:
        return None
    path = case.path() or getattr(case.error, "filename", None)
    place = path or case.where
    if (
        no_folder
        or case.condition("TASK_WRITE_FAILED")
        or case.says(r"(?i)unable to create|could not create|failed to write|copy data to file")
    ):
        return WorkspaceError(
            f"Cannot write to {place}: permission is denied, or something that is no folder stands "
            "there. Mend its permissions or give another place."
        ).about(**case.facts(path=path))
    return InputError(
        f"Cannot read {place}: permission is denied. Let the user that the engine runs as read it, "
        "or give another place."
    ).about(**case.facts(path=path))


_NO_VERSION = (
    r"Cannot time travel Delta table to version (?P<version>\d+)\. "
    r"Available versions: \[(?P<first>\d+), (?P<last>\d+)\]"
    r"|^Missing commit file.*?: expected (?:final )?version (?P<wanted>\d+)"
    r"|LogSegment end version (?P<end>\d+) not the same as the specified end version (?P<asked>\d+)"
    r"|Invalid table version: (?P<invalid>\d+)"
)


def _expired(case: _Case) -> GioSparkError | None:
    said = case.says(_NO_VERSION)
    if not said and case.version is not None:  # without a version: there is no table at all
        said = case.says(r"^Generic delta kernel error: No files in log segment")
    gone = case.condition(
        "DELTA_VERSION_NOT_FOUND",
        "DELTA_VERSIONS_NOT_CONTIGUOUS",
        "DELTA_LOG_FILE_NOT_FOUND",
        "DELTA_TRUNCATED_TRANSACTION_LOG",
        "DELTA_NO_RECREATABLE_HISTORY_FOUND",
        "DELTA_FILE_NOT_FOUND_DETAILED",
    )
    if not said and not gone:
        return None
    known = {k: int(v) for k, v in (said.groupdict() if said else {}).items() if v is not None}
    versions = [known[k] for k in ("version", "wanted", "asked", "invalid") if k in known]
    version = versions[0] if versions else case.version
    what = (
        f"has no version {version} (any more)." if version is not None else "lacks old log files."
    )
    left = ""
    if "last" in known:
        left = f" Versions {known['first']} to {known['last']} can be read."
    elif "end" in known:
        left = f" The newest is {known['end']}."
    return _gone(case, f"{case.where} {what}{left}", version)


def _gone(case: _Case, what: str, version: int | None, path: str | None = None) -> GioSparkError:
    return SnapshotExpiredError(
        f"{what} VACUUM and the log's clean-up take old versions away: pin a newer version, or "
        "none to read the newest, and raise delta.deletedFileRetentionDuration and "
        "delta.logRetentionDuration above the time that a run takes."
    ).about(**case.facts(version=version, path=path))


_FILE_GONE = frozenset({"SparkFileNotFoundException", "FileNotFoundException", "FileNotFoundError"})
_FILE_CONDITIONS = ("FAILED_READ_FILE", "CANNOT_READ_FILE", "DELTA_FILE_NOT_FOUND")
_ABSENT = r"Object at location .+ not found|[Ff]ile \S+ does not exist|\[PATH_NOT_FOUND\]"
_BROKEN = (
    r"^Parquet (?:argument )?error: |is not a Parquet file|^Failed to parse parquet: "
    r"|Parquet magic bytes not found|Parquet file size is|Requested range was invalid"
)


def _file(case: _Case) -> GioSparkError | None:
    absent = (
        case.named(_FILE_GONE)
        or case.says(_ABSENT)
        or case.condition("PATH_NOT_FOUND", "FAILED_READ_FILE.FILE_NOT_EXIST")
    )
    if not absent and not case.condition(*_FILE_CONDITIONS) and not case.says(_BROKEN):
        return None
    path = case.path() or getattr(case.error, "filename", None)
    of = f" of {case.location}" if case.location and case.location != path else ""
    if case.condition("PATH_NOT_FOUND"):
        return DataFileError(
            f"Nothing is at {path or case.where}. Check the path; a table is given by its name."
        ).about(**case.facts(path=path))
    if absent:
        removed = data_files.removed_in(path)
        if removed is not None:
            return _gone(
                case,
                f"{path}{of} is gone: the table does without it since version {removed}, and its "
                f"versions before {removed} cannot be read any more.",
                case.version,
                path,
            )
        return DataFileError(
            f"{path or 'A file'}{of} does not exist, or no longer. Put it back, or run again once "
            "nothing writes there; a Delta table that lost a file must be restored or written anew."
        ).about(**case.facts(path=path))
    if path is None and case.location is not None:
        path = data_files.first_broken(case.location)
    of = f" of {case.location}" if case.location and case.location != path else ""
    return DataFileError(
        f"Cannot read {path or 'the files'}{of}: the file is corrupt, cut short or no Parquet. "
        "Leave it out or write it again from its source."
    ).about(**case.facts(path=path))


_COLUMNS = (
    r"name [`\"](.+?)[`\"] cannot be resolved",
    r"^attribute ObjectName\((.+?)\) is missing from the schema",
    r"NOT NULL constraint violated for column: (.+?)\.?\s*$",
    r"^No such struct field [`\"](.+?)[`\"]",
)


def _column(case: _Case) -> GioSparkError | None:
    match = next((m for m in map(case.says, _COLUMNS) if m), None)
    column = match.group(1) if match else None
    if column and column.startswith("["):  # the embedded engine writes its parts as a Rust list
        column = ".".join(re.findall(r'Identifier\("(.+?)"\)', column)) or column
    called = f"column {column!r}" if column else "a column"
    facts = case.facts(column=column)
    if case.condition("UNRESOLVED_COLUMN", "UNRESOLVED_FIELD", "FIELD_NOT_FOUND") or case.says(
        r"^attribute .+ is missing from the schema"
    ):
        return InputError(
            f"{_capital(called)} is not in {case.where}. Name one that is there; upper and lower "
            "case and blanks count."
        ).about(**facts)
    if case.condition("DELTA_NOT_NULL_CONSTRAINT", "NOT_NULL_CONSTRAINT_VIOLATION"):
        return InputError(
            f"{_capital(called)} of {case.where} may not be null, and a row has no value there. "
            "Leave such rows out, or drop the column's NOT NULL."
        ).about(**facts)
    # The values are rows' content: they stay out of the message.
    cast = case.condition("CAST_INVALID_INPUT", "CAST_OVERFLOW", "DELTA_CAST_OVERFLOW")
    types = case.says(r"of the type \"(.+?)\" cannot be cast to \"(.+?)\"") or case.says(
        r"^(?:Cast error: )?Cannot cast (\w+) '.*' to value of (\w+) type"
    )
    if cast or types:
        of = f" of type {types.group(1)} is no {types.group(2)}" if types else " does not fit"
        return InputError(
            f"A value in {called} of {case.where}{of}. Mend the rows, or name a column of the "
            "wanted type."
        ).about(**(facts if cast else facts | {"cause": "cast error"}))
    if case.says(r"Invalid data found: \d+ rows failed validation check"):
        return InputError(
            f"Rows break a constraint of {case.where}, such as a column that may not be null. "
            "Leave them out, or drop the constraint."
        ).about(**case.facts(cause="rows failed validation check"))
    return None


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


# A full disk and a denied file also show as a failed commit, write or read: they are asked first.
_KINDS: tuple[Callable[[_Case], GioSparkError | None], ...] = (
    _full_disk,
    _denied,
    _conflict,
    _expired,
    _file,
    _column,
)
