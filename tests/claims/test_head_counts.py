"""C5: what is said of the curve of accuracy over head counts, and the slopes beside it."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wherefrom.claims import judge
from wherefrom.claims.head_counts import _curvature, _steps, fall_or_bend
from wherefrom.statistics import binomial_interval

from .conftest import LAST, block

COUNTS = (1, 2, 4, 8)


def c5(table, num_heads=4):
    return next(verdict for verdict in judge(table, num_heads=num_heads) if verdict.claim == "C5")


def noisy(curve, sd, seeds=4, seed=0):
    return np.array(curve) + sd * np.random.default_rng(seed).normal(size=(seeds, len(curve)))


def test_a_curve_that_falls_is_said_to_fall_and_where(planted_study):
    verdict = c5(planted_study(accuracy=noisy([0.6, 0.7, 0.8, 0.7], 0.004)))
    assert "up to a point: best at 4 heads, better than 8 (p" in verdict.sentence
    assert re.search(r"accuracy falls from 4 to 8 heads \(−(9|10)\.\d\d? percentage points, p ", verdict.sentence)


def test_a_curve_that_bends_is_said_to_bend_with_its_gains(planted_study):
    accuracy = noisy([0.50, 0.65, 0.72, 0.75], 0.004)
    verdict = c5(planted_study(accuracy=accuracy))
    assert "best at 8 heads, the most tried; each doubling brings less (percentage points: +" in verdict.sentence
    assert re.search(r": \+1[45]\.\d\d from 1 to 2 heads, \+\d\.\d\d from 4 to 8 heads; p ", verdict.sentence)
    assert "up to a point" not in verdict.sentence
    bends = accuracy @ [0.5, -0.5, -0.5, 0.5]  # for four even steps the least-squares parabola in closed form
    assert verdict.details["curvature"]["statistic"] == pytest.approx(bends.mean())
    assert verdict.details["curvature"]["p"] == pytest.approx(stats.ttest_1samp(bends, 0).pvalue)
    steps = verdict.details["steps"]
    assert [(step["from"], step["to"]) for step in steps] == [(1, 2), (2, 4), (4, 8)]
    assert [step["statistic"] for step in steps] == pytest.approx(np.diff(accuracy).mean(0))
    p = [stats.ttest_rel(accuracy[:, n + 1], accuracy[:, n]).pvalue for n in range(3)]
    assert steps[int(np.argmin(p))]["p_adjusted"] == pytest.approx(3 * min(p))  # Holm


def test_noise_is_rarely_said_to_fall_or_bend():
    def said(seed):
        accuracy = pd.DataFrame(noisy([0.5] * 5, 0.05, seeds=5, seed=seed), columns=[1, 2, 4, 8, 16])
        return fall_or_bend({"steps": _steps(accuracy), "curvature": _curvature(accuracy)}) is not None

    low, _ = binomial_interval(sum(map(said, range(300))), 300)
    assert low <= 0.05


def test_two_head_counts_have_a_step_and_no_bend(planted_study):
    verdict = c5(planted_study(accuracy=noisy([0.5, 0.7], 0.01), counts=(2, 4)))
    assert verdict.details["curvature"] is None
    assert len(verdict.details["steps"]) == 1


def outcome_blocks(sharpness, losses, roles):
    """Rows of runs at each head count; `roles[seed][count]` names those of head 0, whose other heads have none."""
    blocks = []
    for place, count in enumerate(COUNTS):
        for seed in range(len(sharpness)):
            where = ("natural", count, [seed])
            probe = {"split": "probe", "layer": [0], "head": list(range(count))}
            blocks.append(block("offset_sharpness", sharpness[seed][place], [LAST], *where, **probe))
            blocks.append(block("loss", losses[seed][place], [LAST], *where, split="test"))
            for role in ("local", "vertical", "global"):
                low = np.full((1, 1, 1, count), 0.1)
                low[..., 0] = 0.3 if role in roles[seed][place] else 0.1
                blocks.append(block(f"role_{role}_low", low, [LAST], *where, **probe))
                blocks.append(block(f"role_{role}_threshold", 0.2, [LAST], *where, **probe))
    return blocks


def test_slopes_of_the_other_outcomes(planted_study):
    rng = np.random.default_rng(3)
    sharpness, losses = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    roles = [[(), ("local",), ("local", "global"), ("local", "vertical")]] * 2
    roles += [[("global",), ("local",), ("local", "vertical"), ("local", "vertical")]]
    more = outcome_blocks(sharpness, losses, roles)
    details = c5(planted_study(accuracy=noisy([0.5, 0.6, 0.7, 0.8], 0.01, seeds=3), more=more)).details

    def slope(values):
        return np.mean([np.polyfit(range(4), row, 1)[0] for row in np.array(values, dtype=float)])

    assert details["sharpness_slope"]["statistic"] == pytest.approx(slope(sharpness))
    assert details["loss_slope"]["statistic"] == pytest.approx(slope(losses))
    different = [[0, 1, 1, 2]] * 2 + [[0, 1, 2, 2]]  # to look everywhere is no specialisation
    assert details["different_roles_slope"]["statistic"] == pytest.approx(slope(different))
    per_head = np.array(different) / COUNTS
    assert details["roles_per_head_slope"]["statistic"] == pytest.approx(slope(per_head))
    assert details["roles_per_head"][4]["statistic"] == pytest.approx(per_head[:, 2].mean())
    assert details["divergence_slope"]["n"] == 3
    assert set(details["divergence"]) == {2, 4, 8}  # a single head differs from none


def test_a_study_recorded_before_there_were_roles_and_sharpness(planted_study):
    details = c5(planted_study(accuracy=noisy([0.5, 0.6, 0.7, 0.8], 0.01))).details
    assert details["roles_per_head"] is details["sharpness_slope"] is details["loss"] is None


def test_runs_with_a_setting_of_their_own_judge_nothing(planted_study, drawn):
    rng = np.random.default_rng(0)
    table = planted_study(drawn(rng, 3.0), drawn(rng, 0.0), noisy([0.5, 0.6, 0.7, 0.8], 0.01))
    other = table[(table["arm"] == "natural") & (table["num_heads"] == 4)]
    other = other.assign(value=-other["value"], run=other["run"] + "x", setting="patch_size=8")
    both = pd.concat([table.assign(setting=""), other])
    assert judge(both, num_heads=4) == judge(table, num_heads=4)


def test_a_fixed_position_embedding_is_no_map_that_formed(planted_study, drawn):
    table = planted_study(drawn(np.random.default_rng(1), 3.0), drawn(np.random.default_rng(2), 0.0))
    table.loc[table["measure"] == "near_minus_far", "value"] = 0.7
    verdicts = {verdict.claim: verdict for verdict in judge(table, num_heads=4)}
    assert verdicts["C3a"].verdict == verdicts["C3b"].verdict == "not judged"
    assert "position embeddings are fixed, not learned" in verdicts["C3a"].sentence
    assert verdicts["C3a"].details["claims_counted"] == 4  # a table that cannot change is no claim's subject
