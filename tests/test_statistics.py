"""Statistics against scipy, textbook loops and known answers."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from wherefrom.geometry import PatchGrid
from wherefrom.power import effect_interval, power_t, seeds_needed
from wherefrom.statistics import (
    binomial_interval,
    holm,
    mantel,
    one_sample_t,
    paired_t,
    t_interval,
    welch_t,
)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_one_sample_t_is_scipys(n):
    values = np.random.default_rng(n).normal(0.5, 2, n)
    ours, theirs = one_sample_t(values), stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose([ours.p, ours.low, ours.high], [theirs.pvalue, *interval], rtol=1e-10)
    assert (ours.n, ours.mean, ours.sd) == (n, pytest.approx(values.mean()), pytest.approx(np.std(values, ddof=1)))


def test_paired_t_is_scipys_and_leaves_out_missing_pairs():
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    assert paired_t(a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    with_gap = paired_t([*a, np.nan], [*b, 1.0])
    assert with_gap == paired_t(a, b)
    with pytest.raises(ValueError, match="equal length"):
        paired_t(a, b[:3])


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 8), (20, 3), (5, 5)])
def test_welch_t_is_scipys(n, m):
    rng = np.random.default_rng(n)
    a, b = rng.normal(1.5, 2, n), rng.normal(0, 0.3, m)
    ours, theirs = welch_t(a, b), stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose([ours.p, ours.low, ours.high], [theirs.pvalue, *interval], rtol=1e-10)
    np.testing.assert_allclose([ours.freedom, ours.mean / ours.error], [theirs.df, theirs.statistic], rtol=1e-10)
    assert (ours.n, ours.n_other, ours.mean) == (n, m, pytest.approx(a.mean() - b.mean()))
    turned = welch_t(b, a)
    np.testing.assert_allclose([turned.p, -turned.high, -turned.low], [ours.p, ours.low, ours.high], rtol=1e-12)


def test_welch_t_is_students_where_groups_are_of_one_size_and_spread():
    a = np.array([-1.0, 0.0, 1.0, 2.0])
    ours = welch_t(a + 3, a)
    assert ours.freedom == pytest.approx(6)
    assert ours.p == pytest.approx(stats.ttest_ind(a + 3, a).pvalue)
    assert welch_t([*a + 3, np.nan], a[[3, 1, 0, 2]]) == ours  # no pairs, and what is missing is left out


def test_welch_t_of_groups_without_spread():
    constant = welch_t([1.0, 2.0, 4.0], [0.1] * 3)
    assert constant.p == pytest.approx(stats.ttest_1samp([1.0, 2.0, 4.0], 0.1).pvalue)
    assert constant.freedom == pytest.approx(2)
    both = welch_t([1.0, 1.0], [0.1] * 3)
    assert (both.mean, both.low, both.high) == (pytest.approx(0.9),) * 3
    assert math.isnan(both.p)


@pytest.mark.parametrize(("a", "b"), [([], [1.0, 2.0]), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [math.nan, 3.0])])
def test_welch_t_needs_two_numbers_in_each_group(a, b):
    test = welch_t(a, b)
    assert math.isnan(test.p)
    assert math.isnan(test.low)
    assert (test.n, test.n_other) == (np.isfinite(a).sum(), np.isfinite(b).sum())


def test_welch_t_holds_its_level_where_spreads_differ():
    rng = np.random.default_rng(7)
    p = [welch_t(rng.normal(0, 1, 5), rng.normal(0, 3, 4)).p for _ in range(4000)]
    low, high = binomial_interval(sum(one <= 0.05 for one in p), len(p), 0.999)
    assert low <= 0.06
    assert high >= 0.04


@pytest.mark.parametrize(("t", "freedom"), [(2.5, 4), (-3.0, 7.3), (0.0, 19), (12.0, 2)])
def test_effect_interval_inverts_the_non_central_t(t, freedom):
    low, high = effect_interval(t, freedom)
    np.testing.assert_allclose(stats.nct.cdf(t, freedom, [low, high]), [0.975, 0.025], atol=1e-4)
    assert effect_interval(-t, freedom) == pytest.approx((-high, -low), abs=1e-5)
    assert effect_interval(t, freedom, 0.5)[0] > low


def test_effect_interval_holds_the_true_effect_as_often_as_it_says():
    rng = np.random.default_rng(8)
    tests = [one_sample_t(rng.normal(1.2, 1, 6)) for _ in range(600)]
    intervals = [effect_interval(test.effect * math.sqrt(6), 5) for test in tests]
    inside = sum(low <= 1.2 * math.sqrt(6) <= high for low, high in intervals)
    ends = binomial_interval(inside, len(tests), 0.999)
    assert ends[0] <= 0.95 <= ends[1]


def test_wider_level_gives_wider_interval():
    assert t_interval([1, 2, 4], 0.99)[1] > t_interval([1, 2, 4], 0.95)[1]


@pytest.mark.parametrize("values", [[], [3.0], [math.nan, 3.0]])
def test_fewer_than_two_values_cannot_be_tested(values):
    test = one_sample_t(values)
    assert math.isnan(test.p)
    assert math.isnan(test.low)
    assert test.n == np.count_nonzero(~np.isnan(values))


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e-9])
def test_values_without_spread_have_an_interval_but_no_p(value):
    test = one_sample_t([value] * 3)  # three times 0.1 has a deviation of rounding, not of anything real
    assert math.isnan(test.p)
    assert (test.low, test.high, test.sd) == (test.mean, test.mean, 0)


def _textbook_holm(p, alpha):
    """Holm 1979: step down through the sorted p-values and stop at the first that is too large."""
    rejected = set()
    for k, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[index] > alpha / (len(p) - k):
            break
        rejected.add(index)
    return rejected


def test_holm_known_example():
    # Four tests; sorted .005 .01 .03 .04 times 4 3 2 1, made monotone.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])


def test_holm_rejects_what_the_textbook_loop_rejects():
    rng = np.random.default_rng(1)
    for size, alpha in itertools.product([1, 2, 5, 8], [0.01, 0.05, 0.3]):
        p = rng.uniform(size=size) ** 3
        assert set(np.flatnonzero(holm(p) <= alpha)) == _textbook_holm(p, alpha)


def test_holm_counts_only_tests_that_were_made():
    adjusted = holm([np.nan, 0.02, np.nan, 0.03])
    np.testing.assert_allclose(adjusted, [np.nan, 0.04, np.nan, 0.04])
    assert len(holm([])) == 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 7), (7, 7), (12, 400)])
def test_binomial_interval_is_scipys_exact_one(successes, trials):
    theirs = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(binomial_interval(successes, trials), theirs, rtol=1e-9)


def test_binomial_interval_refuses_the_impossible():
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        binomial_interval(3, 2)


def test_power_is_the_rate_in_simulated_tests():
    rng = np.random.default_rng(2)
    p = stats.ttest_1samp(rng.normal(1.0, 0.8, (20_000, 5)), 0, axis=1).pvalue
    low, high = binomial_interval(int((p <= 0.02).sum()), len(p), 0.999)
    assert low <= power_t(1.0, 0.8, 5, alpha=0.02) <= high


def test_seeds_needed_is_the_first_that_reaches_the_power():
    n = seeds_needed(1.0, 1.5, alpha=0.01, power=0.9)
    assert power_t(1.0, 1.5, int(n), 0.01) >= 0.9 > power_t(1.0, 1.5, int(n) - 1, 0.01)
    assert seeds_needed(-1.0, 1.5, alpha=0.01, power=0.9) == n
    assert seeds_needed(1.0, 100.0) == math.inf
    assert seeds_needed(1.0, 0.0) == seeds_needed(0.0, 1.0) == seeds_needed(math.nan, math.nan) == math.inf


# ---- Mantel


def _slow_correlation(similarity, distances):
    pairs = list(itertools.combinations(range(len(similarity)), 2))
    return np.corrcoef([similarity[i, j] for i, j in pairs], [-distances[i, j] for i, j in pairs])[0, 1]


def _noise(rng, size):
    noise = rng.normal(size=(size, size))
    return noise + noise.T


def test_mantel_is_the_slow_loop():
    grid, rng = PatchGrid(3, 4), np.random.default_rng(3)
    similarity = _noise(rng, 12) - 0.4 * grid.distances
    found = mantel(similarity, grid.distances, permutations=200, seed=5)
    again = np.random.default_rng(5)
    null = []
    for _ in range(200):
        order = again.permutation(12)
        relabelled = np.array([[similarity[a, b] for b in order] for a in order])
        null.append(_slow_correlation(relabelled, grid.distances))
    observed = _slow_correlation(similarity, grid.distances)
    assert found.correlation == pytest.approx(observed)
    assert found.p == (1 + sum(r >= observed for r in null)) / 201
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(null, [0.005, 0.995])))


def test_mantel_enumerated_answer():
    # Three places in a row, likeness falling with distance: 2 of the 6 labellings (as it is, and mirrored) reach r = 1.
    distances = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))
    found = mantel(-distances, distances, permutations=3000)
    low, high = binomial_interval(round(found.p * 3001) - 1, 3000, 0.999)
    assert found.correlation == pytest.approx(1)
    assert low <= 2 / 6 <= high


def test_mantel_does_not_care_how_both_are_labelled_and_ignores_the_diagonal():
    grid, rng = PatchGrid(4, 4), np.random.default_rng(4)
    similarity, order = _noise(rng, 16) - grid.distances, rng.permutation(16)
    here = mantel(similarity, grid.distances, permutations=0)
    both = mantel(
        similarity[np.ix_(order, order)] + 9 * np.eye(16), grid.distances[np.ix_(order, order)], permutations=0
    )
    assert both.correlation == pytest.approx(here.correlation)
    assert mantel(3 * similarity + 7, grid.distances, permutations=0).correlation == pytest.approx(here.correlation)


def test_mantel_p_is_uniform_where_nothing_is_there():
    distances, rng = PatchGrid(4, 4).distances, np.random.default_rng(6)
    tests = [mantel(_noise(rng, 16), distances, permutations=99, seed=seed) for seed in range(400)]
    assert stats.kstest([test.p for test in tests], "uniform").pvalue > 1e-3
    inside = sum(test.low <= test.correlation <= test.high for test in tests)
    assert (
        binomial_interval(inside, 400, 0.999)[1] >= 0.97
    )  # 99 relabellings estimate the 99 % interval a little narrow
    assert inside < 400 or min(test.p for test in tests) <= 0.02


def test_mantel_without_a_correlation_is_null():
    distances = PatchGrid(3, 3).distances
    missing = distances.copy()
    missing[0, 1] = missing[1, 0] = np.nan
    for similarity in (np.ones((9, 9)), 0.1 * np.ones((9, 9)), missing):
        assert all(math.isnan(number) for number in _numbers(mantel(similarity, distances)))
    assert all(math.isnan(number) for number in _numbers(mantel(np.eye(2), 1 - np.eye(2))))


def _numbers(test):
    return test.correlation, test.p, test.low, test.high


def test_mantel_refuses_matrices_of_two_sizes():
    with pytest.raises(ValueError, match=r"found \(4, 4\) and \(9, 9\)"):
        mantel(np.eye(4), PatchGrid(3, 3).distances)
