"""Is the rule right? Studies made up as tables, whose truth is known, judged as real ones are.

    make calibrate

Prints Markdown tables of rates with 95 % binomial intervals and puts them into docs/rule.md, between its two marks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from made_studies import HEADS, TESTED, Maker, Scenario
from tables import markdown, put, rate

from wherefrom.claims import judge
from wherefrom.claims.rule import ALPHA
from wherefrom.claims.seeds import LIMIT, seeds_for

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "rule.md"
MARKS = "<!-- simulation -->", "<!-- end of simulation -->"

CONTROLLED = ("C1", "C2", "C4")
"""Claims with a control whose subject is there in every scenario but the first."""

SURE = 10.0
"""Effect, in standard deviations, that leaves no doubt."""
EFFECT = 2.0
"""Effect of the claims that are asked for, in standard deviations over seeds."""

SIZES = ((3, 3), (5, 3), (5, 5), (8, 3), (8, 8), (20, 3), (20, 20))
"""Natural and control seeds."""


OPEN = {"C3a": SURE, "C3c": SURE}
ASKED = ("C1", "C2", "C3b", "C4", "C5")

NOTHING = Scenario("nothing at all", {})
PREMISE = Scenario("a map that is used, and nothing else", OPEN)
TOWARD = Scenario("effects as claimed", OPEN | dict.fromkeys(ASKED, EFFECT))
AGAINST = Scenario("effects the other way", OPEN | dict.fromkeys(ASKED, -EFFECT))
ONE_LAYER = Scenario("an effect in one layer of three", OPEN | dict.fromkeys(("C1", "C4"), EFFECT), one_layer=True)
NEARLY_ALL = Scenario(
    "effects in one layer of three, and nothing in C3b and C5",
    OPEN | dict.fromkeys(("C1", "C2", "C4"), EFFECT),
    one_layer=True,
)
SCENARIOS = (NOTHING, PREMISE, TOWARD, AGAINST, ONE_LAYER, NEARLY_ALL)


@dataclass(frozen=True)
class Task:
    """Many studies of one scenario and size."""

    scenario: Scenario
    natural: int
    control: int
    studies: int
    seed: int
    mirror: bool = False
    """Whether all noise is turned about, so that studies mirror those of the opposite scenario."""


# ---- many studies


def judged(task: Task) -> Counter:
    """Counts over the studies of a task."""
    maker, random, found = Maker(task.natural, task.control), np.random.default_rng(task.seed), Counter()
    for _ in range(task.studies):
        table = maker.study(task.scenario, random, -1.0 if task.mirror else 1.0)
        judged_ones = judge(table, num_heads=HEADS, brief=True)
        verdicts = {one.claim: one.verdict for one in judged_ones if one.claim in TESTED}
        decided = {claim: verdict for claim, verdict in verdicts.items() if verdict in ("supported", "contradicted")}
        found["studies"] += 1
        found["wrong"] += any(verdict != task.scenario.right(claim) for claim, verdict in decided.items())
        found["mixed"] += "mixed" in verdicts.values()
        found.update(f"found {claim}" for claim in decided)
        for one in judged_ones:
            if one.claim in CONTROLLED and one.verdict == "inconclusive":
                found["open"] += 1
                found["in range"] += holds(one.details["seeds_needed"], task)
    return found


def holds(ends: list, task: Task) -> bool:
    """Whether the range of seeds that is named holds the number that the true effect needs."""
    low, high = (inf if end == f">{LIMIT}" else end for end in ends)
    return low <= max(true_number(EFFECT, task.control / task.natural), task.natural + 1) <= high


@cache
def true_number(effect: float, ratio: float) -> float:
    """Natural seeds that an effect needs where all claims count."""
    return seeds_for(effect, 1.0, effect, 1.0, ratio, ALPHA / len(TESTED))


def tasks(studies: int) -> list[Task]:
    """Every scenario at every size; opposite effects with the same noise turned about."""
    found = []
    for place, (natural, control) in enumerate(SIZES):
        for number, scenario in enumerate(SCENARIOS):
            seed = 100 * place + (SCENARIOS.index(TOWARD) if scenario is AGAINST else number)
            found.append(Task(scenario, natural, control, studies, seed, mirror=scenario is AGAINST))
    return found


NAMED = ((1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (3.0, 1.0), (1.5, 0.6), (2.0, 0.6))
"""Effect in standard deviations, and control seeds for each natural one."""


def named(effect: float, ratio: float) -> tuple[int, int]:
    """Natural and control seeds that are named for this effect where all claims count."""
    natural = int(true_number(effect, ratio))
    return natural, max(2, round(natural * ratio))


def named_tasks(studies: int) -> list[Task]:
    """One claim has the effect, at the number of seeds that is named for it; the others have none."""
    scenarios = [Scenario(f"{effect:g}", OPEN | {"C1": effect}) for effect, _ in NAMED]
    return [
        Task(scenario, *named(*pair), studies, 10_000 + place)
        for place, (scenario, pair) in enumerate(zip(scenarios, NAMED, strict=True))
    ]


# ---- tables


def power(found: Counter, claims: Iterable[str]) -> tuple[int, int]:
    """Decisions and chances of these claims."""
    claims = tuple(claims)
    return sum(found[f"found {claim}"] for claim in claims), len(claims) * found["studies"]


def error_table(counts: dict[tuple, Counter]) -> list[list[str]]:
    """By size: rate of studies with any wrong decision in each scenario."""
    rows = []
    for natural, control in SIZES:
        own = [counts[scenario.name, natural, control] for scenario in SCENARIOS]
        rows.append([str(natural), str(control), *(rate(found["wrong"], found["studies"]) for found in own)])
    return rows


def power_table(counts: dict[tuple, Counter]) -> list[list[str]]:
    """By size: rate at which an effect is found, with a control and without one, either way."""
    rows = []
    for natural, control in SIZES:
        ways = [counts[scenario.name, natural, control] for scenario in (TOWARD, AGAINST)]
        cells = [rate(*power(found, claims)) for claims in (CONTROLLED, ("C5",)) for found in ways]
        rows.append([str(natural), str(control), *cells])
    return rows


def mixed_table(counts: dict[tuple, Counter]) -> list[list[str]]:
    """By size: rate of studies in which any claim is mixed, though no two layers have opposite effects."""
    rows = []
    for natural, control in SIZES:
        own = [counts[scenario.name, natural, control] for scenario in SCENARIOS]
        rows.append([str(natural), str(control), *(rate(found["mixed"], found["studies"]) for found in own)])
    return rows


def range_table(counts: dict[tuple, Counter]) -> list[list[str]]:
    """By size: of inconclusive verdicts where there is an effect, how many name a range that holds the true number."""
    rows = []
    for natural, control in SIZES:
        found = counts[TOWARD.name, natural, control]
        number = true_number(EFFECT, control / natural)
        needed = f"more than {LIMIT}" if number == inf else f"{number:.0f}"
        rows.append([str(natural), str(control), needed, str(found["open"]), rate(found["in range"], found["open"])])
    return rows


def named_table(found: list[Counter]) -> list[list[str]]:
    """By effect: the number of seeds named, and how often it was enough."""
    rows = []
    for (effect, ratio), own in zip(NAMED, found, strict=True):
        natural, control = named(effect, ratio)
        rows.append([f"{effect:g}", str(natural), str(control), rate(*power(own, ("C1",)))])
    return rows


TEXT = """\
{studies:,} made studies for each cell, judged by `wherefrom.claims.judge`. All seven tested claims count. Every
statistic has the same standard deviation over seeds, an effect is {effect:g} of them, and {sure:g} for the map and its
use wherever there is one. Intervals are 95 % binomial ones.

**Studies with any wrong decision** (an effect found where there is none, or the other way round):
"""


def document(counts: dict[tuple, Counter], named_counts: list[Counter], studies: int) -> str:
    sizes, names = ["natural seeds", "control seeds"], [scenario.name for scenario in SCENARIOS]
    ways = ["with control, as claimed", "with control, the other way", "without control, as claimed", "the other way"]
    return "\n".join([
        TEXT.format(studies=studies, effect=EFFECT, sure=SURE),
        *markdown([*sizes, *names], error_table(counts)),
        "\n**Power**: how often an effect is found, the same noise turned about for the other way:\n",
        *markdown([*sizes, *ways], power_table(counts)),
        "\n**Studies with any claim `mixed`**, though no two layers have opposite effects:\n",
        *markdown([*sizes, *names], mixed_table(counts)),
        "\n**The number of seeds that is named**: how often it was enough for an effect of that size:\n",
        *markdown(["effect", *sizes, "found"], named_table(named_counts)),
        f"\n**The range that is named** by inconclusive verdicts where the effect is {EFFECT:g}: how often it holds\n"
        "the number of natural seeds that the effect needs:\n",
        *markdown([*sizes, "needs", "inconclusive", "the range holds it"], range_table(counts)),
    ])  # fmt: skip


def simulate(studies: int, workers: int) -> tuple[dict[tuple, Counter], list[Counter]]:
    """Counts by scenario and size, and those of the numbers of seeds that are named."""
    main, names = tasks(studies), named_tasks(studies)
    parts = [replace(task, studies=len(part), seed=(task.seed, number))
             for task in (*main, *names) for number, part in enumerate(np.array_split(np.arange(task.studies), 4))
             if len(part)]  # fmt: skip
    order = sorted(range(len(parts)), key=lambda place: -parts[place].natural)  # the longest first
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        done = dict(zip(order, pool.map(judged, (parts[place] for place in order)), strict=True))
    sums: dict[tuple, Counter] = {}
    for place, task in enumerate(parts):
        key = (task.scenario.name, task.natural, task.control)
        sums[key] = sums.get(key, Counter()) + done[place]
    return sums, [sums[task.scenario.name, task.natural, task.control] for task in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="made studies for each scenario and size")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--dry", action="store_true", help="leave docs/rule.md as it is")
    options, _ = parser.parse_known_args()
    start = time.perf_counter()
    text = document(*simulate(options.studies, options.workers), options.studies)
    print(text)
    print(f"{time.perf_counter() - start:.0f} seconds", file=sys.stderr)
    if not options.dry:
        put(DOCUMENT, MARKS, text)


if __name__ == "__main__":
    main()
