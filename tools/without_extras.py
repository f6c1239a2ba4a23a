"""Check what must work where no extra is installed: the import, the command, the mathematics.

Run by `make test-no-extras` in an environment that has the package and its own requirements alone,
as on a cluster before it brings its Spark.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "gio-spark")
EXAMPLE = """
import numpy as np
from gio_spark.gio import SelectionProblem, select

problem = SelectionProblem(
    pool_centroids=np.eye(3), sizes=np.full(3, 10), target_mass=np.array([0.5, 0.5, 0]), budget=10
)
assert select("budgeted_kl", problem).take.tolist() == [5, 5, 0]
"""
# Name -> command, exit code, and words that its output must contain.
CHECKS: dict[str, tuple[list[str], int, str]] = {
    "import gio_spark": ([sys.executable, "-W", "error", "-c", "import gio_spark"], 0, ""),
    "a selection on arrays": ([sys.executable, "-c", EXAMPLE], 0, ""),
    "gio-spark --help": ([COMMAND, "--help"], 0, "refresh"),
    "gio-spark run --help": ([COMMAND, "run", "--help"], 0, "Usage"),
}
SPARK = "pip install 'gio-spark[embedded]'"
IMPORT = "from gio_spark import curate"
CHECKS |= {
    "gio-spark run names the extra": ([COMMAND, "run", "{config}"], 1, SPARK),
    "gio-spark show names the extra": ([COMMAND, "show", "some-folder"], 1, SPARK),
    "curate names the extra": ([sys.executable, "-c", IMPORT], 1, SPARK),
}
ABSENT = ("pyspark", "pysail", "deltalake", "sqlalchemy", "wordllama", "pytest")


def main() -> None:
    there = [name for name in ABSENT if importlib.util.find_spec(name)]
    if there:
        sys.exit(f"error: this environment has {', '.join(there)}, so it is not one without extras")
    failed = 0
    folder = Path(tempfile.mkdtemp())
    config = folder / "curate.yml"
    config.write_text("pool: pool.parquet\ntarget: target.parquet\ncolumns: {text: text}\n")
    for name, (command, code, words) in CHECKS.items():
        words_of_command = [word.replace("{config}", str(config)) for word in command]
        done = subprocess.run(words_of_command, capture_output=True, text=True, cwd=folder)
        output = done.stdout + done.stderr
        passed = done.returncode == code and words in output
        passed = passed and ("Traceback" not in output or "-c" in command)
        failed += not passed
        print(f"{'passed' if passed else 'FAILED'}  {name}")
        if not passed:
            print(done.stdout[-2000:] + done.stderr[-2000:])
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
