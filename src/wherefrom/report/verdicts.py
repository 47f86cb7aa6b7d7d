"""The table of verdicts as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherefrom.claims import CLAIMS, premise
from wherefrom.claims.wording import WORDING
from wherefrom.report.details import compact
from wherefrom.report.material import Material
from wherefrom.report.words import MISSING, interval, number, p_value

LOOKS = {
    "by construction": ("≡", "by-construction"),
    "supported": ("✓", "supported"),
    "contradicted": ("✗", "contradicted"),
    "mixed": ("±", "mixed"),
    "inconclusive": ("?", "inconclusive"),
    "not judged": (MISSING, "not-judged"),
}
"""For each verdict its symbol and its class in the style sheet."""


@dataclass(frozen=True)
class Contrast:
    """A number with its interval, as text."""

    value: str
    interval: str


@dataclass(frozen=True)
class Row:
    """One claim."""

    claim: str
    title: str
    sentence: str
    verdict: str
    symbol: str
    style: str
    what: str
    statistic: Contrast
    control: Contrast
    seeds: str
    p: str
    """The larger of the p-values against 0 and against the control."""
    p_adjusted: str
    """The same after Holm's correction."""
    details: tuple[tuple[str, str], ...]


def rows(material: Material) -> list[Row]:
    """The verdicts; empty where there are none yet."""
    return [_row(verdict) for verdict in _read(material)]


def opening(material: Material) -> str:
    """Whether the models use positions at all, in one line; empty where that is not known yet."""
    return premise(_read(material))


def _read(material: Material) -> list[dict]:
    try:
        return material.study.verdicts
    except ValueError:
        return []


def _row(verdict: Mapping) -> Row:
    claim = verdict["claim"]
    what = WORDING[claim].what if claim in WORDING else ""
    details = verdict.get("details") or {}
    unit = str(details.get("unit") or "")
    symbol, style = LOOKS.get(verdict["verdict"], ("", "not-judged"))
    return Row(
        claim=claim,
        title=str(details.get("title") or CLAIMS.get(claim, "")).rstrip("."),
        sentence=verdict["sentence"],
        verdict=verdict["verdict"],
        symbol=symbol,
        style=style,
        what=f"{what} ({unit})" if unit else what,
        statistic=_contrast(verdict),
        control=_contrast(verdict.get("control") or {}),
        seeds=str(verdict["n"]) if verdict.get("n") else MISSING,
        p=p_value(details.get("p", verdict.get("p"))),
        p_adjusted=p_value(details.get("p_adjusted")),
        details=tuple(compact({name: value for name, value in details.items() if name not in ("title", "unit")})),
    )


def _contrast(numbers: Mapping) -> Contrast:
    return Contrast(number(numbers.get("statistic")), interval(numbers.get("interval")))
