"""Text forms of user data, locations, numbers and durations for pages and the terminal."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from gio_spark.settings.redact import redact

# Control, format (bidirectional overrides among them), surrogate and private characters.
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = {"\u200c", "\u200d"}  # needed by several scripts and by emoji
_SPACES = re.compile(r"\s+")


def clean_text(value: Any, length: int = 200) -> str:
    """User text on one line, without control characters, clipped to a length.

    The templates escape HTML; this function removes what escaping leaves in: line breaks, NUL,
    terminal sequences and marks that reverse the direction of text.

    Example:
        >>> clean_text("two\\nlines"), clean_text("abcdefgh", 5)
        ('two lines', 'abcd…')
    """
    text = "" if value is None else str(value)
    text = _SPACES.sub(" ", text[: length * 4])
    visible = (
        c for c in text if c in _JOINERS or unicodedata.category(c) not in _HIDDEN_CATEGORIES
    )
    text = "".join(visible).strip()
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def location_text(value: Any, length: int = 160) -> str:
    """Location without secrets; a long one is shortened in the middle.

    Example:
        >>> location_text("https://user:secret@host/pool")
        'https://***@host/pool'
    """
    text = clean_text(redact(str(value or "")), 2000)
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def count_text(value: Any) -> str:
    """Count with thousands separators, '–' if there is none.

    Example:
        >>> count_text(1234567), count_text(None)
        ('1,234,567', '–')
    """
    number = _float_or_none(value)
    return "–" if number is None else f"{round(number):,}"


def number_text(value: Any, digits: int = 3) -> str:
    """Number with a few significant digits.

    Example:
        >>> number_text(0.12345), number_text(1234567), number_text(0.000012)
        ('0.123', '1,234,567', '1.2e-05')
    """
    number = _float_or_none(value)
    if number is None:
        return "–"
    if math.isinf(number):
        return "infinite" if number > 0 else "minus infinite"
    size = abs(number)
    if number == 0:
        return "0"
    if size >= 10**digits:
        return f"{number:,.0f}"
    if size < 1e-4:
        return f"{number:.1e}"
    return f"{number:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"


def percent_text(value: Any) -> str:
    """Share (0..1) as per cent.

    Example:
        >>> percent_text(0.1), percent_text(0.0003)
        ('10.0 %', '< 0.1 %')
    """
    number = _float_or_none(value)
    if number is None:
        return "–"
    percentage = 100 * number
    if 0 < abs(percentage) < 0.1:
        return "< 0.1 %" if percentage > 0 else "> -0.1 %"
    return (
        f"{percentage:.1f} %"
        if abs(percentage) < 99.95 or percentage == 0
        else f"{percentage:.0f} %"
    )


def duration_text(value: Any) -> str:
    """Duration in seconds, minutes or hours.

    Example:
        >>> duration_text(3.21), duration_text(75), duration_text(7322)
        ('3.2 s', '1 min 15 s', '2 h 02 min')
    """
    number = _float_or_none(value)
    if number is None:
        return "–"
    if number < 59.5:
        return f"{number:.1f} s" if number < 9.95 else f"{number:.0f} s"
    minutes, remainder = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {remainder:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def verdict_text(*, passed: bool, checks: int) -> str:
    """Verdict of a gate in a word or two; without a threshold there is none.

    Example:
        >>> verdict_text(passed=True, checks=3), verdict_text(passed=True, checks=0)
        ('passed', 'no threshold set')
    """
    if not checks:
        return "no threshold set"
    return "passed" if passed else "FAILED"


def clusters_text(clusters: int, with_rows: int | None) -> str:
    """Number of clusters, and of those that rows are selected from, where it is known.

    Example:
        >>> clusters_text(1216, 310)
        '1,216 clusters, 310 of them with rows selected'
    """
    text = f"{clusters:,} clusters"
    return text if with_rows is None else f"{text}, {with_rows:,} of them with rows selected"


def _float_or_none(value: Any) -> float | None:
    """Value as a float, None if it is missing, not a number or NaN."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    # Adding zero takes the sign of a negative zero away.
    return None if math.isnan(number) else number + 0.0
