"""Functions of arrays: they give an array, a chunked array or a scalar, as they are given one."""

from typing import Any

def __getattr__(name: str) -> Any: ...
