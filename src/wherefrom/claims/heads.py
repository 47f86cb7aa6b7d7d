"""Beside the verdict on heads: whether gradients come apart before attention does, and how many heads have a role."""

from __future__ import annotations

import pandas as pd

from wherefrom.claims.links import beside_control
from wherefrom.claims.primary import CONTROL, layer_growth
from wherefrom.claims.readings import Readings, at_end, at_start
from wherefrom.claims.summary import summary
from wherefrom.content import CONTENTS
from wherefrom.heads import onsets_by_seed
from wherefrom.roles import OF_POSITION, ROLE_MEASURES, roles_of, unspecialised

ATTENTION, GRADIENTS = "head_divergence_attn", "head_divergence_pressure"


def head_details(readings: Readings) -> dict:
    """Growth of the other divergences between heads, their timing, and the shares of heads that have a role."""

    def growth(measure: str, content: str = "natural") -> dict | None:
        return beside_control(readings, lambda own, arm: layer_growth(own, arm, measure, content=content).mean(axis=1))

    rows = {"row_divergence": {content: growth("row_divergence", content) for content in CONTENTS}}
    offsets = {name: growth(name) for name in (ATTENTION, GRADIENTS)}
    return rows | offsets | timing(readings) | {"heads_with_a_role": shares_with_roles(readings)}


def timing(readings: Readings) -> dict:
    """Onset of both divergences (mean over layers) in each natural run, and the step by which gradients lead, paired.

    `gradients_before_attention`: onset of attention − onset of gradients, over seeds in which a change of both is sure.
    """
    rows = {measure: readings.rows(measure, split="probe") for measure in (ATTENTION, GRADIENTS)}
    onsets = {measure: onsets_by_seed(own) if len(own) else {} for measure, own in rows.items()}
    steps = {
        name: pd.Series({seed: one.step for seed, one in own.items()}, dtype=float) for name, own in onsets.items()
    }
    lead = (steps[ATTENTION] - steps[GRADIENTS]).dropna()
    shown = {name: {seed: [one.step, one.low, one.high] for seed, one in own.items()} for name, own in onsets.items()}
    return {"onset": shown, "gradients_before_attention": summary(lead)}


def shares_with_roles(readings: Readings) -> dict | None:
    """Share of heads with each role, with `any` but global, and with any of `position`, by seed: at the start and the
    end, beside the control.

    Roles of position are those on content-shuffled images where these were recorded. Heads have no identity across
    seeds: a share is formed in each seed. None where roles were not recorded.
    """
    names = {arm: _shares(readings, arm) for arm in ("natural", CONTROL)}
    natural, control = names["natural"], names[CONTROL]
    if not natural:
        return None
    return {
        role: {when: summary(own, control.get(role, {}).get(when)) for when, own in both.items()}
        for role, both in natural.items()
    }


def _shares(readings: Readings, arm: str) -> dict[str, dict[str, pd.Series]]:
    """By role and moment, by seed."""
    rows = _role_rows(readings, arm, "natural")
    if rows is None:
        return {}
    shuffled = _role_rows(readings, arm, "shuffled")
    found: dict[str, dict[str, pd.Series]] = {}
    for when, part in (("start", at_start), ("end", at_end)):
        roles = roles_of(part(rows))
        special = ~unspecialised(roles).set_index("seed")["unspecialised"]
        found.setdefault("any", {})[when] = special.groupby(level="seed").mean().astype(float)
        of_position = roles if shuffled is None else roles_of(part(shuffled), "shuffled")
        found.setdefault("position", {})[when] = _with_any(of_position, OF_POSITION)
        for role, heads in roles.groupby("role"):
            found.setdefault(str(role), {})[when] = heads.groupby("seed")["has"].mean()
    return found


def _role_rows(readings: Readings, arm: str, content: str) -> pd.DataFrame | None:
    parts = [readings.rows(name, arm, split="probe", content=content) for name in ROLE_MEASURES]
    parts = [rows for rows in parts if len(rows)]
    return pd.concat(parts) if parts else None


def _with_any(roles: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    """Share of the heads of each seed that have one of these roles."""
    heads = roles[roles["role"].isin(names)].groupby(["seed", "run", "layer", "head"])["has"].any()
    return heads.groupby(level="seed").mean().astype(float)
