"""What is wrong with this environment, in words."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def complaints() -> list[str]:
    """Return one sentence per problem of the installed packages."""
    found = []
    full, client = _version("pyspark"), _version("pyspark-client")
    if full and client:
        found.append(
            f"pyspark {full} and pyspark-client {client} are both installed, and both are the "
            "module 'pyspark': whichever was installed last wins. Keep one: pip uninstall "
            "pyspark-client, then reinstall pyspark."
        )
    pandas = _version("pandas")
    if pandas and pandas.split(".")[0] not in ("2",):
        found.append(f"pandas {pandas} is not supported by PySpark yet: pip install 'pandas<3'.")
    return found
