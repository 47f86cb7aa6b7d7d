"""What stands beside a verdict: the other numbers of science.md, section 8, as plain data."""

from __future__ import annotations

import pandas as pd

from wherefrom.claims.head_counts import head_count_details
from wherefrom.claims.heads import ATTENTION, GRADIENTS, shares_with_roles, timing
from wherefrom.claims.primary import (
    CONTROL,
    NotJudgeable,
    falloff_growth,
    integrated,
    layer_growth,
    slopes,
)
from wherefrom.claims.readings import Readings, at_end, at_start, by_seed, by_seed_and, layer_means
from wherefrom.claims.routes import cut_effects, route_shares
from wherefrom.claims.summary import summary

ONSET = 0.1
"""Share of the final falloff that marks the onset of the map."""


def details(claim: str, readings: Readings, num_tokens: int | None = None) -> dict:
    """Numbers beside the verdict of one claim. What was not recorded is None."""
    match claim:
        case "C0":
            return _angle(readings)
        case "C1":
            found = _gradient(readings, ("edge", "between"), num_tokens) | _alignment(readings, "edge", "between")
            return found | {"cuts": cut_effects(readings, "edge")}
        case "C2":
            found = _gradient(readings, ("between", "far"), num_tokens) | _alignment(readings, "between", "far")
            slope = {"qk_alignment_slope": _both(readings, alignment_slope)}
            return found | slope | {"cuts": cut_effects(readings, "far")}
        case "C3a":
            return _map(readings)
        case "C3b":
            return route_shares(readings) | {"cuts": cut_effects(readings)}
        case "C4":
            growth = {
                name: _both(readings, lambda table, arm, name=name: layer_growth(table, arm, name).mean(axis=1))
                for name in (GRADIENTS, ATTENTION)
            }
            return growth | timing(readings) | {"heads_with_a_role": shares_with_roles(readings)}
        case "C5":
            return head_count_details(readings)
    return {}


def onset_steps(readings: Readings) -> pd.Series:
    """First step at which the falloff of a natural run reaches 10 % of its final value, by seed; none where that is
    not above 0."""
    rows = readings.rows("similarity_falloff").sort_values("step")
    final = by_seed(at_end(rows)).rename("final")
    rows = rows.join(final[final > 0], on="seed")
    return rows[rows["value"] >= ONSET * rows["final"]].groupby("seed")["step"].first()


def alignment_slope(readings: Readings, arm: str) -> pd.Series:
    """Least-squares slope of q–k cosine over distance (self left out): end − initialisation, by seed."""
    rows = _probe(readings, "qk_alignment", arm)
    rows = rows[rows["distance"] > 0]
    tables = [by_seed_and(part(rows), "distance").dropna(axis=1, how="all") for part in (at_end, at_start)]
    if min(table.shape[1] for table in tables) < 2:
        raise NotJudgeable("a slope needs two distances")
    end, start = (slopes(table, table.columns.to_numpy(dtype=float)) for table in tables)
    return end - start


def _probe(readings: Readings, measure: str, arm: str, **where) -> pd.DataFrame:
    return readings.rows(measure, arm, split="probe", **where)


def _both(readings: Readings, statistic) -> dict | None:
    """`statistic` of the natural arm and its contrast; None where it was not recorded."""
    found = []
    for arm in ("natural", CONTROL):
        try:
            found.append(statistic(readings, arm))
        except NotJudgeable:
            found.append(pd.Series(dtype=float))
    return summary(*found) if len(found[0].dropna()) else None


# ---- C0


def _angle(readings: Readings) -> dict:
    found = {}
    for name in ("angle_share", "argmax_agreement"):
        rows = _probe(readings, name, "natural")
        found[name] = {"start": summary(by_seed(at_start(rows))), "end": summary(by_seed(at_end(rows)))}
    return found


# ---- C1 and C2


def _gradient(readings: Readings, pair: tuple[str, str], num_tokens: int | None) -> dict:
    onset = onset_steps(readings)
    start = pd.Series(0, index=sorted(set(readings.rows("advantage")["seed"])))
    found: dict = {"onset_step": onset.to_dict()}
    for name in ("advantage", "pressure"):
        found[name] = {
            "initialisation": _both(readings, lambda table, arm, name=name: _gap(table, arm, name, pair, start)),
            "onset": _both(readings, lambda table, arm, name=name: _gap(table, arm, name, pair, onset)),
        }
    found["pressure"]["integrated"] = _both(
        readings, lambda table, arm: layer_means(integrated(table, arm, "pressure", *pair)).mean(axis=1)
    )
    relation = pair[0] if pair[0] == "edge" else pair[1]
    return found | _head_shares(readings, pair) | {"attn": {relation: _attention(readings, relation, num_tokens)}}


def _gap(readings: Readings, arm: str, measure: str, pair: tuple[str, str], steps: pd.Series) -> pd.Series:
    """First relation − second relation on the probe at each seed's step, mean over layers and heads."""
    first, second = (_probe(readings, measure, arm, relation=relation) for relation in pair)
    first, second = (rows[rows["step"] == rows["seed"].map(steps)] for rows in (first, second))
    gap = by_seed_and(first, "layer", "head") - by_seed_and(second, "layer", "head")
    return gap.mean(axis=1)


def _head_shares(readings: Readings, pair: tuple[str, str]) -> dict:
    """Share of heads whose own sum over training is in the claim's direction, over all and by layer, mean over seeds.

    Heads have no identity across seeds: a share is formed in each seed, never a head followed through seeds.
    """
    try:
        heads = integrated(readings, "natural", "advantage", *pair)
    except NotJudgeable:
        return {"heads_toward": None}
    toward = (heads > 0).astype(float).where(heads.notna())
    shares = layer_means(toward).mean().to_dict()
    return {"heads_toward": {"all": summary(toward.mean(axis=1)), "layers": shares}}


def _attention(readings: Readings, relation: str, num_tokens: int | None) -> dict:
    """Attention on a pair at start and end (times the number of tokens: 1 is uniform), and its relative growth."""

    def relative_growth(table: Readings, arm: str) -> pd.Series:
        rows = _probe(table, "attn", arm, relation=relation)
        return by_seed(at_end(rows)) / by_seed(at_start(rows)) - 1

    rows = _probe(readings, "attn", "natural", relation=relation)
    ends = {"start": float(by_seed(at_start(rows)).mean()), "end": float(by_seed(at_end(rows)).mean())}
    uniform = {name: share * num_tokens for name, share in ends.items()} if num_tokens else None
    return {"share": ends, "against_uniform": uniform, "relative_growth": _both(readings, relative_growth)}


def _alignment(readings: Readings, nearer: str, farther: str) -> dict:
    """Growth of q–k cosine from initialisation to the end, for both relations."""
    return {
        "qk_alignment": {
            relation: _both(
                readings,
                lambda table, arm, relation=relation: layer_growth(table, arm, "qk_alignment", relation=relation).mean(
                    axis=1
                ),
            )
            for relation in (nearer, farther)
        }
    }


# ---- C3a

_MAP = ("similarity_falloff", "similarity_falloff_spearman", "near_minus_far", "coordinate_r2", "neighbour_recovery")
_RELABELLING = ("similarity_falloff_p", "similarity_falloff_null_low", "similarity_falloff_null_high")


def _map(readings: Readings) -> dict:
    found: dict = {"change": _both(readings, falloff_growth)}
    for name in _MAP:
        found[name] = {
            "start": summary(by_seed(at_start(readings.rows(name)))),
            "end": summary(*(by_seed(at_end(readings.rows(name, arm))) for arm in ("natural", CONTROL))),
        }
    chance = readings.rows("neighbour_recovery_chance")["value"]
    found["neighbour_recovery"]["chance"] = float(chance.mean())
    found["relabelling"] = {arm: _relabelling(readings, arm, "model") for arm in ("natural", CONTROL)}
    found["shuffled"] = {
        grid: {name: _final(readings, name, "shuffled", grid) for name in _MAP}
        | {"relabelling": _relabelling(readings, "shuffled", grid)}
        for grid in ("model", "true")
    }
    return found


def _final(readings: Readings, name: str, arm: str, grid: str) -> float:
    return float(by_seed(at_end(readings.rows(name, arm, grid=grid))).mean())


def _relabelling(readings: Readings, arm: str, grid: str) -> dict:
    """For each seed the final falloff, its Mantel p and the 99 % interval under random relabelling of the patches."""
    names = dict(zip(("p", "low", "high"), _RELABELLING, strict=True))
    table = pd.DataFrame(
        {
            key: by_seed(at_end(readings.rows(name, arm, grid=grid)))
            for key, name in {"falloff": "similarity_falloff", **names}.items()
        }
    )
    return table.to_dict("index")
