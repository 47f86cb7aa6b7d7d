"""The premise of all that is said of space: does the model use positions, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wherefrom.words import amount, fraction, p_equals

PREMISE = "C3c"
GATED = ("C1", "C2", "C3b", "C4")
"""Claims that are about a model that uses its positions; of another they are not judged."""

QUESTION = "Does the model use positions?"
NOT_USED = "this model does not use its positions"
NOT_KNOWN = "whether this model uses its positions is not known"

ROUNDING = 1e-6
"""Nats. A model without any positions gives the same loss on shuffled patches but for rounding."""


def premise(verdicts: Iterable[Mapping]) -> str:
    """The answer in one line, from verdicts as in `verdicts.json`; empty where none is about it (an older study)."""
    verdict = next((one for one in verdicts if one["claim"] == PREMISE), None)
    if verdict is None:
        return ""
    match answer(verdict):
        case "yes":
            return f"{QUESTION} Yes: {cost(verdict)}."
        case "no":
            return f"{QUESTION} No: {cost(verdict)}."
        case "open":
            return f"{QUESTION} Not settled: {cost(verdict)}, {_p(verdict)}."
    return f"{QUESTION} Not known: {_untested(verdict)}."


def closed(verdict: Mapping) -> str | None:
    """Why claims about a model that uses its positions are not judged, from the verdict on that; None if they are."""
    match answer(verdict):
        case "yes":
            return None
        case "no":
            return f"{NOT_USED}; {cost(verdict)}{_against(verdict)}{_p_after(verdict)}"
        case "open":
            few = f"{NOT_KNOWN}, as {verdict['n']} seeds do not settle it"
            return f"{few}: {cost(verdict)}{_against(verdict)}{_p_after(verdict)}"
    return f"{NOT_KNOWN}: {_untested(verdict)}"


def answer(verdict: Mapping) -> str:
    """`yes`, `no`, `open` (every seed says yes, but they are too few to be sure) or `unknown` (it was not tested)."""
    seeds, control = (list((verdict["details"].get(key) or {}).values()) for key in ("seeds", "control_seeds"))
    match verdict["verdict"]:
        case "supported":
            return "yes"
        case "not judged":
            return "no" if len(seeds) > 1 and max(map(abs, seeds)) <= ROUNDING else "unknown"
        case "inconclusive" if min(seeds) > max([0.0, *control]):
            return "open"
    return "no"


def cost(verdict: Mapping) -> str:
    """What shuffling the patches of test images costs: loss with its interval, and accuracy where it is recorded."""
    accuracy = verdict["details"].get("accuracy")
    loss = costs(verdict["statistic"], verdict["interval"])
    if accuracy is None:
        return f"{loss} of loss"
    return f"{loss}, accuracy {fraction(accuracy['natural'])} → {fraction(accuracy['shuffled'])}"


def costs(statistic: float, interval) -> str:
    """
    >>> costs(1.93, (1.7, 2.1))
    'shuffling the patches of test images costs 1.9 nats (1.7 to 2.1)'
    >>> costs(-0.02, None)
    'shuffling the patches of test images saves 0.020 nats'
    """
    verb = "costs" if statistic >= 0 else "saves"
    interval = interval if statistic >= 0 or interval is None else [-interval[1], -interval[0]]
    return f"shuffling the patches of test images {verb} {amount(abs(statistic), interval)}"


def _untested(verdict: Mapping) -> str:
    reason = str(verdict["details"].get("reason"))
    return f"{reason} ({cost(verdict)})" if verdict["n"] else reason


def _against(verdict: Mapping) -> str:
    control = verdict["control"]
    if not control or control["statistic"] is None:
        return ""
    return (
        f"; against models trained on scrambled images {amount(control['statistic'], control['interval'], sign=True)}"
    )


def _p(verdict: Mapping) -> str:
    found = verdict["details"]
    return f"{p_equals(found['p_adjusted'])} after correction for {found['claims_counted']} claims"


def _p_after(verdict: Mapping) -> str:
    return f"; {_p(verdict)}" if verdict["details"].get("p_adjusted") is not None else ""
