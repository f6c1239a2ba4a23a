"""Ship arrays to workers without sparkContext: small ones in the closure, large ones as files."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gio_spark.engine.capabilities import describe
from gio_spark.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

# A closure travels with every task, so only small arrays go there; a Connect client refuses
# messages above 128 MB altogether.
INLINE_BYTES = 8 << 20

KEPT_BYTES = 64 << 20
"""Arrays that a process keeps beside the ones it loaded last."""

T = TypeVar("T")

_loaded: dict[str, dict[str, NDArray[Any]]] = {}
_lock = threading.Lock()
_folder: tempfile.TemporaryDirectory[str] | None = None


@dataclass(frozen=True)
class BroadcastArrays:
    """A small handle that a map function may capture; `load` gives the arrays on the worker.

    Attributes:
        digest: Hash of the content.
        inline: The arrays as .npy bytes, when they are small.
        files: Names of shipped files per array, when they are large.
        local: True if `files` are paths that the worker can open as they are.
    """

    digest: str
    inline: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    local: bool = False

    def load(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, read-only; files are memory-mapped and kept open per process."""
        with _lock:
            if self.digest not in _loaded:
                _loaded[self.digest] = self._open()
                # A long fit must not collect the codebook of every pass.
                keep_newest(_loaded, lambda arrays: sum(a.nbytes for a in arrays.values()))
            return _loaded[self.digest]

    def release(self) -> None:
        """Let go of the arrays when no task will ask for them again.

        Files on the way to other machines stay: there is no call to take them back, and a worker
        may yet come for them.
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


def keep_newest(held: dict[str, T], size: Callable[[T], int]) -> None:
    """Drop the oldest entries: at most 16 stay, and `KEPT_BYTES` beside the newest."""
    total = sum(size(entry) for entry in list(held.values())[:-1])
    while len(held) > 1 and (len(held) > 16 or total > KEPT_BYTES):
        total -= size(held.pop(next(iter(held))))


def broadcast_arrays(spark: SparkSession, arrays: Mapping[str, NDArray[Any]]) -> BroadcastArrays:
    """Make arrays available on every worker.

    Args:
        spark: The session whose workers need them.
        arrays: Name -> array. Object arrays are refused: nothing is pickled.
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
            _folder = tempfile.TemporaryDirectory(prefix="gio-spark-")
        path = Path(_folder.name) / name
        if not path.exists():
            path.write_bytes(content)
        return path


def _add_artifact(spark: SparkSession, path: Path) -> None:
    try:
        spark.addArtifact(str(path), file=True)
    except Exception as error:
        # The name carries the content's hash, so a file that is there already is the same one.
        if "ALREADY_EXISTS" in str(error) or "DUPLICATED" in str(error):
            return
        raise EngineError(
            f"This engine does not accept files for its workers ({path.name}): {error}. "
            "Use fewer clusters, so that the codebook stays below 8 MB, or another cluster."
        ) from error
