"""Settings varied one at a time: which runs that is, and how a wrong word is answered."""

from dataclasses import replace

import pytest

from wherefrom.config import StudyConfig
from wherefrom.vary import with_value

STUDY = StudyConfig(seeds=2, heads=(), head_seeds=3, arms=("natural",))


def added(**changes) -> dict[str, tuple]:
    """What the varied runs have other than the arms': name of the run to (seed, config with the arm's own values)."""
    study = replace(STUDY, **changes)
    return {key.name: (key, config) for key, config in study.runs().items() if key.setting or key.num_heads != 4}


def test_a_setting_is_varied_in_the_natural_arm_and_the_arms_value_is_not_trained_again():
    runs = added(vary={"patch_size": (2, 4, 8), "pos_embed": ("learned", "rope")})
    assert list(runs) == [
        f"natural-heads4-{setting}-seed{seed}"
        for seed in range(3)
        for setting in ("patch_size=4", "patch_size=8", "pos_embed=rope")
    ]
    for key, config in runs.values():
        name, _, value = key.setting.partition("=")
        assert str(getattr(config.model, name)) == value
        own = replace(with_value(config, name, getattr(STUDY.train.model, name)), seed=0)
        assert own == STUDY.train  # all else is that of the arms


def test_words_as_they_are_typed_give_the_same_runs():
    typed = (("patch-size", "2", "4"), ("model.patch_size", "8", "2"), ("learning_rate", "1e-3", "0.005"))
    known = {"patch_size": (2, 4, 8), "learning_rate": (0.001,)}
    assert added(vary=typed) == added(vary=known)


def test_head_counts_are_a_setting_like_the_others():
    assert added(vary={"num_heads": (1, 4, 16)}) == added(heads=(1, 16))
    assert [key.setting for key, _ in added(heads=(1, 16)).values()] == [""] * 6


def test_settings_of_training():
    runs = added(vary={"batch_size": (32,), "learning_rate": (0.01,)}, head_seeds=1)
    assert {key.setting: (config.batch_size, config.learning_rate) for key, config in runs.values()} == {
        "batch_size=32": (32, 0.005), "learning_rate=0.01": (64, 0.01)
    }  # fmt: skip


def test_a_run_that_learns_no_table_keeps_no_account_of_it():
    study = replace(STUDY, vary={"pos_embed": ("none", "sincos", "rope")}, record=replace(STUDY.record, ledger_every=3))
    kept = {config.model.pos_embed: config.record.ledger_every for config in study.runs().values()}
    assert kept == {"learned": 1, "none": 0, "sincos": 0, "rope": 0}


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (
            {"patchsize": (2,)},
            "'patchsize' is no setting that can be varied; did you mean 'patch_size'? known: width, ",
        ),
        ({"steps": (2,)}, "'steps' is no setting that can be varied; known: width, depth"),
        ({"depth": ("three",)}, "depth takes a whole number; found 'three'"),
        ({"depth": (1.5,)}, "depth takes a whole number; found '1.5'"),
        ({"pos_embed_std": ("small",)}, "pos_embed_std takes a number; found 'small'"),
        (
            {"pos_embed": ("ropes",)},
            "unknown pos_embed 'ropes'; did you mean 'rope'? known: learned, sincos, none, rope",
        ),
        ({"pos_embed_std": ("nan",)}, "pos_embed_std must be a finite number; found nan"),
        ({"depth": (0,)}, "depth must be at least 1; found 0"),
        ({"width": (30,)}, "num_heads must divide width: width 30 is not a multiple of num_heads 4"),
        ({"depth": ()}, "vary needs a setting and its values, as in --vary patch_size 2 4 8; found no value of depth"),
        (((),), "vary needs a setting and its values, as in --vary patch_size 2 4 8; found nothing"),
    ],
)
def test_what_cannot_be_varied_is_said(vary, words):
    with pytest.raises(ValueError, match="^" + words.replace("?", r"\?")):
        replace(STUDY, vary=vary)
