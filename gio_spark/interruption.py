"""End of a command on Ctrl-C or SIGTERM: within five seconds, whatever its main thread is doing.

Nothing is unwound: a run that is killed at any moment goes on at the next start, and a query or a
fit may take long to give way. A thread of its own waits for the signal, so that it is heard while
the main thread is in compiled code, and whichever handler pyspark has set.

For processes of our own alone: a library must leave the signals of its host as they are.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from gio_spark.process import remove_temporary_folders

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

_CLOSE_SECONDS = 2.5
_SECONDS = 4.0  # for closing and the end of child processes, together


@contextmanager
def end_on_signals(close: Callable[[], None]) -> Iterator[None]:
    """End the process where Ctrl-C or SIGTERM comes while a block runs.

    What this process prints is stopped, child processes are ended, one line says how to go on, and
    the exit code is 130 or 143. In another thread than the main one nothing is done, for Python
    does not allow it.

    Args:
        close: Called before the end, for at most two and a half seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    process = os.getpid()
    earlier_descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    earlier: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in WORDS}
    for number, handler in earlier.items():
        if handler is not signal.SIG_IGN:  # as nohup and shells in the background ask for
            signal.signal(number, _leave_to_the_watcher)

    def watch() -> None:
        while signals := reader.recv(64):
            for number in signals:
                # A process that was forked writes its signals to the same socket.
                if number in WORDS and os.getpid() == process:
                    _end(signal.Signals(number), close)

    watcher = threading.Thread(target=watch, name="gio-spark-signals", daemon=True)
    watcher.start()
    os.register_at_fork(after_in_child=lambda: _return_signals(earlier))
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier_descriptor)
        # A signal that has come is read before the end of the socket: then the process ends here.
        writer.close()
        watcher.join()
        reader.close()
        _return_signals(earlier)


def _leave_to_the_watcher(number: int, frame: FrameType | None) -> None:
    """Handle a signal by nothing: the watcher has read it from the socket."""


def _return_signals(earlier: dict[signal.Signals, Any]) -> None:
    """Set the handlers again that were there before, unless others have been set since."""
    for number, handler in earlier.items():
        if signal.getsignal(number) is _leave_to_the_watcher:
            signal.signal(number, handler)


def _end(number: signal.Signals, close: Callable[[], None]) -> None:
    deadline = time.monotonic() + _SECONDS
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # errors of what is ended here are none
        os.dup2(nowhere, stream)
    closing = threading.Thread(target=close, name="gio-spark-close", daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)
    _signal(_children(), signal.SIGTERM)
    while _children() and time.monotonic() < deadline:
        time.sleep(0.02)
    _signal(_children(), signal.SIGKILL)
    remove_temporary_folders()
    # A line that was being redrawn, with the cursor hidden, is taken away.
    clean = "\x1b[?25h\r\x1b[2K" if os.isatty(terminal) else ""
    line = (
        f"{clean}{WORDS[number]}: run the same command again to go on; what is complete is not "
        "computed twice.\n"
    )
    with suppress(OSError):
        os.write(terminal, line.encode())
    os._exit(128 + number)


def _children() -> list[int]:
    """Processes that this one has started and that live.

    Without /proc none are known; a JVM then ends by itself, once its input is closed.
    """
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            # The name of the program, in brackets, may hold blanks.
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == os.getpid() and state not in ("Z", "X"):
                children.append(int(stat.parent.name))
    return children


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
