"""Install what is not Python with the platform's own package manager, where that is allowed."""

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


def manager(packages):
    """Return the name of the first package manager here for which `packages` has an entry."""
    for name in MANAGERS:
        if name in packages and shutil.which(name):
            return name
    return None


def _prefix(needs_root):
    """Return the words that give the right to install, or None where there is no such right."""
    if not needs_root or os.geteuid() == 0:
        return []
    asks_nothing = shutil.which("sudo") and subprocess.run(
        ["sudo", "-n", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode == 0
    return ["sudo", "-n"] if asks_nothing else None


def install(what, packages):
    """Try the packages in turn, the first that installs is enough; say so; return success.

    `packages` maps a package manager to alternatives, best first. Output goes to standard error.
    """
    name = manager(packages)
    if name is None:
        return False
    words, needs_root = MANAGERS[name]
    prefix = _prefix(needs_root)
    if prefix is None:
        return False
    if name == "apt-get":
        subprocess.run([*prefix, "apt-get", "update", "-qq"], stdout=sys.stderr)
    for package in packages[name]:
        command = [*prefix, *words, package]
        print("==> Installing %s: %s" % (what, " ".join(command)), file=sys.stderr, flush=True)
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        log = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, universal_newlines=True, env=environment)
        if log.returncode == 0:
            return True
        print(log.stdout[-2000:], file=sys.stderr)
    return False


def advice(packages, otherwise):
    """Return the sentence with the one command a person can type here."""
    name = manager(packages)
    if name is None:
        return otherwise
    words, needs_root = MANAGERS[name]
    command = " ".join([*words, packages[name][0]])
    return "Run: " + ("sudo " if needs_root else "") + command + "  and then make again."
