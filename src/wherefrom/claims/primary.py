"""The primary statistic of each claim: one number a seed, fixed beforehand (science.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from wherefrom.claims.readings import ANY, Readings, at_end, at_start, by_seed, by_seed_and, layer_means

CONTROL = "scrambled"


class NotJudgeable(Exception):
    """Why a claim has no primary statistic, as the end of the sentence "Not judged: …"."""


@dataclass(frozen=True)
class Case:
    """What a claim is judged on."""

    claim: str
    values: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    """Primary statistic of each natural run, by seed; positive is the claim's direction."""
    control: pd.Series | None = None
    """The same of the control arm; None for a claim without control, empty where its runs are missing."""
    layers: pd.DataFrame | None = None
    """`seed × layer`, for a claim that may differ between layers."""
    control_layers: pd.DataFrame | None = None
    reason: str | None = None
    """Why there is no statistic."""


def angle(readings: Readings, arm: str) -> pd.DataFrame:
    """C0: mean `angle_share` over heads at the end − 0.5, `seed × layer`."""
    return (
        _recorded(by_seed_and(at_end(readings.rows("angle_share", arm, split="probe")), "layer"), "angle_share") - 0.5
    )


def pull(readings: Readings, arm: str) -> pd.DataFrame:
    """C1: advantage `edge` − `between` summed over training, `seed × layer`."""
    return layer_means(integrated(readings, arm, "advantage", "edge", "between"))


def push(readings: Readings, arm: str) -> pd.DataFrame:
    """C2: advantage `between` − `far` summed over training, `seed × layer`."""
    return layer_means(integrated(readings, arm, "advantage", "between", "far"))


def falloff_growth(readings: Readings, arm: str) -> pd.Series:
    """C3a: final − initial `similarity_falloff` on the grid that the model sees, by seed."""
    rows = readings.rows("similarity_falloff", arm)
    if rows.empty:
        raise NotJudgeable("the runs have no learned position embedding in which a map could form")
    growth = _recorded(by_seed(at_end(rows)) - by_seed(at_start(rows)), "similarity_falloff at start and end")
    if (growth == 0).all():
        raise NotJudgeable("position embeddings are fixed, not learned, so no map could form in them")
    return growth


def through_queries_and_keys(readings: Readings, arm: str) -> pd.Series:
    """C3b: (q + k in the ledger of `similarity_falloff` at the last step) / change − 0.5, by seed."""
    return ledger_shares(readings, arm, "similarity_falloff", "route").reindex(columns=["q", "k"]).sum(axis=1) - 0.5


def ledger_shares(readings: Readings, arm: str, structure: str, *columns: str) -> pd.DataFrame:
    """Contributions to one structure at the last step, over its whole change: `seed × columns`, signed.

    A seed whose structure has not grown has no map that could be shared out; it is left out.
    """
    rows = at_end(readings.rows(f"ledger_{structure}", arm))
    if rows.empty:
        raise NotJudgeable("the runs kept no ledger that credits each route of the gradient with its part in the map")
    change = by_seed(at_end(readings.rows(f"ledger_{structure}_change", arm)))
    grown = change[change > 0]
    if grown.empty:
        raise NotJudgeable("position embeddings became no more of a map in any seed, so there is nothing to share out")
    parts = rows.groupby(["seed", *columns], observed=True)["value"].sum().unstack(list(columns)).fillna(0.0)
    return parts.loc[parts.index.intersection(grown.index)].div(grown, axis=0).dropna()


def divergence_growth(readings: Readings, arm: str) -> pd.DataFrame:
    """C4: final − initial `head_divergence_attn`, `seed × layer`."""
    if readings.num_heads < 2:
        raise NotJudgeable("a layer with a single head has no other head to differ from")
    return layer_growth(readings, arm, "head_divergence_attn")


def accuracy_slope(readings: Readings, arm: str) -> pd.Series:
    """C5: least-squares slope of final test accuracy on log2(heads), over seeds that have every head count."""
    counts = by_head_count(readings, "accuracy", split="test", arm=arm)
    if counts.shape[1] < 2:
        raise NotJudgeable("the study has a single number of heads, so there is nothing to compare")
    if counts.dropna().empty:
        raise NotJudgeable("no seed has a finished run at every number of heads")
    return slopes(counts.dropna(), np.log2(counts.columns.to_numpy(dtype=float)))


PRIMARY: dict[str, tuple[Callable[[Readings, str], pd.DataFrame | pd.Series], bool]] = {
    "C0": (angle, False),
    "C1": (pull, True),
    "C2": (push, True),
    "C3a": (falloff_growth, True),
    "C3b": (through_queries_and_keys, False),
    "C4": (divergence_growth, True),
    "C5": (accuracy_slope, False),
}
"""The statistic of each claim, and whether it is held against the control arm."""


def case(claim: str, readings: Readings) -> Case:
    """What `claim` is judged on, or why it cannot be."""
    statistic, controlled = PRIMARY[claim]
    try:
        if not readings.has_runs("natural"):
            raise NotJudgeable(f"there is no finished run of the natural arm with {readings.num_heads} heads")
        values, layers = _overall(statistic(readings, "natural"))
    except NotJudgeable as why:
        return Case(claim, reason=str(why))
    control, control_layers = _control(statistic, readings) if controlled else (None, None)
    return Case(claim, values, control, layers, control_layers)


def integrated(readings: Readings, arm: str, measure: str, nearer: str, farther: str) -> pd.DataFrame:
    """Σ_steps learning_rate · (steps until the next observation) · (nearer − farther), `seed × (layer, head)`.

    Steps at which either relation is null are skipped; a head that is null at every step is left out.
    """
    first, second = (_batches(readings, arm, measure, relation) for relation in (nearer, farther))
    gaps = (first["value"] - second["value"]).rename("gap").reset_index()
    gaps = gaps.merge(step_sizes(readings, arm, gaps), on=["run", "step"])
    gaps["value"] = gaps["gap"] * gaps["size"]
    sums = gaps.groupby(["seed", "layer", "head"])["value"].sum(min_count=1).unstack(["layer", "head"])
    return _recorded(sums, f"{measure} on training batches").sort_index(axis=1)


def _batches(readings: Readings, arm: str, measure: str, relation: str) -> pd.DataFrame:
    rows = readings.rows(measure, arm, split="train", relation=relation)
    rows = _recorded(rows.set_index(["run", "seed", "step", "layer", "head"]), f"{measure} on training batches")
    if rows["value"].isna().all():
        raise NotJudgeable(f"{measure} of `{relation}` pairs is null: the grid has no such pairs, or no gradient")
    return rows


def step_sizes(readings: Readings, arm: str, rows: pd.DataFrame) -> pd.DataFrame:
    """`size` = learning_rate · (steps until the next observation) for each `run` and `step` in `rows`.

    The last observation keeps the spacing before it, clipped to the end of the run.
    """
    steps = rows[["run", "step"]].drop_duplicates().sort_values(["run", "step"])
    spacing = -steps.groupby("run")["step"].diff(-1)
    before = spacing.groupby(steps["run"]).shift(1)
    left = (readings.last_steps(steps["run"]) - steps["step"]).clip(lower=1)  # a batch seen is an update done
    steps["spacing"] = spacing.fillna(before.combine(left, np.fmin))
    rates = _recorded(readings.rows("learning_rate", arm, split="train"), "learning_rate")[["run", "step", "value"]]
    steps = steps.merge(rates, on=["run", "step"], how="left")
    return steps.assign(size=steps["value"] * steps["spacing"])[["run", "step", "size"]]


def layer_growth(readings: Readings, arm: str, measure: str, **where) -> pd.DataFrame:
    """Value on the probe at the end − at initialisation, mean over heads, `seed × layer`."""
    rows = _recorded(readings.rows(measure, arm, split="probe", **where), measure)
    change = by_seed_and(at_end(rows), "layer") - by_seed_and(at_start(rows), "layer")
    return _recorded(change, f"{measure} at start and end")


def by_head_count(readings: Readings, measure: str, split: str, arm: str = "natural") -> pd.DataFrame:
    """Final value of `measure` (mean over layers), `seed × head count`."""
    rows = at_end(readings.rows(measure, arm, num_heads=ANY, split=split))
    return _recorded(by_seed_and(rows, "num_heads"), f"{measure} on {split} images")


def slopes(table: pd.DataFrame, x: np.ndarray) -> pd.Series:
    """Least-squares slope of each row on x: Σ (x − x̄) y / Σ (x − x̄)²."""
    centred = x - x.mean()
    return table @ centred / (centred @ centred)


def _recorded(values, name: str):
    """`values`; a sentence if there are none. Of statistics, seeds and layers that are all null are left out."""
    if isinstance(values, pd.Series):
        values = values.dropna()
    elif "value" not in values.columns:
        values = values.dropna(axis=1, how="all").dropna(axis=0, how="all")
    if not values.size:
        raise NotJudgeable(f"{name} was not recorded, or is null throughout")
    return values


def _overall(values: pd.DataFrame | pd.Series) -> tuple[pd.Series, pd.DataFrame | None]:
    return (values, None) if isinstance(values, pd.Series) else (values.mean(axis=1), values)


def _control(statistic, readings: Readings) -> tuple[pd.Series, pd.DataFrame | None]:
    try:
        return _overall(statistic(readings, CONTROL))
    except NotJudgeable:
        return pd.Series(dtype=float), None
