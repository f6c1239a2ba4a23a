"""Install what is not Python with the platform's own package manager, where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Package manager -> the words before the package's name, and whether it wants to be root.
MANAGERS = {
    "apt-get": (["apt-get", "install", "-y", "--no-install-recommends"], True),
    "dnf": (["dnf", "install", "-y"], True),
    "apk": (["apk", "add"], True),
    "zypper": (["zypper", "--non-interactive", "install"], True),
    "pacman": (["pacman", "-S", "--noconfirm"], True),
    "brew": (["brew", "install"], False),
}


def manager(packages: dict[str, list[str]]) -> str | None:
    """Return the first package manager here for which `packages` has an entry."""
    return next((name for name in MANAGERS if name in packages and shutil.which(name)), None)


def right_to_install(needs_root: bool) -> list[str] | None:
    """Return the words that give the right to install, or None where there is none."""
    if not needs_root or os.geteuid() == 0:
        return []
    without_password = (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    )
    return ["sudo", "-n"] if without_password else None


def install(what: str, packages: dict[str, list[str]]) -> bool:
    """Install the first of the packages that can be had, say so, and return whether it was.

    Args:
        what: What it is for a person.
        packages: Package manager -> names of packages that give it, best first.
    """
    name = manager(packages)
    prefix = right_to_install(MANAGERS[name][1]) if name else None
    if name is None or prefix is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if name == "apt-get":
        subprocess.run([*prefix, "apt-get", "update", "-qq"], capture_output=True, env=environment)
    for package in packages[name]:
        command = [*prefix, *MANAGERS[name][0], package]
        print(f"==> Installing {what}: {' '.join(command)}", file=sys.stderr, flush=True)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
        )
        if done.returncode == 0:
            return True
        print((done.stdout + done.stderr)[-1000:], file=sys.stderr)
    return False


def advice(packages: dict[str, list[str]], otherwise: str) -> str:
    """Return the sentence with the one command that a person can type here."""
    name = manager(packages)
    if name is None:
        return otherwise
    words, needs_root = MANAGERS[name]
    command = " ".join([*(["sudo"] if needs_root else []), *words, packages[name][0]])
    return f"Run this and make again: {command}"
