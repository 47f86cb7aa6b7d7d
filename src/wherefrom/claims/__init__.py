"""From the table of many runs to verdicts on the claims.

`primary` reduces each claim to one number a seed, `rule` judges those numbers, `details` gathers what stands beside
them, `sentences` says it in plain English.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite

import numpy as np
import pandas as pd

from wherefrom.claims.details import details
from wherefrom.claims.primary import CONTROL, Case, case
from wherefrom.claims.readings import Readings
from wherefrom.claims.rule import LIMIT, Comparison, Decision, Outcome, decide
from wherefrom.claims.sentences import CLAIMS, WORDING, sentence
from wherefrom.claims.summary import as_dict

__all__ = ["CLAIMS", "Verdict", "judge"]


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
    """The same for the difference to the control arm, paired by seed; None for a claim without control."""
    sentence: str
    details: dict

    def to_dict(self) -> dict:
        """The verdict as plain data for JSON; a number that is not finite is None."""
        return _plain(asdict(self))


def judge(
    table: pd.DataFrame, *, num_heads: int, num_tokens: int | None = None, beside: Mapping[str, dict] | None = None
) -> list[Verdict]:
    """Judge every claim of a study.

    Args:
        table: `StudyDirectory.measurements()`: the tidy table of all finished runs; may be empty.
        num_heads: head count of the study's arms; other counts belong to the head sweep of C5.
        num_tokens: tokens of the model, to state attention against uniform in the details; None leaves that out.
        beside: more details of a claim, from what the table does not hold: {"C4": {"seed_matching": …}}.

    Returns:
        One verdict a claim, in the order of `CLAIMS`.
    """
    readings = Readings(table, num_heads)
    decisions = _decided([case(claim, readings) for claim in CLAIMS])
    return [_verdict(decision, readings, num_tokens, beside or {}) for decision in decisions]


def _decided(cases: list[Case]) -> list[Decision]:
    """Which route built the map is asked only where there is one: C3b needs C3a supported, with C3b counted."""
    decisions = decide(cases)
    outcome = next(decision.verdict for decision in decisions if decision.case.claim == "C3a")
    if outcome == "supported":
        return decisions
    reason = f"what built the map is asked only where one is sure to have formed, and C3a, which says so, is {outcome}"
    closed = [case.claim == "C3b" and case.reason is None for case in cases]
    return decide([replace(case, reason=reason) if shut else case for case, shut in zip(cases, closed, strict=True)])


def _verdict(decision: Decision, readings: Readings, num_tokens: int | None, beside: Mapping[str, dict]) -> Verdict:
    claim = decision.case.claim
    found = details(claim, readings, num_tokens) if decision.comparison.main.n else {}
    main = _plain(as_dict(decision.comparison.main))
    text = sentence(decision, found)
    control = _contrast(decision.comparison)
    found = _account(decision) | found | beside.get(claim, {})
    return Verdict(claim, decision.verdict, **main, control=control, sentence=text, details=found)


def _contrast(comparison: Comparison) -> dict | None:
    return None if comparison.contrast is None else {"name": CONTROL, **as_dict(comparison.contrast)}


def _account(decision: Decision) -> dict:
    """How the rule came to its verdict."""
    comparison, case = decision.comparison, decision.case
    needed = decision.seeds_needed
    return {
        "title": CLAIMS[case.claim],
        "unit": WORDING[case.claim].unit if case.claim in WORDING else None,
        "reason": decision.reason,
        "seeds": case.values.to_dict(),
        "control_seeds": None if case.control is None else case.control.to_dict(),
        "effect": comparison.main.effect,
        "p": comparison.p,
        "p_adjusted": decision.p_adjusted,
        "p_main_adjusted": decision.p_main_adjusted,
        "claims_judged": decision.num_judged,
        "seeds_needed": f">{LIMIT}" if needed == inf else needed,
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
