"""Do the same kinds of heads come back with another seed? Heads have no identity across seeds, so they are matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment

from wherefrom.heads.maps import final_maps, jensen_shannon, layers_of, runs_of_arm
from wherefrom.statistics import TIED
from wherefrom.store import StudyDirectory

REGROUPINGS = 499
ARMS = ("natural", "scrambled")


@dataclass(frozen=True, slots=True)
class Matching:
    """How alike the heads of one layer are across seeds; mean over pairs of seeds, nats."""

    matched: float
    """Jensen–Shannon divergence of the offset maps of heads that are assigned to each other."""
    chance: float
    """The same for a random assignment."""
    regrouped: float
    """Matched heads where the heads of all seeds were first dealt out anew."""
    p: float
    """Share of such deals, the real one included, whose heads match as well: small where seeds have the same kinds."""
    n: int
    """Seeds."""


def seed_matching(maps: Sequence[np.ndarray], regroupings: int = REGROUPINGS) -> Matching:
    """mean over pairs of seeds of  min over assignments π of (1/H) Σ_h JS(R_h, R'_π(h)).

    Any two sets of heads match better than by chance, the better the more heads: matched against chance alone says
    nothing. So the heads of all seeds are pooled and dealt out anew: if each seed has one head of each kind, real seeds
    match better than such mixed ones; if each head is what it is whatever its neighbours are, they match as well.

    Args:
        maps: of each seed, `head offset`, each map adding up to 1.
        regroupings: how often heads are dealt out; 0 leaves that out.

    Returns:
        The layer's matching; NaN below two seeds, p NaN with one head a layer (which cannot be dealt out otherwise).

    References:
        Kuhn 1955, The Hungarian method for the assignment problem.
    """
    seeds, heads = len(maps), len(maps[0]) if len(maps) else 0
    if seeds < 2:
        return Matching(np.nan, np.nan, np.nan, np.nan, seeds)
    pool = np.concatenate(maps)
    unlike = jensen_shannon(pool[:, None], pool[None])
    groups = np.arange(seeds * heads).reshape(seeds, heads)
    matched, chance = _matched(unlike, groups), _mean(unlike, groups)
    if heads < 2 or not regroupings:
        return Matching(matched, chance, np.nan, np.nan, seeds)
    random = np.random.default_rng(0)
    dealt = [_matched(unlike, random.permutation(groups.ravel()).reshape(groups.shape)) for _ in range(regroupings)]
    p = (1 + sum(one <= matched * (1 + TIED) for one in dealt)) / (1 + regroupings)
    return Matching(matched, chance, float(np.mean(dealt)), p, seeds)


def study_matching(study: StudyDirectory) -> dict[str, dict[int, dict[str, Matching]]]:
    """`seed_matching` by arm, layer and moment (`start`, `end`); what was not recorded is not there."""
    finished = study.finished_runs()
    found: dict[str, dict[int, dict[str, Matching]]] = {}
    for arm in ARMS:
        runs = list(runs_of_arm(finished, arm, study.num_heads).values())
        for layer in layers_of(runs[0]) if len(runs) > 1 else ():
            end, start = final_maps(runs, layer), final_maps(runs, layer, first=True)
            found.setdefault(arm, {})[layer] = {"start": seed_matching(start, 0), "end": seed_matching(end)}
    return found


def matching_as_dict(found: dict[str, dict[int, dict[str, Matching]]]) -> dict:
    """`study_matching` as plain data, by arm and layer."""
    return {
        arm: {f"layer {layer}": {when: asdict(one) for when, one in both.items()} for layer, both in layers.items()}
        for arm, layers in found.items()
    }


def _pairs(unlike: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """`pair head head'`: the heads of each two groups against each other."""
    first, second = (groups[list(side)] for side in zip(*combinations(range(len(groups)), 2), strict=True))
    return unlike[first[:, :, None], second[:, None, :]]


def _matched(unlike: np.ndarray, groups: np.ndarray) -> float:
    pairs = _pairs(unlike, groups)
    columns = np.array([linear_sum_assignment(own)[1] for own in pairs])
    return float(np.take_along_axis(pairs, columns[:, :, None], axis=2).mean())


def _mean(unlike: np.ndarray, groups: np.ndarray) -> float:
    """Expected value over all assignments: each is as likely to join any two heads."""
    return float(_pairs(unlike, groups).mean())
