"""The roles a head of attention can have, and the one place that says which head has which. No torch.

A head has a role where the score is above both what chance gives (the recorded threshold, from a null) and the least
effect worth a name: its whole 95 % interval over images must lie above the larger of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherefrom.content import of_content

if TYPE_CHECKING:
    import pandas as pd

ROLES = (
    "local", "near", "self", "horizontal", "vertical", "offset", "direction", "global", "place", "sink",
    "contour", "texture", "similar", "prefix",
)  # fmt: skip

OF_POSITION = ("local", "near", "horizontal", "vertical", "offset", "direction", "place")
"""Roles that say where a head looks, whatever is there."""

SENTENCES = {
    "local": "Attention on the 8 neighbours beyond what an even spread over other patches would put there.",
    "near": "The same for the patches within an eighth of the shorter side, at least one patch, on all sides.",
    "self": "Attention of a patch on itself beyond that of even attention.",
    "horizontal": "Attention on the patch's own row beyond an even spread, and beyond that on its column.",
    "vertical": "Attention on the patch's own column beyond an even spread, and beyond that on its row.",
    "offset": "By how much the favourite displaced place (dy, dx) is ahead of the next one.",
    "direction": "Mean displacement of attention up, down, left or right, whichever is largest, per mean distance.",
    "global": "Attention spread over many tokens at the distances of even attention: 1 if it is even.",
    "place": "Attention on the favourite sixteenth of positions, the same for all queries and images, beyond uniform.",
    "sink": "Attention on each image's favourite sixteenth of tokens, the same for all its queries, beyond uniform.",
    "contour": "Correlation of attention with the edge strength of the patch looked at, given the offset.",
    "texture": "Correlation of attention with the similarity of two patches' fine detail, given the offset.",
    "similar": "Correlation of attention with the cosine of two patches' keys, or of their values, given the offset.",
    "prefix": "Attention of patches on class and register tokens beyond that of even attention.",
}

MINIMUM = {
    "local": 0.1, "near": 0.1, "self": 0.1, "horizontal": 0.1, "vertical": 0.1, "offset": 0.1, "direction": 0.25,
    "global": 0.5, "place": 0.1, "sink": 0.2, "contour": 0.2, "texture": 0.2, "similar": 0.2, "prefix": 0.1,
}  # fmt: skip
"""The least score worth a name, fixed beforehand: a tenth of all attention beyond what an even spread would put there,
for `sink` a fifth; a displacement of a quarter of the distance; a correlation of a fifth; for `global`, attention as
even as over half of all tokens, at distances within a tenth."""

ROLE_MEASURES = {
    f"role_{role}" + f"_{part}" * (part != "score"): (role, part)
    for role in ROLES
    for part in ("score", "low", "high", "threshold")
}
"""What is recorded of roles: the role and its part by the name of the measure."""

KEYS = ["run", "arm", "num_heads", "seed", "step", "layer", "head"]


def roles_of(table: pd.DataFrame, content: str = "natural") -> pd.DataFrame:
    """Which head has which role: its 95 % interval lies above max(threshold of the null, least effect worth a name).

    Args:
        table: the tidy table of a study, or of one run.
        content: of the probe images, `natural` or `shuffled`.

    Returns:
        One row a head, step and role: the columns in `KEYS` (and `setting`) that `table` has, then role, score, low,
        high, threshold, has. A score that could not be had is NaN, and its head does not have the role.
    """
    keys = [key for key in (*KEYS, "setting") if key in table.columns]
    rows = of_content(table[table["measure"].isin(ROLE_MEASURES) & (table["split"] == "probe")], content)
    role, part = ([ROLE_MEASURES[name][place] for name in rows["measure"]] for place in (0, 1))
    parts = rows[[*keys, "value"]].assign(role=role, part=part)
    wide = parts.pivot(index=[*keys, "role"], columns="part", values="value").reset_index().rename_axis(columns=None)
    wide = wide.reindex(columns=[*keys, "role", "score", "low", "high", "threshold"])
    wide["threshold"] = wide["threshold"].clip(lower=wide["role"].map(MINIMUM).astype(float))
    return wide.assign(has=wide["low"] > wide["threshold"])


def distinct(roles: pd.DataFrame) -> pd.DataFrame:
    """`roles` where a head that is `local` is not `near` as well: on small grids the two are one, and count once."""
    keys = [key for key in (*KEYS, "setting") if key in roles.columns]
    is_local = roles["has"] & (roles["role"] == "local")
    again = (roles["role"] == "near") & is_local.groupby([roles[key] for key in keys], dropna=False).transform("any")
    return roles.assign(has=roles["has"] & ~again)


def unspecialised(roles: pd.DataFrame) -> pd.DataFrame:
    """Which heads have no role but perhaps `global`: the columns of `KEYS` that are there, and `unspecialised`."""
    keys = [key for key in (*KEYS, "setting") if key in roles.columns]
    special = roles["has"] & (roles["role"] != "global")
    return (~special.groupby([roles[key] for key in keys]).any()).rename("unspecialised").reset_index()
