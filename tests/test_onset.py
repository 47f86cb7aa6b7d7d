"""Change-points: a planted start of a change lies in its interval at the stated rate, and noise has none."""

import numpy as np
import pytest

from wherefrom.onset import onset
from wherefrom.statistics import binomial_interval


def curves(number: int, points: int, size: float, rise: int, seed: int):
    """Noise of deviation 1 on a level that changes by `size` over `rise` records, from the place returned with it."""
    random = np.random.default_rng(seed)
    for _ in range(number):
        start = int(random.integers(0, points - rise - 1))
        yield start, size * np.clip((np.arange(points) - start) / rise, 0, 1) + random.normal(size=points)


@pytest.mark.parametrize(("points", "size", "rise"), [(11, 6, 1), (11, 8, 3), (25, 4, 1), (25, 6, 8), (60, -3, 1)])
def test_a_planted_change_begins_within_its_interval(points, size, rise):
    steps = 25 * np.arange(points)
    found = [(start, onset(steps, values)) for start, values in curves(200, points, size, rise, seed=points)]
    sure = [(start, one) for start, one in found if not np.isnan(one.step)]
    assert len(sure) > 0.9 * len(found)
    held = sum(one.low <= steps[start] and steps[start + 1] <= one.high for start, one in sure)
    assert binomial_interval(held, len(sure))[1] >= 0.95, f"{held} of {len(sure)}"
    assert all(one.low < one.step <= one.high for _, one in sure)


@pytest.mark.parametrize("points", [7, 11, 40])
def test_noise_has_an_onset_in_one_curve_of_twenty(points):
    random = np.random.default_rng(0)
    false = sum(not np.isnan(onset(range(points), random.normal(size=points)).step) for _ in range(400))
    low, high = binomial_interval(false, 400)
    assert low <= 0.05 <= high or false < 20


def test_a_clean_jump_is_placed_exactly_and_scale_and_units_do_not_matter():
    steps, values = np.array([0, 10, 20, 50, 100, 140]), np.array([1, 1, 1, 3, 3, 3.0])
    found = onset(steps, values)
    assert (found.low, found.step, found.high) == (20, 50, 50)
    scaled = onset(2 * steps, 1e-6 * values - 5)
    assert (scaled.low, scaled.step, scaled.high) == (40, 100, 100)


def test_a_slow_rise_begins_where_it_begins_and_gaps_in_the_record_are_left_out():
    steps = np.arange(0, 300, 20)
    values = np.clip((steps - 100) / 80, 0, 1) + 0.01 * np.cos(7 * steps)
    values[3] = np.nan
    found = onset(steps, values)
    assert found.step == 120
    assert found.low <= 100
    assert found.high <= 140


def test_least_squares_over_all_pairs_of_steps():
    """Twin: every ramp fitted by lstsq."""
    random = np.random.default_rng(3)
    steps = np.cumsum(random.integers(1, 9, 12)).astype(float)
    values = random.normal(size=12) + 6 * (steps > steps[6])
    best = (np.inf, None)
    for a in range(12):
        for b in range(a + 1, 12):
            ramp = np.interp(steps, [steps[a], steps[b]], [0.0, 1.0])
            design = np.stack([np.ones(12), ramp], 1)
            rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
            best = min(best, (float(rest @ rest), steps[a + 1]))
    assert onset(steps, values).step == best[1]


def test_what_is_too_short_or_constant_has_none_and_a_broken_curve_is_refused():
    assert np.isnan(onset(range(4), [0, 0, 1, 1]).p)
    assert np.isnan(onset(range(9), np.full(9, 0.3)).step)
    assert np.isnan(onset([], []).step)
    with pytest.raises(ValueError, match="one value for each of rising steps"):
        onset([0, 2, 1], [0, 0, 0])
    with pytest.raises(ValueError, match="one value for each of rising steps"):
        onset([0, 1], [0, 0, 0])


def test_a_long_curve_is_looked_at_where_it_is_evenly_spaced():
    values = np.random.default_rng(0).normal(size=1500) + 5 * (np.arange(1500) >= 700)
    found = onset(range(1500), values)
    assert found.low < 700 <= found.high
    assert found.high - found.low < 150
