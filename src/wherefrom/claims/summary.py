"""Tests as plain data: the few numbers that are shown of them."""

from __future__ import annotations

from math import isnan

import pandas as pd

from wherefrom.claims.primary import CONTROL
from wherefrom.claims.rule import compare
from wherefrom.statistics import TTest


def as_dict(test: TTest) -> dict:
    """A test as the four numbers that are shown."""
    interval = None if isnan(test.low) else [test.low, test.high]
    return {"statistic": test.mean, "interval": interval, "n": test.n, "p": test.p}


def summary(values: pd.Series, other: pd.Series | None = None, *, name: str = CONTROL) -> dict:
    """Mean over seeds with its interval, and beside it the contrast to another arm, paired by seed."""
    comparison = compare(values, other)
    found = as_dict(comparison.main)
    if other is not None and comparison.contrast is not None:
        key = "control" if name == CONTROL else "against"
        found[key] = {"name": name, "mean": float(other.mean()), **as_dict(comparison.contrast)}
    return found
