"""Verdicts in plain English: what was found, with its number, interval, control and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan

from wherefrom.claims.beside import beside
from wherefrom.claims.rule import Comparison, Decision, Way
from wherefrom.claims.wording import WORDING
from wherefrom.statistics import TTest, WelchTest
from wherefrom.words import p_equals, percent

CLAIMS: dict[str, str] = {
    "C0": "A high attention score means a small angle between query and key.",
    "C1": "The gradient pulls neighbouring patches together.",
    "C2": "The gradient pushes far patches apart.",
    "C3a": "Position embeddings become a map of the image plane.",
    "C3b": "It is queries and keys that make position embeddings a map.",
    "C3c": "The model uses the map.",
    "C4": "Heads specialise, each by its own gradient.",
    "C5": "More heads specialise more and do better, up to a point.",
}
"""The claims, in the order in which they are judged and shown."""

ENOUGH_SEEDS, ENOUGH_CONTROLS = 5, 3
"""Below so many natural or control seeds every sentence says "preliminary"."""


def sentence(decision: Decision, details: dict) -> str:
    """The verdict of one claim for a reader who is new to it."""
    if decision.verdict == "not judged":
        return _not_judged(decision)
    if decision.verdict == "by construction":
        return _by_construction(decision, details)
    claim, comparison = decision.case.claim, decision.comparison
    lead = f"{decision.verdict.capitalize()} for this model on these data{preliminary(comparison)}"
    overall = found(claim, comparison.main)
    parts = [f"{_by_layer(decision)}; over all layers, {overall}"] if decision.verdict == "mixed" else [overall]
    parts[0] += f", in {_agreeing(decision)}" + _except(decision)
    after = f"after correction for {decision.num_counted} claim{'s' * (decision.num_counted > 1)}"
    parts += [_against(claim, comparison), f"{p_equals(decision.p_adjusted)} {after}"]
    parts += [*beside(claim, details), _outlook(decision)]
    return f"{lead}: {'; '.join(part for part in parts if part)}."


def found(claim: str, test: TTest) -> str:
    """The statistic of one claim in words."""
    return WORDING[claim].found(test.mean, _ends(test))


def preliminary(comparison: Comparison) -> str:
    """A note where few seeds stand behind a sentence: of the natural arm, or of the control."""
    n, contrast = comparison.main.n, comparison.contrast
    control = None if contrast is None or not contrast.n_other else contrast.n_other
    if 0 < n < ENOUGH_SEEDS:
        return f" (preliminary: {n} seed{'s' * (n > 1)})"
    if n and control is not None and control < ENOUGH_CONTROLS:
        return f" (preliminary: {control} seed{'s' * (control > 1)} of the control)"
    return ""


def _ends(test: TTest | WelchTest) -> tuple[float, float] | None:
    return None if isnan(test.low) else (test.low, test.high)


def _not_judged(decision: Decision) -> str:
    comparison = decision.comparison
    if decision.closed or not comparison.main.n:
        return f"Not judged: {decision.reason}{preliminary(comparison)}."
    return f"Not judged{preliminary(comparison)}: {decision.reason} ({found(decision.case.claim, comparison.main)})."


def _by_construction(decision: Decision, details: dict) -> str:
    text = (
        "By construction: a score is |q| |k| cos θ / √d, and LayerNorm makes all keys of a head about equally long, "
        "so the angle decides"
    )
    if not decision.comparison.main.n:
        return f"{text}."
    angle, link = (
        {when: details[name][when]["statistic"] for when in ("start", "end")}
        for name in ("angle_share", "argmax_agreement")
    )
    shown = (
        f"; for this model on these data it explains {_at_both_ends(angle)} of the differences among a patch's scores"
    )
    if not isnan(link["end"]):
        shown += f", and the strongest link is the smallest angle in {_at_both_ends(link)} of rows"
    return f"{text}{shown}{preliminary(decision.comparison)}."


def _at_both_ends(share: dict[str, float]) -> str:
    before = "" if isnan(share["start"]) else f" ({percent(share['start'])} before training)"
    return f"{percent(share['end'])}{before}"


def _agreeing(decision: Decision) -> str:
    """How many seeds are on the side of their mean."""
    values = decision.case.values
    same = int(((values > 0) == (decision.comparison.main.mean > 0)).sum())
    return f"{same} of {len(values)} seeds"


def _against(claim: str, comparison: Comparison) -> str:
    contrast = comparison.contrast
    return "" if contrast is None else WORDING[claim].against(contrast.mean, _ends(contrast))


# ---- layers


def _by_layer(decision: Decision) -> str:
    subject, toward, away = WORDING[decision.case.claim].layers
    undecided, names = _names(decision, None), (_names(decision, "supported"), _names(decision, "contradicted"))
    text = f"{subject} {toward} in {names[0]} but {away} in {names[1]}"
    return text + (f", and {undecided} could go either way" if undecided else "")


def _except(decision: Decision) -> str:
    """Layers that are decided the other way than the claim."""
    opposite: dict[str, Way] = {"supported": "contradicted", "contradicted": "supported"}
    other = opposite.get(decision.verdict)
    names = _names(decision, other) if other else ""
    subject, toward, away = WORDING[decision.case.claim].layers
    return f", except in {names}, where {subject} {away if other == 'contradicted' else toward}" if names else ""


def _names(decision: Decision, way: Way | None) -> str:
    return _listed([layer for layer, (_, decided) in decision.layers.items() if decided == way])


def _listed(layers: Sequence[int]) -> str:
    names = [str(layer) for layer in layers]
    if not names:
        return ""
    return f"layer {names[0]}" if len(names) == 1 else f"layers {', '.join(names[:-1])} and {names[-1]}"


# ---- what is left open


def _outlook(decision: Decision) -> str:
    if decision.seeds_needed is None:
        return ""
    low, high = decision.seeds_needed
    if low == inf:
        return "more than 50 seeds would be needed to settle it"
    if low == high:
        return f"about {low:.0f} seeds would settle it"
    return f"between {low:.0f} and {'more than 50' if high == inf else f'{high:.0f}'} seeds would settle it"
