"""How each claim's number is put into words: what was found, and how it compares to the scrambled control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp

from wherefrom.claims.premise import costs
from wherefrom.words import DOUBLED, amount, brackets, change, fraction, signed

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
    layers: tuple[str, str, str] = ("", "", "")
    """Subject, and what it did in a layer that is decided for the claim, and in one that is decided against it."""


def _attention(pairs: str, side: int) -> tuple[Write, Write]:
    """Attention on some pairs grew or fell; `side` is −1 where the claim says that it fell."""

    def found(value: float, ends: Ends) -> str:
        way, by = change(side * value, _sided(ends, side))
        return f"where position alone can guide it (shuffled patches), attention on {pairs} {way} {by}"

    def against(value: float, ends: Ends) -> str:
        ratio, ends = side * value, _sided(ends, side)
        if ratio > DOUBLED:
            return f"{exp(min(ratio, 50.0)):.1f} times as much as in models trained on scrambled images"
        by = change(ratio, ends)[1].removeprefix("by ")
        return f"{by} {_more(ratio)} than in models trained on scrambled images"

    return found, against


def _sided(ends: Ends, side: int) -> Ends:
    return ends if ends is None or side > 0 else (-ends[1], -ends[0])


def _map(value: float, ends: Ends) -> str:
    return (
        f"position embeddings of edge neighbours became {_more(value)} similar than those of far patches, "
        f"by a cosine of {_cosine(value, ends)}"
    )


def _map_against(value: float, ends: Ends) -> str:
    return f"{_more(value)} than on scrambled images by {_cosine(value, ends)}"


def _built(value: float, ends: Ends) -> str:
    return (
        f"queries and keys built {_more(value)} of the map than all other routes of the gradient together, "
        f"by a cosine of {_cosine(value, ends)}"
    )


def _more(value: float) -> str:
    return "more" if value >= 0 else "less"


def _cosine(value: float, ends: Ends) -> str:
    """Its size, with the interval turned alike."""
    return fraction(abs(value), _sided(ends, 1 if value >= 0 else -1))


def _use_against(value: float, ends: Ends) -> str:
    return f"against models trained on scrambled images {amount(value, ends, sign=True)}"


def _rows(value: float, ends: Ends) -> str:
    word, way = ("different", "grew") if value >= 0 else ("similar", "fell")
    by = amount(abs(value), _sided(ends, 1 if value >= 0 else -1))
    return f"the heads of one layer came to look at more {word} positions: their divergence {way} by {by}"


def _rows_against(value: float, ends: Ends) -> str:
    return f"against scrambled images {amount(value, ends, sign=True)}"


def _accuracy(value: float, ends: Ends) -> str:
    ends = _sided(ends, 1 if value >= 0 else -1)
    by = f"{abs(100 * value):.2f}" + brackets(ends, lambda end: signed(100 * end).removeprefix("+"))
    way = "gained" if value >= 0 else "lost"
    return f"each doubling of the number of heads {way} {by} percentage points of test accuracy"


def _none(value: float, ends: Ends) -> str:
    return ""


WORDING: dict[str, Wording] = {
    "C0": Wording(_none, _none, "share of a score's variance that the angle explains, at the end", "share"),
    "C1": Wording(
        *_attention("edge neighbours", 1),
        "growth of log attention on edge neighbours, content-shuffled images, end − start",
        "nats",
        ("attention on edge neighbours", "grew", "fell"),
    ),
    "C2": Wording(
        *_attention("far patches", -1),
        "fall of log attention on far patches, content-shuffled images, start − end",
        "nats",
        ("attention on far patches", "fell", "grew"),
    ),
    "C3a": Wording(_map, _map_against, "near minus far similarity of position embeddings, end − start", "cosine"),
    "C3b": Wording(_built, _none, "what q and k added to near minus far − what all other routes added", "cosine"),
    "C3c": Wording(costs, _use_against, "test loss with shuffled patches − test loss, at the end", "nats"),
    "C4": Wording(
        _rows,
        _rows_against,
        "divergence of the heads' mean rows of attention, end − start",
        "nats",
        ("the positions that heads look at", "became more different", "became more similar"),
    ),
    "C5": Wording(_accuracy, _none, "test accuracy gained by each doubling of heads", "share per doubling"),
}
