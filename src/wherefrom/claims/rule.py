"""From primary statistics to verdicts: the rule of science.md, section 9. The unit of replication is the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Literal

import numpy as np
import pandas as pd

from wherefrom.claims.primary import Case
from wherefrom.claims.seeds import seeds_range
from wherefrom.statistics import TTest, WelchTest, holm, one_sample_t, welch_t

Outcome = Literal["by construction", "supported", "contradicted", "mixed", "inconclusive", "not judged"]
Way = Literal["supported", "contradicted"]

ALPHA = 0.05
LEAST_OPPOSITE = 0.2
"""Layers that are decided each way make a claim mixed where the smaller effect is at least this share of the larger."""


@dataclass(frozen=True)
class Comparison:
    """The primary statistic against 0, and against the control arm."""

    main: TTest
    contrast: WelchTest | None = None
    """Against the control's seeds, which are independent of the natural ones; None for a claim without control."""

    @property
    def p(self) -> float:
        """The larger of both p-values; NaN if either is."""
        return self.main.p if self.contrast is None else float(np.maximum(self.main.p, self.contrast.p))

    def decided(self, p: float) -> Way | None:
        """`supported` or `contradicted`, or None: p ≤ .05 with both means on one side, whichever it is."""
        sides = {np.sign(test.mean) for test in (self.main, self.contrast) if test is not None}
        if not p <= ALPHA or len(sides) > 1:
            return None
        return "supported" if sides == {1.0} else "contradicted"


Layers = Mapping[int, tuple[Comparison, Way | None]]
"""For each layer its comparison, and how it is decided by itself."""


@dataclass(frozen=True)
class Decision:
    """What the rule says of one claim."""

    case: Case
    verdict: Outcome
    comparison: Comparison
    p_adjusted: float = nan
    """Holm-adjusted over the claims that count; NaN for a claim that has no p."""
    layers: Layers = field(default_factory=dict)
    """Each layer decided by itself, Holm-adjusted over all layers of all claims."""
    num_counted: int = 0
    """How many claims the correction counts."""
    seeds_needed: tuple[float, float] | None = None
    """Between how many and how many seeds would settle an inconclusive claim; infinity above 50; else None."""
    reason: str | None = None
    """Why the claim is not judged."""
    closed: bool = False
    """Whether that reason lies outside the claim's own numbers."""


def decide(cases: Sequence[Case]) -> list[Decision]:
    """Judge all claims of a study together, once.

    Holm's correction counts the claims that the design can judge. One of them that has no p counts with p = 1, so that
    what comes out of one claim never changes how many the others are corrected for.
    """
    comparisons = [compare(case.values, case.control) for case in cases]
    reasons = [case.reason or untestable(comparison) for case, comparison in zip(cases, comparisons, strict=True)]
    p = [_p(case, one, reason) for case, one, reason in zip(cases, comparisons, reasons, strict=True)]
    adjusted, num_counted, layers = holm(p), int(np.count_nonzero(~np.isnan(p))), decide_layers(cases)
    return [
        Decision(case, "not judged", one, layers=own, num_counted=num_counted, reason=reason)
        if reason is not None
        else _decision(case, one, float(q), own, num_counted)
        for case, one, reason, q, own in zip(cases, comparisons, reasons, adjusted, layers, strict=True)
    ]


def close(decision: Decision, reason: str) -> Decision:
    """The claim is not judged for a reason outside it; its numbers stay, and no other claim's change."""
    layers = {layer: (comparison, None) for layer, (comparison, _) in decision.layers.items()}
    return replace(decision, verdict="not judged", reason=reason, closed=True, seeds_needed=None, layers=layers)


def compare(values: pd.Series, control: pd.Series | None) -> Comparison:
    """Test `values` (one a seed) against 0 and against the seeds of `control`, which are not paired with them."""
    return Comparison(one_sample_t(values), None if control is None else welch_t(values, control))


def untestable(comparison: Comparison) -> str | None:
    """Why there is no p-value, or None if there is one."""
    main, contrast = comparison.main, comparison.contrast
    if main.n == 1:
        return "one seed cannot be tested; train at least two, better five"
    if isnan(main.p):
        return f"all {main.n} seeds gave exactly the same number, and without any spread nothing can be tested"
    if contrast is not None and contrast.n_other == 0:
        return "there is no finished run of the scrambled control to compare with"
    if contrast is not None and contrast.n_other == 1:
        return "a single run of the scrambled control has no spread to compare with; train at least two, better three"
    return None


def decide_layers(cases: Sequence[Case]) -> list[Layers]:
    """Judge each layer of each claim by itself, Holm-adjusted over all layers of all claims that count."""
    found = [_layers(case) for case in cases]
    p = [_p(case, one, None) for case, layers in zip(cases, found, strict=True) for one in layers.values()]
    adjusted = iter(holm(p).tolist())
    return [{layer: (one, one.decided(next(adjusted))) for layer, one in layers.items()} for layers in found]


def _p(case: Case, comparison: Comparison, reason: str | None) -> float:
    """What Holm's correction gets: NaN is not counted, 1 is counted and can be nothing."""
    if not case.counts:
        return nan
    return 1.0 if reason is not None or isnan(comparison.p) else comparison.p


def _layers(case: Case) -> dict[int, Comparison]:
    if case.layers is None:
        return {}
    nothing, control = pd.Series(dtype=float), case.control_layers
    own = {layer: nothing if control is None else control.get(layer, nothing) for layer in case.layers.columns}
    return {int(layer): compare(case.layers[layer], case.control if case.control is None else own[layer])
            for layer in case.layers.columns}  # fmt: skip


def _decision(case: Case, comparison: Comparison, p: float, layers: Layers, num_counted: int) -> Decision:
    verdict = "mixed" if opposed(layers) else comparison.decided(p) or "inconclusive"
    needed = (
        seeds_range(comparison.main, comparison.contrast, ALPHA / num_counted) if verdict == "inconclusive" else None
    )
    return Decision(case, verdict, comparison, p, layers, num_counted, needed)


def opposed(layers: Layers) -> bool:
    """Whether layers are decided each way, with effects of a size."""
    sizes = [
        max((abs(one.main.mean) for one, found in layers.values() if found == way), default=0.0)
        for way in ("supported", "contradicted")
    ]
    return min(sizes) > 0 and min(sizes) >= LEAST_OPPOSITE * max(sizes)
