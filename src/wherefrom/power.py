"""How sure a t-test is to find an effect, how many numbers it takes, and which effects an observed t allows."""

from __future__ import annotations

from math import inf, sqrt

from scipy import special


def effect_interval(t: float, freedom: float, level: float = 0.95) -> tuple[float, float]:
    """(λ_low, λ_high):  P(T ≤ t | λ_low) = (1 + level)/2,  P(T ≤ t | λ_high) = (1 − level)/2,  T non-central t.

    Args:
        t: an observed t statistic, in units of the standard error.
        freedom: its degrees of freedom.
        level: confidence of the interval.

    Returns:
        The non-centralities that do not reject t in either tail: the true mean in standard errors. For a one-sample
        test of n numbers λ/√n is the effect in standard deviations.

    References:
        Steiger & Fouladi 1997, Noncentrality interval estimation and the evaluation of statistical models.

    >>> [round(end, 2) for end in effect_interval(2.5, 4)]
    [-0.15, 4.99]
    """
    low, high = (float(special.nctdtrinc(freedom, p, t)) for p in ((1 + level) / 2, (1 - level) / 2))
    return low, high


def power_t(mean: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test of n numbers finds p ≤ alpha with the mean on its true side (non-central t)."""
    critical = special.stdtrit(n - 1, 1 - alpha / 2)
    return 1 - float(special.nctdtr(n - 1, abs(mean) / sd * sqrt(n), critical))


def seeds_needed(mean: float, sd: float, alpha: float = 0.05, power: float = 0.8, limit: int = 50) -> float:
    """The smallest n at which a mean and deviation like these would give p ≤ alpha with the chance `power`.

    Args:
        mean: observed mean.
        sd: observed standard deviation over seeds.
        alpha: level of the two-sided t-test, after any correction for several tests.
        power: chance asked for.
        limit: largest number tried.

    Returns:
        A whole number of seeds, at least 2; infinity where more than `limit` would be needed.

    >>> seeds_needed(1.0, 0.5), seeds_needed(0.01, 0.5)
    (5, inf)
    """
    if not sd > 0 or mean == 0:
        return inf  # without spread, or without an effect, no number of seeds settles anything
    return next((n for n in range(2, limit + 1) if power_t(mean, sd, n, alpha) >= power), inf)
