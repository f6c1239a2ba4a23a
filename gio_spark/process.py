"""State of the whole process that is changed while a block runs, and restored afterwards.

Map functions of the embedded engine and the tracker are threads of the process that imports this
package, so several blocks may be inside at once: the first one makes a change, the last one that
leaves takes it back.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0
_threads: dict[str, tuple[Any, int]] = {}
_quiet = 0
_filters: Any = None
_variables: dict[str, int] = {}
_libraries: tuple[int, Any] = (0, None)
_folders: dict[Path, int] = {}  # temporary folder -> process that it belongs to


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run a block with BLAS on one thread, in all threads of the process.

    A map function has one core: a BLAS that starts a thread for every core in each of them makes
    the cores wait for one another. The bits of what BLAS computes do not depend on the number of
    cores then, either.
    """
    global _inside
    with _lock:
        _inside += 1
    try:
        with _lock:
            # At every entry: a library may have been loaded since another block began.
            for library in _loaded_libraries().select(user_api="blas").lib_controllers:
                if library.filepath not in _threads:
                    _threads[library.filepath] = (library, library.num_threads)
                    _set_threads(library, 1)
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for library, threads in _threads.values():
                    _set_threads(library, threads)
                _threads.clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run a block with BLAS on one thread, and OpenMP on one thread in the calling thread."""
    with one_blas_thread():
        with _lock:
            openmp = _loaded_libraries().select(user_api="openmp")
        with openmp.limit(limits=1):
            yield


def _set_threads(library: Any, threads: int) -> None:
    # Newer versions of threadpoolctl take changes of OpenBLAS from the first thread that makes any
    # and ignore all others; here the last block may end in another thread than the first began.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)


def _loaded_libraries() -> ThreadpoolController:
    """Libraries with threads; the search takes 30 ms and is done where modules were imported."""
    global _libraries
    if _libraries[0] != len(sys.modules):
        _libraries = (len(sys.modules), ThreadpoolController())
    return _libraries[1]


@contextmanager
def no_warnings() -> Iterator[None]:
    """Run a block without warnings, in all threads of the process.

    `warnings.catch_warnings` alone restores the wrong filters where blocks of several threads
    overlap.
    """
    global _quiet, _filters
    with _lock:
        _quiet += 1
        if _quiet == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if not _quiet:
                _filters.__exit__()


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Run a block with variables of the environment that the user has not set.

    Args:
        variables: Name -> value. One that is set already keeps its value.
    """
    with _lock:
        mine = [name for name in variables if name in _variables or name not in os.environ]
        for name in mine:
            if name not in _variables:
                os.environ[name] = variables[name]
            _variables[name] = _variables.get(name, 0) + 1
    try:
        yield
    finally:
        with _lock:
            for name in mine:
                _variables[name] -= 1
                if not _variables[name]:
                    del _variables[name]
                    os.environ.pop(name, None)


def temporary_folder(prefix: str) -> Path:
    """New folder, removed when this process ends."""
    with _lock:
        if not _folders:
            atexit.register(remove_temporary_folders)
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        _folders[folder] = os.getpid()
    return folder


def remove_temporary_folders() -> None:
    """Remove this process's temporary folders, not those of the process that it was forked from."""
    for folder, process in list(_folders.items()):
        if process == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)
