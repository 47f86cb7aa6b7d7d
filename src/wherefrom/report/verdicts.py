"""The table of verdicts as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherefrom.report.details import compact
from wherefrom.report.material import Material
from wherefrom.report.words import MISSING, interval, number, p_value

CLAIMS = {
    "C0": ("A high score means a small angle", "angle share at the end"),
    "C1": ("The gradient pulls neighbours together", "advantage, edge − between, summed over training"),
    "C2": ("The gradient pushes far patches apart", "advantage, between − far, summed over training"),
    "C3a": ("Position embeddings become a map of the image plane", "similarity falloff, end − start"),
    "C3b": ("It is q and k that make them one", "share of q and k in the ledger"),
    "C4": ("Heads specialise, each by its own gradient", "divergence of the heads' attention, end − start"),
    "C5": ("More heads specialise more and do better", "test accuracy gained by each doubling of heads"),
}
"""For each claim its sentence, and what the statistic is."""

LOOKS = {
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
    """The larger of the p-values against 0 and against the control; against 0 alone for a contradiction."""
    p_adjusted: str
    """The same after Holm's correction."""
    details: tuple[tuple[str, str], ...]


def rows(material: Material) -> list[Row]:
    """The verdicts; empty where there are none yet."""
    try:
        verdicts = material.study.verdicts
    except ValueError:
        return []
    return [_row(verdict) for verdict in verdicts]


def _row(verdict: Mapping) -> Row:
    title, what = CLAIMS.get(verdict["claim"], ("", ""))
    details = verdict.get("details") or {}
    unit = str(details.get("unit") or "").replace(" x ", " × ").replace(" - ", " − ")
    symbol, style = LOOKS.get(verdict["verdict"], ("", "not-judged"))
    against = verdict["verdict"] == "contradicted"  # decided by the test against 0 alone
    return Row(
        claim=verdict["claim"],
        title=str(details.get("title") or title).rstrip("."),
        sentence=verdict["sentence"],
        verdict=verdict["verdict"],
        symbol=symbol,
        style=style,
        what=f"{what} ({unit})" if unit else what,
        statistic=_contrast(verdict),
        control=_contrast(verdict.get("control") or {}),
        seeds=str(verdict["n"]) if verdict.get("n") else MISSING,
        p=p_value(verdict.get("p") if against else details.get("p", verdict.get("p"))),
        p_adjusted=p_value(details.get("p_main_adjusted" if against else "p_adjusted")),
        details=tuple(compact({name: value for name, value in details.items() if name not in ("title", "unit")})),
    )


def _contrast(numbers: Mapping) -> Contrast:
    return Contrast(number(numbers.get("statistic")), interval(numbers.get("interval")))
