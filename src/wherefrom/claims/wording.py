"""How each claim's number is put into words: what was found, and how it compares to the scrambled control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp

from wherefrom.claims.premise import costs
from wherefrom.words import amount, brackets, change, fraction, signed

Ends = tuple[float, float] | None
Write = Callable[[float, Ends], str]
"""A number with the ends of its interval, as text."""


@dataclass(frozen=True)
class Wording:
    """How one claim is put into words."""

    found: Write
    """The statistic as the finding of a sentence."""
    against: Write
    """The statistic minus that of the control; empty for a claim without control."""
    what: str
    """What the statistic is, for the table of a page."""
    unit: str
    """Unit of the statistic as it is stored."""
    toward: str = ""
    """What a layer did that is decided for the claim …"""
    away: str = ""
    """… and what one did that is decided against it."""


def _attention(pairs: str, side: int) -> tuple[Write, Write]:
    """Attention on some pairs grew or fell; `side` is −1 where the claim says that it fell."""

    def found(value: float, ends: Ends) -> str:
        way, by = change(side * value, _sided(ends, side))
        return f"where position alone can guide it, attention on {pairs} {way} {by}"

    def against(value: float, ends: Ends) -> str:
        growth, ends = side * value, _sided(ends, side)
        times = brackets(ends, lambda end: f"{exp(min(end, 50.0)):.2f}")
        return f"{exp(min(growth, 50.0)):.2f} times{times} the change on scrambled images"

    return found, against


def _sided(ends: Ends, side: int) -> Ends:
    return ends if ends is None or side > 0 else (-ends[1], -ends[0])


def _map(value: float, ends: Ends) -> str:
    word, side = ("more", 1) if value >= 0 else ("less", -1)
    by = fraction(abs(value)) + brackets(_sided(ends, side), fraction)
    return (
        f"position embeddings of edge neighbours became {word} similar than those of far patches, by a cosine of {by}"
    )


def _map_against(value: float, ends: Ends) -> str:
    return f"{_more(value)} than on scrambled images by {_size(value, ends)}"


def _built(value: float, ends: Ends) -> str:
    return (
        f"queries and keys built {_more(value)} of the map than all other routes of the gradient together, "
        f"by a cosine of {_size(value, ends)}"
    )


def _more(value: float) -> str:
    return "more" if value >= 0 else "less"


def _size(value: float, ends: Ends) -> str:
    return fraction(abs(value)) + brackets(_sided(ends, 1 if value >= 0 else -1), fraction)


def _use_against(value: float, ends: Ends) -> str:
    return f"against models trained on scrambled images {amount(value, ends, sign=True)}"


def _rows(value: float, ends: Ends) -> str:
    word, way = ("different", "grew") if value >= 0 else ("similar", "fell")
    by = amount(abs(value), _sided(ends, 1 if value >= 0 else -1))
    return f"the heads of one layer came to look at more {word} positions: their divergence {way} by {by}"


def _rows_against(value: float, ends: Ends) -> str:
    return f"against scrambled images {amount(value, ends, sign=True)}"


def _accuracy(value: float, ends: Ends) -> str:
    way = "gained" if value >= 0 else "lost"
    by = f"{abs(100 * value):.2f}" + brackets(
        _sided(ends, 1 if value >= 0 else -1), lambda end: signed(100 * end).removeprefix("+")
    )
    return f"each doubling of the number of heads {way} {by} percentage points of test accuracy"


def _none(value: float, ends: Ends) -> str:
    return ""


WORDING: dict[str, Wording] = {
    "C0": Wording(_none, _none, "share of a score's variance that the angle explains, at the end", "share"),
    "C1": Wording(
        *_attention("edge neighbours", 1),
        "growth of log attention on edge neighbours, content-shuffled images, end − start",
        "log ratio",
        "attention on edge neighbours grew",
        "attention on edge neighbours fell",
    ),
    "C2": Wording(
        *_attention("far patches", -1),
        "fall of log attention on far patches, content-shuffled images, start − end",
        "log ratio",
        "attention on far patches fell",
        "attention on far patches grew",
    ),
    "C3a": Wording(_map, _map_against, "near minus far similarity of position embeddings, end − start", "cosine"),
    "C3b": Wording(_built, _none, "what q and k added to near minus far − what all other routes added", "cosine"),
    "C3c": Wording(costs, _use_against, "test loss with shuffled patches − test loss, at the end", "nats"),
    "C4": Wording(
        _rows,
        _rows_against,
        "divergence of the heads' mean rows of attention, end − start",
        "nats",
        "heads came to look at more different positions",
        "heads came to look at more similar positions",
    ),
    "C5": Wording(_accuracy, _none, "test accuracy gained by each doubling of heads", "share per doubling"),
}
