"""Beside C1 and C2: what the loss asked for, advantage and pressure, at moments and summed over training."""

from __future__ import annotations

import pandas as pd

from wherefrom.claims.links import beside_control
from wherefrom.claims.primary import integrated
from wherefrom.claims.readings import Readings, at_end, by_seed, by_seed_and, layer_means

ONSET = 0.1
"""Share of its final value at which the map is said to begin."""


def gradients(readings: Readings, nearer: str, farther: str) -> dict:
    """Advantage and pressure, `nearer` − `farther`: before training, where the map begins, and summed over training.

    The sum weighs each step by its learning rate. The scrambled arm, which has no map, is read at the step at which its
    paired natural run's map begins.
    """
    if not readings.records("advantage"):
        return {}
    start = pd.Series(0, index=sorted(set(readings.rows("advantage")["seed"])))
    onset = onset_steps(readings)
    found: dict = {"onset_step": onset.to_dict()}
    for name in ("advantage", "pressure"):
        found[name] = {
            when: beside_control(
                readings, lambda own, arm, name=name, steps=steps: _gap(own, arm, name, nearer, farther, steps)
            )
            for when, steps in (("initialisation", start), ("onset", onset))
        }
        found[name]["integrated"] = beside_control(
            readings,
            lambda own, arm, name=name: layer_means(integrated(own, arm, name, nearer, farther)).mean(axis=1),
        )
    return found


def onset_steps(readings: Readings) -> pd.Series:
    """First step at which `near_minus_far` of a natural run reaches 10 % of its final value, by seed; none where that
    is not above 0."""
    rows = readings.rows("near_minus_far").sort_values("step")
    if rows.empty:
        return pd.Series(dtype=float)
    final = by_seed(at_end(rows)).rename("final")
    rows = rows.join(final[final > 0], on="seed")
    return rows[rows["value"] >= ONSET * rows["final"]].groupby("seed")["step"].first()


def _gap(readings: Readings, arm: str, measure: str, nearer: str, farther: str, steps: pd.Series) -> pd.Series:
    """First relation − second relation on the probe at each seed's step, mean over layers and heads."""
    pair = (readings.rows(measure, arm, split="probe", relation=relation) for relation in (nearer, farther))
    first, second = (rows[(rows["step"] == rows["seed"].map(steps)).to_numpy()] for rows in pair)
    gap = by_seed_and(first, "layer", "head") - by_seed_and(second, "layer", "head")
    return gap.mean(axis=1) if gap.size else pd.Series(dtype=float)
