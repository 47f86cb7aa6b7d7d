"""Numbers as people read them: 2.1 thousandths of a nat, 38 %, p < .001. One home for sentences, tables and pages."""

from __future__ import annotations

from math import exp, floor, isfinite, log10

MISSING = "–"

_SCALES = ((1e-2, 1.0, ""), (1e-3, 1e3, "thousandths"), (1e-6, 1e6, "millionths"), (1e-9, 1e9, "billionths"))
"""Least size, factor and name; a number below all of them is "less than a billionth"."""

DOUBLED = 0.694
"""Growth of a logarithm from which on it is said as a multiple: a little above log 2."""


def p_value(p) -> str:
    """
    >>> p_value(0.0312), p_value(0.00004), p_value(1.0), p_value(None)
    ('.031', '< .001', '1', '–')
    """
    if p is None or not isfinite(p):
        return MISSING
    return "< .001" if p < 0.001 else "1" if p > 0.9995 else f"{p:.3f}".removeprefix("0")


def p_equals(p: float) -> str:
    """
    >>> p_equals(0.0312), p_equals(0.00004)
    ('p = .031', 'p < .001')
    """
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def fraction(value: float, ends=None, places: int | None = None) -> str:
    """A share, cosine or correlation, which cannot exceed 1, without its leading zero, and its interval.

    >>> fraction(0.894), fraction(-0.2), fraction(1.0), fraction(0.0021), fraction(0.31, (0.25, 0.37))
    ('.89', '−.20', '1.00', '.0021', '.31 (.25 to .37)')
    """
    places = max(2, _places(_size(value, ends))) if places is None else places

    def write(number: float) -> str:
        text = f"{abs(number):.{places}f}".removeprefix("0")
        return f"−{text}" if number < 0 and float(text) else text

    return write(value) + brackets(ends, write)


def amount(value: float, ends=None, unit: tuple[str, str] = ("nat", "nats"), sign: bool = False) -> str:
    """A number with its unit and, in brackets, its interval; a small one in thousandths or millionths of the unit.

    Args:
        value: the number.
        ends: (low, high) of its interval, or None.
        unit: its name in singular and plural.
        sign: whether a number above 0 has a plus.

    >>> amount(1.93, (1.71, 2.14)), amount(4.57e-6), amount(-0.0021, (-0.003, -0.0001))
    ('1.9 nats (1.7 to 2.1)', '4.6 millionths of a nat', '−2.1 thousandths of a nat (−3.0 to −0.1)')
    >>> amount(0.0021, (-0.04, 0.044))
    '0.002 nats (−0.040 to 0.044)'
    """
    size = _size(value, ends)
    scale = next((scale for scale in _SCALES if size >= 0.995 * scale[0]), None)
    if scale is None and size:
        return f"less than a billionth of a {unit[0]}"
    factor, name = scale[1:] if scale else (1.0, "")
    places = _places(size * factor)
    shown = signed(value * factor, places) if sign else _minus(f"{value * factor:.{places}f}")
    text = f"{shown} {name} of a {unit[0]}" if name else f"{shown} {unit[1]}"
    return text + brackets(ends, lambda end: _minus(f"{end * factor:.{places}f}"))


def _size(value: float, ends) -> float:
    """What decides how many digits are worth showing: the number, or half its interval where that is larger."""
    known = ends is not None and all(end is not None and isfinite(end) for end in ends)
    return max(abs(value), (ends[1] - ends[0]) / 2 if known else 0.0)


def percent(share: float) -> str:
    """
    >>> percent(0.347), percent(-0.05)
    ('35 %', '−5 %')
    """
    return _minus(f"{100 * share:.0f}") + " %"


def change(growth: float, ends=None) -> tuple[str, str]:
    """exp(growth) − 1 in words: ("grew" or "fell", "by 38 % (30 to 47)"); above twice the start "2.4-fold".

    >>> change(0.322, (0.262, 0.385)), change(-0.13, (-0.2, 0.01)), change(0.9)
    (('grew', 'by 38 % (30 to 47)'), ('fell', 'by 12 % (−1 to 18)'), ('grew', '2.5-fold'))
    """
    way = "grew" if growth >= 0 else "fell"
    if growth > DOUBLED:
        places = 1 if growth < 2.3 else 0
        return way, f"{exp(growth):.{places}f}-fold" + brackets(ends, lambda end: f"{_exp(end):.{places}f}")
    side = 1 if growth >= 0 else -1
    percent = 100 * abs(exp(growth) - 1)
    places = _places(percent)
    ends = (
        None if ends is None or not all(map(isfinite, ends)) else sorted(side * 100 * (_exp(end) - 1) for end in ends)
    )
    return way, f"by {percent:.{places}f} %" + brackets(ends, lambda end: _minus(f"{end:.{places}f}"))


def signed(value: float, places: int = 2) -> str:
    """
    >>> signed(1.234), signed(-0.5, 1)
    ('+1.23', '−0.5')
    """
    return _minus(f"{value:+.{places}f}")


def brackets(ends, write) -> str:
    """Both ends of an interval as `write` puts them: " (1 to 2)"; nothing where it is not known."""
    if ends is None or not all(end is not None and isfinite(end) for end in ends):
        return ""
    return f" ({write(ends[0])} to {write(ends[1])})"


def _places(value: float) -> int:
    """Decimals that show two digits, at most four."""
    return 1 if value == 0 else min(4, max(0, 1 - floor(log10(abs(value)) + 1e-9)))


def _exp(value: float) -> float:
    return exp(min(value, 700.0))


def _minus(text: str) -> str:
    """A minus sign; none for a zero."""
    return text.removeprefix("-") if not float(text.replace("+", "")) else text.replace("-", "−")
