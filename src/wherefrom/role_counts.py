"""How many roles heads have, counted from what a run recorded. To look everywhere, `global`, counts as none."""

from __future__ import annotations

import pandas as pd

from wherefrom.roles import ROLE_MEASURES, distinct, roles_of

DECIDING = tuple(name for name, (_, part) in ROLE_MEASURES.items() if part in ("low", "threshold"))
"""What decides whether a head has a role."""


def roles_per_head(table: pd.DataFrame) -> pd.DataFrame:
    """`value` = the number of roles of each head, beside the columns `run, seed, num_heads, step, …` that are there.

    Args:
        table: measurements; rows of other measures are left out.
    """
    special = _special(table)
    keys = ["run", "step", "layer", "head"]
    counts = special.groupby(keys)["has"].sum().astype(float).rename("value")
    return special.drop(columns=["role", "has"]).drop_duplicates(keys).join(counts, on=keys)


def different_roles(table: pd.DataFrame) -> pd.DataFrame:
    """`value` = the number of different roles that the heads of a run have between them, likewise, one row a step."""
    special = _special(table)
    counts = special[special["has"]].groupby(["run", "step"])["role"].nunique().rename("value")
    steps = special.drop(columns=["role", "has", "layer", "head"]).drop_duplicates(["run", "step"])
    return steps.join(counts, on=["run", "step"]).fillna({"value": 0.0})


def _special(table: pd.DataFrame) -> pd.DataFrame:
    found = distinct(roles_of(table[table["measure"].isin(DECIDING)]))
    return found[found["role"] != "global"].drop(columns=["score", "low", "high", "threshold"])
