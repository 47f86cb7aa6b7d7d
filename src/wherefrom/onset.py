"""When a recorded curve leaves its first level: a change-point with its uncertainty. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import nan

import numpy as np

from wherefrom.statistics import first_of_largest

SIMULATIONS = 1999
"""Curves of pure noise that the test and the interval rest on; from a fixed seed, so the same curve has one answer."""

LEAST_POINTS = 5
MOST_CANDIDATES = 48
"""Steps at which a change is looked for; longer curves are looked at this many evenly spaced ones."""

ALPHA = 0.05
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Onset:
    """When a curve began to change; steps are NaN where no change is sure."""

    step: float
    """The first recorded step at which the curve has left its first level."""
    low: float
    """The change did not begin before this step …"""
    high: float
    """… and had begun by this one: 95 % interval."""
    p: float
    """Of no change at all; NaN where the curve is too short or constant."""


NO_ONSET = Onset(nan, nan, nan, nan)


def onset(steps, values) -> Onset:
    """min over a < b, c, δ of Σ_i (y_i − c − δ·r_ab(s_i))²,   r_ab(s) = clip((s − s_a)/(s_b − s_a), 0, 1).

    A level until step s_a, a straight way to another level at s_b (b next to a: a jump). With RSS_a the least sum of
    squares given a: there is a change where RSS_none / min RSS exceeds what 95 % of curves of pure noise give, and the
    interval runs over all a whose RSS_a / min RSS stays within what 95 % of curves of pure noise give for that a. Of
    all changes a vanishing one is the hardest to place, so that the interval holds a larger one more often than asked
    for. Noise is taken to be independent from record to record and of one size: a slow drift counts as a change.

    Args:
        steps: at which the curve was recorded, rising.
        values: the curve; NaN are left out.

    Returns:
        step = s_(a+1) of the best fit; low = s_a of the earliest a accepted, high = s_(a+1) of the latest; p of no
        change. NaN below five points, for a constant curve, and where p > 0.05.

    Raises:
        ValueError: if there is not one value a step, or steps do not rise.

    References:
        Hinkley 1970, Inference about the change-point in a sequence of random variables. Bacon & Watts 1971.

    >>> found = onset(range(8), [0, 0.1, 0, 0.1, 2, 2.1, 2, 2.1])
    >>> found.step, found.low, found.high
    (4.0, 3.0, 4.0)
    """
    steps, values = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if steps.shape != values.shape or steps.ndim != 1 or (np.diff(steps) <= 0).any():
        raise ValueError(
            f"an onset needs one value for each of rising steps; found shapes {steps.shape}, {values.shape}"
        )
    steps, values = steps[~np.isnan(values)], values[~np.isnan(values)]
    centred = values - values.mean() if len(values) else values
    size = np.linalg.norm(centred)
    if len(steps) < LEAST_POINTS or size <= _ROUNDING * np.abs(values).max():
        return NO_ONSET
    place = tuple(steps.tolist())
    explained = _explained(place, centred[None] / size)[0]
    none, ratios = _noise(place)
    best = explained.max()
    p = (1 + np.count_nonzero(none >= best)) / (1 + len(none))
    if p > ALPHA:
        return Onset(nan, nan, nan, p)
    starts, next_steps = _starts(place)
    accepted = _ratio(explained, best) <= ratios
    first, last = np.flatnonzero(accepted)[[0, -1]]
    return Onset(float(next_steps[first_of_largest(explained)]), float(starts[first]), float(next_steps[last]), p)


def _candidates(number: int) -> np.ndarray:
    """Indices at which a change may begin or end."""
    return np.unique(np.linspace(0, number - 1, min(number, MOST_CANDIDATES)).round().astype(int))


def _starts(steps: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For each a: its step, and the next one."""
    places = np.asarray(steps)[_candidates(len(steps))]
    return places[:-1], places[1:]


@lru_cache(maxsize=32)
def _ramps(steps: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every r_ab, centred and of length 1, `ramp step`, sorted by a; and where each a begins."""
    s, places = np.asarray(steps), _candidates(len(steps))
    a, b = np.triu_indices(len(places), 1)
    start, end = s[places[a], None], s[places[b], None]
    ramps = np.clip((s - start) / (end - start), 0, 1)
    ramps -= ramps.mean(1, keepdims=True)
    return ramps / np.linalg.norm(ramps, axis=1, keepdims=True), np.flatnonzero(np.diff(a, prepend=-1))


def _explained(steps: tuple[float, ...], curves: np.ndarray) -> np.ndarray:
    """1 − RSS_a / RSS_none of centred curves of length 1, `curve a`."""
    ramps, first = _ramps(steps)
    return np.maximum.reduceat((curves @ ramps.T) ** 2, first, axis=1)


def _ratio(explained: np.ndarray, best) -> np.ndarray:
    """RSS_a / min RSS."""
    return (1 - explained + _ROUNDING) / (1 - best + _ROUNDING)


@lru_cache(maxsize=32)
def _noise(steps: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of pure noise: what the best fit explains of each curve, and for each a the 95 % quantile of RSS_a / min RSS."""
    curves = np.random.default_rng(0).normal(size=(SIMULATIONS, len(steps)))
    curves -= curves.mean(1, keepdims=True)
    explained = _explained(steps, curves / np.linalg.norm(curves, axis=1, keepdims=True))
    best = explained.max(1)
    return best, np.quantile(_ratio(explained, best[:, None]), 1 - ALPHA, axis=0)
