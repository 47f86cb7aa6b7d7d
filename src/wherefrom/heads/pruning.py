"""Which heads of a run do what, which could go, and which are copies: the table a person needs to prune."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wherefrom.roles import ROLE_MEASURES, distinct, roles_of
from wherefrom.statistics import first_of_largest
from wherefrom.store import RunDirectory

SMALL = 0.01
"""Loss change in nats below which a head is called idle: without it the right class is 1 % less likely."""

NEEDS = ("needed", "not sure", "idle")

COPY = 0.9
"""Likeness of contributions from which on two heads are called copies."""

COLUMNS = (
    "layer", "head", "roles", "top_role", "score", "loss_change", "low", "high", "need",
    "closest", "contribution_similarity", "attn_similarity", "copy",
)  # fmt: skip
_LOSS = {"": "loss_change", "_low": "low", "_high": "high"}


def head_table(run: RunDirectory) -> pd.DataFrame:
    """A row a head at the last step: what it does, what is lost without it, and the head most like it.

    Heads are taken out one at a time: of two copies each may be idle, and one is needed.

    Args:
        run: a finished run, as `open_run` gives it.

    Returns:
        layer, head; roles (names, or `unspecialised`; None where roles were not recorded); top_role and score (of the
        role most above its threshold); loss_change (`ablation_loss_change`: the head's output replaced by its mean over
        images), low, high (95 % interval over images) in nats; need: what `need` says of that interval; closest (head
        of the same layer whose contribution is most like this one's, the first of equals), contribution_similarity
        (linear CKA, 0 … 1) and attn_similarity (correlation of offset maps) with it; copy: contribution_similarity ≥
        `COPY`. What was not recorded is NaN or None.

    Raises:
        ValueError: if no head was ablated: the run has not finished, or was recorded without.
    """
    losses = run.measurements([f"ablation_loss_change{ending}" for ending in _LOSS])
    if losses.empty:
        raise ValueError(
            f"{run.path} holds no ablation of heads, which is made at the last step; let the run finish or repeat it"
        )
    losses = losses.assign(name=losses["measure"].str.removeprefix("ablation_loss_change").map(_LOSS))
    table = losses.pivot(index=["layer", "head"], columns="name", values="value").reset_index()
    table["need"] = need(table["low"], table["high"])
    step = int(losses["step"].iloc[0])
    table = table.merge(_closest(run, step, table), on=["layer", "head"], how="left")
    table["copy"] = table["contribution_similarity"] >= COPY
    table = table.merge(_roles(run, step), on=["layer", "head"], how="left")
    roles = pd.Series([name if isinstance(name, str) else None for name in table["roles"]], dtype=object)
    return table.assign(roles=roles).reindex(columns=COLUMNS).rename_axis(columns=None)


def need(low: pd.Series, high: pd.Series) -> pd.Series:
    """`idle` where the 95 % interval of the loss change ends at or below `SMALL`; else `not sure` where it includes 0,
    so that these images cannot tell; else `needed`."""
    words = np.select([high <= SMALL, low <= 0, low > 0], ["idle", "not sure", "needed"], "unknown")
    return pd.Series(words, low.index)


def _closest(run: RunDirectory, step: int, heads: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for layer in heads["layer"].unique():
        written, looks = (run.array(f"{what}_similarity", step, int(layer)) for what in ("contribution", "attn"))
        others = np.where(np.eye(len(written), dtype=bool) | np.isnan(written), -np.inf, written)
        for head, likeness in enumerate(others):
            closest = first_of_largest(likeness)
            known = np.isfinite(likeness[closest])
            found = (closest, written[head, closest], looks[head, closest]) if known else (pd.NA, np.nan, np.nan)
            rows.append((layer, head, *found))
    names = ["layer", "head", "closest", "contribution_similarity", "attn_similarity"]
    return pd.DataFrame(rows, columns=names).astype({"layer": "Int64", "head": "Int64", "closest": "Int64"})


def _roles(run: RunDirectory, step: int) -> pd.DataFrame:
    """Names of all roles of each head, and the one that is most above its threshold."""
    roles = distinct(roles_of(run.measurements(ROLE_MEASURES, step)))
    rows = []
    for (layer, head), own in roles.groupby(["layer", "head"]):
        names = ", ".join(own.loc[own["has"], "role"]) or "unspecialised"
        beyond = (own["score"] - own["threshold"]).where(own["has"])
        top = own.iloc[first_of_largest(beyond)] if beyond.notna().any() else {"role": None, "score": np.nan}
        rows.append((layer, head, names, top["role"], top["score"]))
    table = pd.DataFrame(rows, columns=["layer", "head", "roles", "top_role", "score"])
    return table.astype({"layer": "Int64", "head": "Int64", "score": float})
