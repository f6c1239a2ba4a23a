"""Paragraphs of documentation and licenses from the installed Python packages.

Source files are parsed and not imported, so that no code of a package runs.
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
# Distributions with the same locked version in the embedded and in the Spark environment, so that
# both engines read the same text. pyspark is a different distribution in each.
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

# Most files and paragraphs per package: scientific packages fill pool, target and held-out rows,
# the others the pool only.
FILES_PER_PACKAGE = {True: 120, False: 40}
PARAGRAPHS_PER_PACKAGE = {True: 1_600, False: 500}
WORDS = (12, 220)

_LICENCE = re.compile(r"(^|/)(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_SKIPPED = re.compile(r"(^|/)(tests?|testing|_vendor|vendored|externals|node_modules)(/|$)")


@dataclass(frozen=True)
class Paragraph:
    """Paragraph with its package, file and number in the file."""

    package: str
    kind: Kind
    path: str
    number: int
    text: str

    @property
    def key(self) -> str:
        return f"{self.package}/{self.path}#{self.number}"


def hash_order(salt: str, key: str) -> int:
    """64-bit number that orders keys the same way on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "big")


def read_paragraphs(names: tuple[str, ...] = SCIENTIFIC + OTHERS) -> list[Paragraph]:
    """Paragraphs of those packages that are installed, each text once.

    A hash of their path selects a bounded number of files and paragraphs, so that the result
    depends on the installed versions only.
    """
    paragraphs: list[Paragraph] = []
    known_texts: set[str] = set()
    for name in sorted(names):
        try:
            package = distribution(name)
        except PackageNotFoundError:
            logger.info("package=%s not installed, left out of the demo's text", name)
            continue
        paragraphs_of_package = []
        for paragraph in _of_package(name, package, FILES_PER_PACKAGE[name in SCIENTIFIC]):
            folded = " ".join(paragraph.text.casefold().split())
            if folded not in known_texts:
                known_texts.add(folded)
                paragraphs_of_package.append(paragraph)
        paragraphs_of_package.sort(key=lambda paragraph: hash_order("paragraph", paragraph.key))
        paragraphs += paragraphs_of_package[: PARAGRAPHS_PER_PACKAGE[name in SCIENTIFIC]]
    paragraphs.sort(key=lambda paragraph: paragraph.key)
    return paragraphs


def versions(names: tuple[str, ...] = SCIENTIFIC + OTHERS) -> dict[str, str]:
    """Installed versions of those packages that are installed."""
    installed = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = distribution(name).version
    return installed


def _of_package(name: str, package: Distribution, limit: int) -> Iterator[Paragraph]:
    # Read as a header, because the backport of importlib.metadata, which a library may have
    # installed in its place, empties the body of the message.
    description = package.metadata.get("Description")  # type: ignore[attr-defined]
    if isinstance(description, str):
        yield from _prose_paragraphs(name, "readme", "README", description)
    sources = []
    for entry in package.files or ():
        path = entry.as_posix()
        if _SKIPPED.search(path) or path.startswith(".."):
            continue
        if _LICENCE.search(path) and not path.endswith(".py"):
            yield from _prose_paragraphs(name, "licence", path, _text(Path(str(entry.locate()))))
        elif path.endswith(".py"):
            sources.append(entry)
    sources.sort(key=lambda entry: hash_order("file", entry.as_posix()))
    for entry in sources[:limit]:
        text = "\n\n".join(_docstrings(_text(Path(str(entry.locate())))))
        yield from _prose_paragraphs(name, "docstring", entry.as_posix(), text)


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
    # Only bodies of modules and classes are visited; a walk over all nodes takes twice as long.
    nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
    while nodes:
        node = nodes.pop()
        text = ast.get_docstring(node)
        if text:
            yield text
        if not isinstance(node, ast.FunctionDef):
            nodes += [
                child for child in node.body if isinstance(child, (ast.ClassDef, ast.FunctionDef))
            ]


def _prose_paragraphs(package: str, kind: Kind, path: str, text: str) -> Iterator[Paragraph]:
    """Paragraphs that are prose: a bounded number of words, mostly letters."""
    for number, block in enumerate(re.split(r"\n\s*\n", text)):
        words = block.split()
        if WORDS[0] <= len(words) <= WORDS[1]:
            letters = sum(character.isalpha() for character in block)
            if letters >= 0.65 * sum(map(len, words)):
                yield Paragraph(package, kind, path, number, " ".join(words))
