"""What stands beside C3b: every route's share in the ledger, and what became of the map where a route was cut."""

from __future__ import annotations

import pandas as pd

from wherefrom.claims.primary import NotJudgeable, falloff_growth, ledger_shares
from wherefrom.claims.readings import Readings, at_end, by_seed
from wherefrom.claims.summary import summary
from wherefrom.config import CUT

KINDS = ("q", "k", "v", "mlp", "residual", "weight_decay", "carried")
"""Rows of a ledger: routes of the gradient, then what is no gradient of this training."""

STRUCTURES = ("similarity_falloff", "near_minus_far", "coordinate_r2")


def route_shares(readings: Readings) -> dict:
    """Shares of the change of each structure by kind of route, and how exact the account is (its worst seed)."""
    found: dict = {name: _by_kind(readings, name) for name in STRUCTURES}
    shares = ledger_shares(readings, "natural", "similarity_falloff", "layer", "route").mean().to_dict()
    layers = sorted({layer for layer, _ in shares if layer >= 0})
    return {
        "shares": found.pop("similarity_falloff"),
        "shares_by_layer": {
            layer: {kind: shares[layer, kind] for kind in KINDS[:4] if (layer, kind) in shares} for layer in layers
        },
        "shares_of_other_structures": found,
        "ledger_residual": _worst(at_end(readings.rows("ledger_residual"))),
        "route_closure": _worst(readings.rows("route_closure")),
    }


def _by_kind(readings: Readings, structure: str) -> dict | None:
    try:
        shares = ledger_shares(readings, "natural", structure, "route")
    except NotJudgeable:
        return None
    both = shares.reindex(columns=["q", "k"]).sum(axis=1)
    return {"q + k": summary(both)} | {kind: summary(shares[kind]) for kind in KINDS if kind in shares}


def _worst(rows: pd.DataFrame) -> float | None:
    return float(rows["value"].max()) if len(rows) else None


def cut_effects(readings: Readings, relation: str | None = None) -> dict | None:
    """For each cut arm its falloff and accuracy against the natural arm, paired by seed; None without such arms.

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
    growth, falloff, accuracy = (
        [statistic(readings, own) for own in (arm, "natural")] for statistic in (_growth, _falloff, _accuracy)
    )
    natural = growth[1].mean()
    return {
        "falloff_change": summary(*growth, name="natural"),
        "falloff": summary(*falloff, name="natural"),
        "accuracy": summary(*accuracy, name="natural"),
        "kept": float(growth[0].mean() / natural) if natural > 0 else None,
    }


def _growth(readings: Readings, arm: str) -> pd.Series:
    try:
        return falloff_growth(readings, arm)
    except NotJudgeable:
        return pd.Series(dtype=float)


def _falloff(readings: Readings, arm: str) -> pd.Series:
    return by_seed(at_end(readings.rows("similarity_falloff", arm)))


def _accuracy(readings: Readings, arm: str) -> pd.Series:
    return by_seed(at_end(readings.rows("accuracy", arm, split="test")))
