"""Change one constant, comparison or operator at a time and see whether the room's tests notice.

Each mutant of the sample stands in a temporary copy of the working tree, never in the tree itself,
and is tried by the tests of its room alone (numpy and the embedded engine). Mutants that change no
result are named in tools/equivalent_mutants.txt and left out.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
ROOMS = {
    "gio_spark/gio": ["tests/gio"],
    "gio_spark/kernels": ["tests/kernels"],
    "gio_spark/quantize": ["tests/quantize"],
    "gio_spark/explode": ["tests/explode"],
    "gio_spark/gime": ["tests/gime"],
    "gio_spark/pipeline/refresh.py": [
        "tests/pipeline/test_refresh.py",
        "tests/pipeline/test_publishing.py",
    ],
}
MARKERS = "not (spark or connect or cluster or faults)"

OPERATORS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
CALLS = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum",
    "ceil": "floor", "floor": "ceil", "argmin": "argmax", "argmax": "argmin",
    "any": "all", "all": "any",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one expression.

    Attributes:
        path: File, relative to the root.
        place: The function or class around it.
        line: Its line.
        span: Offsets of the expression in the file's bytes.
        after: What takes the expression's place.
        change: Its lines, with the change in brackets.
    """

    path: str
    place: str
    line: int
    span: tuple[int, int]
    after: str
    change: str

    @property
    def name(self) -> str:
        """What it is called in the list of equivalent mutants: no line, which would move."""
        return f"{self.path} {self.place}: {self.change}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.change}"


def changes(node: ast.AST) -> Iterator[str]:
    """Yield the code of each change of one node."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield str(not node.value)
        elif isinstance(node.value, int):
            yield str(node.value + 1)
        elif isinstance(node.value, float):
            yield repr(2 * node.value or 1.0)
    elif isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            ops = [*node.ops[:at], OPERATORS[type(operator)](), *node.ops[at + 1 :]]
            yield f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield f"({ast.unparse(ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right))})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(OPERATORS[type(node.op)](), node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in CALLS:
            function = ast.Attribute(node.func.value, CALLS[node.func.attr])
            yield ast.unparse(ast.Call(function, node.args, node.keywords))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in CALLS:
            yield ast.unparse(ast.Call(ast.Name(CALLS[node.func.id]), node.args, node.keywords))
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield ast.unparse(ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value))


def inner(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children that decide results: no texts of errors, annotations or decorators."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Raise, ast.JoinedStr)):
                continue
            if not (isinstance(child, ast.keyword) and child.arg == "strict"):
                yield child


def mutants_of(root: Path, path: str) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    text = (root / path).read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def walk(node: ast.AST, place: str) -> Iterator[Mutant]:
        for child in inner(node):
            around = place
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                around = f"{place}.{child.name}" if place else child.name
            if isinstance(child, (ast.expr, ast.AugAssign)):
                first = starts[child.lineno - 1] + child.col_offset
                last = starts[child.end_lineno - 1] + child.end_col_offset
                left = text[starts[child.lineno - 1] : first].decode()
                right = text[last : starts[child.end_lineno]].decode()
                for code in changes(child):
                    change = f"{left}[{text[first:last].decode()} -> {code}]{right}"
                    change = re.sub(r"\s+", " ", change).strip()
                    yield Mutant(path, place or "-", child.lineno, (first, last), code, change)
            yield from walk(child, around)

    yield from walk(ast.parse(text), "")


def all_mutants(root: Path, under: list[str]) -> list[Mutant]:
    """Return the mutants of all files below some paths, of the rooms that are looked at."""
    files = {
        path.relative_to(root).as_posix()
        for room in ROOMS
        for path in ([root / room] if room.endswith(".py") else (root / room).rglob("*.py"))
    }
    below = [f for f in sorted(files) if any(f"{f}/".startswith(f"{u}/") for u in under)]
    if not below:
        sys.exit(f"error: no file of {', '.join(ROOMS)} lies under {', '.join(under)}")
    return [mutant for path in below for mutant in mutants_of(root, path)]


def equivalent_names() -> set[str]:
    """Return the names of the mutants that are known to change no result."""
    lines = EQUIVALENT.read_text().splitlines()
    return {line for line in lines if line and not line.startswith(("#", " "))}


def room_of(path: str) -> str:
    return next(room for room in ROOMS if f"{path}/".startswith(f"{room}/"))


def tests_of(copy: Path, path: str) -> list[str]:
    """Return the test files of a file's room, those that import it first."""
    module = path.removesuffix(".py").replace("/", ".")
    places = [copy / place for place in ROOMS[room_of(path)]]
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else sorted(place.rglob("test_*.py")))
    ]
    files.sort(key=lambda file: module not in file.read_text())
    return [file.relative_to(copy).as_posix() for file in files]


def run_tests(copy: Path, paths: list[str], limit: float, *, bytecode: bool = False) -> int | None:
    """Run tests in the copy; return pytest's code, or None where it took longer than `limit`."""
    env = {**os.environ, "PYTHONPATH": str(copy)}
    if not bytecode:
        # Code of a mutant must not outlive it.
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-m", MARKERS,
            "--hypothesis-seed=0", *paths,
        ],
        cwd=copy, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tests_notice(copy: Path, mutant: Mutant, limit: float) -> bool:
    """Put a mutant into the copy, run its room's tests, and take it out again."""
    file = copy / mutant.path
    text, times = file.read_bytes(), file.stat()
    first, last = mutant.span
    file.write_bytes(text[:first] + mutant.after.encode() + text[last:])
    try:
        return run_tests(copy, tests_of(copy, mutant.path), limit) != 0
    finally:
        file.write_bytes(text)
        # Its code was compiled before the first mutant and is good again.
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="mutants (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--under", action="append", help="only these folders or files")
    options = parser.parse_args()
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # All that follows is of the copy: the tree may be worked on meanwhile.
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        mutants = all_mutants(copy, options.under or list(ROOMS))
        sample = random.Random(options.seed).sample(mutants, min(options.count, len(mutants)))
        sample.sort(key=lambda mutant: (mutant.path, mutant.span, mutant.after))
        print(f"==> {len(sample)} of {len(mutants)} mutants, seed {options.seed}", flush=True)
        equivalents = equivalent_names()
        for name in equivalents - {mutant.name for mutant in all_mutants(copy, list(ROOMS))}:
            print(f"error: no such mutant any more in {EQUIVALENT.name}: {name}", file=sys.stderr)
        limits = {}
        for room in dict.fromkeys(room_of(mutant.path) for mutant in sample):
            begin = time.monotonic()
            if run_tests(copy, ROOMS[room], 600, bytecode=True) != 0:
                sys.exit(f"error: {', '.join(ROOMS[room])} do not pass without any mutant")
            limits[room] = 20 + 3 * (time.monotonic() - begin)
        for mutant in sample:
            room = room_of(mutant.path)
            count = counts.setdefault(room, [0, 0, 0])
            if mutant.name in equivalents:
                verdict, column = "equivalent", 2
            elif tests_notice(copy, mutant, limits[room]):
                verdict, column = "noticed", 0
            else:
                verdict, column = "SURVIVED", 1
            count[column] += 1
            print(f"{verdict:<10}  {mutant}", flush=True)
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    print(f"\n{'room':<30}  noticed  survived  equivalent  share noticed")
    for room, (caught, survivors, same) in counts.items():
        share = caught / max(1, caught + survivors)
        print(f"{room:<30}  {caught:>7}  {survivors:>8}  {same:>10}  {share:>13.0%}")


if __name__ == "__main__":
    main()
