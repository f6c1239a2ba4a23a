"""Make or renew a Python environment of this checkout: `python3 tools/environment.py dev`.

Needs nothing but Python itself. Writes a stamp into the environment, and does nothing when the
lock, pyproject.toml, the list below and the interpreter are those of the stamp.

Without `--python`, the environment has the plain name of its folder (`.venv`). A Python that is
named has environments of its own (`.venv-3.10`), so that neither replaces the other.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import platform_packages

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
OLDEST, NEWEST = (3, 10), (3, 13)

TESTS = ("-e", ".[spark,local,static,evaluate]", "pysail", "deltalake", "--group", "dev")


class Environment:
    """What one environment is made of.

    Attributes:
        folder: Name of the folder, without a suffix for the version of Python.
        packages: Arguments of `pip install`.
        pins: Requirements that replace those of the lock for the same packages.
        lowest: Extras whose direct requirements are installed at their lower bounds.
    """

    def __init__(
        self,
        folder: str,
        packages: tuple[str, ...],
        *,
        pins: tuple[str, ...] = (),
        lowest: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.packages, self.pins, self.lowest = folder, packages, pins, lowest

    def __repr__(self) -> str:
        return repr((self.folder, self.packages, self.pins, self.lowest))


# pyspark and pyspark-client are both the module `pyspark`, so development takes Sail and Delta's
# Rust reader beside the full pyspark.
ENVIRONMENTS = {
    "demo": Environment(".venv-demo", ("-e", ".[embedded,local,static]")),
    "dev": Environment(".venv", TESTS),
    "no-extras": Environment(".venv-no-extras", ("-e", ".")),
    # Without the extra `static`, which needs a newer numpy than the package itself, and without the
    # linters, which need newer versions of some requirements.
    "oldest": Environment(
        ".venv-oldest",
        ("-e", ".[embedded,local,evaluate]", "pytest", "pytest-timeout", "hypothesis"),
        lowest=("embedded", "local", "evaluate"),
    ),
    "spark40": Environment(".venv-spark40", TESTS, pins=("pyspark==4.0.1", "delta-spark==4.0.1")),
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


def choose_python(name: str | None = None) -> str:
    """Return a supported interpreter: the named one, this one, or else one on PATH."""
    if name:
        return named_python(name)
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


def named_python(name: str) -> str:
    """Return the path of an interpreter by name or path; also one that pyenv has installed."""
    on_path = shutil.which(name)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    minor = re.fullmatch(r"python(3\.\d+)", name)
    # The shim of a version that pyenv has installed but not selected does not run.
    installed = sorted(pyenv.glob(f"versions/{minor.group(1)}.*/bin/{name}")) if minor else []
    for candidate in [on_path, *map(str, installed)]:
        version = version_of(candidate) if candidate else None
        if candidate and version:
            if OLDEST <= version <= NEWEST:
                return candidate
            sys.exit(
                f"error: {name} is Python {version[0]}.{version[1]}, and 3.{OLDEST[1]} to "
                f"3.{NEWEST[1]} is needed"
            )
    sys.exit(f"error: no Python named {name} runs here. Install it, or give its path: make PYTHON=")


def folder_of(name: str, python: str | None) -> Path:
    """Return the folder of an environment, with the version of a Python that was named."""
    version = version_of(choose_python(python)) if python else None
    suffix = f"-{version[0]}.{version[1]}" if version else ""
    return ROOT / (ENVIRONMENTS[name].folder + suffix)


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


def constraints(name: str, inside: str) -> str:
    """Return the constraints of an environment: the lock, with its own pins in place of the lock's.

    Args:
        name: Of the environment.
        inside: Its interpreter, which has uv where lower bounds are wanted.
    """
    environment = ENVIRONMENTS[name]
    pins = list(environment.pins)
    if environment.lowest:
        extras = [part for extra in environment.lowest for part in ("--extra", extra)]
        compile_ = [inside, "-m", "uv", "pip", "compile", "pyproject.toml", "--python", inside]
        options = ["--resolution", "lowest-direct", "--no-header", "--no-annotate", "--quiet"]
        done = subprocess.run(
            [*compile_, *options, *extras], cwd=str(ROOT), stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0:
            sys.exit("error: the lower bounds of pyproject.toml cannot be installed together")
        pins += [line for line in done.stdout.splitlines() if line and not line.startswith("-")]
    own = {package_of(pin) for pin in pins}
    locked = (ROOT / LOCK).read_text().splitlines()
    return "\n".join([*pins, *(line for line in locked if package_of(line) not in own)]) + "\n"


def package_of(requirement: str) -> str:
    """Return the normalized name of the package that a requirement is for."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--python", help="name or path of the interpreter")
    parser.add_argument("--folder", action="store_true", help="print the folder and do no more")
    arguments = parser.parse_args()
    name, folder = arguments.name, folder_of(arguments.name, arguments.python)
    if arguments.folder:
        return print(folder.name)
    inside, stamp = str(folder / "bin" / "python"), folder / "gio-spark.stamp"
    python = choose_python(arguments.python)
    version, wanted = version_of(python), digest(name, python)
    there = version_of(inside)
    if there == version and stamp.exists() and stamp.read_text() == wanted:
        return say(f"Environment {folder.name} is up to date")
    if there == version:
        say(
            f"The lock or pyproject.toml changed, or a set-up was cut short: renewing {folder.name}"
        )
        stamp.unlink() if stamp.exists() else None
    else:
        say(f"Making {folder.name} with Python {version[0]}.{version[1]} ({python})")
        make_venv(python, folder)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    say(f"Installing the packages into {folder.name} (the first time: some minutes)")
    run(*pip, "--upgrade", "pip>=25.1")  # the first that knows dependency groups
    if ENVIRONMENTS[name].lowest:
        run(*pip, "uv")
    pinned = folder / "constraints.txt"
    pinned.write_text(constraints(name, inside))
    run(*pip, "--constraint", str(pinned), *ENVIRONMENTS[name].packages)
    stamp.write_text(wanted)
    return say(f"Environment {folder.name} is ready")


if __name__ == "__main__":
    main()
