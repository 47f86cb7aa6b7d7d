"""Beside C1 and C2: attention and q–k alignment by relation, on natural and on content-shuffled images."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from wherefrom.claims.primary import CONTROL, NotJudgeable, attention_growth, layer_growth, slopes
from wherefrom.claims.readings import Readings, at_end, at_start, by_seed, by_seed_and, layer_means
from wherefrom.claims.summary import summary
from wherefrom.content import CONTENTS

RELATIONS = ("edge", "between", "far")


def link_details(readings: Readings, relation: str, num_tokens: int | None) -> dict:
    """Growth of attention and of q–k alignment, natural images beside content-shuffled ones.

    Args:
        readings: of the study.
        relation: `edge` for C1, `far` for C2.
        num_tokens: tokens of the model, to state attention against uniform; None leaves that out.
    """
    if not readings.records("attn"):
        return {}
    return {
        "attention": {content: _attention(readings, relation, content, num_tokens) for content in CONTENTS},
        "log_attention_growth": _by_content(readings, _log_growth),
        "near_above_far": _contrast(readings, "edge", "far"),
        "near_above_between": _contrast(readings, "edge", "between"),
        "heads_toward": _heads_toward(readings, relation),
        "qk_alignment": _by_content(readings, _alignment) if readings.records("qk_alignment") else None,
        "qk_alignment_slope": beside_control(readings, alignment_slope),
    }


def beside_control(readings: Readings, statistic: Callable[[Readings, str], pd.Series]) -> dict | None:
    """`statistic` of the natural arm and its contrast to the control; None where it was not recorded."""
    found = []
    for arm in ("natural", CONTROL):
        try:
            found.append(statistic(readings, arm))
        except NotJudgeable:
            if arm == "natural":
                return None
            found.append(pd.Series(dtype=float))
    return summary(*found) if len(found[0].dropna()) else None


def _by_content(readings: Readings, statistic: Callable[[Readings, str, str, str], pd.Series]) -> dict:
    return {
        content: {
            relation: beside_control(
                readings, lambda own, arm, relation=relation, content=content: statistic(own, arm, relation, content)
            )
            for relation in RELATIONS
        }
        for content in CONTENTS
    }


def _log_growth(readings: Readings, arm: str, relation: str, content: str) -> pd.Series:
    heads = attention_growth(readings, arm, relation, content)
    return readings.once(("mean", arm, relation, content), lambda: layer_means(heads).mean(axis=1))


def _alignment(readings: Readings, arm: str, relation: str, content: str) -> pd.Series:
    """Growth of q–k cosine from initialisation to the end."""
    return layer_growth(readings, arm, "qk_alignment", relation=relation, content=content).mean(axis=1)


def _contrast(readings: Readings, nearer: str, farther: str) -> dict:
    """Growth of log attention on one relation above that on another."""

    def above(own: Readings, arm: str, content: str) -> pd.Series:
        return _log_growth(own, arm, nearer, content) - _log_growth(own, arm, farther, content)

    return {
        content: beside_control(readings, lambda own, arm, content=content: above(own, arm, content))
        for content in CONTENTS
    }


def _attention(readings: Readings, relation: str, content: str, num_tokens: int | None) -> dict | None:
    """Mean attention on a relation at start and end; times the number of tokens: 1 is uniform attention."""
    rows = readings.rows("attn", split="probe", relation=relation, content=content)
    if rows.empty:
        return None
    share = {"start": float(by_seed(at_start(rows)).mean()), "end": float(by_seed(at_end(rows)).mean())}
    uniform = {name: value * num_tokens for name, value in share.items()} if num_tokens else None
    return {"share": share, "against_uniform": uniform}


def _heads_toward(readings: Readings, relation: str) -> dict | None:
    """Share of heads whose own growth is in the claim's direction, over all and by layer, mean over seeds.

    Heads have no identity across seeds: a share is formed in each seed, never a head followed through seeds.
    """
    try:
        heads = attention_growth(readings, "natural", relation)
    except NotJudgeable:
        return None
    toward = ((heads > 0) if relation == "edge" else (heads < 0)).astype(float).where(heads.notna())
    return {"all": summary(toward.mean(axis=1)), "layers": layer_means(toward).mean().to_dict()}


def alignment_slope(readings: Readings, arm: str) -> pd.Series:
    """Least-squares slope of q–k cosine over distance (self left out): end − initialisation, by seed."""
    rows = readings.rows("qk_alignment", arm, split="probe")
    rows = rows[rows["distance"] > 0]
    tables = [by_seed_and(part(rows), "distance").dropna(axis=1, how="all") for part in (at_end, at_start)]
    if min(table.shape[1] for table in tables) < 2:
        raise NotJudgeable("a slope needs two distances")
    end, start = (slopes(table, table.columns.to_numpy(dtype=float)) for table in tables)
    return end - start
