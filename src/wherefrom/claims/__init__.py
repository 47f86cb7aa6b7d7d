"""From the table of many runs to verdicts on the claims.

`primary` reduces each claim to one number a seed, `rule` judges those numbers, `premise` says whether the model uses
positions at all, `details` gathers what stands beside the verdicts, `sentences` says it in plain English.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite

import numpy as np
import pandas as pd

from wherefrom.claims.details import details
from wherefrom.claims.premise import GATED, PREMISE, closed, premise
from wherefrom.claims.primary import CONTROL, PRIMARY, Case, angle, case, no_runs
from wherefrom.claims.readings import Readings
from wherefrom.claims.rule import Comparison, Decision, Outcome, close, compare, decide
from wherefrom.claims.seeds import LIMIT
from wherefrom.claims.sentences import CLAIMS, sentence
from wherefrom.claims.summary import as_dict
from wherefrom.claims.wording import WORDING

__all__ = ["CLAIMS", "Verdict", "judge", "premise"]


@dataclass(frozen=True)
class Verdict:
    """What is concluded of one claim. Numbers are those of the primary statistic, unadjusted."""

    claim: str
    verdict: Outcome
    statistic: float | None
    """Mean over seeds of the primary statistic; positive is the claim's direction."""
    interval: list | None
    """[low, high], 95 % t-interval over seeds; None below two seeds."""
    n: int
    """Seeds."""
    p: float | None
    """Two-sided one-sample t-test of the statistic against 0. The Holm-adjusted p is in the details."""
    control: dict | None
    """Welch's test of the difference to the control arm, whose seeds `n` counts; None for a claim without control."""
    sentence: str
    details: dict

    def to_dict(self) -> dict:
        """The verdict as plain data for JSON; a number that is not finite is None."""
        return _plain(asdict(self))


def judge(
    table: pd.DataFrame,
    *,
    num_heads: int,
    num_tokens: int | None = None,
    beside: Mapping[str, dict] | None = None,
    brief: bool = False,
) -> list[Verdict]:
    """Judge every claim of a study.

    Args:
        table: `StudyDirectory.measurements()`: the tidy table of all finished runs; may be empty.
        num_heads: head count of the study's arms; other counts belong to the head sweep of C5.
        num_tokens: tokens of the model, to state attention against uniform in the details; None leaves that out.
        beside: more details of a claim, from what the table does not hold: {"C4": {"seed_matching": …}}.
        brief: the rule alone, for simulations: no sentences, and of the details only how the rule came to its verdict.

    Returns:
        One verdict a claim, in the order of `CLAIMS`.
    """
    readings = Readings(table, num_heads)
    decisions = {one.case.claim: one for one in decide([case(claim, readings) for claim in PRIMARY])}

    def verdict(decision: Decision) -> Verdict:
        claim = decision.case.claim
        found = {} if brief or not decision.comparison.main.n else details(claim, readings, num_tokens)
        text = "" if brief else sentence(decision, found)
        return _verdict(decision, text, found | (beside or {}).get(claim, {}))

    decisions["C0"] = _by_construction(readings)
    use = verdict(decisions[PREMISE])
    decisions = _gated(decisions, use)
    return [use if claim == PREMISE else verdict(decisions[claim]) for claim in CLAIMS]


def _by_construction(readings: Readings) -> Decision:
    """C0 is no question: a score is |q| |k| cos θ / √d. What is shown of it is tested against nothing."""
    shown = Case("C0", angle(readings), counts=False)
    comparison = compare(shown.values, None)
    if not readings.has_runs("natural"):
        return Decision(shown, "not judged", comparison, reason=no_runs(readings))
    return Decision(shown, "by construction", comparison)


def _gated(decisions: dict[str, Decision], use: Verdict) -> dict[str, Decision]:
    """Close claims whose subject is missing: a model that uses its positions, and for C3b a map. No p changes."""
    found, why = dict(decisions), closed(use.to_dict())
    for claim in GATED if why else ():
        if found[claim].comparison.main.n:
            found[claim] = close(found[claim], str(why))
    if (outcome := found["C3a"].verdict) != "supported" and found["C3b"].reason is None:
        reason = f"what built the map is asked only where one is sure to have formed, and C3a is {outcome}"
        found["C3b"] = close(found["C3b"], reason)
    return found


def _verdict(decision: Decision, text: str, beside: dict) -> Verdict:
    claim, main = decision.case.claim, decision.comparison.main
    numbers = _plain(as_dict(main) | ({"p": None} if claim == "C0" else {}))
    control = _plain(_contrast(decision.comparison))
    found = _account(decision) | beside
    return Verdict(claim, decision.verdict, **numbers, control=control, sentence=text, details=found)


def _contrast(comparison: Comparison) -> dict | None:
    return None if comparison.contrast is None else {"name": CONTROL, **as_dict(comparison.contrast)}


def _account(decision: Decision) -> dict:
    """How the rule came to its verdict."""
    comparison, case = decision.comparison, decision.case
    return {
        "title": CLAIMS[case.claim],
        "unit": WORDING[case.claim].unit,
        "reason": decision.reason,
        "seeds": case.values.to_dict(),
        "control_seeds": None if case.control is None else case.control.to_dict(),
        "effect": comparison.main.effect,
        "p": None if case.claim == "C0" else comparison.p,
        "p_adjusted": decision.p_adjusted,
        "claims_counted": decision.num_counted,
        "seeds_needed": decision.seeds_needed and [f">{LIMIT}" if n == inf else n for n in decision.seeds_needed],
        "layers": [
            {"layer": layer, **as_dict(found.main), "control": _contrast(found), "verdict": way}
            for layer, (found, way) in decision.layers.items()
        ],
    }


def _plain(value):
    """`value` with text keys, plain numbers, and None for whatever is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if isfinite(value) else None
    return value
