"""Broadcast of arrays without sparkContext: small ones in the closure, large ones as files."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gio_spark.engine.capabilities import describe
from gio_spark.errors import EngineError
from gio_spark.process import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

# A closure is sent with every task, so only small arrays are part of it; a Connect client
# rejects messages above 128 MB.
INLINE_BYTES = 8 << 20

CACHE_BYTES = 64 << 20
"""Bytes of arrays that a process caches besides the most recently loaded ones."""

T = TypeVar("T")

_loaded: dict[str, dict[str, NDArray[Any]]] = {}
_lock = threading.Lock()
_folder: Path | None = None


@dataclass(frozen=True)
class BroadcastArrays:
    """Small handle that a map function may capture; `load` returns the arrays on the worker.

    Attributes:
        digest: Hash of the content.
        inline: Arrays as .npy bytes, when they are small.
        files: File per array, when they are large.
        local: Whether `files` are paths that a worker can open directly.
    """

    digest: str
    inline: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    local: bool = False

    def load(self) -> dict[str, NDArray[Any]]:
        """Arrays, read-only; files are memory-mapped and cached per process."""
        with _lock:
            if self.digest not in _loaded:
                _loaded[self.digest] = self._open()
                # A long fit must not accumulate the codebooks of all passes.
                evict_oldest(_loaded, lambda arrays: sum(a.nbytes for a in arrays.values()))
            return _loaded[self.digest]

    def release(self) -> None:
        """Release the arrays when no further task will load them.

        Files sent to other machines stay: Spark has no call to remove them, and a worker may still
        read them.
        """
        with _lock:
            _loaded.pop(self.digest, None)
            for file in self.files.values() if self.local else ():
                Path(file).unlink(missing_ok=True)

    def _open(self) -> dict[str, NDArray[Any]]:
        arrays = {
            name: np.load(io.BytesIO(content), allow_pickle=False)
            for name, content in self.inline.items()
        }
        for name, file in self.files.items():
            path = file
            if not self.local:
                from pyspark import SparkFiles

                path = SparkFiles.get(file)
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        for array in arrays.values():
            if array.flags.writeable:
                array.flags.writeable = False
        return arrays


def evict_oldest(cache: dict[str, T], size: Callable[[T], int]) -> None:
    """Evict the oldest entries until at most 16 and `CACHE_BYTES` besides the newest remain."""
    total = sum(size(entry) for entry in list(cache.values())[:-1])
    while len(cache) > 1 and (len(cache) > 16 or total > CACHE_BYTES):
        total -= size(cache.pop(next(iter(cache))))


def broadcast_arrays(spark: SparkSession, arrays: Mapping[str, NDArray[Any]]) -> BroadcastArrays:
    """Make arrays available on every worker.

    Args:
        spark: The session whose workers need them.
        arrays: Name -> array. Object arrays raise a ValueError: nothing is pickled.
    """
    contents = {name: _npy(array) for name, array in arrays.items()}
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + contents[name])
    key = digest.hexdigest()[:32]
    if sum(len(c) for c in contents.values()) <= INLINE_BYTES:
        return BroadcastArrays(digest=key, inline=contents)
    local = describe(spark).kind in ("embedded", "local")
    files = {}
    for name, content in contents.items():
        path = _store(f"gio-{key}-{name}.npy", content)
        files[name] = str(path) if local else path.name
        if not local:
            _add_artifact(spark, path)
    return BroadcastArrays(digest=key, files=files, local=local)


def _npy(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _store(name: str, content: bytes) -> Path:
    global _folder
    with _lock:
        if _folder is None:
            _folder = temporary_folder("gio-spark-")
        path = _folder / name
        if not path.exists():
            path.write_bytes(content)
        return path


def _add_artifact(spark: SparkSession, path: Path) -> None:
    try:
        spark.addArtifact(str(path), file=True)
    except Exception as error:
        # The name contains a hash of the content, so an existing file has the same content.
        if "ALREADY_EXISTS" in str(error) or "DUPLICATED" in str(error):
            return
        raise EngineError(
            f"This engine does not accept files for its workers ({path.name}): {error}. "
            "Use fewer clusters, so that the codebook stays below 8 MB, or another cluster."
        ) from error
