"""File systems."""

from datetime import datetime
from enum import Enum
from typing import Any

from pyarrow import NativeFile

class FileType(Enum):
    NotFound = 0
    Unknown = 1
    File = 2
    Directory = 3

class FileInfo:
    path: str
    base_name: str
    extension: str
    size: int
    type: FileType
    is_file: bool
    mtime: datetime
    mtime_ns: int

class FileSelector:
    def __init__(
        self, base_dir: str, allow_not_found: bool = False, recursive: bool = False
    ) -> None: ...

class FileSystem:
    type_name: str
    @staticmethod
    def from_uri(uri: str) -> tuple[FileSystem, str]: ...
    def get_file_info(self, paths_or_selector: Any) -> Any: ...
    def open_input_file(self, path: str) -> NativeFile: ...
    def open_input_stream(self, path: str, compression: str | None = "detect") -> NativeFile: ...
    def open_output_stream(self, path: str) -> NativeFile: ...
    def create_dir(self, path: str, *, recursive: bool = True) -> None: ...
    def delete_dir(self, path: str) -> None: ...
    def delete_file(self, path: str) -> None: ...
    def move(self, src: str, dest: str) -> None: ...

class LocalFileSystem(FileSystem):
    def __init__(self, *, use_mmap: bool = False) -> None: ...

class SubTreeFileSystem(FileSystem):
    def __init__(self, base_path: str, base_fs: FileSystem) -> None: ...
