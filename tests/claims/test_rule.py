"""The rule on primary statistics that are given: known verdicts, and its rates on many simulated studies."""

from dataclasses import replace
from math import inf, isnan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wherefrom.claims.primary import Case
from wherefrom.claims.rule import close, decide, decide_layers, opposed
from wherefrom.statistics import binomial_interval

SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
"""Five seeds with mean 0 and standard deviation 0.79."""


def given(mean, control=None, claim="C3a", **more):
    """A claim with five seeds around `mean`, and as many of the control."""
    against = None if control is None else pd.Series(control + SPREAD)
    return Case(claim, pd.Series(mean + SPREAD), against, **more)


def turned(case):
    """The same numbers the other way round."""
    values = {name: getattr(case, name) for name in ("values", "control", "layers", "control_layers")}
    return replace(case, **{name: None if value is None else -value for name, value in values.items()})


def verdict(*cases):
    return [decision.verdict for decision in decide(list(cases))]


def test_supported_needs_both_tests():
    assert verdict(given(5.0, 0.0)) == ["supported"]
    assert verdict(given(5.0, 5.0)) == ["inconclusive"]  # the control moved as much
    assert verdict(given(0.0, -5.0)) == ["inconclusive"]  # only the control moved
    assert verdict(given(5.0)) == ["supported"]  # a claim without control


def test_contradicted_needs_both_tests():
    assert verdict(given(-5.0, 0.0)) == ["contradicted"]
    assert verdict(given(-5.0, -5.0)) == ["inconclusive"]
    assert verdict(given(0.0, 5.0)) == ["inconclusive"]
    one_astray = Case("C3a", pd.Series([-5.0] * 3 + [-5.1] * 16 + [0.1]))
    assert verdict(one_astray) == ["contradicted"]  # no seed has a veto


def test_both_means_must_be_on_one_side():
    case = given(3.0, 9.0)  # above 0, and yet far below the control
    assert decide([case])[0].p_adjusted < 0.01
    assert verdict(case, turned(case)) == ["inconclusive", "inconclusive"]


def test_the_rule_is_the_same_both_ways():
    rng = np.random.default_rng(4)
    opposite = {"supported": "contradicted", "contradicted": "supported"}
    decided = 0
    for mean in np.linspace(0, 3, 40):
        cases = _simulated(rng, mean, num_claims=3)
        here, there = decide(cases), decide([turned(case) for case in cases])
        for one, other in zip(here, there, strict=True):
            assert other.verdict == opposite.get(one.verdict, one.verdict)
            assert other.p_adjusted == pytest.approx(one.p_adjusted)
            assert other.seeds_needed == one.seeds_needed
            decided += one.verdict == "supported"
    assert 20 < decided < 120


def test_p_is_the_larger_of_scipys_two():
    for case in (given(2.0, 0.5), given(2.0, -9.0), given(0.4, -0.5)):
        main = stats.ttest_1samp(case.values, 0).pvalue
        contrast = stats.ttest_ind(case.values, case.control, equal_var=False).pvalue
        assert decide([case])[0].p_adjusted == pytest.approx(max(main, contrast))


def test_the_design_says_which_claims_are_counted():
    alone = decide([given(1.2)])[0]
    assert alone.verdict == "supported"
    assert alone.p_adjusted == pytest.approx(0.027, abs=0.001)
    among = [given(1.2), given(0.1), Case("C3b", reason="no ledger", counts=False), given(0.0)]
    decisions = decide(among)
    assert [decision.verdict for decision in decisions] == [
        "inconclusive",
        "inconclusive",
        "not judged",
        "inconclusive",
    ]
    assert decisions[0].p_adjusted == pytest.approx(3 * alone.p_adjusted)
    assert decisions[0].num_counted == 3
    # A claim that counts and comes without a p counts with p = 1, whatever the reason.
    for missing in (
        Case("C3b", reason="all is null"),
        Case("C3b", pd.Series([1.0])),
        Case("C3b", pd.Series([2.0] * 5)),
    ):
        four = decide([*among[:2], missing, among[3]])
        assert four[0].p_adjusted == pytest.approx(4 * alone.p_adjusted)
        assert four[2].verdict == "not judged"


def test_closing_a_claim_changes_no_other_and_keeps_its_numbers():
    decision = decide([layered(6.0, 6.0, 6.0), given(1.2)])[0]
    assert decision.verdict == "supported"
    shut = close(decision, "its subject is missing")
    assert (shut.verdict, shut.reason, shut.closed) == ("not judged", "its subject is missing", True)
    assert shut.comparison == decision.comparison
    assert (shut.p_adjusted, shut.num_counted) == (decision.p_adjusted, 2)
    assert {way for _, way in shut.layers.values()} == {None}


def test_contrast_uses_every_seed_of_both_arms():
    control = pd.Series([0.1, -0.2, 0.4], index=[1, 3, 77])
    contrast = decide([Case("C3a", pd.Series(5 + SPREAD), control)])[0].comparison.contrast
    assert (contrast.n, contrast.n_other) == (5, 3)
    assert contrast.mean == pytest.approx(5 - 0.1)
    shifted = decide([Case("C3a", pd.Series(5 + SPREAD), control.set_axis([4, 2, 0]))])[0].comparison.contrast
    assert shifted == contrast  # seeds are no pairs


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("C5", reason="there is nothing"), "there is nothing"),
        (Case("C5", pd.Series([3.0])), "one seed cannot be tested"),
        (Case("C5", pd.Series([3.0] * 4)), "all 4 seeds gave exactly the same number"),
        (Case("C3a", pd.Series(5 + SPREAD), pd.Series(dtype=float)), "no finished run of the scrambled control"),
        (Case("C3a", pd.Series(5 + SPREAD), pd.Series([1.0])), "a single run of the scrambled control"),
    ],
)
def test_what_cannot_be_tested_is_not_judged(case, reason):
    decision = decide([case])[0]
    assert decision.verdict == "not judged"
    assert reason in decision.reason
    assert isnan(decision.p_adjusted) or decision.p_adjusted == 1


def test_a_control_without_spread_can_be_compared_with():
    assert verdict(Case("C3c", pd.Series(5 + SPREAD), pd.Series([0.0] * 3))) == ["supported"]


def layered(*means, control=0.0):
    layers = pd.DataFrame({layer: mean + np.roll(SPREAD, layer) for layer, mean in enumerate(means)})
    against = pd.DataFrame({layer: control + np.roll(SPREAD, layer + 2) for layer in range(len(means))})
    return Case("C1", layers.mean(axis=1), against.mean(axis=1), layers, against)


def ways(*cases):
    return [[way for _, way in layers.values()] for layers in decide_layers(cases)]


def test_mixed_where_layers_are_decided_each_way():
    case = layered(6.0, -5.0, 0.0)
    assert verdict(case) == ["mixed"]
    assert ways(case) == [["supported", "contradicted", None]]
    assert verdict(layered(9.0, 9.0, -5.0)) == ["mixed"]  # though the mean over layers is far above 0
    assert verdict(layered(9.0, 9.0, 0.0)) == ["supported"]


def test_a_small_effect_the_other_way_is_an_exception_and_does_not_make_a_claim_mixed():
    case = layered(40.0, 40.0, -7.0)
    decision = decide([case])[0]
    assert ways(case) == [["supported", "supported", "contradicted"]]
    assert decision.verdict == "supported"
    assert not opposed(decision.layers)
    assert verdict(layered(40.0, 40.0, -9.0)) == ["mixed"]  # more than a fifth
    assert verdict(turned(case)) == ["contradicted"]


def test_layers_are_corrected_for_their_number_in_all_claims():
    two, nine = layered(1.7, -6.0), layered(1.7, -6.0, *[0.0] * 7)
    assert ways(two)[0][0] == "supported"
    assert ways(nine)[0][0] is None
    assert ways(two, layered(0.0, 0.0, 0.0), layered(0.0, 0.0, 0.0, 0.0))[0][0] is None
    uncounted = replace(layered(*[0.0] * 7), counts=False)
    assert ways(two, uncounted)[0][0] == "supported"


def test_seeds_that_would_settle_it():
    def needed(*arguments):
        decision = decide([given(*arguments)])[0]
        assert decision.verdict == "inconclusive"
        return decision.seeds_needed

    assert 5 < needed(0.8)[0] < needed(0.3)[0] <= 50
    assert needed(0.8, 0.4)[0] > needed(0.8)[0]  # the contrast is harder
    assert needed(0.8)[1] == inf  # the interval of the effect holds 0
    assert needed(0.0)[0] > 5
    assert needed(-0.8) == needed(0.8)
    low, high = decide([given(0.97), given(0.0), given(0.0), given(0.0)])[0].seeds_needed
    assert 5 < low < high


def _simulated(rng, mean, num_claims=6, seeds=5, depth=3):
    draw = rng.normal(size=(num_claims, 2, seeds, depth))
    draw[:, 0] += mean
    frames = [[pd.DataFrame(arm) for arm in claim] for claim in draw]
    return [Case("C1", a.mean(axis=1), b.mean(axis=1), a, b) for a, b in frames]


def test_no_study_of_nothing_decides_more_than_five_in_a_hundred():
    rng, studies = np.random.default_rng(0), 200
    verdicts = [verdict(*_simulated(rng, 0.0)) for _ in range(studies)]
    wrong = sum(bool({"supported", "contradicted", "mixed"} & set(study)) for study in verdicts)
    assert binomial_interval(wrong, studies)[0] <= 0.05, wrong


def test_planted_effects_are_found():
    # The mean of three layers has a deviation of 0.58 over seeds, so an effect of 3 is five deviations.
    rng, studies = np.random.default_rng(1), 20
    found = [way for _ in range(studies) for way in verdict(*_simulated(rng, 3.0))]
    assert binomial_interval(found.count("supported"), len(found))[1] >= 0.95
    reversed_ = [way for _ in range(studies) for way in verdict(*_simulated(rng, -3.0))]
    assert binomial_interval(reversed_.count("contradicted"), len(reversed_))[1] >= 0.95
