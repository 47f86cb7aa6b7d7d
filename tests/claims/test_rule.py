"""The rule on primary statistics that are given: known verdicts, and its rates on many simulated studies."""

from math import inf, isnan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wherefrom.claims.primary import Case
from wherefrom.claims.rule import decide, decide_layers
from wherefrom.statistics import binomial_interval, seeds_needed

SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
"""Five seeds with mean 0 and deviation 0.79."""


def given(mean, control=None, claim="C3a", **more):
    """A claim with five seeds around `mean`; the control's seeds are spread the other way about."""
    against = None if control is None else pd.Series(control - SPREAD[[1, 0, 2, 4, 3]])
    return Case(claim, pd.Series(mean + SPREAD), against, **more)


def verdict(*cases):
    return [decision.verdict for decision in decide(list(cases))]


def test_supported_needs_both_tests():
    assert verdict(given(5.0, 0.0)) == ["supported"]
    assert verdict(given(5.0, 5.0)) == ["inconclusive"]  # the control moved as much
    assert verdict(given(0.0, -5.0)) == ["inconclusive"]  # only the control moved
    assert verdict(given(5.0)) == ["supported"]  # a claim without control


def test_contradicted_needs_the_main_test_and_every_seed():
    assert verdict(given(-5.0, 0.0)) == ["contradicted"]
    assert verdict(given(-5.0, -5.0)) == ["contradicted"]  # what the control does is no excuse
    one_astray = Case("C3a", pd.Series([-5.0] * 3 + [-5.1] * 16 + [0.1]))
    assert decide([one_astray])[0].p_main_adjusted < 0.001
    assert verdict(one_astray) == ["inconclusive"]


def test_p_is_the_larger_of_scipys_two():
    case = given(2.0, 0.5)
    decision = decide([case])[0]
    main = stats.ttest_1samp(case.values, 0).pvalue
    contrast = stats.ttest_rel(case.values, case.control).pvalue
    assert decision.p_adjusted == pytest.approx(max(main, contrast))
    assert decision.p_main_adjusted == pytest.approx(main)


def test_correction_counts_the_claims_judged_only():
    alone = decide([given(1.2)])[0]
    assert alone.verdict == "supported"
    assert alone.p_adjusted == pytest.approx(0.027, abs=0.001)
    among = [given(1.2), given(0.1), Case("C3b", reason="no ledger"), given(0.0)]
    decisions = decide(among)
    assert [decision.verdict for decision in decisions] == [
        "inconclusive",
        "inconclusive",
        "not judged",
        "inconclusive",
    ]
    assert decisions[0].p_adjusted == pytest.approx(3 * alone.p_adjusted)
    assert decisions[0].num_judged == 3


def test_contrast_uses_the_seeds_that_both_arms_have():
    control = pd.Series([0.1, -0.2, 9.0], index=[1, 3, 77])
    decision = decide([Case("C3a", pd.Series(5 + SPREAD), control)])[0]
    assert decision.comparison.main.n == 5
    assert decision.comparison.contrast.n == 2
    assert decision.comparison.contrast.mean == pytest.approx(np.mean([4.5 - 0.1, 5.5 + 0.2]))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("C0", reason="there is nothing"), "there is nothing"),
        (Case("C0", pd.Series([3.0])), "one seed cannot be tested"),
        (Case("C0", pd.Series([3.0] * 4)), "all 4 seeds gave exactly the same number"),
        (Case("C3a", pd.Series(5 + SPREAD), pd.Series(dtype=float)), "no seed has a finished run"),
        (Case("C3a", pd.Series(5 + SPREAD), pd.Series([1.0])), "only one seed has both"),
        (Case("C3a", pd.Series(5 + SPREAD), pd.Series(2 + SPREAD)), "differ by exactly the same number"),
    ],
)
def test_what_cannot_be_tested_is_not_judged(case, reason):
    decision = decide([case])[0]
    assert decision.verdict == "not judged"
    assert reason in decision.reason
    assert isnan(decision.p_adjusted)


def layered(*means, control=0.0):
    layers = pd.DataFrame({layer: mean + np.roll(SPREAD, layer) for layer, mean in enumerate(means)})
    against = pd.DataFrame({layer: control + np.roll(SPREAD, layer + 2) for layer in range(len(means))})
    return Case("C1", layers.mean(axis=1), against.mean(axis=1), layers, against)


def test_mixed_where_layers_are_decided_each_way():
    case = layered(6.0, -5.0, 0.0)
    assert verdict(case) == ["mixed"]
    assert [way for _, way in decide_layers(case).values()] == ["supported", "contradicted", None]
    assert verdict(layered(9.0, 9.0, -5.0)) == ["mixed"]  # though the mean over layers is far above 0
    assert verdict(layered(9.0, 9.0, 0.0)) == ["supported"]


def test_layers_are_corrected_for_their_number():
    two, nine = layered(1.3, -5.0, control=-9.0), layered(1.3, -5.0, *[0.0] * 7, control=-9.0)
    assert decide_layers(two)[0][1] == "supported"
    assert decide_layers(nine)[0][1] is None


def test_seeds_that_would_settle_it():
    def needed(*arguments):
        decision = decide([given(*arguments)])[0]
        assert decision.verdict == "inconclusive"
        return decision.seeds_needed

    assert 5 < needed(0.8) < needed(0.5) < 50
    assert needed(0.8, 0.4) > needed(0.8)  # the contrast is harder
    assert needed(0.01) == inf
    assert needed(0.8, 0.8) == inf  # the control does as much: more seeds change nothing
    assert needed(-0.8) == inf  # and a seed that points the other way does not go away
    against = decide([Case("C3a", pd.Series([-0.1, -1.0]))])[0]
    assert against.seeds_needed == seeds_needed(-0.55, 0.9 / np.sqrt(2))
    two = decide([given(0.8), given(0.8)])[0]
    assert two.seeds_needed == seeds_needed(0.8, SPREAD.std(ddof=1), alpha=0.025) > needed(0.8)


def _simulated(rng, mean, num_claims=6, seeds=5, depth=3):
    draw = rng.normal(size=(num_claims, 2, seeds, depth))
    draw[:, 0] += mean
    frames = [[pd.DataFrame(arm) for arm in claim] for claim in draw]
    return [Case("C1", a.mean(axis=1), b.mean(axis=1), a, b) for a, b in frames]


def test_no_study_of_nothing_supports_more_than_five_in_a_hundred():
    rng, studies = np.random.default_rng(0), 200
    verdicts = [verdict(*_simulated(rng, 0.0)) for _ in range(studies)]
    for way in ("supported", "contradicted"):
        any_claim = sum(way in study for study in verdicts)
        assert binomial_interval(any_claim, studies)[0] <= 0.05, (way, any_claim)


def test_planted_effects_are_found():
    # The mean of three layers has a deviation of 0.58 over seeds, so an effect of 3 is five deviations.
    rng, studies = np.random.default_rng(1), 20
    found = [way for _ in range(studies) for way in verdict(*_simulated(rng, 3.0))]
    assert binomial_interval(found.count("supported"), len(found))[1] >= 0.95
    reversed_ = [way for _ in range(studies) for way in verdict(*_simulated(rng, -3.0))]
    assert binomial_interval(reversed_.count("contradicted"), len(reversed_))[1] >= 0.95
