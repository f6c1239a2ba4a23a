"""Use of the embedded engine in the processes that users have: `python -m tests.engine.guest CASE`.

Each case prints what it saw; test_guest_processes.py starts it and reads that.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time

from pyspark.errors import PySparkException

from gio_spark.engine import session
from gio_spark.errors import EngineError


def count() -> int:
    return session("embedded").range(5).count()


def slow(batches):
    for batch in batches:
        time.sleep(0.2)
        yield batch


def count_slowly() -> int:
    return session("embedded").range(0, 400_000, 1, 40).mapInArrow(slow, "id bigint").count()


def plain() -> None:
    before = dict(os.environ)
    print(count())
    changed = {n for n in {*before, *os.environ} if before.get(n) != os.environ.get(n)}
    print(sorted(changed))


def ctrl_c() -> None:
    """An interrupted query ends at once, and the engine goes on."""
    count()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        count_slowly()
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 10)
    print(count(), flush=True)
    # The engine's threads may still run Python for the query; they must not meet its end.
    os._exit(0)


def lost_server() -> None:
    """A server that has ended is replaced by another one, and nobody waits for it for minutes."""
    from gio_spark.engine import embedded

    lost = session("embedded")
    embedded._server.stop()
    began = time.monotonic()
    try:
        lost.range(5).count()
    except PySparkException as error:
        print(type(error).__name__, time.monotonic() - began < 30)
    print(session("embedded") is not lost, count())


def in_event_loop() -> None:
    async def main() -> int:
        return count()

    print(asyncio.run(main()))


def fork_before() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(pool.apply(count))
    print(count())


def _count_or_error() -> str:
    try:
        return str(count())
    except EngineError as error:
        return str(error)


def fork_after() -> None:
    print(count())
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(pool.apply(_count_or_error))
    print(count())


_CELLS = (
    "from gio_spark.engine import session\nprint(session('embedded').range(5).count())",
    # Progress of a run goes to the cell's standard error, its summary is shown as HTML.
    """
import pyarrow as pa
from gio_spark import curate

rows = pa.table({"id": range(300), "vector": [[i % 7, i % 5, i] for i in range(300)]})
curate(
    rows, rows.slice(0, 40), 20, workspace="workspace", engine="embedded",
    columns={"id": "id", "vector": "vector"}, clusters=4,
)
""",
    "await asyncio.sleep(0)\nprint(session('embedded').range(5).count())",
)


def in_jupyter() -> None:
    """Cells of a real kernel, whose event loop runs while they do."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")

    def show(message: dict) -> None:
        content = message["content"]
        if message["msg_type"] == "error":
            print(content["ename"], content["evalue"])
        elif message["msg_type"] == "execute_result":
            print(sorted(content["data"]))
        elif content.get("name") == "stdout":
            print(content["text"], end="")

    try:
        for cell in ("import asyncio", *_CELLS):
            client.execute_interactive(cell, output_hook=show, timeout=120)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
