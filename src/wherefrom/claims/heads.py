"""Beside the verdict on heads: whether gradients come apart before attention does, and how many heads have a role."""

from __future__ import annotations

import pandas as pd

from wherefrom.claims.primary import CONTROL
from wherefrom.claims.readings import Readings, at_end, at_start
from wherefrom.claims.summary import summary
from wherefrom.heads import onsets_by_seed
from wherefrom.roles import ROLE_MEASURES, roles_of, unspecialised

ATTENTION, GRADIENTS = "head_divergence_attn", "head_divergence_pressure"


def timing(readings: Readings) -> dict:
    """Onset of both divergences (mean over layers) in each natural run, and the step by which gradients lead, paired.

    `gradients_before_attention`: onset of attention − onset of gradients, over seeds in which a change of both is sure.
    """
    rows = {measure: readings.rows(measure, split="probe") for measure in (ATTENTION, GRADIENTS)}
    onsets = {measure: onsets_by_seed(own) for measure, own in rows.items()}
    steps = {
        name: pd.Series({seed: one.step for seed, one in own.items()}, dtype=float) for name, own in onsets.items()
    }
    lead = (steps[ATTENTION] - steps[GRADIENTS]).dropna()
    shown = {name: {seed: [one.step, one.low, one.high] for seed, one in own.items()} for name, own in onsets.items()}
    return {"onset": shown, "gradients_before_attention": summary(lead)}


def shares_with_roles(readings: Readings) -> dict | None:
    """Share of heads with each role, and with any but `global`, by seed: at the start and the end, beside the control.

    Heads have no identity across seeds: a share is formed in each seed. None where roles were not recorded.
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
    parts = [readings.rows(name, arm, split="probe") for name in ROLE_MEASURES]
    rows = pd.concat(parts)
    if rows.empty:
        return {}
    found: dict[str, dict[str, pd.Series]] = {}
    for when, own in (("start", at_start(rows)), ("end", at_end(rows))):
        roles = roles_of(own)
        special = ~unspecialised(roles).set_index("seed")["unspecialised"]
        found.setdefault("any", {})[when] = special.groupby(level="seed").mean().astype(float)
        for role, heads in roles.groupby("role"):
            found.setdefault(str(role), {})[when] = heads.groupby("seed")["has"].mean()
    return found
