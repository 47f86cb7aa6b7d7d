"""What stands beside a verdict: the other numbers of science.md, section 8, as plain data."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from wherefrom.claims.gradients import gradients
from wherefrom.claims.head_counts import head_count_details
from wherefrom.claims.heads import head_details
from wherefrom.claims.links import link_details
from wherefrom.claims.primary import CONTROL
from wherefrom.claims.readings import Readings, at_end, at_start, by_seed
from wherefrom.claims.routes import account, cut_effects, route_details
from wherefrom.claims.summary import summary


def details(claim: str, readings: Readings, num_tokens: int | None = None) -> dict:
    """Numbers beside the verdict of one claim. What was not recorded is None, or left out."""
    return _DETAILS[claim](readings, num_tokens)


def _angle(readings: Readings, num_tokens: int | None) -> dict:
    found = {}
    for name in ("angle_share", "argmax_agreement"):
        rows = readings.rows(name, split="probe")
        found[name] = {"start": summary(by_seed(at_start(rows))), "end": summary(by_seed(at_end(rows)))}
    return found


def _pull(readings: Readings, num_tokens: int | None) -> dict:
    return (
        link_details(readings, "edge", num_tokens)
        | gradients(readings, "edge", "between")
        | {"account": account(readings, "edge"), "cuts": cut_effects(readings, "edge")}
    )


def _push(readings: Readings, num_tokens: int | None) -> dict:
    return (
        link_details(readings, "far", num_tokens)
        | gradients(readings, "between", "far")
        | {"account": account(readings, "far"), "cuts": cut_effects(readings, "far")}
    )


# ---- C3a

_MAP = ("near_minus_far", "similarity_falloff", "similarity_falloff_spearman", "coordinate_r2", "neighbour_recovery")
_RELABELLING = ("similarity_falloff_p", "similarity_falloff_null_low", "similarity_falloff_null_high")


def _map(readings: Readings, num_tokens: int | None) -> dict:
    found: dict = {name: _structure(readings, name) for name in _MAP}
    chance = readings.rows("neighbour_recovery_chance")["value"]
    if found["neighbour_recovery"]:
        found["neighbour_recovery"]["chance"] = float(chance.mean()) if len(chance) else None
    found["relabelling"] = {arm: _relabelling(readings, arm, "model") for arm in ("natural", CONTROL)}
    found["shuffled"] = {
        grid: {name: _final(readings, name, "shuffled", grid) for name in _MAP}
        | {"relabelling": _relabelling(readings, "shuffled", grid)}
        for grid in ("model", "true")
    }
    return found


def _structure(readings: Readings, name: str) -> dict | None:
    """One measure of the map at start and end, and how it changed, beside the control."""
    rows = {arm: readings.rows(name, arm) for arm in ("natural", CONTROL)}
    if rows["natural"].empty:
        return None
    start, end = ([by_seed(part(own)) for own in rows.values()] for part in (at_start, at_end))
    growth = [final - first for first, final in zip(start, end, strict=True)]
    return {"start": summary(start[0]), "end": summary(*end), "change": summary(*growth)}


def _final(readings: Readings, name: str, arm: str, grid: str) -> float | None:
    rows = readings.rows(name, arm, grid=grid)
    return float(by_seed(at_end(rows)).mean()) if len(rows) else None


def _relabelling(readings: Readings, arm: str, grid: str) -> dict:
    """For each seed the final falloff, its Mantel p and the 99 % interval under random relabelling of the patches."""
    names = {"falloff": "similarity_falloff", **dict(zip(("p", "low", "high"), _RELABELLING, strict=True))}
    rows = {key: readings.rows(name, arm, grid=grid) for key, name in names.items()}
    if all(own.empty for own in rows.values()):
        return {}
    return pd.DataFrame({key: by_seed(at_end(own)) for key, own in rows.items()}).to_dict("index")


# ---- C3b, C3c, C4, C5


def _routes(readings: Readings, num_tokens: int | None) -> dict:
    return route_details(readings) | {"cuts": cut_effects(readings)}


def _use(readings: Readings, num_tokens: int | None) -> dict:
    """Position use at start and end, on test and probe images, and what shuffling the patches does to accuracy."""
    found: dict = {}
    for split in ("test", "probe"):
        for name in ("position_use", "position_use_accuracy"):
            rows = {arm: readings.rows(name, arm, split=split) for arm in ("natural", CONTROL)}
            if len(rows["natural"]):
                end = [by_seed(at_end(own)) for own in rows.values()]
                found |= {
                    f"{name}_{split}": {"start": summary(by_seed(at_start(rows["natural"]))), "end": summary(*end)}
                }
    return found | {"accuracy": _accuracy(readings)}


def _accuracy(readings: Readings) -> dict | None:
    """Test accuracy, and what is left of it where the patches of test images are shuffled, mean over seeds."""
    accuracy = by_seed(at_end(readings.rows("accuracy", split="test")))
    lost = by_seed(at_end(readings.rows("position_use_accuracy", split="test")))
    both = (accuracy - lost).dropna()
    if both.empty:
        return None
    return {"natural": float(accuracy[both.index].mean()), "shuffled": float(both.mean())}


_DETAILS: dict[str, Callable[[Readings, int | None], dict]] = {
    "C0": _angle,
    "C1": _pull,
    "C2": _push,
    "C3a": _map,
    "C3b": _routes,
    "C3c": _use,
    "C4": lambda readings, _: head_details(readings),
    "C5": lambda readings, _: head_count_details(readings),
}
