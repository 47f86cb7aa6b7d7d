"""C3b: the ledger decides, and only where there is a map; cuts stand beside it."""

import json

import numpy as np
import pytest

from wherefrom.claims import judge

from .conftest import LAST, block

SHARES = {"q": 0.2, "k": 0.15, "v": 0.7, "mlp": -0.05}
WIGGLE = 0.02 * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def ledger_blocks(growth, shares=SHARES, structure="similarity_falloff", arm="natural"):
    """A ledger in which `shares` of each seed's growth came by each route, q a little more from seed to seed.

    Two layers, three quarters in the first; q, k, v have four heads, the MLP none; at step 10 it stands at half.
    """
    seeds, half = range(len(growth)), np.array([0.5, 1.0])
    where = (arm, 4, seeds)
    change = growth[:, None] * half
    blocks = [
        block(f"ledger_{structure}_change", change, [10, LAST], *where, grid="model"),
        block("ledger_residual", 1e-7, [10, LAST], *where, grid="model"),
        block("route_closure", 2e-7, [0, 5], *where, split="train"),
    ]
    for kind, share in shares.items():
        own = (share + (WIGGLE[: len(growth)] if kind == "q" else 0 * growth))[:, None, None] * change[:, :, None]
        own = own * np.array([0.75, 0.25])
        axes = {"route": kind, "layer": [0, 1], "grid": "model"}
        if kind == "mlp":
            blocks.append(block(f"ledger_{structure}", own, [10, LAST], *where, **axes))
        else:
            blocks.append(
                block(f"ledger_{structure}", own[..., None] / 4, [10, LAST], *where, **axes, head=[0, 1, 2, 3])
            )
    return blocks


def cut_blocks(what, final, accuracy=0.8):
    """A cut arm with this falloff at the end, from 0.01."""
    where = (f"cut-{what}", 4, range(len(final)))
    falloff = np.stack([0 * final + 0.01, final], axis=1)
    return [
        block("similarity_falloff", falloff, [0, LAST], *where, grid="model"),
        block("accuracy", accuracy, [0, LAST], *where, split="test"),
    ]


@pytest.fixture
def mapped(planted_study, drawn):
    """Build a study in which a map forms, or none, with more rows; (judged C3b, growth of the falloff)."""

    def build(more=lambda growth: [], mean=0.5, claims=("C1", "C2", "C3a"), seeds=5):
        rng = np.random.default_rng(3)
        natural, scrambled = (drawn(rng, m, seeds, sd=0.05, claims=claims) for m in (mean, 0.0))
        growth = natural["C3a"].mean(axis=1)
        table = planted_study(natural, scrambled, more=more(growth))
        return {verdict.claim: verdict for verdict in judge(table, num_heads=4)}, growth

    return build


def test_the_statistic_is_the_share_of_queries_and_keys_at_the_last_step(mapped):
    verdicts, _ = mapped(ledger_blocks)
    verdict = verdicts["C3b"]
    assert verdict.verdict == "contradicted"
    assert verdict.statistic == pytest.approx(0.35 - 0.5)
    assert verdict.n == 5
    assert verdict.control is None
    assert "in 5 of 5 seeds less than half of the map was built by gradient that came through queries" in (
        verdict.sentence
    )
    assert "share that came through queries and keys: 35.0 %" in verdict.sentence
    assert "values carried 70 %" in verdict.sentence
    assert {found.details.get("claims_judged") for found in verdicts.values() if found.verdict != "not judged"} == {4}
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False)) == verdict.to_dict()


def test_shares_stand_in_the_details_by_route_and_layer(mapped):
    def more(growth):
        return ledger_blocks(growth) + ledger_blocks(0.4 + 0 * growth, {"q": 0.9, "v": 0.1}, "near_minus_far")

    details = mapped(more)[0]["C3b"].details
    assert details["shares"]["mlp"]["statistic"] == pytest.approx(-0.05)
    assert details["shares"]["q + k"]["statistic"] == pytest.approx(0.35)
    assert details["shares_by_layer"][0]["v"] == pytest.approx(0.75 * 0.7)
    assert details["shares_by_layer"][1]["mlp"] == pytest.approx(-0.25 * 0.05)
    assert details["shares_of_other_structures"]["near_minus_far"]["q + k"]["statistic"] == pytest.approx(0.9)
    assert details["shares_of_other_structures"]["coordinate_r2"] is None
    assert (details["ledger_residual"], details["route_closure"]) == (1e-7, 2e-7)


def test_more_than_half_is_supported(mapped):
    verdict = mapped(lambda growth: ledger_blocks(growth, {"q": 0.5, "k": 0.6, "v": -0.1}))[0]["C3b"]
    assert verdict.verdict == "supported"
    assert "more than half of the map was built" in verdict.sentence
    assert "keys: 110.0 %" in verdict.sentence


def test_without_a_map_it_is_not_judged_and_not_counted(mapped):
    verdicts, _ = mapped(lambda growth: ledger_blocks(np.abs(growth)), mean=np.array([0.001]))
    verdict = verdicts["C3b"]
    assert verdicts["C3a"].verdict == "inconclusive"
    assert verdict.verdict == "not judged"
    assert "C3a, which says so, is inconclusive" in verdict.sentence
    assert verdicts["C3a"].details["claims_judged"] == 3


def test_without_a_ledger_it_is_not_judged(mapped):
    verdict = mapped()[0]["C3b"]
    assert verdict.verdict == "not judged"
    assert "kept no ledger" in verdict.sentence


def test_a_seed_whose_map_did_not_grow_has_no_share(mapped):
    def more(growth):
        return ledger_blocks(np.where(np.arange(5) == 2, -0.1, growth))

    assert list(mapped(more)[0]["C3b"].details["seeds"]) == [0, 1, 3, 4]
    nowhere = mapped(lambda growth: ledger_blocks(-np.abs(growth)))[0]["C3b"]
    assert "no more of a map in any seed" in nowhere.sentence


def test_cuts_say_whether_a_route_is_needed_and_enough(mapped):
    def more(growth):
        spread = 0.01 * np.arange(5)
        needed, enough = cut_blocks("pos:q,k", growth + spread), cut_blocks("pos:v,mlp,residual", 0.02 + spread)
        return [*ledger_blocks(growth), *needed, *enough]

    verdicts, growth = mapped(more)
    verdict, natural = verdicts["C3b"], 0.01 + growth.mean()
    words = f"a map formed all the same, falloff {growth.mean() + 0.02:.2f} instead of {natural:.2f}"
    assert f"without the gradient through queries and keys {words}" in verdict.sentence
    assert "with the gradient through queries and keys alone hardly any map, falloff 0.04" in verdict.sentence
    found = verdict.details["cuts"]["pos:q,k"]
    assert found["falloff_change"]["against"]["statistic"] == pytest.approx(0.02 - 0.01)
    assert found["falloff_change"]["against"]["name"] == "natural"
    assert found["kept"] == pytest.approx((growth.mean() + 0.01) / growth.mean())
    assert verdicts["C1"].details["cuts"] is None


def test_cuts_of_pairs_stand_beside_the_claim_about_these_pairs(mapped):
    def more(growth):
        both = cut_blocks("pairs:edge,far", growth + WIGGLE), cut_blocks("pairs:far", growth - WIGGLE)
        return [row for rows in both for row in rows]

    verdicts = mapped(more)[0]
    assert list(verdicts["C1"].details["cuts"]) == ["pairs:edge,far"]
    assert list(verdicts["C2"].details["cuts"]) == ["pairs:edge,far", "pairs:far"]
    assert verdicts["C2"].details["cuts"]["pairs:far"]["accuracy"]["statistic"] == pytest.approx(0.8)


def test_cut_arms_judge_nothing_else(mapped):
    with_cuts, _ = mapped(lambda growth: cut_blocks("pos:q,k", 9 + growth))
    without, _ = mapped()
    for claim in ("C1", "C2", "C3a"):
        assert with_cuts[claim].statistic == without[claim].statistic
