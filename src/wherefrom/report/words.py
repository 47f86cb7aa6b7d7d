"""Numbers in words, as the page prints them."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, isfinite, log10

from wherefrom.words import MISSING, p_value

__all__ = ["MISSING", "count", "interval", "listed", "number", "p_value", "power_of_ten"]


def number(value, places: int = 2) -> str:
    """`places` places after the point, more where the value is small; a power of ten where it is tiny or huge.

    >>> number(0.5731), number(-4.136), number(0.00312), number(2e-05), number(123.4), number(None)
    ('0.57', '−4.14', '0.0031', '2.0e−05', '123', '–')
    """
    if value is None or not isfinite(value):
        return MISSING
    size = abs(value)
    if size != 0 and not 1e-4 <= size < 1e5:
        text = f"{value:.1e}"
    elif size >= 100:
        text = f"{value:.0f}"
    else:
        text = f"{value:.{places if size == 0 or size >= 0.1 else max(places, 1 - floor(log10(size)))}f}"
    return text.replace("-", "−")


def power_of_ten(values: Iterable[float]) -> int:
    """The power of ten that brings the largest of small values to 1 … 10; 0 where it is at least 0.01.

    >>> power_of_ten([0.00031, -0.00002]), power_of_ten([0.3]), power_of_ten([])
    (-4, 0, 0)
    """
    largest = max((abs(value) for value in values if isfinite(value)), default=0.0)
    return floor(log10(largest)) if 0 < largest < 0.01 else 0


def interval(ends) -> str:
    """`[low, high]`; empty where it is not known."""
    if ends is None or len(ends) != 2 or any(end is None or not isfinite(end) for end in ends):
        return ""
    return f"[{number(ends[0])}, {number(ends[1])}]"


def count(n: int, noun: str) -> str:
    """
    >>> count(1, "seed"), count(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(parts: Iterable[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *before, last = list(parts) or [""]
    return f"{', '.join(before)} and {last}" if before else last
