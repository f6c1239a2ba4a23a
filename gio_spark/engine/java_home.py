"""The Java that Spark will start: where it is, and whether it will do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from gio_spark.errors import EngineError

JAVA_NEEDED = 17

_ADVICE = (
    "Install Java 17 or 21 (Debian and Ubuntu: apt-get install openjdk-17-jre-headless; "
    "macOS: brew install openjdk@17), or use engine: embedded, which needs no Java."
)


def java_binary() -> Path | None:
    """Return the java that Spark's scripts take: JAVA_HOME's, else the first on the path."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    return Path(java) if java is not None and Path(java).exists() else None


def version_text(java: Path) -> str:
    """Return what a Java says of its version.

    That is the file `release` of its home, which costs nothing to read; where there is none (a
    stub that finds the real Java itself has none beside it), the output of `java -version`.
    """
    try:
        text = (java.resolve().parent.parent / "release").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if major(text) is not None:
        return text
    return subprocess.run(  # noqa: S603 - the path is JAVA_HOME's or the first java on the path
        [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
    ).stderr


def major(text: str) -> int | None:
    """Return the major version out of a `release` file or the output of `java -version`."""
    match = re.search(r'(?:^JAVA_VERSION=| version )"(\d+)', text, re.MULTILINE)
    return int(match.group(1)) if match else None


def check_java() -> None:
    """Raise a clear error where no suitable Java is found.

    Raises:
        EngineError: Java is missing or too old.
    """
    java = java_binary()
    if java is None:
        raise EngineError(f"Local Spark needs Java, and none was found. {_ADVICE}")
    found = major(version_text(java))
    if found is None or found < JAVA_NEEDED:
        shown = found if found is not None else "an unknown version"
        raise EngineError(
            f"Local Spark needs Java {JAVA_NEEDED} or newer, found {shown}. {_ADVICE}"
        )
