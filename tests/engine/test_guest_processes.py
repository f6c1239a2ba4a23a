"""The embedded engine in processes as users have them: proxies, event loops, forks, no HOME."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy")

pytestmark = pytest.mark.embedded


def guest(case: str, folder: Path, *, before: tuple[str, ...] = (), **env: str) -> list[str]:
    """Lines that a case prints."""
    # Engines that other tests have started in this process leave their marks in its environment.
    outside = {k: v for k, v in os.environ.items() if not k.startswith("SPARK_") and k != "HOME"}
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.engine.guest", case],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=180,
        env={**outside, "PYTHONPATH": str(ROOT), **env},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_proxy_of_the_environment_is_not_asked_and_without_home_all_is_well(tmp_path):
    proxies = dict.fromkeys(PROXIES, "http://127.0.0.1:9")
    lines = guest("plain", tmp_path, **proxies)
    # pyspark's own mark, which says that its functions mean a Connect session.
    assert lines == ["5", "['SPARK_CONNECT_MODE_ENABLED']"]


def test_ctrl_c_interrupts_a_query_and_leaves_the_engine_in_order(tmp_path):
    assert guest("ctrl_c", tmp_path) == ["interrupted True", "5"]


def test_a_server_that_ended_is_given_up_in_seconds_and_replaced(tmp_path):
    lines = guest("lost_server", tmp_path)
    assert lines[0].endswith(" True")
    assert lines[1] == "True 5"


def test_the_engine_works_inside_an_event_loop(tmp_path):
    assert guest("in_event_loop", tmp_path) == ["5"]


def test_cells_of_a_jupyter_kernel_use_the_engine_and_show_a_run(tmp_path):
    pytest.importorskip("ipykernel")
    lines = guest("in_jupyter", tmp_path, HOME=str(tmp_path))
    assert lines == ["5", "['text/html', 'text/plain']", "5"]


def test_a_process_forked_before_the_first_session_has_its_own(tmp_path):
    assert guest("fork_before", tmp_path) == ["5", "5"]


def test_a_process_forked_after_it_is_told_so_in_one_line(tmp_path):
    lines = guest("fork_after", tmp_path)
    assert lines[0] == lines[2] == "5"
    assert lines[1].startswith("This process was forked from one that has a session")


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become another user",
)
def test_another_user_than_root_needs_nothing_but_a_folder(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    import_it = [*become, sys.executable, "-c", "import pysail"]
    if subprocess.run(import_it, cwd="/", check=False).returncode:
        pytest.skip("the environment can be read by root alone")
    assert guest("plain", ROOT, before=become, TMPDIR=str(folder))[0] == "5"
