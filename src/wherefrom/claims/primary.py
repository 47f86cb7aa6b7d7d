"""The primary statistic of each claim: one number a seed, fixed beforehand (science.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from wherefrom.claims.readings import (
    ANY,
    Readings,
    at_end,
    by_seed,
    by_seed_and,
    growth_by_seed_and,
    layer_means,
    sums_by_seed_and,
)

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
    counts: bool = True
    """Whether the design of the study lets this claim be judged, so that Holm's correction counts it."""


def attention_growth(readings: Readings, arm: str, relation: str, content: str = "shuffled") -> pd.DataFrame:
    """log(mean attention on a relation) on the probe: end − initialisation, `seed × (layer, head)`.

    The number of tokens N of log(N · attention), attention against uniform, is the same at both ends.
    """
    rows = _attention_rows(readings, arm, relation, content)
    _recorded(rows, f"attention on images with {content} patches", f"`{relation}` pairs")
    growth = readings.once(("attention", arm, relation, content), lambda: _log_growth(rows))
    return _known(growth, "attention at start and end")


def _log_growth(rows: pd.DataFrame) -> pd.DataFrame:
    values = rows["value"].to_numpy()
    known = np.log(values, out=np.full(len(values), np.nan), where=values > 0)
    return growth_by_seed_and(rows.assign(value=known), "layer", "head")


def angle(readings: Readings) -> pd.Series:
    """C0: mean `angle_share` at the end over layers and heads, by seed; shown, not tested."""
    return by_seed(at_end(readings.rows("angle_share", split="probe")))


def pull(readings: Readings, arm: str) -> pd.DataFrame:
    """C1: growth of log attention at `edge` on content-shuffled images, `seed × layer`."""
    return layer_means(attention_growth(readings, arm, "edge"))


def push(readings: Readings, arm: str) -> pd.DataFrame:
    """C2: − growth of log attention at `far` on content-shuffled images, `seed × layer`."""
    return -layer_means(attention_growth(readings, arm, "far"))


def map_growth(readings: Readings, arm: str, measure: str = "near_minus_far") -> pd.Series:
    """C3a: final − initial `near_minus_far` on the grid that the model sees, by seed."""
    rows = readings.rows(measure, arm)
    if rows.empty:
        raise NotJudgeable("the runs have no learned position embedding in which a map could form")
    growth = _known(growth_by_seed_and(rows)[0], f"{measure} at start and end")
    if (growth == 0).all():
        raise NotJudgeable("position embeddings are fixed, not learned, so no map could form in them")
    return growth


def through_queries_and_keys(readings: Readings, arm: str) -> pd.Series:
    """C3b: in the ledger of `near_minus_far` at the last step, Σ (q + k) − Σ (all other routes), by seed."""
    parts = contributions(readings, arm, "near_minus_far")
    signs = {kind: 1.0 if kind in QUERIES_AND_KEYS else -1.0 for kind in ROUTES if kind in parts}
    return (parts[list(signs)] * pd.Series(signs)).sum(axis=1)


ROUTES = ("q", "k", "v", "mlp", "residual")
"""Kinds of routes of the gradient; a ledger also has rows for weight decay, and for momentum carried in."""

QUERIES_AND_KEYS = ("q", "k")


def contributions(readings: Readings, arm: str, structure: str, *columns: str) -> pd.DataFrame:
    """What each row of the ledger of a structure added by the last step: `seed × (*columns, route)`."""
    rows = at_end(readings.rows(f"ledger_{structure}", arm))
    if rows.empty:
        raise NotJudgeable("the runs kept no ledger that credits each route of the gradient with its part in the map")
    return sums_by_seed_and(rows, *columns, "route")


def position_use(readings: Readings, arm: str) -> pd.Series:
    """C3c: test loss on content-shuffled images − test loss at the end, nats, by seed."""
    rows = readings.rows("position_use", arm, split="test")
    return _known(by_seed(at_end(rows)), "what shuffling the patches of test images costs")


def row_divergence_growth(readings: Readings, arm: str) -> pd.DataFrame:
    """C4: final − initial `row_divergence` on natural images, `seed × layer`."""
    if readings.num_heads < 2:
        raise NotJudgeable("a layer with a single head has no other head to differ from")
    return layer_growth(readings, arm, "row_divergence")


def accuracy_slope(readings: Readings, arm: str) -> pd.Series:
    """C5: least-squares slope of final test accuracy on log2(heads), over seeds that have every head count."""
    counts = by_head_count(readings, "accuracy", split="test", arm=arm)
    if counts.shape[1] < 2:
        raise NotJudgeable("the study has a single number of heads, so there is nothing to compare")
    if counts.dropna().empty:
        raise NotJudgeable("no seed has a finished run at every number of heads")
    return slopes(counts.dropna(), np.log2(counts.columns.to_numpy(dtype=float)))


PRIMARY: dict[str, tuple[Callable[[Readings, str], pd.DataFrame | pd.Series], bool]] = {
    "C1": (pull, True),
    "C2": (push, True),
    "C3a": (map_growth, True),
    "C3b": (through_queries_and_keys, False),
    "C3c": (position_use, True),
    "C4": (row_divergence_growth, True),
    "C5": (accuracy_slope, False),
}
"""The statistic of each claim that is tested, and whether it is held against the control arm."""


def case(claim: str, readings: Readings) -> Case:
    """What `claim` is judged on, or why it cannot be."""
    statistic, controlled = PRIMARY[claim]
    counts = in_design(claim, readings)
    try:
        if not readings.has_runs("natural"):
            raise NotJudgeable(no_runs(readings))
        values, layers = _overall(statistic(readings, "natural"))
    except NotJudgeable as why:
        return Case(claim, reason=str(why), counts=counts)
    control, control_layers = _control(statistic, readings) if controlled else (None, None)
    return Case(claim, values, control, layers, control_layers, counts=counts)


def no_runs(readings: Readings) -> str:
    """The sentence on a study in which nothing can be judged."""
    return f"there is no finished run of the natural arm with {readings.num_heads} heads"


def in_design(claim: str, readings: Readings) -> bool:
    """Whether a study of this design can judge the claim, whatever comes out: what arms and measures it has."""
    if not readings.has_runs("natural"):
        return False
    if PRIMARY[claim][1] and not readings.has_runs(CONTROL):
        return False
    match claim:
        case "C1":
            return _any(_attention_rows(readings, "natural", "edge"))
        case "C2":
            return _any(_attention_rows(readings, "natural", "far"))
        case "C3a":
            return _learned(readings.rows("near_minus_far"))
        case "C3b":
            return _any(readings.rows("ledger_near_minus_far"))
        case "C3c":
            return _any(readings.rows("position_use", split="test"))
        case "C4":
            return readings.num_heads > 1 and _any(readings.rows("row_divergence", split="probe"))
    return len(readings.head_counts()) > 1


def _any(rows: pd.DataFrame) -> bool:
    return bool(rows["value"].notna().any())


def _learned(rows: pd.DataFrame) -> bool:
    """Whether a table of positions ever changes; a fixed one gives the same number at every step of a run."""
    known = rows[rows["value"].notna().to_numpy()].sort_values("run")
    return bool(((known["value"].diff() != 0) & (known["run"].diff() == 0)).any())


def _attention_rows(readings: Readings, arm: str, relation: str, content: str = "shuffled") -> pd.DataFrame:
    return readings.rows("attn", arm, content=content, split="probe", relation=relation)


def integrated(readings: Readings, arm: str, measure: str, nearer: str, farther: str) -> pd.DataFrame:
    """Σ_steps learning_rate · (steps until the next observation) · (nearer − farther), `seed × (layer, head)`.

    Steps at which either relation is null are skipped; a head that is null at every step is left out.
    """
    first, second = (_batches(readings, arm, measure, relation) for relation in (nearer, farther))
    gaps = (first["value"] - second["value"]).rename("gap").reset_index()
    gaps = gaps.merge(step_sizes(readings, arm, gaps), on=["run", "step"])
    gaps["value"] = gaps["gap"] * gaps["size"]
    sums = gaps.groupby(["seed", "layer", "head"])["value"].sum(min_count=1).unstack(["layer", "head"])
    return _known(sums, f"{measure} on training batches").sort_index(axis=1)


def _batches(readings: Readings, arm: str, measure: str, relation: str) -> pd.DataFrame:
    rows = readings.rows(measure, arm, split="train", relation=relation)
    rows = _recorded(rows, f"{measure} on training batches", f"`{relation}` pairs with a gradient")
    return rows.set_index(["run", "seed", "step", "layer", "head"])


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
    return _known(growth_by_seed_and(rows, "layer"), f"{measure} at start and end")


def by_head_count(readings: Readings, measure: str, split: str, arm: str = "natural") -> pd.DataFrame:
    """Final value of `measure` (mean over layers), `seed × head count`."""
    rows = at_end(readings.rows(measure, arm, num_heads=ANY, split=split))
    return _known(by_seed_and(rows, "num_heads"), f"{measure} on {split} images")


def slopes(table: pd.DataFrame, x: np.ndarray) -> pd.Series:
    """Least-squares slope of each row on x: Σ (x − x̄) y / Σ (x − x̄)²."""
    centred = x - x.mean()
    return table @ centred / (centred @ centred)


def _recorded(rows: pd.DataFrame, name: str, pairs: str = "") -> pd.DataFrame:
    """`rows`; a sentence if there are none, or none of them has a value."""
    if rows.empty:
        raise NotJudgeable(f"{name} was not recorded")
    if rows["value"].isna().all():
        raise NotJudgeable(f"the grid has no {pairs}" if pairs else f"{name} is null throughout")
    return rows


def _known(values, name: str):
    """Statistics without seeds, layers and heads that are all null; a sentence if nothing is left."""
    if isinstance(values, pd.Series):
        values = values.dropna()
    elif values.isna().to_numpy().any():
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
