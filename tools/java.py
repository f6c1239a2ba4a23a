"""Find Java 17 or 21 for Spark, install it where allowed, and print its home.

Only Spark proper needs it: the embedded engine does not. The home goes to standard output, all
else to standard error, so that a recipe can keep it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import platform_packages

SUPPORTED = (17, 21)
PACKAGES = {
    "apt-get": ["openjdk-17-jre-headless", "openjdk-21-jre-headless"],
    "dnf": ["java-17-openjdk-headless", "java-21-openjdk-headless"],
    "apk": ["openjdk17-jre-headless", "openjdk21-jre-headless"],
    "zypper": ["java-17-openjdk-headless", "java-21-openjdk-headless"],
    "pacman": ["jre17-openjdk-headless", "jre21-openjdk-headless"],
    "brew": ["openjdk@17", "openjdk@21"],
}
PLACES = (
    "usr/lib/jvm/*",
    "opt/java/*",
    "opt/homebrew/opt/openjdk@*/libexec/openjdk.jdk/Contents/Home",
    "usr/local/opt/openjdk@*/libexec/openjdk.jdk/Contents/Home",
    "Library/Java/JavaVirtualMachines/*/Contents/Home",
)


def major(home: Path) -> int | None:
    """Return the major version of the Java in a home folder, or None where there is none."""
    try:
        done = subprocess.run(
            [str(home / "bin" / "java"), "-version"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found.group(1)) if found else None


def homes() -> Iterator[Path]:
    """Yield folders that may hold a Java: JAVA_HOME, the one on PATH, then the usual places."""
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"])
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path).resolve().parent.parent
    for place in PLACES:
        yield from sorted(Path("/").glob(place))


def find() -> tuple[Path | None, set[int]]:
    """Return the first home with a supported Java, and the versions of others met on the way."""
    others = set()
    for home in homes():
        version = major(home)
        if version in SUPPORTED:
            return home, others
        if version is not None:
            others.add(version)
    return None, others


def main() -> None:
    home, others = find()
    if home is None:
        seen = f" (found Java {', '.join(map(str, sorted(others)))})" if others else ""
        print(f"==> Spark needs Java 17 or 21, which is not here{seen}", file=sys.stderr)
        if platform_packages.install("Java", PACKAGES):
            home, _ = find()
    if home is None:
        otherwise = "Install either (any vendor) and set JAVA_HOME."
        sys.exit(
            "error: Spark needs Java 17 or 21, and it cannot be installed from here. "
            f"{platform_packages.advice(PACKAGES, otherwise)} (`make demo` needs no Java.)"
        )
    print(home)


if __name__ == "__main__":
    main()
