"""Files that were added to an input since an earlier version of it, and the rows in them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gio_spark.tables.file_list import DataFile, FileList

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST_MARKED = 1_000
"""Files of which a record holds marks; inputs of more are compared row by row."""
_BYTES = 8


@dataclass(frozen=True)
class FileRows:
    """Files of an input, some of which can be read without the others.

    Attributes:
        files: All of them.
        reading: How their values are read: the types of all columns, the dialect. Where it
            changes, rows of files that did not may be read in another way.
        rows_of: Makes rows of some of the files, with the input's own columns, as they stand
            among all rows.
    """

    files: FileList
    reading: str
    rows_of: Callable[[FileList], DataFrame] = field(repr=False)

    def marks(self) -> str | None:
        """Marks of all files for a record, 8 bytes of each in base64; None of too many."""
        if len(self.files.files) > MOST_MARKED:
            return None
        return base64.b64encode(b"".join(sorted(map(self._mark, self.files.files)))).decode()

    def added_since(self, marks: str) -> FileList | None:
        """Files that are none of some earlier ones.

        Returns:
            None where an earlier file is gone, was written again or would be read in another way.
        """
        joined = base64.b64decode(marks)
        earlier = {joined[at : at + _BYTES] for at in range(0, len(joined), _BYTES)}
        added = tuple(one for one in self.files.files if self._mark(one) not in earlier)
        if len(added) + len(earlier) != len(self.files.files):
            return None
        return replace(self.files, files=added, is_part=True)

    def _mark(self, file: DataFile) -> bytes:
        text = f"{self.files.verify}\0{self.reading}\0{file.path}\0{file.length}\0{file.marks}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:_BYTES]
