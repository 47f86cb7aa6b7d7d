"""A small version of `make calibrate`: made studies through `judge`, whose truth is known."""

import sys
from pathlib import Path

import pytest

from wherefrom.statistics import binomial_interval

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def rule():
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(BENCHMARKS))
    import rule

    yield rule
    patch.undo()


def test_made_studies_have_the_statistics_they_are_made_of(rule):
    maker = rule.Maker(5, 4)
    scenario = rule.Scenario("sure", dict.fromkeys(rule.TESTED, 1000.0))
    verdicts = {
        one.claim: one for one in rule.judge(maker.study(scenario, rule.np.random.default_rng(0)), num_heads=rule.HEADS)
    }
    for claim in rule.TESTED:
        one = verdicts[claim]
        assert one.statistic == pytest.approx(1000 * sys.modules[rule.Maker.__module__].NOISE, rel=0.01), claim
        assert (one.verdict, one.n, one.details["claims_counted"]) == ("supported", 5, 7), claim
        assert one.control is None or one.control["n"] == 4
    assert verdicts["C0"].verdict == "by construction"


def rates(rule, scenario, studies, **more):
    return rule.judged(rule.Task(scenario, 5, 5, studies, 7, **more))


def test_wrong_decisions_and_mixed_layers_are_rare(rule):
    for scenario in (rule.PREMISE, rule.ONE_LAYER):
        found = rates(rule, scenario, 100)
        for kind in ("wrong", "mixed"):
            assert binomial_interval(found[kind], 100, 0.99)[0] <= 0.05, (scenario.name, kind, found)


def test_power_is_the_same_both_ways(rule):
    toward, against = (rates(rule, scenario, 60, mirror=scenario is rule.AGAINST)
                       for scenario in (rule.TOWARD, rule.AGAINST))  # fmt: skip
    ways = [rule.power(found, rule.CONTROLLED) for found in (toward, against)]
    assert abs(ways[0][0] - ways[1][0]) <= 0.03 * ways[0][1]
    low, high = binomial_interval(*ways[0], 0.99)
    assert low <= 0.45 + 0.15
    assert high >= 0.45 - 0.15


def test_the_number_of_seeds_that_is_named_is_enough(rule):
    effect, ratio = 2.0, 1.0
    natural, control = rule.named(effect, ratio)
    scenario = rule.Scenario("one effect", rule.OPEN | {"C1": effect})
    found = rule.judged(rule.Task(scenario, natural, control, 100, 3))
    assert binomial_interval(found["found C1"], 100, 0.99)[1] >= 0.8
