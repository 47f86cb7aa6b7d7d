"""Which heads have which role, from the scores and thresholds that a run recorded."""

from __future__ import annotations

import pandas as pd

ROLES = ("local", "self", "horizontal", "vertical", "offset", "contour", "texture", "prefix")
"""Roles that count as a specialisation; to look everywhere, `global`, is none."""

ROLE_MEASURES = tuple(f"role_{role}_{part}" for role in ROLES for part in ("low", "threshold"))
"""Lower end of the interval of a role's score, and what it must exceed."""


def roles_held(table: pd.DataFrame) -> pd.DataFrame:
    """`has` = the score's lower end exceeds the threshold: one row a head and role, before the other columns.

    Args:
        table: measurements with columns `run, step, layer, head, measure, value`; rows of other measures are left out.

    Returns:
        The columns of `table` up to `measure`, `role` and `has`; empty where no roles were recorded.
    """
    parts = table["measure"].astype(str).str.extract(r"^role_([a-z]+)_(low|threshold)$")
    rows = table.assign(role=parts[0], part=parts[1])[parts[0].isin(ROLES)]
    low, threshold = (rows[rows["part"] == part] for part in ("low", "threshold"))
    keys = ["run", "step", "layer", "head", "role"]
    both = low.merge(threshold[[*keys, "value"]], on=keys, suffixes=("", "_of_null"))
    return both.assign(has=both["value"] > both["value_of_null"]).drop(
        columns=["value", "value_of_null", "measure", "part"]
    )


def roles_per_head(table: pd.DataFrame) -> pd.DataFrame:
    """How many roles each head has: rows like those of `table`, whose `value` is that number."""
    held, keys = roles_held(table), ["run", "step", "layer", "head"]
    counts = held.groupby(keys)["has"].sum().astype(float).rename("value")
    return held.drop(columns=["role", "has"]).drop_duplicates(keys).join(counts, on=keys)


def different_roles(table: pd.DataFrame) -> pd.DataFrame:
    """How many different roles the heads of each run have: rows like those of `table`, one a run and step."""
    held = roles_held(table)
    counts = held[held["has"]].groupby(["run", "step"])["role"].nunique().rename("value")
    runs = held.drop(columns=["role", "has", "layer", "head"]).drop_duplicates(["run", "step"])
    return runs.join(counts, on=["run", "step"]).fillna({"value": 0.0})
