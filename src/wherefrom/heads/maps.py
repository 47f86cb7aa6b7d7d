"""Offset maps of attention as the record holds them, and how unlike two of them are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import entr

from wherefrom.config import RunKey
from wherefrom.store import RunDirectory

MAP = "attn_offset_map"


def jensen_shannon(p: np.ndarray, r: np.ndarray) -> np.ndarray:
    """H((p + r)/2) − (H(p) + H(r))/2 along the last axis, H the entropy; nats, in [0, ln 2]."""
    return entr((p + r) / 2).sum(-1) - (entr(p).sum(-1) + entr(r).sum(-1)) / 2


def as_shares(maps: np.ndarray) -> np.ndarray:
    """`… dy dx` to `… offset`, each map adding up to 1."""
    flat = np.asarray(maps, dtype=float).reshape(*maps.shape[:-2], -1)
    return flat / flat.sum(-1, keepdims=True)


def layers_of(run: RunDirectory) -> list[int]:
    """Layers whose offset maps are recorded."""
    return sorted({layer for name, _, layer in run.array_keys() if name == MAP and layer is not None})


def own_change(run: RunDirectory, layer: int) -> tuple[list[int], np.ndarray]:
    """JS(R_h at the step, R_h at the first step) of each head: recorded steps, and `head step` in nats.

    At the first step, where that is 0 by definition, stands the median of JS(R_h at one record, R_h at the next): what
    it is for a head that only jitters. With 0 in its place every head would seem to change at the second record.
    """
    steps = run.array_steps(MAP)
    maps = np.stack([as_shares(run.array(MAP, step, layer)) for step in steps], axis=1)
    change = jensen_shannon(maps, maps[:, :1])
    if len(steps) > 1:
        change[:, 0] = np.median(jensen_shannon(maps[:, 1:], maps[:, :-1]), axis=1)
    return steps, change


def final_maps(runs: Iterable[RunDirectory], layer: int, first: bool = False) -> list[np.ndarray]:
    """Shares of each run's heads at its last (or first) recorded step, `head offset`."""
    steps = ((run, run.array_steps(MAP)) for run in runs)
    return [as_shares(run.array(MAP, own[0 if first else -1], layer)) for run, own in steps if own]


def runs_of_arm(finished: dict[RunKey, RunDirectory], arm: str, num_heads: int) -> dict[int, RunDirectory]:
    """Runs of an arm with its head count and no other setting, by seed."""
    return {
        key.seed: run
        for key, run in finished.items()
        if key.arm == arm and key.num_heads == num_heads and not key.setting
    }
