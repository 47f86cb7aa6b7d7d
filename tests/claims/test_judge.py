"""Whole studies whose every number is planted: tables in, verdicts and sentences out."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from wherefrom.claims import CLAIMS, Verdict, judge
from wherefrom.claims.details import alignment_slope, onset_steps
from wherefrom.claims.primary import integrated
from wherefrom.claims.readings import Readings

KEYS = ["claim", "verdict", "statistic", "interval", "n", "p", "control", "sentence", "details"]
LAYERED = ("C0", "C1", "C2", "C4")


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
    assert list(verdicts) == list(CLAIMS) == ["C0", "C1", "C2", "C3a", "C3b", "C4", "C5"]
    assert {claim: verdict.verdict for claim, verdict in verdicts.items()} == dict.fromkeys(CLAIMS, "supported") | {
        "C3b": "not judged"
    }


def test_statistics_are_those_planted(planted):
    natural, scrambled, accuracy, _, verdicts = planted
    for claim, values in natural.items():
        verdict = verdicts[claim]
        assert verdict.statistic == pytest.approx(values.mean()), claim
        assert verdict.n == 5
        if claim == "C0":
            assert verdict.control is None
        else:
            assert verdict.control["name"] == "scrambled"
            assert verdict.control["statistic"] == pytest.approx((values - scrambled[claim]).mean()), claim
    slopes = [np.polyfit([0, 1, 2, 3], row, 1)[0] for row in accuracy]
    assert verdicts["C5"].statistic == pytest.approx(np.mean(slopes))
    assert verdicts["C5"].n == 3


def test_verdicts_are_plain_json(planted):
    for verdict in planted[-1].values():
        data = verdict.to_dict()
        assert list(data) == KEYS
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["control"] is None or list(data["control"]) == ["name", "statistic", "interval", "n", "p"]


def test_details_beside_the_verdicts(planted):
    natural, scrambled, _, _, verdicts = planted
    c1, c2, c3, c4, c5 = (verdicts[claim].details for claim in ("C1", "C2", "C3a", "C4", "C5"))
    # The gap is constant, and the sum over training is learning rate 0.5 · 20 steps of it.
    assert c1["advantage"]["initialisation"]["statistic"] == pytest.approx(natural["C1"].mean() / 10)
    assert c2["advantage"]["onset"]["statistic"] == pytest.approx(natural["C2"].mean() / 10)
    assert c2["pressure"]["integrated"]["statistic"] == pytest.approx(natural["C2"].mean())
    assert c1["onset_step"] == dict.fromkeys(range(5), 10)
    assert c1["heads_toward"]["layers"][1] == pytest.approx((natural["C1"][:, 1] > 0).mean())
    assert c1["attn"]["edge"]["against_uniform"]["start"] == pytest.approx(0.02 * 64)
    growth = c1["attn"]["edge"]["relative_growth"]
    assert growth["statistic"] == pytest.approx(1 + natural["C1"].mean() / 10)
    assert growth["control"]["statistic"] == pytest.approx((natural["C1"] - scrambled["C1"]).mean() / 10)
    assert c2["qk_alignment_slope"]["statistic"] == pytest.approx(-0.1)
    assert c3["neighbour_recovery"]["chance"] == pytest.approx(0.1)
    assert c3["relabelling"]["natural"][0]["high"] == pytest.approx(0.05)
    assert c4["head_divergence_pressure"]["statistic"] == pytest.approx(natural["C4"].mean())
    assert c5["best_count"] == 8
    assert c5["divergence_slope"]["statistic"] == pytest.approx(0.1)
    assert [layer["statistic"] for layer in c1["layers"]] == pytest.approx(natural["C1"].mean(axis=0))


def test_sentences_carry_number_interval_control_and_seeds(planted):
    verdicts = planted[-1]
    sentence = verdicts["C1"].sentence
    assert sentence.startswith("Supported for this model on these data: in 5 of 5 seeds the loss saved more")
    low, high = verdicts["C1"].interval
    for part in (verdicts["C1"].statistic, low, high, verdicts["C1"].control["statistic"]):
        assert f"{part:+#.3g}" in sentence
    assert "preliminary" not in sentence
    assert "(preliminary: 3 seeds)" in verdicts["C5"].sentence
    assert "+5" in verdicts["C5"].sentence  # percentage points a doubling
    assert "gradients" in verdicts["C4"].sentence
    assert "ledger" in verdicts["C3b"].sentence


def test_rows_in_any_order_give_the_same_verdicts(planted):
    table, verdicts = planted[3:]
    shuffled = table.sample(frac=1, random_state=3)
    for claim, verdict in by_claim(judge(shuffled, num_heads=4)).items():
        assert verdict.statistic == pytest.approx(verdicts[claim].statistic)
        assert verdict.verdict == verdicts[claim].verdict


def test_reversed_effects_are_contradicted(planted_study, drawn):
    rng = np.random.default_rng(1)
    accuracy = 0.9 - 0.05 * np.arange(4) + 0.004 * rng.normal(size=(3, 4))
    verdicts = by_claim(judge(planted_study(drawn(rng, -3.0), drawn(rng, 0.0), accuracy), num_heads=4))
    for claim in (*LAYERED, "C3a", "C5"):
        assert verdicts[claim].verdict == "contradicted", claim
        assert verdicts[claim].sentence.startswith("Contradicted")
    assert "5 of 5 seeds the loss saved less by attending to edge" in verdicts["C1"].sentence
    assert "up to a point" not in verdicts["C5"].sentence  # a single head is best: there was no rise before the point


def test_nothing_planted_is_inconclusive_and_says_how_many_seeds(planted_study, drawn):
    rng = np.random.default_rng(2)
    verdicts = by_claim(judge(planted_study(drawn(rng, 0.0), drawn(rng, 0.0)), num_heads=4))
    for claim in (*LAYERED, "C3a"):
        assert verdicts[claim].verdict == "inconclusive", claim
        assert "settle it" in verdicts[claim].sentence
        assert verdicts[claim].details["seeds_needed"] in {">50", *range(6, 51)}
    assert verdicts["C5"].verdict == "not judged"


def test_layers_decided_each_way_are_mixed(planted_study, drawn):
    rng = np.random.default_rng(3)
    natural = drawn(rng, np.array([9.0, 0.0, -6.0]), sd=0.5)
    verdicts = by_claim(judge(planted_study(natural, drawn(rng, 0.0, sd=0.5)), num_heads=4))
    for claim in LAYERED:
        assert verdicts[claim].verdict == "mixed", claim
        assert "in layer 0 " in verdicts[claim].sentence
        assert "but in layer 2 the opposite, and layer 1 could go either way" in verdicts[claim].sentence
    assert verdicts["C3a"].verdict != "mixed"  # a position embedding has no layers


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
    assert {verdict.verdict for verdict in one.values()} == {"not judged"}
    assert "preliminary: 1 seed)" in one["C1"].sentence
    assert (one["C1"].n, one["C1"].interval, one["C1"].p) == (1, None, None)
    alone = by_claim(judge(planted_study(drawn(rng, 3.0)), num_heads=4))
    assert alone["C0"].verdict == "supported"
    assert "scrambled control" in alone["C1"].sentence
    assert alone["C1"].verdict == "not judged"
    fewer = by_claim(judge(planted_study(drawn(rng, 6.0), drawn(rng, 0.0, seeds=3)), num_heads=4))
    assert (fewer["C1"].n, fewer["C1"].control["n"]) == (5, 3)
    assert "(preliminary: 3 seeds)" in fewer["C1"].sentence


@pytest.mark.parametrize("table", [pd.DataFrame(), None])
def test_no_finished_run(table, planted_study, drawn):
    if table is None:  # runs, but none with the head count of the arms
        table = planted_study(drawn(np.random.default_rng(7), 1.0), num_heads=2)
    for verdict in judge(table, num_heads=4):
        assert verdict.verdict == "not judged"
        assert (verdict.n, verdict.statistic, verdict.p) == (0, None, None)
        assert verdict.claim == "C3b" or "4 heads" in verdict.sentence


def test_settings_in_which_a_claim_has_no_meaning(planted_study, drawn):
    rng = np.random.default_rng(8)
    without_map = ("C0", "C1", "C2", "C4")  # no position embedding is learned, so none is measured
    natural, scrambled = (drawn(rng, mean, claims=without_map) for mean in (3.0, 0.0))
    table = planted_study(natural, scrambled)
    table.loc[table["relation"] == "between", "value"] = np.nan  # a 2 × 2 or 3 × 3 grid
    verdicts = by_claim(judge(table, num_heads=4))
    assert "no learned position embedding" in verdicts["C3a"].sentence
    assert "`between` pairs is null" in verdicts["C1"].sentence
    assert verdicts["C2"].verdict == "not judged"
    assert verdicts["C0"].verdict == "supported"  # and the others are judged all the same
    single = planted_study(drawn(rng, 3.0), drawn(rng, 0.0), num_heads=1)
    verdict = by_claim(judge(single, num_heads=1))["C4"]
    assert verdict.verdict == "not judged"
    assert "single head" in verdict.sentence


def test_a_layer_without_gradient_is_left_out(planted_study, drawn):
    rng = np.random.default_rng(9)
    natural, scrambled = drawn(rng, 3.0), drawn(rng, 0.0)
    table = planted_study(natural, scrambled)
    last = (table["layer"] == 2) & table["measure"].isin(["advantage", "pressure"])
    table.loc[last.fillna(False), "value"] = np.nan  # a class token reads out: the last layer's patches get none
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
    planted["C3a"][:] = np.array([[0.5], [0.0], [-0.5]])  # falloff 0.01 → 0.51, 0.01 and −0.49 over steps 0, 10, 20
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
