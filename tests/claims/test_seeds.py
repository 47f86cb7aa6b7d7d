"""The number of seeds that would settle a claim: power against simulated tests, and the range against its effect."""

from math import inf

import numpy as np
import pytest
from scipy import stats

from wherefrom.claims.seeds import POWER, joint_power, seeds_for, seeds_range
from wherefrom.power import power_t, seeds_needed
from wherefrom.statistics import binomial_interval, one_sample_t, welch_t


def simulated(mean, sd, n, difference, sd_other, n_other, alpha, studies=20_000):
    """Studies in which scipy's two tests are both found, both means above 0."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(mean, sd, (studies, n)), rng.normal(mean - difference, sd_other, (studies, n_other))
    main, contrast = stats.ttest_1samp(a, 0, axis=1).pvalue, stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue
    above = (a.mean(1) > 0) & (a.mean(1) > b.mean(1))
    return int(((main <= alpha) & (contrast <= alpha) & above).sum()), studies


@pytest.mark.parametrize(
    "setting",
    [
        (1.0, 0.8, 6, 1.2, 0.5, 4, 0.01),
        (2.0, 1.0, 5, 2.0, 1.0, 5, 0.05 / 6),
        (1.0, 1.0, 20, 1.0, 1.0, 5, 0.05 / 6),
        (1.0, 1.0, 24, 0.8, 0.5, 24, 0.01),
    ],
)
def test_joint_power_is_the_rate_of_simulated_tests(setting):
    low, high = binomial_interval(*simulated(*setting), 0.999)
    assert low - 0.003 <= joint_power(*setting) <= high + 0.003


def test_a_control_far_below_and_without_spread_leaves_the_main_test():
    for n in (5, 12, 30):
        ours = joint_power(1.0, 1.3, n, 50.0, 0.0, 5, 0.01)
        assert ours == pytest.approx(power_t(1.0, 1.3, n, 0.01), abs=0.005)
    assert seeds_for(1.0, 1.3, 50.0, 0.0, 1.0, 0.01) == pytest.approx(seeds_needed(1.0, 1.3, 0.01), abs=1)


def test_the_number_named_is_the_first_that_reaches_the_power():
    for effect, ratio in ((1.5, 1.0), (2.0, 0.6), (3.0, 0.5)):
        n = int(seeds_for(effect, 1.0, effect, 1.0, ratio, 0.05 / 7))
        at, before = (joint_power(effect, 1.0, m, effect, 1.0, max(2, round(m * ratio)), 0.05 / 7) for m in (n, n - 1))
        assert at >= POWER > before
    assert seeds_for(0.2, 1.0, 0.2, 1.0, 1.0, 0.01) == inf


def test_the_range_runs_from_the_largest_to_the_smallest_effect_of_the_interval():
    values = 1.35 + np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    test = one_sample_t(values)
    assert test.p < 0.05
    low, high = seeds_range(test, None, 0.005)
    t = test.mean / test.sd * np.sqrt(5)
    ends = [effect for effect in np.linspace(0.05, 6, 3000)
            if 0.025 <= stats.nct.cdf(t, 4, effect * np.sqrt(5)) <= 0.975]  # fmt: skip
    assert low == max(6, seeds_needed(max(ends), 1.0, 0.005))
    assert high == seeds_needed(min(ends), 1.0, 0.005)
    assert seeds_range(one_sample_t(-values), None, 0.005) == (low, high)


def test_an_interval_that_holds_no_effect_has_no_largest_number():
    values = np.array([-1.0, -0.5, 0.1, 0.6, 1.2])
    low, high = seeds_range(one_sample_t(values), welch_t(values, np.array([0.1, -0.2, 0.3])), 0.01)
    assert (5 < low < inf, high) == (True, inf)


def test_a_control_that_did_more_leaves_the_other_side():
    values = 0.1 + np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    far = welch_t(values, np.array([9.0, 9.1, 8.9]))
    low, high = seeds_range(one_sample_t(values), far, 0.01)
    assert (low < inf, high) == (True, inf)  # it can only be contradicted any more
    above = seeds_range(one_sample_t(values + 5), welch_t(values + 5, np.array([99.0, 99.1, 98.9])), 0.01)
    assert above == (inf, inf)  # surely above 0, surely below the control: no verdict is open


def test_the_number_is_above_the_seeds_there_are():
    values = 3.0 + np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert seeds_range(one_sample_t(values), None, 0.05)[0] == 6
