"""Example rows in a report's page: recognized by the hash of their id, and taken out again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

# The template puts each example between these comments; text of rows is escaped and holds none.
_EXAMPLE = re.compile(r"<!--row ([0-9a-f]{64})-->.*?<!--/row-->", re.DOTALL)
_REMOVED = '<p class="note">row purged</p>'


def id_hash(row_id: str) -> str:
    """SHA-256 of an id, 64 hexadecimal characters."""
    return hashlib.sha256(row_id.encode()).hexdigest()


def example_hashes(page: str) -> list[str]:
    """Hashes of the ids of all example rows in a page, each once."""
    return list(dict.fromkeys(_EXAMPLE.findall(page)))


def without_examples(page: str, hashes: Collection[str]) -> str:
    """Page without the examples whose ids have one of the hashes.

    Example:
        >>> page = f"<!--row {id_hash('a')}--><p>text</p><!--/row-->"
        >>> without_examples(page, {id_hash("a")})
        '<p class="note">row purged</p>'
    """
    return _EXAMPLE.sub(lambda m: _REMOVED if m.group(1) in hashes else m.group(0), page)
