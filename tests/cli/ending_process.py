"""A command that signals end: `python -m tests.cli.ending_process CASE FOLDER`."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from gio_spark.interruption import end_on_signals
from gio_spark.process import temporary_folder

SLEEPS = [sys.executable, "-c", "import time; time.sleep(300)"]
STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)",
]  # fmt: skip


def say(folder: Path, name: str, text: object) -> None:
    (folder / f"{name}.tmp").write_text(str(text))
    (folder / f"{name}.tmp").replace(folder / name)


def compiled(folder: Path) -> None:
    """Be in compiled code for minutes, with child processes and a temporary folder."""
    children = [subprocess.Popen(words).pid for words in (SLEEPS, STUBBORN)]
    say(folder, "children", children)
    say(folder, "temporary", temporary_folder("gio-spark-test-"))
    time.sleep(1.0)
    say(folder, "ready", "")
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)


def raising(folder: Path) -> None:
    """Have another handler raise in the main thread, as pyspark's does."""

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    say(folder, "ready", "")
    time.sleep(300)


def slow_close(folder: Path) -> None:
    say(folder, "ready", "")
    time.sleep(300)


def forked(folder: Path) -> None:
    """End a forked process by a signal, and go on."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
    child.start()
    time.sleep(0.5)
    child.terminate()
    child.join(20)
    time.sleep(0.5)
    say(folder, "ended", child.exitcode)


def main() -> None:
    case, folder = sys.argv[1], Path(sys.argv[2])

    def close() -> None:
        say(folder, "closed", "")
        if case == "slow_close":
            time.sleep(300)

    if case == "restored":
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        with end_on_signals(close):
            pass
        say(folder, "restored", before == {n: signal.getsignal(n) for n in before})
        return
    if case == "other_thread":
        with_signals = threading.Thread(target=_in_thread, args=(folder,))
        with_signals.start()
        with_signals.join()
        return
    with end_on_signals(close):
        globals()[case](folder)
    print("done", os.getpid())


def _in_thread(folder: Path) -> None:
    with end_on_signals(lambda: None):
        say(folder, "ran", "")


if __name__ == "__main__":
    main()
