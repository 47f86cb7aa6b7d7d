"""When each head begins to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pandas as pd

from wherefrom.heads.maps import layers_of, own_change
from wherefrom.onset import Onset, onset
from wherefrom.roles import ROLE_MEASURES, roles_of
from wherefrom.store import RunDirectory

OWN_CHANGE = "own_change"
"""Name of the curve of a head's distance from its own first offset map."""

COLUMNS = ("layer", "head", "curve", "step", "low", "high", "p", "change")


def head_onsets(run: RunDirectory) -> pd.DataFrame:
    """`onset` of each head's distance from its own first offset map, and of its role scores where they are recorded.

    Args:
        run: a recorded run.

    Returns:
        A row a head and curve: layer, head, curve (`own_change` in nats, or the name of a role), step, low, high (NaN
        where no change is sure), p, and change: the last value, less the first.
    """
    rows = [
        {"layer": layer, "head": head, "curve": curve, **asdict(onset(steps, values)), "change": values[-1] - values[0]}
        for layer, head, curve, steps, values in (*_maps(run), *_scores(run))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def onsets_by_seed(rows: pd.DataFrame) -> dict[int, Onset]:
    """`onset` of each seed's curve: its values at a step averaged first, as over layers.

    Args:
        rows: of one measure in one arm, with `seed, step, value`.
    """
    curves = rows.groupby(["seed", "step"])["value"].mean().unstack("step")
    steps, values = curves.columns.to_numpy(dtype=float), curves.to_numpy(dtype=float)
    return {int(seed): onset(steps, own) for seed, own in zip(curves.index.to_numpy(), values, strict=True)}


def _maps(run: RunDirectory) -> Iterator[tuple]:
    for layer in layers_of(run):
        steps, curves = own_change(run, layer)
        for head, values in enumerate(curves):
            yield layer, head, OWN_CHANGE, steps, values


def _scores(run: RunDirectory) -> Iterator[tuple]:
    scores = roles_of(run.measurements(ROLE_MEASURES)).dropna(subset="score").sort_values("step")
    for (layer, head, role), own in scores.groupby(["layer", "head", "role"]):
        yield int(layer), int(head), role, own["step"].to_numpy(), own["score"].to_numpy()
