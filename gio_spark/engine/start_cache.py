"""What makes a later start of local Spark quicker: jars remembered, and an archive of classes.

Both stand in the user's cache folder. They are looked up here; what makes the archive is
`gio_spark.engine.archive`. Nothing here is ever an error: without them a start takes longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterable
from pathlib import Path
from stat import S_IWOTH
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gio_spark.engine.java import java_binary, version_text

PACKAGES, EXCLUDES = "spark.jars.packages", "spark.jars.excludes"
CLASS_PATH, OPTIONS = "spark.driver.extraClassPath", "spark.driver.extraJavaOptions"
JARS_FILE = "delta-jars.json"
SWITCH = "GIO_SPARK_CLASS_ARCHIVE"

# Settings, and options of spark-submit, with which somebody else decides where classes come from.
_KEYS = ("spark.jars", PACKAGES, EXCLUDES, CLASS_PATH, "spark.driver.userClassPathFirst")
_WORDS = {"--jars", "--packages", "--exclude-packages", "--driver-class-path"}
_WORDS |= {"--master", "--properties-file"}

# What Delta's jars ask for and Spark brings itself, in a version that is loaded first anyway.
_BROUGHT = (
    "com.fasterxml.jackson.core:jackson-annotations",
    "com.fasterxml.jackson.core:jackson-core",
    "com.fasterxml.jackson.core:jackson-databind",
    "com.fasterxml.jackson.datatype:jackson-datatype-jsr310",
    "com.github.luben:zstd-jni",
    "com.google.code.findbugs:jsr305",
    "commons-pool:commons-pool",
    "io.airlift:aircompressor",
    "org.antlr:antlr4-runtime",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.logging.log4j:log4j-api",
    "org.apache.logging.log4j:log4j-core",
    "org.apache.logging.log4j:log4j-slf4j2-impl",
    "org.apache.parquet:parquet-column",
    "org.apache.parquet:parquet-common",
    "org.apache.parquet:parquet-encoding",
    "org.apache.parquet:parquet-format-structures",
    "org.apache.parquet:parquet-hadoop",
    "org.apache.parquet:parquet-jackson",
    "org.locationtech.jts:jts-core",
    "org.roaringbitmap:RoaringBitmap",
    "org.slf4j:slf4j-api",
    "org.xerial.snappy:snappy-java",
)
# Under another name in Spark's folder: the first are classes of the second.
_ELSEWHERE = {
    "commons-logging:commons-logging": "jcl-over-slf4j",
    "org.roaringbitmap:shims": "RoaringBitmap",
}


def spark_home() -> Path:
    """Return the folder of the Spark that will be started."""
    import pyspark

    # Links resolved, as Spark does it: the same files by two paths are one class path.
    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).resolve().parent)


def cache_folder() -> Path | None:
    """Return this package's folder in the user's cache, which need not exist; None without one.

    A JVM runs what it finds there, so a folder that others may write to is none.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    folder = Path(base) / "gio-spark"
    return None if base.startswith("~") or _others_write(folder) else folder


def _others_write(folder: Path) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return not own or bool(found.st_mode & S_IWOTH)


def excludes(jars: Iterable[str]) -> list[str]:
    """Return what need not be fetched beside Delta.

    Args:
        jars: Names of the files in Spark's own folder of jars.
    """
    there = {match[1] for name in jars if (match := re.match(r"(.+?)-\d[^/]*\.jar$", name))}
    wanted = {item: item.partition(":")[2] for item in _BROUGHT} | _ELSEWHERE
    return [item for item, name in wanted.items() if name in there]


def decided_elsewhere(conf: dict[str, str]) -> bool:
    """Tell whether the user's own settings say where classes come from, or which master it is.

    Then a start is left as it is: executors of a cluster do not see the driver's class path, and
    a class path or a list of packages that is set here would push the user's own aside.

    Args:
        conf: Settings that the caller was given for the session.
    """
    if not re.match(r"local(\[|$)", conf.get("spark.master", "local")):
        return True
    if any(key in conf for key in _KEYS):
        return True
    try:
        words = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    except ValueError:
        return True
    if any(word.partition("=")[0] in _WORDS for word in words):
        return True
    if any(f"{key}=" in word for word in words for key in _KEYS):
        return True
    try:
        lines = (_conf_folder() / "spark-defaults.conf").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any(re.split(r"[\s=:]", line.strip(), maxsplit=1)[0] in _KEYS for line in lines)


def quicker(settings: dict[str, str]) -> dict[str, str]:
    """Return the settings of a local start with what the cache folder has for it.

    Args:
        settings: All settings of the session, where nothing was decided elsewhere.
    """
    package = settings.get(PACKAGES)
    jars = remembered_jars(package) if package is not None else []
    if package is not None and not jars:
        return settings
    found = {key: value for key, value in settings.items() if key not in (PACKAGES, EXCLUDES)}
    if jars:
        found[CLASS_PATH] = os.pathsep.join(jars)
    options = found.get(OPTIONS, "")
    archive = whole_archive(archive_stem(jars, options))
    if archive is not None and not _archive_named(options):
        found[OPTIONS] = f"{options} {_archive_options(archive)}".strip()
    return found


def remembered_jars(package: str) -> list[str]:
    """Return the files that a Maven coordinate was resolved to before, if all are still there."""
    files = _remembered().get(_entry(package))
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        return []
    usable = all(os.pathsep not in file and Path(file).is_file() for file in files)
    return files if usable else []


def remember_jars(package: str, resolved: str) -> None:
    """Keep the files that Spark resolved a Maven coordinate to.

    Args:
        package: The coordinate.
        resolved: Spark's setting `spark.jars` after the start: URLs, with commas between.
    """
    urls = [urlsplit(url) for url in resolved.split(",") if url]
    files = [url2pathname(url.path) for url in urls if url.scheme in ("", "file")]
    _, artefact, version = package.split(":")
    if not any(file.endswith(f"{artefact}-{version}.jar") for file in files):
        return
    entries = {**_remembered(), _entry(package): files}
    with contextlib.suppress(OSError):
        _write_whole(json.dumps(entries, indent=1))


def _write_whole(text: str) -> None:
    folder = cache_folder()
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix="delta-jars-", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(folder / JARS_FILE)
    finally:
        part.unlink(missing_ok=True)


def _entry(package: str) -> str:
    import pyspark

    return f"{package} for pyspark {pyspark.__version__}"


def _remembered() -> dict[str, object]:
    folder = cache_folder()
    try:
        text = (folder / JARS_FILE).read_text(encoding="utf-8") if folder is not None else "{}"
        found = json.loads(text)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def archive_stem(jars: list[str], options: str) -> Path | None:
    """Return how the path of a start's class archive begins; None where there is to be none.

    The name holds a hash of all that the archive depends on, so that one of another Java, of
    other jars or for another collector is never taken.

    Args:
        jars: Files that are put in front of the class path.
        options: The options of the JVM.
    """
    java, folder = java_binary(), cache_folder()
    if java is None or folder is None or os.environ.get(SWITCH, "").lower() == "off":
        return None
    import pyspark

    collector = re.findall(r"-XX:\+Use(\w+)GC\b", options)[-1:]
    try:
        own = [file.path for file in os.scandir(spark_home() / "jars") if file.is_file()]
        stats = [(file, os.stat(file)) for file in [*jars, *sorted(own)]]  # noqa: PTH116
    except OSError:
        return None
    files = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    state = (version_text(java), str(java.resolve()), pyspark.__version__, collector, files)
    digest = hashlib.sha256(repr(state).encode()).hexdigest()
    return folder / f"classes-{digest[:32]}"


def finished_name(stem: Path, size: int) -> Path:
    """Return the path of a whole archive, which tells its size."""
    return stem.with_name(f"{stem.name}-{size}.jsa")


def whole_archive(stem: Path | None) -> Path | None:
    """Return the archive that is there, if it is of the size that its name tells.

    A JVM looks at the head of the file alone, and dies by a bus error where the rest is missing.
    """
    for path in stem.parent.glob(f"{stem.name}-*.jsa") if stem is not None else ():
        with contextlib.suppress(OSError):
            if stem is not None and finished_name(stem, path.stat().st_size) == path:
                return path
    return None


def class_folders() -> list[Path]:
    """Return the folders with files in them that Spark's scripts put on the class path.

    With one of them a JVM writes no archive, as it could not tell later whether it still fits.
    """
    named = [os.environ.get(name) for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR")]
    return [path for path in (_conf_folder(), *map(Path, filter(None, named))) if _filled(path)]


def _conf_folder() -> Path:
    return Path(os.environ.get("SPARK_CONF_DIR") or spark_home() / "conf")


def _filled(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _archive_named(options: str) -> bool:
    return re.search(r"SharedArchiveFile|ArchiveClassesAtExit|-Xshare", options) is not None


def _archive_options(archive: Path) -> str:
    # The JVM leaves an archive aside that does not fit; without the last word it would say so
    # among the lines of the run.
    return f"-XX:SharedArchiveFile={quoted(archive)} -Xshare:auto -Xlog:cds*=off"


def quoted(path: Path) -> str:
    """Return a path as one word of the options of a JVM, as Spark's launcher reads them."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
