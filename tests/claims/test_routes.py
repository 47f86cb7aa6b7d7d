"""C3b: the ledger decides, and only where there is a map; cuts, and the account of the scores, stand beside."""

import json

import numpy as np
import pytest

from wherefrom.claims import judge

from .conftest import LAST, block

SHARES = {"q": 0.2, "k": 0.15, "v": 0.7, "mlp": -0.05}
WIGGLE = 0.02 * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def ledger_blocks(growth, shares=SHARES, structure="near_minus_far", arm="natural"):
    """A ledger in which `shares` of each seed's growth came by each route, q a little more from seed to seed.

    Two layers, three quarters in the first; q, k, v have four heads, the MLP none; at step 10 it stands at half. Weight
    decay took a tenth of it, which belongs to no route.
    """
    seeds, half = range(len(growth)), np.array([0.5, 1.0])
    where = (arm, 4, seeds)
    change = growth[:, None] * half
    blocks = [
        block(f"ledger_{structure}_change", change, [10, LAST], *where, grid="model"),
        block(f"ledger_{structure}", -0.1 * change, [10, LAST], *where, route="weight_decay", grid="model"),
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
    """A cut arm with this map at the end, from 0.01."""
    where = (f"cut-{what}", 4, range(len(final)))
    grown = np.stack([0 * final + 0.01, final], axis=1)
    return [
        *(block(name, grown, [0, LAST], *where, grid="model") for name in ("near_minus_far", "similarity_falloff")),
        block("accuracy", accuracy, [0, LAST], *where, split="test"),
    ]


@pytest.fixture
def mapped(planted_study, drawn):
    """Build a study in which a map forms and is used, or none, with more rows; (judged, growth of the map)."""

    def build(more=lambda growth: [], mean=0.5, claims=("C1", "C2", "C3a", "C3c"), seeds=5):
        rng = np.random.default_rng(3)
        natural, scrambled = (drawn(rng, m, seeds, sd=0.05, claims=claims) for m in (mean, 0.0))
        if "C3c" in claims:
            natural["C3c"] += 2.0
        growth = natural["C3a"].mean(axis=1)
        table = planted_study(natural, scrambled, more=more(growth))
        return {verdict.claim: verdict for verdict in judge(table, num_heads=4)}, growth

    return build


def test_the_statistic_is_what_queries_and_keys_added_less_what_all_other_routes_did(mapped):
    verdicts, growth = mapped(ledger_blocks)
    verdict = verdicts["C3b"]
    assert verdict.verdict == "contradicted"
    assert verdict.statistic == pytest.approx(np.mean((0.35 + WIGGLE - 0.65) * growth))
    assert list(verdict.details["seeds"].values()) == pytest.approx((0.35 + WIGGLE - 0.65) * growth)
    assert verdict.n == 5
    assert verdict.control is None
    assert (
        "queries and keys built less of the map than all other routes of the gradient together, by a cosine of .15"
        in (verdict.sentence)
    )
    assert "in 5 of 5 seeds" in verdict.sentence
    assert "shares of all routes: queries and keys 35 %, values 70 %, MLPs −5 %" in verdict.sentence
    assert {found.details["claims_counted"] for claim, found in verdicts.items() if claim != "C0"} == {5}
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False)) == verdict.to_dict()


def test_shares_are_ratios_of_means_by_route_and_layer(mapped):
    def more(growth):
        return ledger_blocks(growth) + ledger_blocks(0.4 + 0 * growth, {"q": 0.9, "v": 0.1}, "similarity_falloff")

    verdicts, growth = mapped(more)
    details = verdicts["C3b"].details
    q = np.mean((0.2 + WIGGLE) * growth)
    whole = q + 0.8 * growth.mean()  # k, v and the MLPs
    assert details["shares"]["mlp"] == pytest.approx(-0.05 * growth.mean() / whole)
    assert details["shares"]["q + k"] == pytest.approx((q + 0.15 * growth.mean()) / whole)
    assert details["shares"]["weight_decay"] == pytest.approx(-0.1 * growth.mean() / whole)
    assert details["contributions"]["q"]["statistic"] == pytest.approx(q)
    assert details["shares_by_layer"][0]["v"] == pytest.approx(0.75 * 0.7 * growth.mean() / whole)
    assert details["shares_by_layer"][1]["mlp"] == pytest.approx(-0.25 * 0.05 * growth.mean() / whole)
    assert details["other_structures"]["similarity_falloff"]["shares"]["q + k"] == pytest.approx(0.9)
    assert details["other_structures"]["coordinate_r2"] is None
    assert (details["ledger_residual"], details["route_closure"]) == (1e-7, 2e-7)


def test_more_than_half_is_supported(mapped):
    verdict = mapped(lambda growth: ledger_blocks(growth, {"q": 0.5, "k": 0.6, "v": -0.1}))[0]["C3b"]
    assert verdict.verdict == "supported"
    assert "queries and keys built more of the map" in verdict.sentence
    assert "queries and keys 110 %" in verdict.sentence


def test_without_a_map_it_is_not_judged_and_still_counted(mapped):
    verdicts, _ = mapped(lambda growth: ledger_blocks(np.abs(growth)), mean=np.array([0.001]))
    verdict = verdicts["C3b"]
    assert verdicts["C3a"].verdict == "inconclusive"
    assert verdict.verdict == "not judged"
    assert "C3a is inconclusive" in verdict.sentence
    assert verdict.statistic is not None
    assert verdicts["C3a"].details["claims_counted"] == 5


def test_without_a_ledger_it_is_neither_judged_nor_counted(mapped):
    verdict = mapped()[0]["C3b"]
    assert verdict.verdict == "not judged"
    assert "kept no ledger" in verdict.sentence
    assert verdict.details["claims_counted"] == 4


def test_no_seed_is_dropped_whatever_its_map_did(mapped):
    shrunk = np.arange(5) == 2
    verdicts, growth = mapped(lambda growth: ledger_blocks(np.where(shrunk, -0.1, growth)))
    found, own = verdicts["C3b"].details["seeds"], np.where(shrunk, -0.1, growth)
    assert list(found.values()) == pytest.approx((0.35 + WIGGLE - 0.65) * own)
    backwards = mapped(lambda growth: ledger_blocks(-np.abs(growth)))[0]["C3b"]
    assert backwards.n == 5
    assert backwards.statistic > 0


def test_no_page_says_two_things_of_one_claim_near_the_margin(mapped):
    """C3a near its margin: whatever it is called, C3b says the same of it, and the count is one for all."""
    seen = set()
    for mean in np.linspace(0.03, 0.12, 10):
        verdicts, _ = mapped(lambda growth: ledger_blocks(np.abs(growth)), mean=mean)
        outcome = verdicts["C3a"].verdict
        seen.add(outcome)
        assert {found.details["claims_counted"] for claim, found in verdicts.items() if claim != "C0"} == {5}
        assert (verdicts["C3b"].verdict == "not judged") == (outcome != "supported")
        assert outcome == "supported" or f"C3a is {outcome}" in verdicts["C3b"].sentence
    assert seen == {"inconclusive", "supported"}


def test_cuts_say_whether_a_route_is_needed_and_enough(mapped):
    def more(growth):
        spread = 0.01 * np.arange(5)
        needed, enough = cut_blocks("pos:q,k", growth + spread), cut_blocks("pos:v,mlp,residual", 0.02 + spread)
        return [*ledger_blocks(growth), *needed, *enough]

    verdicts, growth = mapped(more)
    verdict, natural = verdicts["C3b"], 0.01 + growth.mean()
    end, whole = f"{growth.mean() + 0.02:.2f}"[1:], f"{natural:.2f}"[1:]
    words = f"a map formed all the same, near minus far {end} instead of {whole}"
    assert f"without the gradient through queries and keys {words}" in verdict.sentence
    assert "with the gradient through queries and keys alone hardly any map, near minus far .04" in verdict.sentence
    found = verdict.details["cuts"]["pos:q,k"]
    assert found["near_minus_far_change"]["against"]["statistic"] == pytest.approx(0.02 - 0.01)
    assert found["near_minus_far_change"]["against"]["name"] == "natural"
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


def account_blocks(relation, seeds=(0,)):
    """The second ledger of one run: two layers, both matrices, six relations, drift and weight decay."""
    where = ("natural", 4, list(seeds))
    parts = {"edge": 0.3, "far": -0.2, "self": 0.05, "corner": 0.04, "between": 0.02, "prefix": 0.01}
    axes = {"layer": [0, 1], "grid": "model"}
    layers = np.array([0.5, 1.5])
    for matrix in ("w_q", "w_k"):
        for pairs, added in parts.items():
            yield block(
                f"ledger_log_attn_{relation}", added * layers, [LAST], *where, **axes, route=matrix, relation=pairs
            )
    for row, added in (("drift", 0.1), ("weight_decay", -0.03)):
        yield block(f"ledger_log_attn_{relation}", added * layers, [LAST], *where, **axes, route=row)
    yield block(f"ledger_log_attn_{relation}_change", 0.51 * layers, [LAST], *where, **axes)
    yield block(f"ledger_log_attn_{relation}_residual", 0.01 * layers, [LAST], *where, **axes)


def test_the_account_of_the_scores_says_which_pairs_built_what(mapped):
    verdicts = mapped(lambda growth: [*account_blocks("edge"), *account_blocks("far")])[0]
    for claim in ("C1", "C2"):
        found = verdicts[claim].details["account"]
        added = {of: test["statistic"] for of, test in found["added"].items()}
        expected = {"edge": 0.6, "far": -0.4, "other": 0.24, "drift": 0.1, "weight_decay": -0.03}
        assert added == pytest.approx(expected)
        assert sum(added.values()) == pytest.approx(found["growth"]["statistic"])
        assert (found["growth"]["n"], found["residual"]) == (1, pytest.approx(0.015))
        told = (
            "the growth of +510.0 thousandths of log attention is +600.0 by the gradient of edge pairs on w_q and w_k"
        )
        assert told in verdicts[claim].sentence
    assert mapped()[0]["C1"].details["account"] is None
