"""Upload of this package to the workers of a remote Connect server."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from gio_spark.engine.arrow import map_arrow
from gio_spark.engine.capabilities import describe
from gio_spark.errors import EngineError
from gio_spark.version import __version__

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def ensure_package(spark: SparkSession) -> None:
    """Upload this package to a Connect server's workers, and compare versions there.

    Functions of the package are pickled by reference, so map functions fail on workers without
    the package. Other engines use the installation of this process or their own.

    Raises:
        EngineError: Workers run another Python or another version of this package.
    """
    if describe(spark).kind != "connect":
        return
    archive = package_zip()
    try:
        spark.addArtifact(str(archive), pyfile=True)
    except Exception as error:
        if "ALREADY_EXISTS" not in str(error) and "DUPLICATED" not in str(error):
            raise EngineError(
                f"The Connect server did not accept the package {archive.name}: {error}. "
                "Install gio-spark on its workers."
            ) from error
    driver_versions = _versions()
    single_row = spark.range(1, numPartitions=1)
    worker_versions = (
        map_arrow(single_row, _report, "python string, package string").toArrow().to_pylist()
    )
    if worker_versions and worker_versions[0] != driver_versions:
        raise EngineError(
            f"The Connect server's workers run {worker_versions[0]}, this process runs "
            f"{driver_versions}. Use the same Python minor version and the same gio-spark on both "
            "sides."
        )


def _versions() -> dict[str, str]:
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "package": __version__,
    }


def _report(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, list[str]]]:
    for batch in batches:
        yield {name: [value] * batch.num_rows for name, value in _versions().items()}


def package_zip() -> Path:
    """Write the sources of the package to a zip named by a hash of their content."""
    root = Path(__file__).parents[1]
    files = sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    folder = Path(tempfile.mkdtemp(prefix="gio-spark-package-"))
    archive = folder / f"gio_spark-{digest.hexdigest()[:16]}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in files:
            out.write(file, Path("gio_spark") / file.relative_to(root))
    return archive
