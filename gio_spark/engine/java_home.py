"""Java installation that Spark will use: its path and version check."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from gio_spark.errors import EngineError

MIN_JAVA_VERSION = 17

_ADVICE = (
    "Install Java 17 or 21 (Debian and Ubuntu: apt-get install openjdk-17-jre-headless; "
    "macOS: brew install openjdk@17), or use engine: embedded, which needs no Java."
)


def java_binary() -> Path | None:
    """Path of the java that Spark's scripts use: that of JAVA_HOME, else the first on the path."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    return Path(java) if java is not None and Path(java).exists() else None


def version_text(java: Path) -> str:
    """Version information of a Java installation.

    The content of the file `release` in its home, which avoids starting Java; where there is none
    (as beside a launcher stub), the output of `java -version`.
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
    """Major version from a `release` file or the output of `java -version`."""
    match = re.search(r'(?:^JAVA_VERSION=| version )"(\d+)', text, re.MULTILINE)
    return int(match.group(1)) if match else None


def check_java() -> None:
    """Check that a suitable Java is installed.

    Raises:
        EngineError: Java is missing or too old.
    """
    java = java_binary()
    if java is None:
        raise EngineError(f"Local Spark needs Java, and none was found. {_ADVICE}")
    version = major(version_text(java))
    if version is None or version < MIN_JAVA_VERSION:
        version_label = version if version is not None else "an unknown version"
        raise EngineError(
            f"Local Spark needs Java {MIN_JAVA_VERSION} or newer, found {version_label}. {_ADVICE}"
        )
