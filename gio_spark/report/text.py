"""Turn user data and numbers into text that is safe and pleasant to show."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from gio_spark.settings.redact import redact

# Control, format (bidirectional overrides among them), surrogate and private characters.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = {"\u200c", "\u200d"}  # needed by several scripts and by emoji
_SPACES = re.compile(r"\s+")


def clean(value: Any, length: int = 200) -> str:
    """User text on one line, without control characters, clipped.

    Escaping for HTML is the template's work; this takes out what escaping leaves in: line breaks,
    NUL, terminal sequences, and marks that reverse the direction of the text around them.
    """
    text = "" if value is None else str(value)
    text = _SPACES.sub(" ", text[: length * 4])
    kept = (c for c in text if c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
    text = "".join(kept).strip()
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def place(value: Any, length: int = 160) -> str:
    """Location without secrets; a long one keeps both ends."""
    text = clean(redact(str(value or "")), 2000)
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def whole(value: Any) -> str:
    """Count with thousands separated, '–' where there is none."""
    number = _number(value)
    return "–" if number is None else f"{round(number):,}"


def real(value: Any, digits: int = 3) -> str:
    """Number with a few significant digits, readable at any size."""
    number = _number(value)
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


def percent(value: Any) -> str:
    """Share (0..1) as per cent."""
    number = _number(value)
    if number is None:
        return "–"
    shown = 100 * number
    if 0 < abs(shown) < 0.1:
        return "< 0.1 %" if shown > 0 else "> -0.1 %"
    return f"{shown:.1f} %" if abs(shown) < 99.95 or shown == 0 else f"{shown:.0f} %"


def seconds(value: Any) -> str:
    """Seconds as a person says them."""
    number = _number(value)
    if number is None:
        return "–"
    if number < 59.5:
        return f"{number:.1f} s" if number < 9.95 else f"{number:.0f} s"
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _number(value: Any) -> float | None:
    """Value as a float, None where there is none."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number
