"""A configuration survives being written and read, and what it cannot be is said in words."""

import json

import pytest

from wherefrom.config import ModelConfig, RecordConfig, RunKey, StudyConfig, TrainConfig, from_dict, from_toml, to_dict

UNUSUAL = TrainConfig(
    data="some folder", arm="scrambled", seed=2**63 - 1, steps=7, learning_rate=1.0, device="cpu",
    model=ModelConfig(width=12, num_heads=3, pool="class", pos_embed="sincos"), record=RecordConfig(probe_every=0),
)  # fmt: skip


@pytest.mark.parametrize("config", [TrainConfig(), UNUSUAL])
def test_a_config_survives_json(config):
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_toml_says_what_differs_from_the_defaults(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('arm = "shuffled"\nlearning_rate = 1\n[model]\ndepth = 2\n[record]\nprobe_size = 8\n')
    expected = TrainConfig(
        arm="shuffled", learning_rate=1.0, model=ModelConfig(depth=2), record=RecordConfig(probe_size=8)
    )
    assert from_toml(path) == expected
    assert isinstance(from_toml(path).learning_rate, float)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"stpes": 7}, "unknown setting 'stpes', did you mean 'steps'"),
        ({"model": {"flavour": 7}}, "model: unknown setting 'flavour', known: width, depth"),
        ({"model": 7}, "model: expected a table of settings, found 7"),
        ([7], r"expected a table of settings, found \[7\]"),
        ({"steps": 7.0}, "steps: expected a whole number, found 7.0"),
        ({"steps": True}, "steps: expected a whole number, found True"),
        ({"learning_rate": "7"}, "learning_rate: expected a number, found '7'"),
        ({"data": 7}, "data: expected text, found 7"),
        ({"arm": "mixed"}, "unknown arm 'mixed'; known: natural, shuffled, scrambled"),
        ({"model": {"pool": "max"}}, "model: unknown pool 'max'; known: mean, class"),
        ({"model": {"num_heads": 7}}, "model: num_heads must divide width: width 64 is not a multiple of num_heads 7"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number; found inf"),
        ({"steps": "a", "seed": "b"}, "seed: expected a whole number, found 'b'; steps: expected"),
    ],
)
def test_what_does_not_fit_is_said(data, words):
    with pytest.raises(ValueError, match=f"^the configuration does not fit: .*{words}"):
        from_dict(data)


def test_runs_of_the_default_study():
    runs = StudyConfig().runs()
    assert len(runs) == 20
    keys = [(key.arm, key.num_heads, key.seed) for key in runs]
    assert keys[:3] == [("natural", 4, 0), ("shuffled", 4, 0), ("scrambled", 4, 0)]  # soon something to see
    arms = {("natural", 4, seed) for seed in range(6)} | {("scrambled", 4, seed) for seed in range(3)}
    sweep = {("natural", count, seed) for count in (1, 8) for seed in range(5)}
    assert set(keys) == arms | sweep | {("shuffled", 4, 0)}


def test_runs_of_a_study_differ_by_what_their_key_says():
    study = StudyConfig(
        data="digits", seeds=2, heads=(1,), head_seeds=1, steps=9, model=ModelConfig(width=8, num_heads=2)
    )
    for key, config in study.runs().items():
        assert (config.arm, config.model.num_heads, config.seed) == (key.arm, key.num_heads, key.seed)
        data, patch_size = ("photos", 4) if key.arm == "shuffled" else ("digits", 1)
        assert (config.data, config.model.patch_size) == (data, patch_size)
        assert (config.steps, config.model.width, config.threads) == (9, 8, 1)


def test_the_shuffled_arm_puts_back_what_can_be_seen():
    def data(**settings) -> tuple[str, int]:
        config = next(run for key, run in StudyConfig(**settings).runs().items() if key.arm == "shuffled")
        return config.data, config.model.patch_size

    assert data() == ("photos", 4)
    assert data(model=ModelConfig(patch_size=2)) == ("photos", 4)  # 2 is meant for the digits
    assert data(data="cifar10", model=ModelConfig(patch_size=8)) == ("cifar10", 8)
    assert data(shuffled_data="mnist16") == ("mnist16", 2)


def test_one_natural_run_keeps_the_account_of_the_scores():
    kept = [key.name for key, run in StudyConfig().runs().items() if run.record.alignment_ledger]
    assert kept == ["natural-heads4-seed0"]
    assert not any(run.record.alignment_ledger for run in StudyConfig(ledger=False).runs().values())


def test_name_of_a_run():
    assert RunKey("natural", 4, 0).name == "natural-heads4-seed0"
