"""Paragraphs of documentation and licences from the installed Python packages.

Source files are parsed, never imported, so reading a package's text runs none of its code.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

Kind = Literal["docstring", "readme", "licence"]

SCIENTIFIC = ("numpy", "scipy", "scikit-learn")
# Distributions that are in the embedded and in the Spark environment alike, at the locked version,
# so that both engines meet the same text. pyspark is not: there it is another distribution.
OTHERS = (
    "alembic", "certifi", "click", "contourpy", "cryptography", "cycler", "databricks-sdk",
    "deprecated", "fastapi", "filelock", "fonttools", "fsspec", "gitpython", "google-auth",
    "huggingface-hub", "idna", "jinja2", "joblib", "kiwisolver", "mako", "markdown-it-py",
    "markupsafe", "matplotlib", "mlflow-skinny", "opentelemetry-api", "opentelemetry-sdk",
    "packaging", "pandas", "pillow", "pyarrow", "pydantic", "pygments", "pyparsing", "pysail",
    "python-dateutil", "pyyaml", "requests", "rich", "sqlalchemy", "sqlparse", "starlette",
    "threadpoolctl", "tokenizers", "tqdm", "typer", "typing-extensions", "urllib3", "uvicorn",
    "wrapt",
)  # fmt: skip

# Files and paragraphs read at most: the scientific packages give three sides, the others one.
FILES_PER_PACKAGE = {True: 120, False: 40}
PARAGRAPHS_PER_PACKAGE = {True: 1_600, False: 500}
WORDS = (12, 220)

_LICENCE = re.compile(r"(^|/)(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_SKIPPED = re.compile(r"(^|/)(tests?|testing|_vendor|vendored|externals|node_modules)(/|$)")


@dataclass(frozen=True)
class Paragraph:
    """One paragraph: its text and where it stands."""

    package: str
    kind: Kind
    path: str
    number: int
    text: str

    @property
    def key(self) -> str:
        return f"{self.package}/{self.path}#{self.number}"


def order(salt: str, key: str) -> int:
    """64-bit number that orders keys the same way on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "big")


def read_paragraphs(names: tuple[str, ...] = SCIENTIFIC + OTHERS) -> list[Paragraph]:
    """Paragraphs of the installed ones among the named packages, each text once.

    Files and paragraphs are cut to a bounded number by hash of their place, so the result depends
    on the installed versions alone.
    """
    found: list[Paragraph] = []
    seen: set[str] = set()
    for name in sorted(names):
        try:
            package = distribution(name)
        except PackageNotFoundError:
            logger.info("package=%s not installed, left out of the demo's text", name)
            continue
        own = []
        for paragraph in _of_package(name, package, FILES_PER_PACKAGE[name in SCIENTIFIC]):
            fold = " ".join(paragraph.text.casefold().split())
            if fold not in seen:
                seen.add(fold)
                own.append(paragraph)
        own.sort(key=lambda p: order("paragraph", p.key))
        found += own[: PARAGRAPHS_PER_PACKAGE[name in SCIENTIFIC]]
    found.sort(key=lambda p: p.key)
    return found


def versions(names: tuple[str, ...] = SCIENTIFIC + OTHERS) -> dict[str, str]:
    """Installed version of every named package that is there."""
    there = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            there[name] = distribution(name).version
    return there


def _of_package(name: str, package: Distribution, limit: int) -> Iterator[Paragraph]:
    # As a header: the backport of this module, which some library may have put in its place by
    # now, empties the body of the message.
    description = package.metadata.get("Description")  # type: ignore[attr-defined]
    if isinstance(description, str):
        yield from _cut(name, "readme", "README", description)
    sources = []
    for entry in package.files or ():
        path = entry.as_posix()
        if _SKIPPED.search(path) or path.startswith(".."):
            continue
        if _LICENCE.search(path) and not path.endswith(".py"):
            yield from _cut(name, "licence", path, _text(Path(str(entry.locate()))))
        elif path.endswith(".py"):
            sources.append(entry)
    sources.sort(key=lambda entry: order("file", entry.as_posix()))
    for entry in sources[:limit]:
        text = "\n\n".join(_docstrings(_text(Path(str(entry.locate())))))
        yield from _cut(name, "docstring", entry.as_posix(), text)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _docstrings(source: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    # Only bodies of modules and classes are entered: walking every expression takes twice as long.
    waiting: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
    while waiting:
        node = waiting.pop()
        text = ast.get_docstring(node)
        if text:
            yield text
        if not isinstance(node, ast.FunctionDef):
            waiting += [n for n in node.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]


def _cut(package: str, kind: Kind, path: str, text: str) -> Iterator[Paragraph]:
    """Yield the paragraphs that are prose: enough words, most of the characters letters."""
    for number, block in enumerate(re.split(r"\n\s*\n", text)):
        words = block.split()
        if WORDS[0] <= len(words) <= WORDS[1]:
            letters = sum(character.isalpha() for character in block)
            if letters >= 0.65 * sum(map(len, words)):
                yield Paragraph(package, kind, path, number, " ".join(words))
