"""What the record says of heads: known maps and losses in, the same onsets, kinds and table out."""

from itertools import permutations

import numpy as np
import pytest

from wherefrom.catalogue import Measurement
from wherefrom.config import RunKey
from wherefrom.geometry import PatchGrid
from wherefrom.heads import head_onsets, head_table, jensen_shannon, matching_as_dict, seed_matching, study_matching
from wherefrom.store import RunDirectory, StudyDirectory

STEPS = tuple(range(0, 200, 20))
SHAPE = (5, 7)
KINDS = np.stack([np.exp(-((np.mgrid[-2:3, -3:4] - centre) ** 2).sum(0)) + 0.05 for centre in
                  (np.reshape(place, (2, 1, 1)) for place in ((0, 0), (0, 2), (2, 0), (-1, -3)))])  # fmt: skip


def record(path, maps=None, rows=(), last=()) -> RunDirectory:
    """A run with offset maps by step (each `head dy dx`, one layer), rows at the last step and arrays there."""
    run = RunDirectory.create(path, {}, {}, PatchGrid(3, 4))
    with run.writing():
        for step, own in zip(STEPS, maps if maps is not None else [], strict=False):
            run.record(step, [Measurement("loss", 1.0, "probe")], {("attn_offset_map", 0): own})
        run.record(STEPS[-1] + 1, rows, dict(last))
        run.set_status(end="finished")
    return run


def noisy(kinds, seed, size=0.01):
    return kinds * (1 + size * np.random.default_rng(seed).normal(size=kinds.shape))


def test_a_head_begins_to_change_when_its_map_does_and_a_still_one_does_not(tmp_path):
    maps = [noisy(KINDS[:2], step) for step in STEPS]
    for place, own in enumerate(maps):
        own[1] = noisy(KINDS[2] if place >= 4 else KINDS[1], 1000 + place)
    found = head_onsets(record(tmp_path / "run", maps)).set_index("head")
    assert found["curve"].unique().tolist() == ["own_change"]
    assert np.isnan(found.loc[0, "step"])
    assert found.loc[1, ["step", "low", "high"]].tolist() == [80, 60, 80]
    p, r = (own[1].ravel() / own[1].sum() for own in (maps[0], maps[-1]))
    middle = (p + r) / 2
    expected = (p * np.log(p / middle)).sum() / 2 + (r * np.log(r / middle)).sum() / 2
    assert found.loc[1, "change"] == pytest.approx(expected, rel=1e-3)  # less what it jitters


def test_a_head_that_only_jitters_has_an_onset_in_one_of_twenty(tmp_path):
    heads = 60
    run = record(tmp_path / "run", [noisy(np.repeat(KINDS[:1], heads, 0), step) for step in STEPS])
    assert head_onsets(run)["step"].notna().sum() <= 8  # 3 expected


def test_role_scores_have_onsets_where_they_are_recorded(tmp_path):
    run = RunDirectory.create(tmp_path / "run", {}, {}, PatchGrid(3, 4))
    random = np.random.default_rng(0)
    with run.writing():
        for step in STEPS:
            score = 0.4 * (step >= 120) + 0.01 * random.normal()
            parts = {"": score, "_low": score - 0.1, "_high": score + 0.1, "_threshold": 0.1}
            run.record(step, [Measurement(f"role_local{part}", v, "probe", 1, 2) for part, v in parts.items()])
    (row,) = head_onsets(run).to_dict("records")
    assert (row["layer"], row["head"], row["curve"], row["step"], row["low"]) == (1, 2, "local", 120, 100)


def shares(kinds):
    flat = kinds.reshape(len(kinds), -1)
    return flat / flat.sum(1, keepdims=True)


def test_matching_is_the_best_of_all_assignments():
    """Twin: every permutation tried."""
    random = np.random.default_rng(0)
    maps = [random.dirichlet(np.ones(6), size=4) for _ in range(3)]
    best, any_two = [], []
    for a in range(3):
        for b in range(a + 1, 3):
            unlike = np.array([[float(jensen_shannon(p, r)) for r in maps[b]] for p in maps[a]])
            best.append(min(np.mean([unlike[h, order[h]] for h in range(4)]) for order in permutations(range(4))))
            any_two.append(unlike.mean())
    found = seed_matching(maps)
    assert found.matched == pytest.approx(np.mean(best))
    assert found.chance == pytest.approx(np.mean(any_two))
    assert found.n == 3


def test_kinds_that_come_back_are_told_from_heads_that_are_what_they_are():
    same = [shares(noisy(KINDS, seed)[np.random.default_rng(seed).permutation(4)]) for seed in range(4)]
    assert seed_matching(same).p < 0.01
    assert seed_matching(same).matched < 0.1 * seed_matching(same).chance
    p = []
    for seed in range(40):  # each head is drawn by itself: nothing of a set of kinds
        random = np.random.default_rng(100 + seed)
        p.append(seed_matching([shares(noisy(KINDS[random.integers(0, 4, 4)], random)) for _ in range(4)], 99).p)
    assert np.mean(np.array(p) <= 0.05) <= 0.15


def test_too_little_to_match_is_nan():
    one = shares(KINDS)
    assert np.isnan(seed_matching([one]).matched)
    single = seed_matching([one[:1], one[1:2]])
    assert single.matched == single.chance > 0
    assert np.isnan(single.p)


def test_a_study_is_matched_by_arm_and_layer_without_other_head_counts(tmp_path):
    study = StudyDirectory(tmp_path)
    keys = [RunKey(arm, 4, seed) for arm in ("natural", "scrambled") for seed in range(2)] + [RunKey("natural", 2, 0)]
    study.write_settings({}, 4, keys)
    for key in keys:
        end = KINDS if key.arm == "natural" else KINDS[[0, 0, 0, 0]]
        maps = [noisy(np.ones_like(KINDS), key.seed), noisy(end, key.seed)]
        record(tmp_path / key.name, [own[: key.num_heads] for own in maps])
    found = study_matching(study)
    assert {arm: list(layers) for arm, layers in found.items()} == {"natural": [0], "scrambled": [0]}
    natural, scrambled = (found[arm][0]["end"] for arm in ("natural", "scrambled"))
    assert natural.chance > 100 * natural.matched
    assert scrambled.chance < 2 * scrambled.matched
    assert matching_as_dict(found)["natural"]["layer 0"]["start"]["n"] == 2


def loss_rows(ends):
    for head, (low, high) in enumerate(ends):
        for part, value in (("", (low + high) / 2), ("_low", low), ("_high", high)):
            yield Measurement(f"ablation_loss_change{part}", value, "probe", 0, head)


def test_the_table_says_what_each_head_is_good_for(tmp_path):
    rows = list(loss_rows([(0.1, 0.3), (-0.1, 0.4), (-0.02, 0.01), (-0.2, -0.1)]))
    for role, scores in {"local": (0.5, 0.05, 0.3, 0.0), "contour": (0.9, 0.05, 0.0, 0.0)}.items():
        for head, score in enumerate(scores):
            parts = {"": score, "_low": score - 0.02, "_high": score + 0.02, "_threshold": 0.1}
            rows += [Measurement(f"role_{role}{part}", v, "probe", 0, head) for part, v in parts.items()]
    written = np.array([[1, 0.95, 0.2, np.nan], [0.95, 1, 0.3, np.nan], [0.2, 0.3, 1, np.nan], [np.nan] * 4])
    looks = np.arange(16.0).reshape(4, 4) / 16
    last = {("contribution_similarity", 0): written, ("attn_similarity", 0): looks}
    table = head_table(record(tmp_path / "run", rows=rows, last=last)).set_index("head")
    assert table["need"].tolist() == ["needed", "not sure", "idle", "idle"]
    assert table["roles"].tolist() == ["contour, local", "unspecialised", "local", "unspecialised"]
    assert table.loc[0, ["top_role", "score"]].tolist() == ["contour", 0.9]
    assert table["closest"].tolist()[:3] == [1, 0, 1]
    assert table["copy"].tolist() == [True, True, False, False]
    assert table.loc[0, "attn_similarity"] == looks[0, 1]
    assert table["closest"].isna()[3]
    assert np.isnan(table.loc[3, "contribution_similarity"])
    assert table["loss_change"].tolist() == pytest.approx([0.2, 0.15, -0.005, -0.15])


def test_one_head_without_roles_has_a_table_and_a_run_without_ablation_is_named(tmp_path):
    last = {(f"{name}_similarity", 0): np.ones((1, 1)) for name in ("contribution", "attn")}
    table = head_table(record(tmp_path / "one", rows=list(loss_rows([(0.1, 0.2)])), last=last))
    assert len(table) == 1
    assert table["closest"].isna().all()
    assert table["roles"].tolist() == [None]
    with pytest.raises(ValueError, match="holds no ablation of heads, which is made at the last step"):
        head_table(record(tmp_path / "none"))
