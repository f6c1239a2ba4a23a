"""Ctrl-C and SIGTERM end a command soon, with one line, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOW_TO_GO_ON = "run the same command again to go on; what is complete is not computed twice."


def start(case: str, folder: Path, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.ending_process", case, str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def wait_for(file: Path, process: subprocess.Popen) -> str:
    end = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    return file.read_text()


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def end(process: subprocess.Popen, number: int) -> tuple[int, str]:
    """Exit code and last line; what the process is busy with would take far more than a minute."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, err


def all_end(processes: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(map(lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(lives, processes))


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_compiled_code_and_child_processes_are_ended(tmp_path, number, code, word):
    process = start("compiled", tmp_path)
    wait_for(tmp_path / "ready", process)
    assert end(process, number) == (code, f"{word}: {HOW_TO_GO_ON}\n")
    assert (tmp_path / "closed").exists()
    assert not Path((tmp_path / "temporary").read_text()).exists()
    if Path("/proc/self/stat").exists():
        assert all_end(json.loads((tmp_path / "children").read_text()))


@pytest.mark.parametrize("case", ["raising", "slow_close"])
def test_another_handler_and_a_close_that_hangs_change_nothing(tmp_path, case):
    process = start(case, tmp_path)
    wait_for(tmp_path / "ready", process)
    assert end(process, signal.SIGINT) == (130, f"interrupted: {HOW_TO_GO_ON}\n")


@pytest.mark.parametrize(
    ("case", "file", "text"),
    [("restored", "restored", "True"), ("other_thread", "ran", ""), ("forked", "ended", "-15")],
)
def test_a_command_that_is_not_ended_goes_on_as_usual(tmp_path, case, file, text):
    process = start(case, tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (tmp_path / file).read_text() == text


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    process = start("slow_close", tmp_path, preexec_fn=lambda: signal.signal(2, signal.SIG_IGN))
    wait_for(tmp_path / "ready", process)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None
    assert end(process, signal.SIGTERM)[0] == 143
