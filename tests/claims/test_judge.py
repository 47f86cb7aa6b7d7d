"""Whole studies whose every number is planted: tables in, verdicts and sentences out."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from wherefrom.claims import CLAIMS, Verdict, judge
from wherefrom.claims.gradients import onset_steps
from wherefrom.claims.links import alignment_slope
from wherefrom.claims.primary import integrated
from wherefrom.claims.readings import Readings

from .conftest import CONTENTS

KEYS = ["claim", "verdict", "statistic", "interval", "n", "p", "control", "sentence", "details"]
LAYERED = ("C1", "C2", "C4")
CONTROLLED = ("C1", "C2", "C3a", "C3c", "C4")
DEFINED = {"C0": "by construction", "C3b": "not judged"}
"""Verdicts of every made study that has no ledger."""


def by_claim(verdicts) -> dict[str, Verdict]:
    return {verdict.claim: verdict for verdict in verdicts}


@pytest.fixture(scope="module")
def planted(planted_study, drawn):
    """A study with effects of three deviations, its verdicts and what was planted."""
    rng = np.random.default_rng(0)
    natural, scrambled = drawn(rng, 3.0), drawn(rng, 0.0)
    accuracy = 0.6 + 0.05 * np.arange(4) + 0.004 * rng.normal(size=(3, 4))
    table = planted_study(natural, scrambled, accuracy)
    return natural, scrambled, accuracy, table, by_claim(judge(table, num_heads=4, num_tokens=64))


def test_planted_effects_are_supported(planted):
    verdicts = planted[-1]
    assert list(verdicts) == list(CLAIMS) == ["C0", "C1", "C2", "C3a", "C3b", "C3c", "C4", "C5"]
    expected = dict.fromkeys(CLAIMS, "supported") | DEFINED
    assert {claim: verdict.verdict for claim, verdict in verdicts.items()} == expected


def test_statistics_are_those_planted(planted):
    natural, scrambled, accuracy, _, verdicts = planted
    for claim, values in natural.items():
        verdict = verdicts[claim]
        assert verdict.statistic == pytest.approx(values.mean()), claim
        assert verdict.n == 5
        assert verdict.control["name"] == "scrambled"
        assert verdict.control["statistic"] == pytest.approx(values.mean() - scrambled[claim].mean()), claim
        assert verdict.control["n"] == 5
    slopes = [np.polyfit([0, 1, 2, 3], row, 1)[0] for row in accuracy]
    assert verdicts["C5"].statistic == pytest.approx(np.mean(slopes))
    assert verdicts["C5"].n == 3
    assert verdicts["C5"].control is verdicts["C0"].control is None


def test_what_is_true_by_construction_is_shown_and_not_tested(planted):
    verdict = planted[-1]["C0"]
    assert (verdict.statistic, verdict.p, verdict.details["p"]) == (pytest.approx(0.97), None, None)
    assert verdict.details["argmax_agreement"]["start"]["statistic"] == pytest.approx(0.5)
    assert verdict.sentence.startswith("By construction: a score is |q| |k| cos θ / √d")
    assert "97 % (95 % before training)" in verdict.sentence
    assert "the smallest angle in 60 % (50 % before training) of rows" in verdict.sentence
    assert planted[-1]["C3a"].details["claims_counted"] == 6  # without C0, and C3b has no ledger


def test_verdicts_are_plain_json(planted):
    for verdict in planted[-1].values():
        data = verdict.to_dict()
        assert list(data) == KEYS
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["control"] is None or list(data["control"]) == ["name", "statistic", "interval", "n", "p"]


def test_details_beside_the_verdicts(planted):
    natural, _, _, _, verdicts = planted
    c1, c2, c3, use, c4, c5 = (verdicts[claim].details for claim in ("C1", "C2", "C3a", "C3c", "C4", "C5"))
    # The gap is constant, and the sum over training is learning rate 0.5 · 20 steps of it.
    assert c1["advantage"]["initialisation"]["statistic"] == pytest.approx(natural["C1"].mean() / 10)
    assert c2["advantage"]["onset"]["statistic"] == pytest.approx(natural["C2"].mean() / 10)
    for name in ("advantage", "pressure"):
        assert c2[name]["integrated"]["statistic"] == pytest.approx(natural["C2"].mean())
    assert c1["onset_step"] == dict.fromkeys(range(5), 10)
    assert c1["heads_toward"]["layers"][1] == pytest.approx((natural["C1"][:, 1] > 0).mean())
    assert c2["heads_toward"]["all"]["statistic"] == pytest.approx((natural["C2"] > 0).mean())
    assert c1["attention"]["shuffled"]["against_uniform"]["start"] == pytest.approx(0.02 * 64)
    assert c2["qk_alignment_slope"]["statistic"] == pytest.approx(-0.1)
    assert c3["neighbour_recovery"]["chance"] == pytest.approx(0.1)
    assert c3["similarity_falloff"]["change"]["statistic"] == pytest.approx(natural["C3a"].mean())
    assert c3["relabelling"]["natural"][0]["high"] == pytest.approx(0.05)
    assert use["accuracy"]["natural"] - use["accuracy"]["shuffled"] == pytest.approx(0.4)
    assert use["position_use_test"]["start"]["statistic"] == 0
    assert c4["head_divergence_pressure"]["statistic"] == pytest.approx(natural["C4"].mean())
    assert c4["row_divergence"]["shuffled"]["statistic"] == pytest.approx(natural["C4"].mean() / 2)
    assert c5["best_count"] == 8
    assert c5["divergence_slope"]["statistic"] == pytest.approx(0.1)
    assert [layer["statistic"] for layer in c1["layers"]] == pytest.approx(natural["C1"].mean(axis=0))


def test_natural_images_stand_beside_content_shuffled_ones(planted):
    natural, scrambled, _, _, verdicts = planted
    found, edge, far = verdicts["C1"].details, natural["C1"].mean(), -natural["C2"].mean()
    for content, times in CONTENTS.items():
        growth = found["log_attention_growth"][content]
        assert growth["edge"]["statistic"] == pytest.approx(times * edge)
        assert growth["between"]["statistic"] == pytest.approx(0, abs=1e-12)
        assert growth["far"]["statistic"] == pytest.approx(times * far)
        control = edge - scrambled["C1"].mean()
        assert growth["edge"]["control"]["statistic"] == pytest.approx(times * control)
        assert found["near_above_far"][content]["statistic"] == pytest.approx(times * (edge - far))
        assert found["near_above_between"][content]["statistic"] == pytest.approx(times * edge)
        assert found["qk_alignment"][content]["edge"]["statistic"] == pytest.approx(0.01 * times * edge)
    assert verdicts["C2"].details["log_attention_growth"] == found["log_attention_growth"]


def test_sentences_carry_number_interval_control_and_seeds(planted):
    verdicts = planted[-1]
    low, high = verdicts["C1"].interval
    times = f"grew {np.exp(verdicts['C1'].statistic):.0f}-fold ({np.exp(low):.0f} to {np.exp(high):.0f})"
    assert verdicts["C1"].sentence.startswith(
        "Supported for this model on these data: where position alone can guide it"
    )
    assert f"attention on edge neighbours {times}, in 5 of 5 seeds" in verdicts["C1"].sentence
    assert f"{np.exp(verdicts['C1'].control['statistic']):.1f} times as much as in models trained on scrambled" in (
        verdicts["C1"].sentence
    )
    fell = 100 * (1 - np.exp(-verdicts["C2"].statistic))
    assert f"attention on far patches fell by {fell:.0f} % (" in verdicts["C2"].sentence
    for claim in CONTROLLED:
        assert "preliminary" not in verdicts[claim].sentence
        assert re.search(r"p (=|<) \.\d{3} after correction for 6 claims", verdicts[claim].sentence), claim
        assert not re.search(r"\de[+-]\d", verdicts[claim].sentence), claim
    assert "costs 3" in verdicts["C3c"].sentence
    assert "accuracy .70 → .30" in verdicts["C3c"].sentence
    assert "a neighbour's in 90 % (chance 10 %)" in verdicts["C3a"].sentence
    assert "(preliminary: 3 seeds)" in verdicts["C5"].sentence
    assert re.search(r"gained 5\.\d\d \(4\.\d\d to 5\.\d\d\) percentage points", verdicts["C5"].sentence)
    assert "gradients" in verdicts["C4"].sentence
    assert "ledger" in verdicts["C3b"].sentence


def test_small_numbers_are_written_as_people_read_them(planted_study, drawn):
    rng = np.random.default_rng(20)
    natural, scrambled = ({claim: 1e-6 * values for claim, values in drawn(rng, mean).items()} for mean in (9, 0))
    verdicts = by_claim(judge(planted_study(natural, scrambled), num_heads=4))
    assert re.search(r"costs [789]\.\d millionths of a nat \(\d", verdicts["C3c"].sentence)
    assert re.search(r"grew by [789]\.\d millionths of a nat \(\d", verdicts["C4"].sentence)
    assert not any(re.search(r"\de[+-]\d", verdict.sentence) for verdict in verdicts.values())


def test_rows_in_any_order_give_the_same_verdicts(planted):
    table, verdicts = planted[3:]
    shuffled = table.sample(frac=1, random_state=3)
    for claim, verdict in by_claim(judge(shuffled, num_heads=4)).items():
        assert verdict.statistic == pytest.approx(verdicts[claim].statistic)
        assert verdict.verdict == verdicts[claim].verdict


def test_the_rule_alone_is_the_same_rule(planted):
    table, verdicts = planted[3:]
    for claim, verdict in by_claim(judge(table, num_heads=4, brief=True)).items():
        full, brief = verdicts[claim].to_dict(), verdict.to_dict()
        assert brief.pop("sentence") == ""
        own = brief.pop("details")
        assert brief == {key: full[key] for key in brief}
        assert own == {key: full["details"][key] for key in own}


def test_reversed_effects_are_contradicted(planted_study, drawn):
    rng = np.random.default_rng(1)
    accuracy = 0.9 - 0.05 * np.arange(4) + 0.004 * rng.normal(size=(3, 4))
    natural = drawn(rng, -3.0)
    natural["C3c"] = -natural["C3c"]  # of a model that uses its positions all the rest is judged
    verdicts = by_claim(judge(planted_study(natural, drawn(rng, 0.0), accuracy), num_heads=4))
    for claim in (*LAYERED, "C3a", "C5"):
        assert verdicts[claim].verdict == "contradicted", claim
        assert verdicts[claim].sentence.startswith("Contradicted")
    assert re.search(
        r"attention on edge neighbours fell by \d\d % \(\d\d to \d\d\), in 5 of 5 seeds", verdicts["C1"].sentence
    )
    assert "up to a point" not in verdicts["C5"].sentence  # a single head is best: there was no rise before the point
    again = by_claim(judge(planted_study(drawn(np.random.default_rng(1), -3.0), drawn(rng, 0.0)), num_heads=4))
    assert again["C3c"].verdict == "contradicted"


def test_nothing_planted_is_inconclusive_and_says_how_many_seeds(planted_study, drawn):
    rng = np.random.default_rng(2)
    natural = drawn(rng, 0.0)
    natural["C3c"] += 9.0
    verdicts = by_claim(judge(planted_study(natural, drawn(rng, 0.0)), num_heads=4))
    for claim in (*LAYERED, "C3a"):
        assert verdicts[claim].verdict == "inconclusive", claim
        assert "settle it" in verdicts[claim].sentence
        low, high = verdicts[claim].details["seeds_needed"]
        assert low in {">50", *range(6, 51)}
        assert high in {">50", *range(6, 51)}
        assert f"between {low} and " in verdicts[claim].sentence or low == ">50" or low == high
    assert verdicts["C3c"].details["seeds_needed"] is None
    assert verdicts["C5"].verdict == "not judged"


def test_layers_decided_each_way_are_mixed(planted_study, drawn):
    rng = np.random.default_rng(3)
    natural = drawn(rng, np.array([9.0, 0.0, -6.0]), sd=0.5)
    verdicts = by_claim(judge(planted_study(natural, drawn(rng, 0.0, sd=0.5)), num_heads=4))
    for claim in LAYERED:
        assert verdicts[claim].verdict == "mixed", claim
        assert re.search(
            r" in layer 0 but [a-z ]+ in layer 2, and layer 1 could go either way", verdicts[claim].sentence
        )
    assert "attention on far patches fell in layer 0 but grew in layer 2" in verdicts["C2"].sentence
    assert verdicts["C3a"].verdict != "mixed"  # a position embedding has no layers


def test_a_layer_with_a_small_effect_the_other_way_is_an_exception(planted_study, drawn):
    rng = np.random.default_rng(3)
    natural = drawn(rng, np.array([30.0, 30.0, -4.0]), sd=0.5)
    verdict = by_claim(judge(planted_study(natural, drawn(rng, 0.0, sd=0.5)), num_heads=4))["C1"]
    assert verdict.verdict == "supported"
    assert "seeds, except in layer 2, where attention on edge neighbours fell;" in verdict.sentence


def test_up_to_a_point(planted_study):
    rng = np.random.default_rng(4)
    accuracy = np.array([0.6, 0.7, 0.8, 0.7]) + 0.002 * rng.normal(size=(3, 4))
    verdict = by_claim(judge(planted_study(accuracy=accuracy), num_heads=4))["C5"]
    assert verdict.details["best_count"] == 4
    assert "up to a point: best at 4 heads, better than 8" in verdict.sentence
    noisy = accuracy.copy()
    noisy[:, 3] += [-0.05, 0.1, 0.13]
    verdict = by_claim(judge(planted_study(accuracy=noisy), num_heads=4))["C5"]
    assert verdict.details["best_count"] == 4
    assert "up to a point" not in verdict.sentence


def test_head_sweep_uses_seeds_that_have_every_count(planted_study):
    accuracy = 0.6 + 0.05 * np.arange(4) + 0.01 * np.random.default_rng(5).normal(size=(5, 4))
    accuracy[3:, [0, 1, 3]] = np.nan  # as in the default study: five seeds with 4 heads, three with the others
    accuracy[1, 3] = np.nan  # and one run that failed
    verdict = by_claim(judge(planted_study(accuracy=accuracy), num_heads=4))["C5"]
    assert verdict.n == 2
    assert verdict.statistic == pytest.approx(np.mean([np.polyfit(range(4), accuracy[s], 1)[0] for s in (0, 2)]))
    assert "(preliminary: 2 seeds)" in verdict.sentence


def test_few_and_missing_runs(planted_study, drawn):
    rng = np.random.default_rng(6)
    one = by_claim(judge(planted_study(drawn(rng, 3, seeds=1), drawn(rng, 0, seeds=1)), num_heads=4))
    assert {verdict.verdict for verdict in one.values()} == {"not judged", "by construction"}
    assert "preliminary: 1 seed)" in one["C1"].sentence
    assert (one["C1"].n, one["C1"].interval, one["C1"].p) == (1, None, None)
    alone = by_claim(judge(planted_study(drawn(rng, 3.0)), num_heads=4))
    assert "scrambled control" in alone["C1"].sentence
    assert {alone[claim].verdict for claim in CONTROLLED} == {"not judged"}
    assert alone["C3a"].details["claims_counted"] == 0
    fewer = by_claim(judge(planted_study(drawn(rng, 6.0), drawn(rng, 0.0, seeds=2)), num_heads=4))
    assert (fewer["C3a"].n, fewer["C3a"].control["n"]) == (5, 2)
    assert "(preliminary: 2 seeds of the control)" in fewer["C3a"].sentence
    three = by_claim(judge(planted_study(drawn(rng, 9.0), drawn(rng, 0.0, seeds=3)), num_heads=4))
    assert three["C3a"].verdict == "supported"
    assert "preliminary" not in three["C3a"].sentence
    four = by_claim(judge(planted_study(drawn(rng, 9.0, seeds=4), drawn(rng, 0.0)), num_heads=4))
    assert "(preliminary: 4 seeds)" in four["C3a"].sentence


@pytest.mark.parametrize("table", [pd.DataFrame(), None])
def test_no_finished_run(table, planted_study, drawn):
    if table is None:  # runs, but none with the head count of the arms
        table = planted_study(drawn(np.random.default_rng(7), 1.0), num_heads=2)
    for verdict in judge(table, num_heads=4):
        assert verdict.verdict == "not judged"
        assert (verdict.n, verdict.statistic, verdict.p) == (0, None, None)
        assert "4 heads" in verdict.sentence


def test_settings_in_which_a_claim_has_no_meaning(planted_study, drawn):
    rng = np.random.default_rng(8)
    without_map = ("C1", "C2", "C3c", "C4")  # no position embedding is learned, so none is measured
    natural, scrambled = (drawn(rng, mean, claims=without_map) for mean in (4.0, 0.0))
    table = planted_study(natural, scrambled)
    table.loc[table["relation"] == "far", "value"] = np.nan  # a grid too small
    verdicts = by_claim(judge(table, num_heads=4))
    assert "no learned position embedding" in verdicts["C3a"].sentence
    assert "the grid has no `far` pairs" in verdicts["C2"].sentence
    assert verdicts["C2"].verdict == "not judged"
    assert verdicts["C1"].verdict == "supported"  # and the others are judged all the same
    assert verdicts["C1"].details["claims_counted"] == 3
    single = planted_study(drawn(rng, 3.0), drawn(rng, 0.0), num_heads=1)
    verdict = by_claim(judge(single, num_heads=1))["C4"]
    assert verdict.verdict == "not judged"
    assert "single head" in verdict.sentence
    assert verdict.details["claims_counted"] == 4


def test_a_study_recorded_before_there_was_a_content_shuffled_probe(planted_study, drawn):
    rng = np.random.default_rng(8)
    table = planted_study(drawn(rng, 3.0), drawn(rng, 0.0))
    old = table[~table["measure"].isin(["position_use", "position_use_accuracy", "row_divergence"])]
    old = old[old["content"] != "shuffled"].drop(columns="content")
    verdicts = by_claim(judge(old, num_heads=4))
    assert verdicts["C3a"].verdict == "supported"
    assert verdicts["C3a"].details["claims_counted"] == 1
    assert "attention on images with shuffled patches was not recorded" in verdicts["C1"].sentence
    for claim in (*LAYERED, "C3c"):
        assert verdicts[claim].verdict == "not judged"
        assert "not recorded" in verdicts[claim].sentence


def test_a_layer_that_is_null_is_left_out(planted_study, drawn):
    rng = np.random.default_rng(9)
    natural, scrambled = drawn(rng, 3.0), drawn(rng, 0.0)
    table = planted_study(natural, scrambled)
    last = (table["layer"] == 2) & (table["measure"] == "attn")
    table.loc[last.fillna(False), "value"] = np.nan
    verdict = by_claim(judge(table, num_heads=4))["C1"]
    assert verdict.statistic == pytest.approx(natural["C1"][:, :2].mean())
    assert [layer["layer"] for layer in verdict.details["layers"]] == [0, 1]


def test_shuffled_arm_is_read_on_both_grids_and_judges_nothing(planted_study, drawn):
    rng = np.random.default_rng(10)
    natural, scrambled = drawn(rng, 3.0), drawn(rng, 0.0)
    table = planted_study(natural, scrambled)
    falloff = (table["arm"] == "natural") & (table["seed"] == 0) & table["grid"].notna()
    shuffled = table[falloff].assign(arm="shuffled", run="shuffled-heads4-seed0")
    both = pd.concat([table, shuffled.assign(grid="true"), shuffled.assign(value=0.0)])
    verdicts = by_claim(judge(both, num_heads=4))
    assert verdicts["C3a"].statistic == pytest.approx(natural["C3a"].mean())
    found = verdicts["C3a"].details["shuffled"]
    assert found["model"]["similarity_falloff"] == 0
    assert found["true"]["similarity_falloff"] == pytest.approx(0.01 + natural["C3a"][0].mean())
    assert found["true"]["relabelling"][0]["p"] == pytest.approx(0.001)


def _slow_integral(table, measure, nearer, farther):
    """Σ over observed batches, one number at a time: the learning rate there, times the steps until the next one."""
    cell = {
        (row.run, row.step, row.measure, row.layer, row.head, row.relation): row.value
        for row in table.astype({"layer": object, "head": object}).itertuples()
        if row.split == "train"
    }
    found = {}
    for run, layer, head in itertools.product(table["run"].unique(), range(2), range(2)):
        total, counted = 0.0, 0
        steps = sorted({key[1] for key in cell if key[0] == run and key[2] == measure})
        for k, step in enumerate(steps):
            if k + 1 < len(steps):
                spacing = steps[k + 1] - step
            else:
                spacing = min(step - steps[k - 1], table[table["run"] == run]["step"].max() - step)
            gap = cell[run, step, measure, layer, head, nearer] - cell[run, step, measure, layer, head, farther]
            rate = next(value for key, value in cell.items() if key[:3] == (run, step, "learning_rate"))
            if not np.isnan(gap):
                total, counted = total + rate * spacing * gap, counted + 1
        found[int(run[-1]), layer, head] = total if counted else np.nan
    return found


def test_onset_and_slope_of_alignment(planted_study, drawn):
    planted = drawn(np.random.default_rng(12), 0.0, claims=("C1", "C3a"), seeds=3)
    planted["C3a"][:] = np.array(
        [[0.5], [0.0], [-0.5]]
    )  # near minus far 0.01 → 0.51, 0.01 and −0.49 over steps 0, 10, 20
    table = planted_study(planted)
    assert onset_steps(Readings(table, 4)).to_dict() == {0: 10, 1: 0}  # a map that never formed has no onset
    selves = (table["measure"] == "qk_alignment") & (table["distance"] == 0)
    table.loc[selves, "value"] = 9.0
    np.testing.assert_allclose(alignment_slope(Readings(table, 4), "natural"), -0.1)


@pytest.mark.parametrize("last", [18, 23])
def test_integral_over_training_is_the_slow_loop(last, planted_study, drawn):
    rng = np.random.default_rng(11)
    table = planted_study(drawn(rng, 0.0, seeds=2, depth=2, claims=("C1",)), num_heads=2)
    table["value"] = rng.normal(size=len(table))
    table["value"] = table["value"].where(rng.uniform(size=len(table)) > 0.1)
    rates = table["measure"] == "learning_rate"
    table.loc[rates, "value"] = rng.uniform(size=rates.sum())
    table["step"] = table["step"].replace({5: 4, 20: last})  # uneven steps, an end before or after the last spacing
    found = integrated(Readings(table, 2), "natural", "advantage", "edge", "far").unstack()
    slow = _slow_integral(table, "advantage", "edge", "far")
    assert len(found) == 8
    for (layer, head, seed), value in found.items():
        assert value == pytest.approx(slow[seed, layer, head])
