"""C4 in full: which divergence came first is said only where it is sure, and roles are shares of each seed's heads."""

import numpy as np
import pytest

from wherefrom.claims import judge

from .conftest import LAST, block, draw, tidy

STEPS = list(range(0, 240, 20))


def c4(*blocks):
    table = tidy(blocks)
    return next(verdict for verdict in judge(table, num_heads=4) if verdict.claim == "C4")


def curves(measure, starts, arm="natural", size=1.0, noise=0.02, seed=0):
    """Divergence that jumps at the step of each seed, in two layers."""
    random = np.random.default_rng([seed, len(measure), len(arm)])
    steps = np.array(STEPS)
    values = np.stack([size * (steps >= start) for start in starts])[:, :, None]
    values = values + noise * random.normal(size=(len(starts), len(STEPS), 2))
    return block(measure, values, STEPS, arm, 4, range(len(starts)), layer=[0, 1], split="probe")


def both(attention, gradients):
    """Both divergences, and beside them heads that come to look at different positions, of a model that uses them."""
    names = ("head_divergence_attn", attention), ("head_divergence_pressure", gradients)
    seeds = range(len(attention))
    spread = 0.01 * np.random.default_rng(9).normal(size=(2, len(attention), 1, 1))
    use = {arm: (arm == "natural") + spread[number] for number, arm in enumerate(("natural", "scrambled"))}
    return [
        *(
            block(
                "row_divergence",
                use[arm] * [[0], [1]],
                [0, 220],
                arm,
                4,
                seeds,
                layer=[0, 1],
                split="probe",
                content="natural",
            )
            for arm in use
        ),
        *(block("position_use", use[arm][:, :, 0], [LAST], arm, 4, seeds, split="test") for arm in use),
        *(curves(name, starts) for name, starts in names),
        *(curves(name, starts, "scrambled", size=0.0) for name, starts in names),
    ]


def test_gradients_that_lead_in_every_seed_are_said_to_lead_by_their_steps():
    verdict = c4(*both([100, 120, 100, 140, 120], [40, 40, 60, 60, 40]))
    lead = verdict.details["gradients_before_attention"]
    assert verdict.verdict == "supported"
    assert verdict.details["onset"]["head_divergence_attn"][3][0] == 140
    assert lead["statistic"] == np.mean([60, 80, 40, 80, 80])
    assert "gradients came apart before attention (68 steps," in verdict.sentence
    assert "in 5 seeds, p = " in verdict.sentence
    away = c4(*both([40, 40, 60, 60, 40], [100, 120, 100, 140, 120]))
    assert "attention came apart before gradients (68 steps," in away.sentence


def test_where_seeds_disagree_or_nothing_changes_the_order_cannot_be_told():
    mixed = c4(*both([100, 40, 100, 40, 80], [40, 100, 40, 100, 80]))
    assert "which of the two came first cannot be told" in mixed.sentence
    silent = c4(*both([100] * 5, [999] * 5))
    assert silent.details["gradients_before_attention"]["n"] == 0
    assert "a change of both was sure in 0 of 5 seeds" in silent.sentence


def role_block(arm, share, role="local"):
    """`share[seed][step]` of four heads have the role."""
    scores = np.array([[[head < 4 * at for head in range(4)] for at in seed] for seed in share], dtype=float)
    for part, by in (("", 0), ("_low", -0.1), ("_high", 0.1)):
        yield block(f"role_{role}{part}", scores[:, :, None] + by, [0, 220], arm, 4, range(len(share)), layer=[0],
                    head=[0, 1, 2, 3], split="probe")  # fmt: skip
    yield block(f"role_{role}_threshold", 0.2, [0, 220], arm, 4, range(len(share)), layer=[0], head=[0, 1, 2, 3],
                split="probe")  # fmt: skip


def test_roles_are_shares_of_heads_at_start_and_end_beside_the_control():
    heads = [
        *role_block("natural", [(0, 0.5), (0.25, 1.0)]),
        *role_block("scrambled", [(0, 0), (0, 0.25)]),
        *role_block("natural", [(1, 1), (1, 1)], "global"),
    ]
    verdict = c4(*both([100, 120], [40, 60]), *heads)
    found = verdict.details["heads_with_a_role"]
    assert found["any"]["end"]["statistic"] == found["local"]["end"]["statistic"] == pytest.approx(0.75)
    assert found["any"]["start"]["statistic"] == pytest.approx(0.125), "global is no specialisation"
    assert found["global"]["end"]["statistic"] == 1
    assert found["local"]["end"]["control"]["statistic"] == pytest.approx(0.75 - 0.125)
    assert (
        "75 % of heads have a role of position at the end, 12 % at first, 12 % on scrambled images" in verdict.sentence
    )
    assert verdict.to_dict()


def test_without_roles_or_with_two_steps_nothing_more_is_said(planted_study):
    random = np.random.default_rng(0)
    table = planted_study(draw(random, 2.0), draw(random, 0.0))
    beside = {"C4": {"seed_matching": {"natural": {"layer 0": {"end": {"matched": np.nan}}}}}}
    verdict = next(one for one in judge(table, num_heads=4, beside=beside) if one.claim == "C4")
    assert verdict.details["heads_with_a_role"] is None
    assert "role of position" not in verdict.sentence
    assert "cannot be told" in verdict.sentence
    assert verdict.to_dict()["details"]["seed_matching"]["natural"]["layer 0"]["end"]["matched"] is None
