"""The premise: claims about a model that uses its positions are judged only of such a model, and no p changes."""

import numpy as np
import pytest

from wherefrom.claims import judge, premise
from wherefrom.claims.premise import GATED, NOT_KNOWN, NOT_USED
from wherefrom.statistics import holm

from .test_routes import ledger_blocks


@pytest.fixture
def study(planted_study, drawn):
    """Build a study with sure effects and a ledger, whose natural position use is given; (verdicts, table)."""

    def build(use, scrambled_use=None, seeds=5):
        rng = np.random.default_rng(5)
        natural, scrambled = (drawn(rng, mean, seeds, sd=0.1) for mean in (2.0, 0.0))
        for planted, given in ((natural, use), (scrambled, scrambled_use)):
            if given is not None:
                planted["C3c"] = np.array(given, dtype=float)[:, None] * np.ones(3)
        growth = natural["C3a"].mean(axis=1)
        accuracy = 0.6 + 0.05 * np.arange(4) + 0.004 * rng.normal(size=(seeds, 4))
        table = planted_study(natural, scrambled, accuracy, more=ledger_blocks(growth))
        return {verdict.claim: verdict for verdict in judge(table, num_heads=4)}, table

    return build


def line(verdicts):
    return premise([verdict.to_dict() for verdict in verdicts.values()])


NOISE = [0.003, -0.002, 0.001, -0.009, 0.002]


def test_a_model_that_uses_its_positions_is_judged(study):
    verdicts, _ = study([1.8, 1.9, 2.0, 1.9, 1.9])
    assert {verdicts[claim].verdict for claim in GATED} <= {"supported", "contradicted"}
    opening = "Does the model use positions? Yes: shuffling the patches of test images costs 1.9 nats (1.8 to 2.0)"
    assert line(verdicts) == f"{opening}, accuracy .70 → .30."


def test_a_model_that_does_not_is_not_judged_and_its_numbers_stay(study):
    sure, _ = study([1.8, 1.9, 2.0, 1.9, 1.9])
    verdicts, _ = study(NOISE)
    assert verdicts["C3c"].verdict == "inconclusive"
    for claim in GATED:
        one = verdicts[claim]
        assert one.verdict == "not judged"
        assert one.details["reason"].startswith("this model does not use its positions; shuffling the patches of test")
        assert one.sentence.startswith(f"Not judged: {NOT_USED}")
        assert one.statistic == sure[claim].statistic
        assert one.interval == sure[claim].interval
        assert one.details["layers"] == [layer | {"verdict": None} for layer in sure[claim].details["layers"]]
    assert line(verdicts).startswith(
        "Does the model use positions? No: shuffling the patches of test images saves 1.0 thousandths of a nat ("
    )
    assert "accuracy .70 → .30" in verdicts["C1"].sentence


def test_shutting_claims_changes_what_no_other_is_corrected_for(study):
    sure, _ = study([1.8, 1.9, 2.0, 1.9, 1.9])
    verdicts, _ = study(NOISE)
    for claim in ("C3a", "C5"):
        assert verdicts[claim].details["claims_counted"] == sure[claim].details["claims_counted"] == 7
        assert verdicts[claim].verdict == sure[claim].verdict == "supported"
    for found in (sure, verdicts):  # Holm's correction over all seven, those that are closed too
        tested = [one.details for claim, one in found.items() if claim != "C0"]
        assert len(tested) == 7
        adjusted = holm([details["p"] for details in tested])
        assert [details["p_adjusted"] for details in tested] == pytest.approx(adjusted.tolist())


def test_use_the_other_way_is_no_use(study):
    verdicts, _ = study([-0.5, -0.6, -0.5, -0.4, -0.5])
    assert verdicts["C3c"].verdict == "contradicted"
    assert {verdicts[claim].verdict for claim in GATED} == {"not judged"}
    assert "No: shuffling the patches of test images saves 0.50 nats (0.41 to 0.59)" in line(verdicts)


def test_a_model_without_positions_gives_the_same_loss(study):
    verdicts, _ = study([0.0] * 5, [0.0] * 5)
    assert verdicts["C3c"].verdict == "not judged"
    assert verdicts["C1"].details["reason"].startswith(NOT_USED)
    assert line(verdicts).startswith("Does the model use positions? No: ")


def test_few_seeds_that_all_say_yes_are_not_said_to_say_no(study):
    verdicts, _ = study([1.8, 1.2], seeds=2)
    assert verdicts["C3c"].verdict == "inconclusive"
    reason = verdicts["C2"].details["reason"]
    assert reason.startswith(
        f"{NOT_KNOWN}, as 2 seeds do not settle it: shuffling the patches of test images costs 1.5"
    )
    assert line(verdicts).startswith("Does the model use positions? Not settled: ")


@pytest.mark.parametrize("missing", ["control", "measure", "seeds"])
def test_where_it_could_not_be_tested_the_reason_says_so(missing, study):
    verdicts, table = study([1.8, 1.9, 2.0, 1.9, 1.9])
    if missing == "seeds":
        kept = table[table["seed"] == 0]
    else:
        kept = table[table["arm"] != "scrambled"] if missing == "control" else table[table["measure"] != "position_use"]
    verdicts = {verdict.claim: verdict for verdict in judge(kept, num_heads=4)}
    why = {"control": "scrambled control", "measure": "was not recorded", "seeds": "one seed cannot be tested"}[missing]
    assert verdicts["C3c"].verdict == "not judged"
    for claim in GATED:
        assert verdicts[claim].verdict == "not judged"
        assert verdicts[claim].details["reason"].startswith(f"{NOT_KNOWN}: ")
        assert why in verdicts[claim].sentence
        assert verdicts[claim].statistic is not None
    assert line(verdicts).startswith("Does the model use positions? Not known: ")


def test_verdicts_of_an_older_study_have_no_premise():
    assert premise([{"claim": "C1", "verdict": "supported"}]) == ""
    assert premise([]) == ""
