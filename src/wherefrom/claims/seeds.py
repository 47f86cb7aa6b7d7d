"""How many seeds would settle a claim: a range, since the effect itself is known only within its interval."""

from __future__ import annotations

from functools import lru_cache
from math import inf, sqrt

import numpy as np
from scipy import special

from wherefrom.power import effect_interval, seeds_needed
from wherefrom.statistics import TTest, WelchTest

LIMIT = 50
"""The largest number of seeds that is named."""
POWER = 0.8
DRAWS = 4096
"""Simulated studies behind a power."""


def seeds_range(main: TTest, contrast: WelchTest | None, alpha: float) -> tuple[float, float]:
    """(fewest, most) seeds with power .8, if the effect is as large, or as small, as its 95 % interval allows.

    The effect of each test comes from inverting the non-central t. A claim with a control needs both tests on one
    side, so that both have to be found at once.

    Args:
        main: the statistic against 0.
        contrast: the statistic against the control; None without one. Control seeds keep their ratio to natural ones.
        alpha: level of a test after correction.

    Returns:
        Whole numbers above the seeds there are now; infinity above 50, or where the interval holds no effect at all.
    """
    side = 1.0 if main.mean >= 0 else -1.0
    low, high = _ends(main, contrast, side)
    fewest = _needed(*high, main, contrast, alpha)
    if fewest == inf:  # it may still come out on the other side
        fewest = _needed(*_ends(main, contrast, -side)[1], main, contrast, alpha)
    most = _needed(*low, main, contrast, alpha)
    return fewest, max(fewest, most)


def joint_power(
    mean: float, sd: float, n: int, difference: float, sd_other: float, n_other: int, alpha: float
) -> float:
    """P(main ≤ alpha and Welch ≤ alpha, both means above 0) for normal seeds, by simulation.

    Only what the tests are made of is drawn: the natural mean, and both variances (chi-square). Given these, the chance
    over the control's mean is a normal one. The draws are the points of a lattice: the same power every time.

    Args:
        mean: true mean of the natural arm.
        sd: its standard deviation over seeds.
        n: natural seeds.
        difference: true mean of the natural arm − that of the control.
        sd_other: standard deviation of the control.
        n_other: control seeds.
        alpha: level of both tests, two-sided.

    Returns:
        In [0, 1].

    References:
        Kronecker lattice of Roberts 2018, The unreasonable effectiveness of quasirandom sequences.
    """
    drawn = mean + sd / sqrt(n) * _normal(0)
    a, b = sd**2 / n * _chi_square(n - 1, 1), sd_other**2 / n_other * _chi_square(n_other - 1, 2)
    share = a / (a + b)
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (n_other - 1))
    below = drawn - _critical(freedom, alpha) * np.sqrt(a + b)  # the control's mean must not be above
    chance = special.ndtr((below - (mean - difference)) / max(sd_other / sqrt(n_other), 1e-9 * sd))
    found = drawn > special.stdtrit(n - 1, 1 - alpha / 2) * np.sqrt(a)
    return float((chance * found).mean())


def _ends(main: TTest, contrast: WelchTest | None, side: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The least and the largest (effect against 0, effect against the control) of this side."""
    error = main.sd / sqrt(main.n)
    of_main = [error * end for end in effect_interval(side * main.mean / error, main.n - 1)]
    if contrast is None:
        return (of_main[0], inf), (of_main[1], inf)
    of_contrast = [
        contrast.error * end for end in effect_interval(side * contrast.mean / contrast.error, contrast.freedom)
    ]
    return (of_main[0], of_contrast[0]), (of_main[1], of_contrast[1])


def _needed(mean: float, difference: float, main: TTest, contrast: WelchTest | None, alpha: float) -> float:
    """The number of natural seeds that reaches the power; above the present one, which did not settle it."""
    if min(mean, difference) <= 0:
        return inf
    if contrast is None:
        needed = seeds_needed(mean, main.sd, alpha, POWER, LIMIT)
    else:
        ratio = contrast.n_other / main.n
        needed = seeds_for(mean, main.sd, difference, contrast.sd_other, ratio, alpha)
    needed = max(needed, main.n + 1)
    return needed if needed <= LIMIT else inf


def seeds_for(mean: float, sd: float, difference: float, sd_other: float, ratio: float, alpha: float) -> float:
    """The smallest number of natural seeds at which both tests are found together with power .8.

    Args:
        mean: true mean of the natural arm, above 0.
        sd: its standard deviation over seeds.
        difference: true mean of the natural arm − that of the control, above 0.
        sd_other: standard deviation of the control.
        ratio: control seeds for each natural seed; at least two there are.
        alpha: level of both tests.

    Returns:
        A whole number from 2; infinity above 50.
    """

    def enough(n: int) -> bool:
        return joint_power(mean, sd, n, difference, sd_other, max(2, round(n * ratio)), alpha) >= POWER

    low, high = 1, LIMIT  # the first too few, the second enough
    if not enough(high):
        return inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=1)
def _lattice() -> np.ndarray:
    """Points spread over the cube, `coordinate draw`: the fractions of k/g, k/g², k/g³, with g⁴ = g + 1."""
    steps = 1.2207440846057596 ** -np.arange(1.0, 4.0)
    return (0.5 + steps[:, None] * np.arange(1, DRAWS + 1)) % 1


@lru_cache(maxsize=1)
def _normal(coordinate: int) -> np.ndarray:
    return special.ndtri(_lattice()[coordinate])


@lru_cache(maxsize=256)
def _chi_square(freedom: int, coordinate: int) -> np.ndarray:
    """χ²/ν: a variance over the true one."""
    return special.chdtri(freedom, _lattice()[coordinate]) / freedom


def _critical(freedom: np.ndarray, alpha: float) -> np.ndarray:
    """Two-sided critical values of Student's t, read from a fine table: thousands are asked for at a time."""
    inverse, logarithm = _critical_table(alpha)
    return np.exp(np.interp(1 / freedom, inverse, logarithm))


@lru_cache(maxsize=64)
def _critical_table(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.linspace(1e-3, 1.0, 1000)
    return inverse, np.log(special.stdtrit(1 / inverse, 1 - alpha / 2))
