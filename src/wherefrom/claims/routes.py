"""Beside C1, C2 and C3b: which route, or which pairs of patches, built what; and what became of it when cut."""

from __future__ import annotations

import pandas as pd

from wherefrom.claims.primary import QUERIES_AND_KEYS, ROUTES, NotJudgeable, contributions, map_growth
from wherefrom.claims.readings import Readings, at_end, by_seed
from wherefrom.claims.summary import paired_summary, summary
from wherefrom.config import CUT

KINDS = (*ROUTES, "weight_decay", "carried")
"""Rows of a ledger: routes of the gradient, then what is no gradient of this training."""

STRUCTURES = ("near_minus_far", "similarity_falloff", "coordinate_r2")


# ---- C3b


def route_details(readings: Readings) -> dict:
    """What each kind of route added to each structure, and its share, a ratio of means over seeds.

    A ratio of means needs no seed to be dropped: a share of each seed would explode where its map hardly grew.
    """
    found: dict = {name: _by_kind(readings, name) for name in STRUCTURES}
    first = found.pop(STRUCTURES[0])
    if first is None:
        return {}
    return {
        **first,
        "shares_by_layer": _by_layer(readings, STRUCTURES[0]),
        "other_structures": found,
        "ledger_residual": _worst(at_end(readings.rows("ledger_residual"))),
        "route_closure": _worst(readings.rows("route_closure")),
    }


def _by_kind(readings: Readings, structure: str) -> dict | None:
    try:
        parts = contributions(readings, "natural", structure)
    except NotJudgeable:
        return None
    both = [kind for kind in QUERIES_AND_KEYS if kind in parts]
    groups = {"q + k": parts[both].sum(axis=1)} | {kind: parts[kind] for kind in KINDS if kind in parts}
    whole = _whole(parts)
    return {
        "contributions": {kind: summary(values) for kind, values in groups.items()},
        "shares": {kind: float(values.mean() / whole) if whole else None for kind, values in groups.items()},
    }


def _whole(parts: pd.DataFrame) -> float:
    """What all routes together added, mean over seeds."""
    return float(parts[[kind for kind in ROUTES if kind in parts]].sum(axis=1).mean())


def _by_layer(readings: Readings, structure: str) -> dict:
    """Share of each route in each layer: the mean over seeds of what it added, over that of all routes together."""
    means = contributions(readings, "natural", structure, "layer").mean().unstack("route")
    shares = means[[kind for kind in ROUTES if kind in means]]
    whole = float(shares.to_numpy()[shares.notna().to_numpy()].sum())
    if not whole:
        return {}
    inside = shares[shares.index >= 0] / whole
    return {layer: inside.loc[layer].dropna().to_dict() for layer in map(int, inside.index.to_numpy())}


def _worst(rows: pd.DataFrame) -> float | None:
    return float(rows["value"].max()) if len(rows) else None


# ---- C1 and C2: the account of the scores


def account(readings: Readings, relation: str) -> dict | None:
    """Which pairs' gradient on w_q and w_k built the growth of log attention on one relation, mean over layers.

    From the second ledger, which some natural runs keep: what the gradient of edge pairs, of far pairs and of all other
    pairs added; what the drift of the inputs and weight decay added; what the growth is. None where no run kept it.
    """
    name = f"ledger_log_attn_{relation}"
    rows = at_end(readings.rows(name))
    if rows.empty:
        return None
    from_pairs = rows["route"].isin(MATRICES).to_numpy()
    pairs = rows["relation"].astype(object).where(rows["relation"].isin(("edge", "far")), "other")
    of = pairs.where(from_pairs, rows["route"].astype(object))
    layers = rows["layer"].nunique()
    parts = rows["value"].groupby([rows["seed"], of.rename("of")]).sum().unstack() / layers
    change = by_seed(at_end(readings.rows(f"{name}_change")))
    found = {str(of): summary(parts[of]) for of in (*_PAIRS, *sorted(set(parts.columns) - set(_PAIRS))) if of in parts}
    worst = _worst(at_end(readings.rows(f"{name}_residual")))
    return {"added": found, "growth": summary(change) if len(change) else None, "residual": worst}


MATRICES = ("w_q", "w_k")
_PAIRS = ("edge", "far", "other")


# ---- cuts


def cut_effects(readings: Readings, relation: str | None = None) -> dict | None:
    """For each cut arm its map and accuracy against the natural arm, paired by seed; None without such arms.

    Args:
        readings: of the study.
        relation: only cuts of pairs, and of them those that take this relation; None: every cut.
    """
    found = {what: _effect(readings, f"{CUT}{what}") for what in readings.cuts() if _takes(what, relation)}
    return found or None


def _takes(what: str, relation: str | None) -> bool:
    kind, _, items = what.partition(":")
    return relation is None or (kind == "pairs" and relation in items.split(","))


def _effect(readings: Readings, arm: str) -> dict:
    growth = [_growth(readings, own) for own in (arm, "natural")]
    natural = growth[1].mean()
    return {
        "near_minus_far_change": paired_summary(*growth),
        "near_minus_far": paired_summary(*_final(readings, "near_minus_far", arm)),
        "similarity_falloff": paired_summary(*_final(readings, "similarity_falloff", arm)),
        "accuracy": paired_summary(*_final(readings, "accuracy", arm, split="test")),
        "kept": float(growth[0].mean() / natural) if natural > 0 else None,
    }


def _growth(readings: Readings, arm: str) -> pd.Series:
    try:
        return map_growth(readings, arm)
    except NotJudgeable:
        return pd.Series(dtype=float)


def _final(readings: Readings, measure: str, arm: str, **where) -> list[pd.Series]:
    return [by_seed(at_end(readings.rows(measure, own, **where))) for own in (arm, "natural")]
