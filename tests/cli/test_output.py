"""What commands print, and where: JSON, quiet, help, version and completion."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gio_spark.cli import app
from gio_spark.version import __version__

RUNNER = CliRunner()


def test_version_and_short_help():
    assert RUNNER.invoke(app, ["--version"]).stdout == f"gio-spark {__version__}\n"
    assert "Commands" in RUNNER.invoke(app, ["-h"]).stdout


@pytest.mark.parametrize(
    "command", sorted(c.name or c.callback.__name__ for c in app.registered_commands)
)
def test_every_command_has_both_spellings_of_help(command):
    short, long = (RUNNER.invoke(app, [command, word]) for word in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout and "Usage" in short.stdout


def test_completion_of_commands_is_offered():
    assert "--install-completion" in RUNNER.invoke(app, ["--help"]).stdout
    done = RUNNER.invoke(
        app,
        [],
        prog_name="gio-spark",
        env={
            "_GIO_SPARK_COMPLETE": "complete_bash",
            "COMP_WORDS": "gio-spark ref",
            "COMP_CWORD": "1",
        },
    )
    assert "refresh" in done.stdout


def test_help_loads_no_engine():
    code = (
        "import sys; from gio_spark.cli import app; sys.argv = ['gio-spark', '--help']\n"
        "try: app()\nexcept SystemExit: pass\n"
        "print([m for m in ('pyspark', 'pandas', 'pysail') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.embedded
class TestJson:
    """One object on stdout, whatever happens."""

    @staticmethod
    def result(done):
        assert done.stdout.count("\n") == 1, done.stdout
        facts = json.loads(done.stdout)
        assert facts["exit_code"] == done.exit_code
        return facts

    def test_run(self, make):
        made = make()
        done = made("run", "--json")
        facts = self.result(done)
        assert facts["exit_reason"] == "done" and facts["run"].startswith("run-")
        assert facts["counts"]["pool"] == 300 and facts["counts"]["selected"] == 30
        assert set(facts["divergences"]) == {"pool", "random", "selection"}
        assert facts["paths"]["report"].endswith(".html") and "selected" in facts["paths"]
        assert facts["publication"] == {"name": "run", "number": 1, "failed": None, "note": None}
        assert isinstance(facts["warnings"], list)
        assert "30 of 300 rows" in done.stderr
        again = self.result(made("run", "--json", "--quiet"))
        assert again == {**facts, "did_work": False}
        refreshed = self.result(made("refresh", "--json"))
        assert refreshed["run"] == facts["run"] and refreshed["counts"]["selected"] == 30
        checked = made("check", "--json")
        assert {one["passed"] for one in self.result(checked)["checks"]} <= {True, False}
        assert (checked.exit_code == 0) == self.result(checked)["passed"]

    def test_validate_and_dry_run(self, make):
        made = make()
        facts = self.result(made("validate", "--json"))
        assert facts["inputs"]["pool"]["rows"] == 300 and facts["clusters"] == 8
        assert facts["engine"].startswith("embedded")
        stages = self.result(made("run", "--dry-run", "--json"))["stages"]
        assert stages and not any(stage["complete"] for stage in stages)

    def test_stages(self, make):
        facts = self.result(make()("select", "--json"))
        assert facts["run"].startswith("run-") and "counts" not in facts

    def test_wrong_input(self, make):
        done = make()("run", "columns.vector=vektor", "--json")
        facts = self.result(done)
        assert facts["exit_reason"] == "wrong input" and done.exit_code == 2
        assert facts["error"]["type"] == "InputError"
        assert "did you mean 'vector'?" in facts["error"]["message"]
        assert "error: " in done.stderr

    def test_a_missing_configuration(self, folder):
        done = RUNNER.invoke(app, ["gate", str(folder / "none.yml"), "--json"])
        assert self.result(done)["error"]["type"] == "ConfigError"

    def test_an_unknown_error(self, make, monkeypatch):
        def fail(*_):
            raise ZeroDivisionError("nothing to divide by")

        monkeypatch.setattr("gio_spark.settings.load.load", fail)
        done = make()("run", "--json")
        facts = self.result(done)
        assert facts["exit_code"] == 1 and facts["exit_reason"] == "failed"
        assert facts["error"] == {"type": "ZeroDivisionError", "message": "nothing to divide by"}


@pytest.mark.embedded
def test_quiet_prints_the_result_alone(make, monkeypatch):
    made = make()
    monkeypatch.setenv("GIO_SPARK_PROGRESS", "lines")
    loud = made("run")
    assert "engine: embedded" in loud.stderr and "assign pool" in loud.stderr
    quiet = made("run", "seed=1", "--quiet")
    assert quiet.stderr == "" and "30 of 300 rows" in quiet.stdout
    shown = RUNNER.invoke(
        app, ["show", "--workspace", str(made.folder / "ws"), "--engine", "embedded"]
    )
    assert shown.stderr.startswith("engine: embedded")
