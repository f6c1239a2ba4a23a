"""Check of the installed packages for known conflicts."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment_problems() -> list[str]:
    """Known conflicts of the installed packages, one sentence each."""
    problems = []
    pyspark, pyspark_client = _version("pyspark"), _version("pyspark-client")
    if pyspark and pyspark_client:
        problems.append(
            f"pyspark {pyspark} and pyspark-client {pyspark_client} are both installed, and both "
            "are the module 'pyspark': whichever was installed last wins. Keep one: pip uninstall "
            "pyspark-client, then reinstall pyspark."
        )
    pandas = _version("pandas")
    if pandas and pandas.split(".")[0] not in ("2",):
        problems.append(f"pandas {pandas} is not supported by PySpark yet: pip install 'pandas<3'.")
    return problems
