"""Budgets as people write them: rows, a share of the pool, tokens, all or auto."""

from __future__ import annotations

import re
from math import isfinite, log2, nan
from typing import Literal, NamedTuple

from gio_spark.errors import ConfigError

Unit = Literal["rows", "share", "tokens", "auto"]

EXAMPLES = (
    "give rows (10000, '10k rows'), a share (0.1, '10 %'), tokens ('200M tokens'), all or auto"
)
# Digits in groups of three, as in 10,000 or 10 000, or as they come; then k, M, B and a unit.
_WRITTEN = re.compile(
    r"(?P<number>[0-9]{1,3}(?:([,_ ])[0-9]{3})(?:\2[0-9]{3})*(?:\.[0-9]+)?|[0-9_]+(?:\.[0-9]*)?"
    r"|\.[0-9]+)"
    r"\s*(?P<size>[kmbgt]?)\s*(?P<unit>rows?|tokens?|%|percent|per cent)?",
    re.IGNORECASE,
)
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


class Budget(NamedTuple):
    """An amount in a unit.

    Attributes:
        unit: rows, share (of the pool's rows), tokens or auto.
        amount: Rows, share above 0 and at most 1, or tokens; NaN for auto.
    """

    unit: Unit
    amount: float

    def in_words(self, pool_rows: int | None = None) -> str:
        """Budget as a sentence would name it; a single row and the whole pool are told apart.

        Args:
            pool_rows: Rows of the pool, where they are known.
        """
        amount = self.amount
        if self.unit == "auto":
            return "auto: as many rows as can have the target's distribution"
        if self.unit == "tokens":
            return f"{amount:,.0f} tokens"
        if self.unit == "rows":
            if amount == 1:
                return "1 row (a budget of 1.0 or 100 % is the whole pool)"
            return f"{amount:,.0f} rows"
        rows = "" if pool_rows is None else f", {max(1, round(amount * pool_rows)):,} rows"
        if amount == 1:
            return f"the whole pool{rows} (a budget of 1 is a single row)"
        return f"{amount:.6%}".rstrip("%").rstrip("0").rstrip(".") + f" % of the pool{rows}"

    def nearest_power(self) -> Budget:
        """Budget whose amount is the nearest power of two; `auto` for one that names no rows.

        >>> Budget("rows", 10_000).nearest_power(), Budget("share", 0.1).nearest_power()
        (Budget(unit='rows', amount=8192.0), Budget(unit='share', amount=0.125))
        """
        if self.unit not in ("rows", "share"):
            return Budget("auto", nan)
        return self._replace(amount=float(2.0 ** round(log2(self.amount))))


def parse_budget(value: int | float | str) -> Budget:
    """Read a budget.

    Whole numbers are rows (so is 1), numbers with a fraction are shares of the pool (so is 1.0).

    Raises:
        ConfigError: It is zero, negative, a share above one, or cannot be read.

    >>> parse_budget("10k rows")
    Budget(unit='rows', amount=10000.0)
    >>> parse_budget("5 %"), parse_budget("all")
    (Budget(unit='share', amount=0.05), Budget(unit='share', amount=1.0))
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"Cannot read budget {value!r}: {EXAMPLES}.")
    if value <= 0:
        raise ConfigError(f"budget {value!r} must be above zero: {EXAMPLES}.")
    if isinstance(value, int) or (float(value).is_integer() and value > 1):
        return Budget("rows", float(value))
    if value > 1:
        raise ConfigError(f"budget {value!r} is neither a whole number nor a share: {EXAMPLES}.")
    return Budget("share", float(value))


def _parse_text(text: str) -> Budget:
    words = " ".join(text.split())
    if words.lower() == "auto":
        return Budget("auto", float("nan"))
    if words.lower() == "all":
        return Budget("share", 1.0)
    match = _WRITTEN.fullmatch(words)
    if match is None:
        try:
            return parse_budget(float(words))
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"Cannot read budget {text!r}: {EXAMPLES}.") from None
    digits = re.sub(r"[,_ ]", "", match["number"])
    unit = (match["unit"] or "").lower()
    if not unit and not match["size"]:
        return parse_budget(float(digits) if "." in digits else int(digits))
    # Decimal shifts, so that 1.1k is 1100 and not the float nearby.
    amount = round(float(digits) * _SIZES[match["size"].lower()], 6)
    if unit.startswith("token"):
        if amount <= 0:
            raise ConfigError(f"budget {text!r} must be above zero: {EXAMPLES}.")
        return Budget("tokens", amount)
    if unit in ("%", "percent", "per cent"):
        return parse_budget(float(digits) / 100) if not match["size"] else _refuse(text)
    return parse_budget(int(amount)) if amount.is_integer() else _refuse(text)


def _refuse(text: str) -> Budget:
    raise ConfigError(f"Cannot read budget {text!r}: {EXAMPLES}.")
