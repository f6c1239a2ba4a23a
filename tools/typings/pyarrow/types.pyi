"""Questions about a type."""

from collections.abc import Callable

from pyarrow import DataType

def __getattr__(name: str) -> Callable[[DataType], bool]: ...
