"""Change one constant or comparison of the core at a time, and see whether the tests notice.

    python tools/code_mutants.py [--room gio] [--count 200] [--seed 0] [--seconds 120]

Each change is made in a copy of the package, and the tests of its room are run on it. A change that
survives either shows a missing test or changes nothing: those that change nothing stand in
tools/equivalent_mutants.txt, one a line (file, before -> after, why), and are left out.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "gio": ["tests/gio"],
    "kernels": ["tests/kernels"],
    "quantize": ["tests/quantize"],
    "explode": ["tests/explode"],
    "gime": ["tests/gime"],
    "pipeline/refresh.py": ["tests/pipeline/test_refresh.py"],
}
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Small changes of an expression."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        other = copy.deepcopy(node)
        other.ops[0] = _COMPARISONS[type(node.ops[0])]()
        yield other
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        other = copy.deepcopy(node)
        other.op = _OPERATORS[type(node.op)]()
        yield other
    elif isinstance(node, ast.BoolOp):
        other = copy.deepcopy(node)
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield other
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 2 + 0.5)


class _Replace(ast.NodeTransformer):
    def __init__(self, line: int, column: int, old: str, new: ast.AST) -> None:
        self.place, self.old, self.new = (line, column), old, new

    def visit(self, node: ast.AST) -> ast.AST:
        here = (getattr(node, "lineno", None), getattr(node, "col_offset", None))
        if here == self.place and ast.unparse(node) == self.old:
            return self.new
        return super().generic_visit(node)


def mutants(room: str) -> list[tuple[Path, ast.AST, ast.AST]]:
    """All changes of a room's functions: file, expression, changed expression."""
    place = ROOT / "gio_spark" / room
    found = []
    for file in [place] if place.suffix else sorted(place.rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                body = [n for statement in function.body for n in ast.walk(statement)]
                found += [(file, node, new) for node in body for new in changed(node)]
    unique = {(f, n.lineno, n.col_offset, ast.unparse(n), ast.unparse(m)): (f, n, m)
              for f, n, m in found}  # type: ignore[attr-defined]  # fmt: skip
    return list(unique.values())


def is_noticed(copied: Path, tests: list[str], seconds: float) -> bool:
    """Whether the tests of a room fail on the changed copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
               "-m", "not (spark or connect or cluster or faults)", *tests]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copied, env=environment, timeout=seconds,
                              capture_output=True, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def equivalent() -> set[tuple[str, str]]:
    """Changes that are known to change nothing: file, and before -> after."""
    lines = (ROOT / "tools" / "equivalent_mutants.txt").read_text().splitlines()
    parts = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {(file, change) for file, change, _why in parts}


def main() -> None:
    """Draw changes, try them one after the other, and print which survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--room", choices=ROOMS, help="one room; without: all, by their size")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0, help="limit for each change")
    given = parser.parse_args()
    rooms = [given.room] if given.room else list(ROOMS)
    pool = [(room, *mutant) for room in rooms for mutant in mutants(room)]
    drawn = random.Random(given.seed).sample(pool, min(given.count, len(pool)))
    known, noticed, tried = equivalent(), 0, 0
    with tempfile.TemporaryDirectory(prefix="gio-spark-mutants-") as folder:
        copied = Path(folder)
        shutil.copytree(ROOT / "gio_spark", copied / "gio_spark")
        shutil.copytree(ROOT / "tests", copied / "tests")
        shutil.copy(ROOT / "pyproject.toml", copied)
        for room, file, node, new in drawn:
            name = str(file.relative_to(ROOT))
            change = f"{ast.unparse(node)} -> {ast.unparse(new)}"
            if (name, change) in known:
                continue
            began = time.monotonic()
            line, column = node.lineno, node.col_offset  # type: ignore[attr-defined]
            tree = _Replace(line, column, ast.unparse(node), new).visit(ast.parse(file.read_text()))
            (copied / name).write_text(ast.unparse(ast.fix_missing_locations(tree)))
            good = is_noticed(copied, ROOMS[room], given.seconds)
            shutil.copy(file, copied / name)
            tried, noticed = tried + 1, noticed + good
            state = "noticed " if good else "SURVIVED"
            print(
                f"{state} {name}:{line}: {change}  ({time.monotonic() - began:.0f} s)", flush=True
            )
    print(f"{noticed} of {tried} changes noticed ({noticed / max(tried, 1):.0%})")


if __name__ == "__main__":
    main()
