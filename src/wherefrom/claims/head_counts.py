"""Beside the verdict on head counts: every outcome by count, its slope, and where the curve bends or falls."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import nan

import numpy as np
import pandas as pd

from wherefrom.claims.primary import NotJudgeable, by_head_count, slopes
from wherefrom.claims.readings import ANY, Readings, at_end, by_seed_and
from wherefrom.claims.rule import ALPHA
from wherefrom.claims.summary import as_dict, summary
from wherefrom.role_counts import DECIDING, different_roles, roles_per_head
from wherefrom.statistics import first_of_largest, holm, paired_t

OUTCOMES: dict[str, Callable[[Readings], pd.DataFrame]] = {
    "loss": lambda readings: by_head_count(readings, "loss", "test"),
    "divergence": lambda readings: by_head_count(readings, "head_divergence_attn", "probe"),
    "row_divergence": lambda readings: by_head_count(readings, "row_divergence", "probe"),
    "sharpness": lambda readings: by_head_count(readings, "offset_sharpness", "probe"),
    "roles_per_head": lambda readings: _roles(readings, roles_per_head),
    "different_roles": lambda readings: _roles(readings, different_roles),
}
"""`seed × head count` at the last step, mean over layers and heads; one head has no divergence."""


def head_count_details(readings: Readings) -> dict:
    """Accuracy by head count with its steps and its bend; of each other outcome recorded the values and the slope."""
    try:
        accuracy = by_head_count(readings, "accuracy", "test")
    except NotJudgeable:
        return {}
    whole = accuracy.dropna()
    found = {"accuracy": _by_count(accuracy), **_best(whole), "steps": _steps(whole), "curvature": _curvature(whole)}
    for name, outcome in OUTCOMES.items():
        try:
            table = outcome(readings).dropna(axis=1, how="all")
        except NotJudgeable:
            table = pd.DataFrame()
        found |= {name: _by_count(table), f"{name}_slope": _slope(table)}
    return found


def _roles(readings: Readings, count: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    parts = [readings.rows(name, num_heads=ANY, split="probe") for name in DECIDING]
    parts = [rows for rows in parts if len(rows)]
    return by_seed_and(count(at_end(pd.concat(parts))), "num_heads") if parts else pd.DataFrame()


def _by_count(table: pd.DataFrame) -> dict | None:
    return {count: summary(table[count]) for count in table.columns.tolist()} or None


def _slope(table: pd.DataFrame) -> dict | None:
    """Least-squares slope on log2(heads) over seeds that have every count."""
    whole = table.dropna()
    return summary(slopes(whole, _doublings(whole))) if len(whole) and whole.shape[1] > 1 else None


def _doublings(table: pd.DataFrame) -> np.ndarray:
    return np.log2(table.columns.to_numpy(dtype=float))


def _best(accuracy: pd.DataFrame) -> dict:
    """The head count of the highest mean accuracy, the smallest of equals, and whether it beats the largest count.

    "Up to a point" also needs that more heads did better at first: that the best count is not the smallest.
    """
    if accuracy.empty:
        return {"best_count": None, "best_against_largest": None, "up_to_a_point": False}
    counts = accuracy.columns.to_numpy(dtype=int)
    best, largest = int(counts[first_of_largest(accuracy.mean())]), int(counts.max())
    test = paired_t(accuracy[best], accuracy[largest])
    return {
        "best_count": best,
        "best_against_largest": as_dict(test) if best < largest else None,
        "up_to_a_point": bool(counts.min() < best < largest and test.p <= ALPHA),
    }


def _steps(accuracy: pd.DataFrame) -> list[dict]:
    """Accuracy from each count to the next, paired by seed, p Holm-adjusted over the steps."""
    if accuracy.empty:
        return []
    pairs = list(pairwise(accuracy.columns.tolist()))
    tests = [paired_t(accuracy[more], accuracy[fewer]) for fewer, more in pairs]
    adjusted = holm([test.p for test in tests])
    return [
        {"from": fewer, "to": more, **as_dict(test), "p_adjusted": float(p)}
        for (fewer, more), test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def _curvature(accuracy: pd.DataFrame) -> dict | None:
    """By how much the gain of a doubling changes with the next doubling: 2 × the quadratic term of the least-squares
    parabola on log2(heads), by seed; below 0 the curve bends down."""
    if accuracy.empty or accuracy.shape[1] < 3:
        return None
    terms = np.polyfit(_doublings(accuracy), accuracy.to_numpy().T, 2)[0]
    return summary(pd.Series(2 * terms, index=accuracy.index))


def fall_or_bend(details: dict) -> tuple[str, dict] | None:
    """("falls", the first step that is sure to go down), or ("bends", the curvature if it is sure to be below 0)."""
    for step in details["steps"]:
        if step["statistic"] < 0 and step["p_adjusted"] <= ALPHA:
            return "falls", step
    bend = details["curvature"] or {"statistic": nan, "p": nan}
    return ("bends", bend) if bend["statistic"] < 0 and bend["p"] <= ALPHA else None
