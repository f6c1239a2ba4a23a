"""Make or renew a Python environment of this checkout: `python3 tools/environment.py demo|dev`.

Needs nothing but Python itself. Writes a stamp into the environment, and does nothing when the
lock, pyproject.toml, the list below and the interpreter are those of the stamp.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platform_packages

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
OLDEST, NEWEST = (3, 10), (3, 13)

# What goes into each environment. pyspark and pyspark-client are both the module `pyspark`, so
# the development environment takes Sail and Delta's Rust reader beside the full pyspark.
ENVIRONMENTS = {
    "demo": {"folder": ".venv-demo", "install": ["-e", ".[embedded,local,static]"]},
    "dev": {
        "folder": ".venv",
        "install": ["-e", ".[spark,local,static]", "pysail", "deltalake", "--group", "dev"],
    },
}


def say(text):
    print("==> " + text, flush=True)


def fail(text):
    sys.exit("error: " + text)


def version_of(python):
    """Return (major, minor) of an interpreter, or None where it does not run."""
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
            timeout=60,
        )
        return tuple(int(part) for part in done.stdout.split()) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def choose_python():
    """Return the interpreter that started this script, or else a supported one on PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        # Not the interpreter of another environment: that one may be deleted tomorrow.
        return os.path.realpath(sys.executable) if sys.prefix != sys.base_prefix else sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)
        if found and version_of(found) == (3, minor):
            return found
    fail(
        "python3 is %d.%d; Python %d.%d to %d.%d is needed. Install one, or name it: make PYTHON=/path/to/python3.12 ..."
        % (sys.version_info[:2] + OLDEST + NEWEST)
    )
    return None


def digest(spec, python):
    state = hashlib.sha256()
    for name in (LOCK, "pyproject.toml"):
        state.update((ROOT / name).read_bytes())
    state.update(repr((sorted(spec.items()), version_of(python))).encode())
    return state.hexdigest()


def run(command):
    done = subprocess.run(command, cwd=str(ROOT))
    if done.returncode != 0:
        fail("this step failed (exit code %d): %s" % (done.returncode, " ".join(command)))


def make_venv(python, folder):
    """Create an empty environment with pip in it.

    Debian and Ubuntu keep `ensurepip` in a package of its own; there the package is installed
    where that is allowed, else a virtualenv that is already there is used.
    """
    if folder.exists():
        shutil.rmtree(str(folder))
    has_venv = [python, "-c", "import ensurepip, venv"]
    if subprocess.run(has_venv, stderr=subprocess.DEVNULL).returncode != 0:
        if subprocess.run([python, "-m", "virtualenv", "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0:
            run([python, "-m", "virtualenv", "--quiet", str(folder)])
            return
        package = {"apt-get": ["python%d.%d-venv" % version_of(python)]}
        if not platform_packages.install("venv for Python", package):
            fail("this Python has no `venv`. " + platform_packages.advice(
                package, "Install your platform's package for it (python3-venv), then run make again."))
    run([python, "-m", "venv", str(folder)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(ENVIRONMENTS))
    name = parser.parse_args().name
    spec = ENVIRONMENTS[name]
    folder = ROOT / spec["folder"]
    inside = str(folder / "bin" / "python")
    stamp = folder / "gio-spark.stamp"
    python = choose_python()
    wanted = digest(spec, python)
    if stamp.exists() and stamp.read_text() == wanted and version_of(inside):
        say("Environment %s is up to date." % spec["folder"])
        return
    if version_of(inside) != version_of(python):
        say("Making %s with Python %d.%d (%s)" % ((spec["folder"],) + version_of(python) + (python,)))
        make_venv(python, folder)
    elif stamp.exists():
        say("The lock or pyproject.toml changed: renewing %s" % spec["folder"])
        stamp.unlink()
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    say("Installing the locked packages into %s (a first time takes some minutes)" % spec["folder"])
    run([inside, "-m", "pip", "install", *quiet, "--upgrade", "pip>=25.1"])
    run([inside, "-m", "pip", "install", *quiet, "--constraint", LOCK, *spec["install"]])
    stamp.write_text(wanted)
    say("Environment %s is ready." % spec["folder"])


if __name__ == "__main__":
    main()
