"""Make or renew a Python environment of this checkout: `python3 tools/environment.py demo|dev`.

Needs nothing but Python itself. Writes a stamp into the environment, and does nothing when the
lock, pyproject.toml, the list below and the interpreter are those of the stamp.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import platform_packages

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
OLDEST, NEWEST = (3, 10), (3, 13)

# Environment -> its folder and what pip installs there. pyspark and pyspark-client are both the
# module `pyspark`, so development takes Sail and Delta's Rust reader beside the full pyspark.
ENVIRONMENTS = {
    "demo": (".venv-demo", ["-e", ".[embedded,local,static]"]),
    "dev": (
        ".venv",
        ["-e", ".[spark,local,static,evaluate]", "pysail", "deltalake", "--group", "dev"],
    ),
}


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def version_of(python: str) -> tuple[int, int] | None:
    """Return (major, minor) of an interpreter, or None where it does not run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def choose_python() -> str:
    """Return the interpreter that started this script, or else a supported one on PATH."""
    here = sys.version_info[:2]
    if OLDEST <= here <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        # A name on PATH may be a shim of a version manager that starts nothing: so ask it.
        found = shutil.which(f"python3.{minor}")
        if found and version_of(found) == (3, minor):
            return found
    sys.exit(
        f"error: python3 is {here[0]}.{here[1]}, and Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is "
        "needed. Install one, or name it: make PYTHON=/path/to/python3.12 ..."
    )


def digest(name: str, python: str) -> str:
    """Return what an environment is made from, as one hash."""
    state = hashlib.sha256()
    for file in (LOCK, "pyproject.toml"):
        state.update((ROOT / file).read_bytes())
    state.update(repr((ENVIRONMENTS[name], version_of(python))).encode())
    return state.hexdigest()


def run(*command: str) -> None:
    code = subprocess.run(command, cwd=str(ROOT), stdin=subprocess.DEVNULL).returncode
    if code != 0:
        sys.exit(f"error: this step failed (exit code {code}): {' '.join(command)}")


def runs(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def make_venv(python: str, folder: Path) -> None:
    """Make an empty environment with pip in it.

    Debian and Ubuntu keep `ensurepip` in a package of its own: there a virtualenv that is
    installed already is used, else the package is installed where that is allowed.
    """
    if folder.exists():
        shutil.rmtree(str(folder))
    if runs(python, "-c", "import ensurepip, venv"):
        return run(python, "-m", "venv", str(folder))
    if runs(python, "-m", "virtualenv", "--version"):
        return run(python, "-m", "virtualenv", "--quiet", str(folder))
    version = version_of(python) or OLDEST
    package = {"apt-get": [f"python{version[0]}.{version[1]}-venv", "python3-venv"]}
    if not platform_packages.install("venv, which this Python lacks", package):
        otherwise = "Install your platform's package for it (python3-venv) and make again."
        advice = platform_packages.advice(package, otherwise)
        sys.exit(f"error: {python} cannot make environments: its `venv` is missing. {advice}")
    return run(python, "-m", "venv", str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(ENVIRONMENTS))
    name = parser.parse_args().name
    relative, packages = ENVIRONMENTS[name]
    folder = ROOT / relative
    inside, stamp = str(folder / "bin" / "python"), folder / "gio-spark.stamp"
    python = choose_python()
    version, wanted = version_of(python), digest(name, python)
    there = version_of(inside)
    if there == version and stamp.exists() and stamp.read_text() == wanted:
        return say(f"Environment {relative} is up to date")
    if there == version:
        say(f"The lock or pyproject.toml changed, or a set-up was cut short: renewing {relative}")
        stamp.unlink() if stamp.exists() else None
    else:
        say(f"Making {relative} with Python {version[0]}.{version[1]} ({python})")
        make_venv(python, folder)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    say(f"Installing the locked packages into {relative} (the first time: some minutes)")
    run(*pip, "--upgrade", "pip>=25.1")  # the first that knows dependency groups
    run(*pip, "--constraint", LOCK, *packages)
    stamp.write_text(wanted)
    return say(f"Environment {relative} is ready")


if __name__ == "__main__":
    main()
