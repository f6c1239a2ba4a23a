"""Errors that were raised on purpose on a worker, told on the driver as what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gio_spark import errors

# A worker's error arrives as the text of its traceback, whose last line is "module.Class: message".
_RAISED = re.compile(r"gio_spark\.errors\.(\w+): (.+?)\s*(?:\n\s*\n|\n\s+at |\Z)", re.DOTALL)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise again, as itself, an error of gio_spark that ended a query on a worker."""
    try:
        yield
    except errors.GioSparkError:
        raise
    except Exception as error:
        found = _RAISED.findall(str(error))
        if not found:
            raise
        name, message = found[-1]
        kind = getattr(errors, name, None)
        if not (isinstance(kind, type) and issubclass(kind, errors.GioSparkError)):
            raise
        if kind is errors.MissingExtraError:  # its message is made from other arguments
            kind = errors.EngineError
        raise kind(" ".join(message.split())) from error
