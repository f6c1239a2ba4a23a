"""Translation of errors of engines and Python workers to gio_spark errors with cause and remedy.

Spark and Delta identify causes by error conditions and Java classes, delta-rs by classes; the
embedded engine has messages alone. An error is classified by the first of these that its engine
provides. Unknown errors pass unchanged.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gio_spark import errors
from gio_spark.engine import data_files
from gio_spark.engine.engine_failure import EngineFailure
from gio_spark.errors import (
    ConcurrentRunError,
    DataFileError,
    EngineError,
    GioSparkError,
    InputError,
    SnapshotExpiredError,
    WorkspaceError,
)

# A worker's error arrives as the text of its traceback, whose last line is "module.Class: message",
# followed by Spark's own state and stack trace.
_WORKER_ERROR = re.compile(
    r"gio_spark\.errors\.(\w+): (.+?)\s*(?:\n\s*\n|\n\s+at |\n\s*SQLSTATE: |\Z)", re.DOTALL
)

# The embedded engine reads files while a map asks for its next batch: then the last frame is its.
_READ_IN_WORKER = re.compile(r'File "spark\.py", line \d+, in .+\nRuntimeError: (.+)')


@contextmanager
def engine_errors(*, location: str | None = None, version: int | None = None) -> Iterator[None]:
    """Re-raise engine errors as gio_spark errors, and those of Python workers with their type.

    Args:
        location: Location that is read or written, for the message; the engine's message may lack
            it.
        version: Version of the Delta table that is read.

    Raises:
        ConcurrentRunError: Another process committed first.
        WorkspaceError: The disk is full, or a location is not writable.
        DataFileError: A file is corrupt, truncated or missing.
        SnapshotExpiredError: A version of a Delta table or its files no longer exist.
        InputError: A column, value or permission is invalid.
        EngineError: Memory is used up, or the engine or a worker has died.
        GioSparkError: A Python worker raised it.
    """
    try:
        yield
    except GioSparkError as error:
        # An inner block without a location may have translated the engine's error already.
        original = error.__cause__
        if (
            error.cause is None
            or error.location is not None
            or location is None
            or original is None
        ):
            raise
        mapped = translated_error(original, location, version)
        if mapped is None:
            raise
        raise mapped from original
    except Exception as error:
        mapped = translated_error(error, location, version)
        if mapped is None:
            raise
        raise mapped from error


def translated_error(
    error: BaseException, location: str | None = None, version: int | None = None
) -> GioSparkError | None:
    """gio_spark error for an engine's error, None where its cause is unknown."""
    mapped = _worker_error(error)
    if mapped is not None:
        return mapped
    failure = EngineFailure(error, location, version)
    if failure.in_python:
        ours = _full_disk_on_worker(failure) or _memory_error(failure)
        read = _READ_IN_WORKER.search(str(error))
        if ours is not None or read is None:
            return ours
        failure = EngineFailure(RuntimeError(read.group(1)), location, version)
    for classify in _CLASSIFIERS:
        mapped = classify(failure)
        if mapped is not None:
            return mapped
    return None


def _worker_error(error: BaseException) -> GioSparkError | None:
    """gio_spark error that a Python worker raised, rebuilt from the text of its traceback."""
    matches = _WORKER_ERROR.findall(str(error))
    if not matches:
        return None
    name, message = matches[-1]
    error_class = getattr(errors, name, None)
    if not (isinstance(error_class, type) and issubclass(error_class, GioSparkError)):
        return None
    if error_class is errors.MissingExtraError:  # its constructor takes other arguments
        error_class = errors.EngineError
    return error_class(" ".join(message.split()))


_FULL_PATTERN = (
    r"(?:^|: |\] )(?:No space left on device|Disk quota exceeded|There is not enough space on the"
    r" disk)|\(os error (?:28|122)\)"
)


def _full_disk_error(failure: EngineFailure) -> GioSparkError | None:
    number = getattr(failure.error, "errno", None)
    if number not in (errno.ENOSPC, errno.EDQUOT) and not failure.match_message(_FULL_PATTERN):
        return None
    return _no_space(failure, failure.path() or getattr(failure.error, "filename", None))


def _full_disk_on_worker(failure: EngineFailure) -> GioSparkError | None:
    # The last error of the traceback; Spark Connect appends a line of its own.
    pattern = r"^(?:OSError: \[Errno (?:28|122)\] [^\n']+(?:'([^\n]+)')?)\s*(?:\[|SQLSTATE|JVM|\Z)"
    match = re.search(pattern, failure.causes[0].message, re.MULTILINE)
    return _no_space(failure, match.group(1)) if match else None


def _no_space(failure: EngineFailure, path: str | None) -> GioSparkError:
    place = path or failure.location
    at = f"at {place}" if place else "where the engine writes"
    return WorkspaceError(
        f"No space is left {at}. Make room there or choose another place; also look at the "
        "engine's folder for temporary files (spark.local.dir, TMPDIR). Then run again: what is "
        "complete is not computed twice."
    ).about(**failure.details(path=path))


# A class of Python or Java, the words of DataFusion, or those of an allocator.
_MEMORY_PATTERN = (
    r"(?:^|[\s.'\":])_?(?:Array|Arrow)?MemoryError\b|OutOfMemoryError|^Resources exhausted: "
    r"|Cannot allocate memory|failed to map segment from shared object"
    r"|(?:malloc|realloc) of size \d+ failed"
)
_MEMORY_CLASSES = frozenset(
    {"MemoryError", "ArrowMemoryError", "_ArrayMemoryError", "OutOfMemoryError",
     "SparkOutOfMemoryError"}
)  # fmt: skip


def _memory_error(failure: EngineFailure) -> GioSparkError | None:
    if not failure.with_class(_MEMORY_CLASSES) and not failure.match_message(_MEMORY_PATTERN):
        return None
    return EngineError(
        "Memory is used up. Raise the limit of this process or container (for local Spark also "
        "GIO_SPARK_DRIVER_MEMORY, such as 8g), or let less run beside it. Then run again: what is "
        "complete is not computed twice."
    ).about(**failure.details())


_GONE_CLASSES = frozenset({"Py4JNetworkError", "ConnectionRefusedError", "ConnectionResetError"})
_GONE_PATTERN = (
    r"Python worker exited unexpectedly|Python worker failed to connect back|ExecutorLostFailure"
    r"|Answer from Java side is empty|SparkContext (?:was|has been) shut ?down"
    r"|Cannot call methods on a stopped SparkContext"
    r"|(?:failed to connect to all addresses|Connection refused|Socket closed)"
)


def _gone_error(failure: EngineFailure) -> GioSparkError | None:
    if not failure.with_class(_GONE_CLASSES) and not failure.match_message(_GONE_PATTERN):
        return None
    return EngineError(
        "The engine or one of its workers has ended or does not answer, most often because it was "
        "killed for its memory: look at the limits of this process, container or cluster. Then run "
        "again: what is complete is not computed twice."
    ).about(**failure.details())


_CONFLICT_CLASSES = frozenset(
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


def _conflict_error(failure: EngineFailure) -> GioSparkError | None:
    is_conflict = (
        failure.condition("DELTA_CONCURRENT_", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED")
        or failure.with_class(_CONFLICT_CLASSES)
        # Message of the embedded engine, followed by the number of attempts or the conflict.
        or failure.match_message(
            r"^(?:Failed to commit transaction: |Tried committing existing table version)"
        )
    )
    if not is_conflict:
        return None
    return ConcurrentRunError(
        f"Another run wrote {failure.target} at the same time. Run again; what is complete is not "
        "computed twice."
    ).about(**failure.details())


_DENIED_CLASSES = frozenset({"AccessDeniedException", "AccessControlException", "PermissionError"})
_DENIED_PATTERN = (
    r"Permission denied|kind: PermissionDenied|lacked the necessary privileges"
    r"|lacked valid authentication"
)
_NO_FOLDER_PATTERN = r"^Mkdirs failed to create |^Not a directory \(os error 20\)"


def _permission_error(failure: EngineFailure) -> GioSparkError | None:
    is_denied = (
        failure.with_class(_DENIED_CLASSES)
        or failure.match_message(_DENIED_PATTERN)
        or failure.condition("INSUFFICIENT_PERMISSIONS")
        or getattr(failure.error, "errno", None) in (errno.EACCES, errno.EPERM)
    )
    is_no_folder = failure.condition("DELTA_CANNOT_CREATE_LOG_PATH") or failure.match_message(
        _NO_FOLDER_PATTERN
    )
    if not is_denied and not is_no_folder:
        return None
    path = failure.path() or getattr(failure.error, "filename", None)
    place = path or failure.target
    if (
        is_no_folder
        or failure.condition("TASK_WRITE_FAILED")
        or failure.match_message(
            r"(?i)unable to create|could not create|failed to write|copy data to file"
        )
    ):
        return WorkspaceError(
            f"Cannot write to {place}: permission is denied, or something that is no folder stands "
            "there. Mend its permissions or give another place."
        ).about(**failure.details(path=path))
    return InputError(
        f"Cannot read {place}: permission is denied. Let the user that the engine runs as read it, "
        "or give another place."
    ).about(**failure.details(path=path))


_NO_VERSION_PATTERN = (
    r"Cannot time travel Delta table to version (?P<version>\d+)\. "
    r"Available versions: \[(?P<first>\d+), (?P<last>\d+)\]"
    r"|^Missing commit file.*?: expected (?:final )?version (?P<wanted>\d+)"
    r"|LogSegment end version (?P<end>\d+) not the same as the specified end version (?P<asked>\d+)"
    r"|Invalid table version: (?P<invalid>\d+)"
)


def _version_error(failure: EngineFailure) -> GioSparkError | None:
    match = failure.match_message(_NO_VERSION_PATTERN)
    if not match and failure.version is not None:  # without a version: there is no table
        match = failure.match_message(r"^Generic delta kernel error: No files in log segment")
    is_missing = failure.condition(
        "DELTA_VERSION_NOT_FOUND",
        "DELTA_VERSIONS_NOT_CONTIGUOUS",
        "DELTA_LOG_FILE_NOT_FOUND",
        "DELTA_TRUNCATED_TRANSACTION_LOG",
        "DELTA_NO_RECREATABLE_HISTORY_FOUND",
        "DELTA_FILE_NOT_FOUND_DETAILED",
    )
    if not match and not is_missing:
        return None
    versions = {k: int(v) for k, v in (match.groupdict() if match else {}).items() if v is not None}
    requested = [versions[k] for k in ("version", "wanted", "asked", "invalid") if k in versions]
    version = requested[0] if requested else failure.version
    reason = (
        f"has no version {version} (any more)." if version is not None else "lacks old log files."
    )
    available = ""
    if "last" in versions:
        available = f" Versions {versions['first']} to {versions['last']} can be read."
    elif "end" in versions:
        available = f" The newest is {versions['end']}."
    return _snapshot_expired(failure, f"{failure.target} {reason}{available}", version)


def _snapshot_expired(
    failure: EngineFailure, reason: str, version: int | None, path: str | None = None
) -> GioSparkError:
    return SnapshotExpiredError(
        f"{reason} VACUUM and the log's clean-up take old versions away: pin a newer version, or "
        "none to read the newest, and raise delta.deletedFileRetentionDuration and "
        "delta.logRetentionDuration above the time that a run takes."
    ).about(**failure.details(version=version, path=path))


_MISSING_FILE_CLASSES = frozenset(
    {"SparkFileNotFoundException", "FileNotFoundException", "FileNotFoundError"}
)
_FILE_CONDITIONS = ("FAILED_READ_FILE", "CANNOT_READ_FILE", "DELTA_FILE_NOT_FOUND")
_MISSING_FILE_PATTERN = (
    r"Object at location .+ not found|[Ff]ile \S+ does not exist|\[PATH_NOT_FOUND\]"
)
_CORRUPT_FILE_PATTERN = (
    r"(?:^|: )Parquet (?:argument )?error: |is not a Parquet file|^Failed to parse parquet: "
    r"|Parquet magic bytes not found|Parquet file size is|Requested range was invalid"
)


def _file_error(failure: EngineFailure) -> GioSparkError | None:
    is_missing = (
        failure.with_class(_MISSING_FILE_CLASSES)
        or failure.match_message(_MISSING_FILE_PATTERN)
        or failure.condition("PATH_NOT_FOUND", "FAILED_READ_FILE.FILE_NOT_EXIST")
    )
    if (
        not is_missing
        and not failure.condition(*_FILE_CONDITIONS)
        and not failure.match_message(_CORRUPT_FILE_PATTERN)
    ):
        return None
    path = failure.path() or getattr(failure.error, "filename", None)
    of = f" of {failure.location}" if failure.location and failure.location != path else ""
    if failure.condition("PATH_NOT_FOUND"):
        return DataFileError(
            f"Nothing is at {path or failure.target}. Check the path; a table is given by its name."
        ).about(**failure.details(path=path))
    if is_missing:
        removed_in = data_files.removed_in(path)
        if removed_in is not None:
            return _snapshot_expired(
                failure,
                f"{path}{of} is gone: the table does without it since version {removed_in}, and "
                f"its versions before {removed_in} cannot be read any more.",
                failure.version,
                path,
            )
        return DataFileError(
            f"{path or 'A file'}{of} does not exist, or no longer. Put it back, or run again once "
            "nothing writes there; a Delta table that lost a file must be restored or written anew."
        ).about(**failure.details(path=path))
    if path is None and failure.location is not None:
        path = data_files.first_broken(failure.location)
        # Whole files: the engine was writing there, and has read the broken one elsewhere.
        if path is None and Path(failure.location).exists():
            of = ""
    return DataFileError(
        f"Cannot read {path or 'the files'}{of}: the file is corrupt, cut short or no Parquet. "
        "Leave it out or write it again from its source."
    ).about(**failure.details(path=path))


_COLUMN_PATTERNS = (
    r"name [`\"](.+?)[`\"] cannot be resolved",
    r"^attribute ObjectName\((.+?)\) is missing from the schema",
    r"NOT NULL constraint violated for column: (.+?)\.?\s*$",
    r"^No such struct field [`\"](.+?)[`\"]",
)


def _column_error(failure: EngineFailure) -> GioSparkError | None:
    match = next((m for m in map(failure.match_message, _COLUMN_PATTERNS) if m), None)
    column = match.group(1) if match else None
    if column and column.startswith("["):  # the embedded engine formats its parts as a Rust list
        column = ".".join(re.findall(r'Identifier\("(.+?)"\)', column)) or column
    column_label = f"column {column!r}" if column else "a column"
    details = failure.details(column=column)
    if failure.condition(
        "UNRESOLVED_COLUMN", "UNRESOLVED_FIELD", "FIELD_NOT_FOUND"
    ) or failure.match_message(r"^attribute .+ is missing from the schema"):
        return InputError(
            f"{_capitalized(column_label)} is not in {failure.target}. Name one that is there; "
            "upper and lower case and blanks count."
        ).about(**details)
    if failure.condition("DELTA_NOT_NULL_CONSTRAINT", "NOT_NULL_CONSTRAINT_VIOLATION"):
        return InputError(
            f"{_capitalized(column_label)} of {failure.target} may not be null, and a row has "
            "no value there. Leave such rows out, or drop the column's NOT NULL."
        ).about(**details)
    # The values are row content and must not appear in the message.
    is_cast = failure.condition("CAST_INVALID_INPUT", "CAST_OVERFLOW", "DELTA_CAST_OVERFLOW")
    types = failure.match_message(
        r"of the type \"(.+?)\" cannot be cast to \"(.+?)\""
    ) or failure.match_message(r"^(?:Cast error: )?Cannot cast (\w+) '.*' to value of (\w+) type")
    if is_cast or types:
        of = f" of type {types.group(1)} is no {types.group(2)}" if types else " does not fit"
        return InputError(
            f"A value in {column_label} of {failure.target}{of}. Mend the rows, or name a column "
            "of the wanted type."
        ).about(**(details if is_cast else details | {"cause": "cast error"}))
    if failure.match_message(r"Invalid data found: \d+ rows failed validation check"):
        return InputError(
            f"Rows break a constraint of {failure.target}, such as a column that may not be null. "
            "Leave them out, or drop the constraint."
        ).about(**failure.details(cause="rows failed validation check"))
    return None


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


_FILE_SYSTEM_CLASSES = frozenset({"UnsupportedFileSystemException", "ClassNotFoundException"})


def _file_system_error(failure: EngineFailure) -> GioSparkError | None:
    """Error of a scheme (s3a://, abfss://, ...) that the session's Hadoop cannot open."""
    cause = failure.with_class(_FILE_SYSTEM_CLASSES)
    if cause is None or "FileSystem" not in f"{cause.name} {cause.message}":
        return None
    return InputError(
        f"Spark has no file system for {failure.target}. Add its jar (hadoop-aws for s3a, "
        "hadoop-azure for abfss, the connector of Google for gs) by spark.jars.packages, or give a "
        "path that it can open."
    ).about(**failure.details())


# Ordered: a full disk or a denied file also appears as a failed commit, write or read.
_CLASSIFIERS: tuple[Callable[[EngineFailure], GioSparkError | None], ...] = (
    _full_disk_error,
    _memory_error,
    _permission_error,
    _conflict_error,
    _version_error,
    _file_system_error,
    _file_error,
    _column_error,
    _gone_error,
)
