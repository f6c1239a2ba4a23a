"""Errors of engines with their chains of causes: classes, error conditions, messages and paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gio_spark.engine import data_files

_CONDITION = re.compile(r"\s*\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
_CAUSED_BY = re.compile(r"^(?:Caused by: )?((?:\w+\.)+\w*(?:Exception|Error))(?:: (.*))?$", re.M)
_ANSI_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_MAX_CAUSES = 20

# Patterns of messages that name a file or folder, the most reliable first.
_PATH_PATTERNS = (
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


@dataclass(frozen=True)
class ErrorCause:
    """Error in a chain of causes: class, error condition and message."""

    class_name: str
    condition: str
    message: str

    @property
    def name(self) -> str:
        """Name of the class without its package."""
        return self.class_name.rpartition(".")[2]


class EngineFailure:
    """Engine error with the location and version in use."""

    def __init__(self, error: BaseException, location: str | None, version: int | None) -> None:
        self.error = error
        self.location = location
        self.version = version

    @cached_property
    def causes(self) -> list[ErrorCause]:
        """The error and its causes, outermost first."""
        causes = [_cause(_qualified_name(self.error), _message(self.error), _condition(self.error))]
        java = getattr(self.error, "java_exception", None) or getattr(self.error, "_origin", None)
        try:
            for _ in range(_MAX_CAUSES):
                if java is None:
                    break
                causes.append(_cause(java.getClass().getName(), java.getMessage() or "", None))
                java = java.getCause()
        except Exception:  # noqa: BLE001 - the JVM may have exited; the text suffices
            java = None
        # A Spark Connect server sends its stack trace as text, if at all.
        trace = getattr(self.error, "_stacktrace", None) or getattr(self.error, "_stackTrace", None)
        if len(causes) == 1 and isinstance(trace, str):
            causes += [
                _cause(class_name, text, None) for class_name, text in _CAUSED_BY.findall(trace)
            ]
        return causes

    @cached_property
    def in_python(self) -> bool:
        """Whether Python code on a worker failed, whose message does not concern the engine."""
        return any(
            cause.name == "PythonException" or cause.condition == "PYTHON_EXCEPTION"
            for cause in self.causes
        )

    @property
    def target(self) -> str:
        """Location for a message."""
        return self.location or "the table"

    def condition(self, *starts: str) -> ErrorCause | None:
        """First cause whose condition starts with one of the texts."""
        return next((x for x in self.causes if x.condition.startswith(starts)), None)

    def with_class(self, names: frozenset[str]) -> ErrorCause | None:
        """First cause of one of the classes."""
        return next((x for x in self.causes if x.name in names), None)

    def match_message(self, pattern: str) -> re.Match[str] | None:
        """First match of a pattern in the messages, from the innermost cause outwards."""
        for cause in reversed(self.causes):
            match = re.search(pattern, cause.message)
            if match:
                return match
        return None

    def path(self) -> str | None:
        """File or folder named in the messages."""
        for pattern in _PATH_PATTERNS:
            match = self.match_message(pattern)
            if match:
                return data_files.plain(match.group(1), self.location)
        return None

    def details(self, **fields: Any) -> dict[str, Any]:
        """Fields for `GioSparkError.about`: location, version, cause and more."""
        cause = next((x.condition for x in self.causes if x.condition), None)
        cause = cause or next(
            (x.class_name for x in reversed(self.causes) if "." in x.class_name), None
        )
        if cause is None or cause.startswith(("pyspark.", "py4j.", "builtins.", "_internal.")):
            lines = self.causes[0].message.strip().splitlines() or [type(self.error).__name__]
            cause = lines[0][:200]
        return {"location": self.location, "version": self.version, "cause": cause, **fields}


def _qualified_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _message(error: BaseException) -> str:
    message = str(error).partition("\n\nJVM stacktrace:")[0]
    if hasattr(error, "java_exception"):  # its text includes the whole stack trace
        message = ""
    return _ANSI_COLOR.sub("", message)


def _condition(error: BaseException) -> str | None:
    get_condition = getattr(error, "getCondition", None)
    try:
        return get_condition() if get_condition is not None else None
    except Exception:  # noqa: BLE001 - the JVM may have exited
        return None


def _cause(class_name: str, message: str, condition: str | None) -> ErrorCause:
    match = _CONDITION.match(message)
    return ErrorCause(class_name, condition or (match.group(1) if match else ""), message)
