"""From primary statistics to verdicts: the rule of science.md, section 9. The unit of replication is the seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Literal

import numpy as np
import pandas as pd

from wherefrom.claims.primary import Case
from wherefrom.statistics import TTest, holm, one_sample_t, paired_t, seeds_needed

Outcome = Literal["supported", "contradicted", "mixed", "inconclusive", "not judged"]

ALPHA = 0.05
LIMIT = 50
"""The largest number of seeds that is named."""


@dataclass(frozen=True)
class Comparison:
    """The primary statistic against 0, and against the control arm."""

    main: TTest
    contrast: TTest | None = None
    """Paired by seed, over seeds that both arms have; None for a claim without control."""
    all_against: bool = False
    """Whether every seed points away from the claim."""

    @property
    def p(self) -> float:
        """The larger of both p-values; NaN if either is."""
        return self.main.p if self.contrast is None else float(np.maximum(self.main.p, self.contrast.p))

    @property
    def toward(self) -> bool:
        """Whether both means point in the claim's direction."""
        return self.main.mean > 0 and (self.contrast is None or self.contrast.mean > 0)

    @property
    def stuck(self) -> str | None:
        """Why more seeds like these would settle nothing, or None: neither verdict is open any more."""
        if self.main.mean > 0:
            return None if self.toward else "the control did as much"
        return None if self.all_against else "the seeds disagree about the direction"

    def decided(self, p: float, p_main: float) -> Literal["supported", "contradicted"] | None:
        """`supported`, `contradicted` or None, given both p-values adjusted."""
        if p <= ALPHA and self.toward:
            return "supported"
        return "contradicted" if p_main <= ALPHA and self.all_against else None


@dataclass(frozen=True)
class Decision:
    """What the rule says of one claim."""

    case: Case
    verdict: Outcome
    comparison: Comparison
    p_adjusted: float = nan
    """Holm-adjusted over the claims judged: the p that `supported` rests on."""
    p_main_adjusted: float = nan
    """Holm-adjusted p of the test against 0 alone: the p that `contradicted` rests on."""
    layers: dict[int, tuple[Comparison, Outcome | None]] = field(default_factory=dict)
    """For each layer its comparison and how it is decided, Holm-adjusted over layers."""
    num_judged: int = 0
    """How many claims the correction counts."""
    seeds_needed: float | None = None
    """Seeds that would settle an inconclusive claim; infinity above 50; None for the other verdicts."""
    reason: str | None = None
    """Why the claim is not judged."""


def decide(cases: list[Case]) -> list[Decision]:
    """Judge all claims of a study together: Holm's correction counts those that can be judged."""
    comparisons = [compare(case.values, case.control) for case in cases]
    reasons = [case.reason or untestable(comparison) for case, comparison in zip(cases, comparisons, strict=True)]
    judged = [comparison if reason is None else None for comparison, reason in zip(comparisons, reasons, strict=True)]
    adjusted = holm([nan if comparison is None else comparison.p for comparison in judged])
    adjusted_main = holm([nan if comparison is None else comparison.main.p for comparison in judged])
    num_judged = len(judged) - judged.count(None)
    return [
        Decision(case, "not judged", comparison, reason=reason)
        if reason is not None
        else _decision(case, comparison, p, p_main, num_judged)
        for case, comparison, reason, p, p_main in zip(
            cases, comparisons, reasons, map(float, adjusted), map(float, adjusted_main), strict=True
        )
    ]


def compare(values: pd.Series, control: pd.Series | None) -> Comparison:
    """Test `values` (one a seed) against 0 and, over the seeds common to both, against `control`."""
    values = values.dropna()
    main = one_sample_t(values)
    against = len(values) > 0 and bool((values < 0).all())
    if control is None:
        return Comparison(main, None, against)
    seeds = values.index.intersection(control.dropna().index)
    return Comparison(main, paired_t(values.loc[seeds], control.loc[seeds]), against)


def untestable(comparison: Comparison) -> str | None:
    """Why there is no p-value, or None if there is one."""
    main, contrast = comparison.main, comparison.contrast
    if main.n == 1:
        return "one seed cannot be tested; train at least two, better five"
    if isnan(main.p):
        return f"all {main.n} seeds gave exactly the same number, and without any spread nothing can be tested"
    if contrast is not None and contrast.n == 0:
        return "no seed has a finished run of the scrambled control to compare with"
    if contrast is not None and contrast.n == 1:
        return "only one seed has both a natural run and its scrambled control; train at least two, better five"
    if contrast is not None and isnan(contrast.p):
        return f"natural and scrambled differ by exactly the same number in all {contrast.n} seeds"
    return None


def decide_layers(case: Case) -> dict[int, tuple[Comparison, Outcome | None]]:
    """Judge each layer by itself, Holm-adjusted over layers."""
    if case.layers is None:
        return {}
    nothing = pd.Series(dtype=float)
    comparisons: dict[int, Comparison] = {}
    for layer in map(int, case.layers.columns):
        control = case.control_layers.get(layer, nothing) if case.control_layers is not None else case.control
        comparisons[layer] = compare(case.layers[layer], control)
    adjusted = holm([comparison.p for comparison in comparisons.values()])
    adjusted_main = holm([comparison.main.p for comparison in comparisons.values()])
    return {
        layer: (comparison, comparison.decided(p, p_main))
        for (layer, comparison), p, p_main in zip(comparisons.items(), adjusted, adjusted_main, strict=True)
    }


def _decision(case: Case, comparison: Comparison, p: float, p_main: float, num_judged: int) -> Decision:
    layers = decide_layers(case)
    ways = {way for _, way in layers.values()}
    verdict = "mixed" if {"supported", "contradicted"} <= ways else comparison.decided(p, p_main) or "inconclusive"
    needed = _seeds_to_settle(comparison, ALPHA / num_judged) if verdict == "inconclusive" else None
    return Decision(case, verdict, comparison, p, p_main, layers, num_judged, needed)


def _seeds_to_settle(comparison: Comparison, alpha: float) -> float:
    """Seeds for power 0.8 at the strictest level of Holm's correction, in every test the verdict needs."""
    main, contrast = comparison.main, comparison.contrast
    if comparison.stuck:
        return inf
    tests = [main] if contrast is None or main.mean < 0 else [main, contrast]
    return max(seeds_needed(test.mean, test.sd, alpha, limit=LIMIT) for test in tests)
