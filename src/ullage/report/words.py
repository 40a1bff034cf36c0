"""Figures in words, as every page writes them: few digits, no false precision."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def percent(share: float) -> str:
    """A share in per cent with two significant digits, and no false precision near 0 or 100 %."""
    if share == 0:
        return "0 %"
    if 0.99 < share < 1:  # rounded down: a share of less than all never reads 100 %
        digits = min(8, max(1, -math.floor(math.log10(1 - share)) - 1))
        return f"{math.floor(100 * share * 10**digits) / 10**digits:.{digits}f} %"
    if abs(share) > 1e7:  # no share, but a document may say anything
        return f"{share:.1e} times all"
    if abs(share) < 1e-7:
        return f"{100 * share:.1e} %"
    digits = max(0, 1 - math.floor(math.log10(abs(100 * share))))
    return f"{100 * share:.{digits}f} %"


def factor(value: float | None) -> str:
    """A slowdown in three digits; "never" for None."""
    if value is None:
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def slower(value: float | None) -> str:
    """A slowdown as a predicate: "4.2 times slower", "no slower", or "impossible" for None."""
    if value is None:
        return "impossible"
    return "no slower" if value < 1.005 else f"{factor(value)} times slower"


def days(value: float | None) -> str:
    """A time given in days, in the unit that fits; "never" for None."""
    if value is None:
        return "never"
    if value >= 365:
        return f"{value / 365.25:,.3g} years"
    if value >= 1:
        return f"{value:,.3g} days"
    return f"{value * 24:.2g} hours" if value >= 1 / 24 else f"{value * 86_400:.2g} seconds"


def number(value: float | None) -> str:
    """A figure of any size in three digits, with the usual prefixes from a thousand on."""
    if value is None:
        return "without limit"
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def count(value: int) -> str:
    """A whole number with separators."""
    return f"{value:,}"


def confidence(value: float | None) -> str:
    """The words "at 99 %", or nothing for None and for certainty."""
    return "" if value is None or value >= 1 else f"at {100 * value:.6g} %"


def moment(nanoseconds: int) -> str:
    """A time since 1970 as "2026-11-21 14:05 UTC"; the bare number if no calendar holds it."""
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return str(nanoseconds)


def short_digest(digest: str) -> str:
    """The first twelve digits of a digest, enough to compare by eye."""
    kind, colon, digits = digest.partition(":")
    return f"{kind}{colon}{digits[:12]}…" if colon and len(digits) > 12 else digest
