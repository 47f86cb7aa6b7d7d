"""Tests as plain data: the few numbers that are shown of them."""

from __future__ import annotations

from math import isnan

import pandas as pd

from wherefrom.claims.primary import CONTROL
from wherefrom.statistics import TTest, WelchTest, one_sample_t, paired_t, welch_t


def as_dict(test: TTest | WelchTest) -> dict:
    """A test as the four numbers that are shown; of a contrast `n` is the number of the control's seeds."""
    interval = None if isnan(test.low) else [test.low, test.high]
    n = test.n_other if isinstance(test, WelchTest) else test.n
    return {"statistic": test.mean, "interval": interval, "n": n, "p": test.p}


def summary(values: pd.Series, control: pd.Series | None = None) -> dict:
    """Mean over seeds with its interval, and beside it the contrast to the control's seeds (Welch)."""
    found = as_dict(one_sample_t(values))
    if control is not None:
        found["control"] = {"name": CONTROL, "mean": _mean(control), **as_dict(welch_t(values, control))}
    return found


def paired_summary(values: pd.Series, natural: pd.Series) -> dict:
    """The same beside the contrast to the natural arm, by seed: the same seed draws the same start and images."""
    seeds = values.dropna().index.intersection(natural.dropna().index)
    contrast = as_dict(paired_t(values.loc[seeds], natural.loc[seeds]))
    return as_dict(one_sample_t(values)) | {"against": {"name": "natural", "mean": _mean(natural), **contrast}}


def _mean(values: pd.Series) -> float:
    return float(values.mean())
