"""Intervals, t-tests, Holm's correction and the Mantel test. numpy and scipy only."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from scipy import special

_ROUNDING = 1e-12
"""Differences below this share of a number's size are rounding, not spread."""

TIED = 1e-9
"""Numbers that differ by no more than this share of the largest of them are equal where one is chosen or ranks are
given: far above what another order of adding up changes, far below what means something."""


@dataclass(frozen=True, slots=True)
class TTest:
    """Mean of n independent numbers against 0. What cannot be computed is NaN, never a guess."""

    mean: float
    sd: float
    n: int
    low: float
    """Lower end of the t-interval."""
    high: float
    """Upper end of the t-interval."""
    p: float
    """Two-sided p; NaN below two numbers, and for numbers without any spread."""

    @property
    def effect(self) -> float:
        """mean / sd, in standard deviations; NaN without spread."""
        return self.mean / self.sd if self.sd > 0 else nan


def one_sample_t(values, level: float = 0.95) -> TTest:
    """t = mean · √n / sd against Student's t with n − 1 degrees of freedom.

    Args:
        values: independent numbers, one an observation; NaN are left out.
        level: confidence of the interval.

    Returns:
        The two-sided test of mean 0, with the interval of the mean. Numbers that are all the same have an interval but
        no p: without spread there is nothing to hold the mean against, and a p of 0 would be a boast.

    References:
        Student 1908, The probable error of a mean.

    >>> test = one_sample_t([1.0, 2.0, 3.0])
    >>> round(test.mean, 3), round(test.sd, 3), round(test.p, 4)
    (2.0, 1.0, 0.0742)
    """
    values = _known(values)
    n = len(values)
    mean = float(values.mean()) if n else nan
    if n < 2:
        return TTest(mean, nan, n, nan, nan, nan)
    sd = _spread(values)
    if sd == 0:
        return TTest(mean, 0.0, n, mean, mean, nan)
    p = 2 * float(special.stdtr(n - 1, -abs(mean) * sqrt(n) / sd))
    return TTest(mean, sd, n, *t_interval(values, level), p)


def paired_t(a, b, level: float = 0.95) -> TTest:
    """The one-sample t-test of a − b, pair by pair.

    Raises:
        ValueError: if the two do not have the same length.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired test needs two lists of equal length; found shapes {a.shape} and {b.shape}")
    return one_sample_t(a - b, level)


@dataclass(frozen=True, slots=True)
class WelchTest:
    """Difference of two independent means. What cannot be computed is NaN, never a guess."""

    mean: float
    """Mean of the first group − mean of the second."""
    sd: float
    """Standard deviation of the first group."""
    sd_other: float
    n: int
    """Numbers in the first group."""
    n_other: int
    freedom: float
    """Welch–Satterthwaite degrees of freedom."""
    low: float
    high: float
    p: float
    """Two-sided p; NaN below two numbers in either group, and where neither group has any spread."""

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return sqrt(self.sd**2 / self.n + self.sd_other**2 / self.n_other)


def welch_t(a, b, level: float = 0.95) -> WelchTest:
    """t = (ā − b̄) / √(s_a²/n + s_b²/m)  with  ν = (s_a²/n + s_b²/m)² / ((s_a²/n)²/(n−1) + (s_b²/m)²/(m−1)).

    Args:
        a: independent numbers of the first group; NaN are left out.
        b: independent numbers of the second group, not paired with the first, of another variance perhaps.
        level: confidence of the interval.

    Returns:
        The two-sided test that both means are the same, with the interval of ā − b̄. Where one group has no spread,
        the other group's decides; where neither has, there is an interval but no p.

    References:
        Welch 1947, The generalization of "Student's" problem when several different population variances are involved.

    >>> test = welch_t([2.0, 3.0, 4.0], [0.0, 1.0, 2.0])
    >>> round(test.mean, 3), round(test.freedom, 3), round(test.p, 4)
    (2.0, 4.0, 0.0705)
    """
    a, b = _known(a), _known(b)
    n, m = len(a), len(b)
    mean = float(a.mean() - b.mean()) if n and m else nan
    if min(n, m) < 2:
        return WelchTest(mean, nan, nan, n, m, nan, nan, nan, nan)
    sd_a, sd_b = _spread(a), _spread(b)
    va, vb = sd_a**2 / n, sd_b**2 / m
    if va + vb == 0:
        return WelchTest(mean, 0.0, 0.0, n, m, nan, mean, mean, nan)
    error, share = sqrt(va + vb), va / (va + vb)  # shares, since the square of a tiny variance would be 0
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))
    half = float(special.stdtrit(freedom, 0.5 + level / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    return WelchTest(mean, sd_a, sd_b, n, m, freedom, mean - half, mean + half, p)


def _spread(values: np.ndarray) -> float:
    """Standard deviation with n − 1; 0 where it is rounding."""
    sd = float(values.std(ddof=1))
    return 0.0 if sd <= _ROUNDING * np.abs(values).max() else sd


def t_interval(values, level: float = 0.95) -> tuple[float, float]:
    """mean ± t_(n − 1) · sd / √n.

    Returns:
        (low, high); NaN below two numbers.

    >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    values = _known(values)
    n = len(values)
    if n < 2:
        return nan, nan
    half = float(special.stdtrit(n - 1, 0.5 + level / 2) * values.std(ddof=1) / sqrt(n))
    return float(values.mean()) - half, float(values.mean()) + half


def holm(p) -> np.ndarray:
    """p̃_(k) = max over j ≤ k of min(1, (m − j + 1) · p_(j)), p sorted upwards.

    Args:
        p: p-values of one family, `test`; NaN are no tests and are not counted.

    Returns:
        Adjusted p-values in the order of `p`; rejecting those ≤ α keeps the chance of any false rejection ≤ α.

    References:
        Holm 1979, A simple sequentially rejective multiple test procedure.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaN sort to the end
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate: all rates that `successes` of `trials` do not reject in either tail.

    Returns:
        (low, high) in [0, 1].

    Raises:
        ValueError: unless 0 ≤ successes ≤ trials.

    References:
        Clopper & Pearson 1934, The use of confidence or fiducial limits.

    >>> [round(end, 3) for end in binomial_interval(0, 10)]
    [0.0, 0.308]
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 ≤ successes ≤ trials; found {successes} successes in {trials} trials")
    tail, failures = (1 - level) / 2, trials - successes
    low = special.betaincinv(successes, failures + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Mantel:
    """How far the likeness of things falls with their distance, against chance."""

    correlation: float
    p: float
    """One-sided: share of random relabellings, this one included, with a correlation at least as high."""
    low: float
    """Lower end of the 99 % interval under random relabelling."""
    high: float
    """Upper end of the 99 % interval under random relabelling."""


def mantel(similarity: np.ndarray, distances: np.ndarray, permutations: int = 999, seed: int = 0) -> Mantel:
    """r = Pearson over i < j of (C_ij, −D_ij);  p = (1 + #{r_π ≥ r}) / (1 + permutations).

    r_π is the same correlation after the labels of C were permuted by π, rows and columns alike.

    Args:
        similarity: C, symmetric, `patch patch`; the diagonal is not used.
        distances: D, symmetric, `patch patch`.
        permutations: number of random relabellings.
        seed: of the relabellings.

    Returns:
        Correlation in [−1, 1], its p, and the range that holds 99 % of the relabelled correlations. All NaN where
        fewer than three patches, equal similarities or a missing value leave the correlation undefined.

    Raises:
        ValueError: unless both are square and of one size.

    References:
        Mantel 1967, The detection of disease clustering and a generalized regression approach.

    >>> place = np.arange(6.0)
    >>> distances = np.abs(place[:, None] - place)
    >>> test = mantel(1 - distances / 5, distances)
    >>> round(test.correlation, 6), test.p < 0.02
    (1.0, True)
    """
    similarity, distances = np.asarray(similarity, dtype=float), np.asarray(distances, dtype=float)
    if similarity.ndim != 2 or len({*similarity.shape, *distances.shape}) != 1:
        raise ValueError(
            f"the Mantel test needs two square matrices of one size; found {similarity.shape} and {distances.shape}"
        )
    c, minus_d = _standardised(similarity), _standardised(-distances)
    if c is None or minus_d is None:
        return Mantel(nan, nan, nan, nan)
    # Mean and deviation over pairs do not change under relabelling, so a correlation is one inner product.
    # A relabelling at a time keeps memory at two matrices, and its rows and columns in the cache.
    rng = np.random.default_rng(seed)
    relabelled = (rng.permutation(len(c)) for _ in range(permutations))
    null = np.array([np.vdot(c.take(order, 0).take(order, 1), minus_d) for order in relabelled])
    correlation = float(np.vdot(c, minus_d))
    low, high = np.quantile(null, [0.005, 0.995]) if permutations else (nan, nan)
    at_least = np.count_nonzero(null >= correlation - _ROUNDING)  # a symmetry of the grid gives the same number
    return Mantel(correlation, float((1 + at_least) / (1 + permutations)), float(low), float(high))


def _standardised(matrix: np.ndarray) -> np.ndarray | None:
    """Pairs i ≠ j moved and scaled to sum 0 and sum of squares 1, diagonal 0; None where that cannot be."""
    pairs = ~np.eye(len(matrix), dtype=bool)
    if len(matrix) < 3 or not np.isfinite(matrix[pairs]).all():
        return None
    centred = np.where(pairs, matrix - matrix[pairs].mean(), 0.0)
    norm = np.linalg.norm(centred)
    return centred / norm if norm > _ROUNDING * np.abs(matrix[pairs]).max() * len(matrix) else None


def first_of_largest(values) -> int:
    """The first index whose value is the largest, or within `TIED` of it; NaN are left out.

    >>> first_of_largest([0.1, 0.3, 0.1 + 0.2])  # 0.30000000000000004
    1
    """
    values = np.asarray(values, dtype=float)
    finite = np.abs(values[np.isfinite(values)])
    return int(np.argmax(values >= np.nanmax(values) - TIED * finite.max(initial=0)))


def _known(values) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[~np.isnan(values)]
