"""Studies made up as tables whose truth is known, with as few measures as claims are judged on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd

TESTED = ("C1", "C2", "C3a", "C3b", "C3c", "C4", "C5")
LAYERED = ("C1", "C2", "C4")
DEPTH, HEADS, COUNTS, LAST = 3, 4, (1, 8), 1
NOISE = 0.1
"""Standard deviation over seeds of every primary statistic, in its own unit."""


@dataclass(frozen=True)
class Scenario:
    """What is true. Effects are in standard deviations over seeds of the primary statistic."""

    name: str
    effects: dict[str, float]
    one_layer: bool = False
    """Whether a claim with layers has its whole effect in the first of them."""

    def right(self, claim: str) -> str | None:
        """The verdict that is right for a claim; None where nothing is there."""
        effect = self.effects.get(claim, 0.0)
        return "supported" if effect > 0 else "contradicted" if effect < 0 else None


def template(natural: int, control: int) -> pd.DataFrame:
    """Every row of a study with as few measures as claims are judged on; `of` and `part` say what its value is."""
    rows = []
    for arm, seeds in (("natural", natural), ("scrambled", control)):
        rows += [row for seed in range(seeds) for row in run_rows(arm, seed)]
    for heads in COUNTS:
        rows += [accuracy_row(heads, seed) for seed in range(natural)]
    table = pd.DataFrame(rows, columns=["run", "arm", "num_heads", "seed", "step", "measure", "layer", "relation",
                                        "route", "of", "number", "layer_index"])  # fmt: skip
    split = {"attn": "probe", "row_divergence": "probe", "position_use": "test", "accuracy": "test"}
    content = table["measure"].map({"attn": "shuffled", "row_divergence": "natural"})
    grid = table["measure"].map({"near_minus_far": "model", "ledger_near_minus_far": "model"})
    table = table.assign(split=table["measure"].map(split), content=content, grid=grid, head=0, distance=np.nan)
    return table.astype(dict.fromkeys(("arm", "measure", "split", "relation", "route", "content", "grid"), "category"))


def run_rows(arm: str, seed: int) -> Iterable[tuple]:
    """Rows of one run with the arms' head count: its key, …, route, claim, whether at the end, layer."""
    key = (f"{arm}-{seed}", arm, HEADS, seed)
    for step in (0, LAST):
        for layer in range(DEPTH):
            yield (*key, step, "attn", layer, "edge", None, "C1", step, layer)
            yield (*key, step, "attn", layer, "far", None, "C2", step, layer)
            yield (*key, step, "row_divergence", layer, None, None, "C4", step, layer)
        yield (*key, step, "near_minus_far", None, None, None, "C3a", step, 0)
    yield (*key, LAST, "position_use", None, None, None, "C3c", 1, 0)
    if arm == "natural":
        yield (*key, LAST, "ledger_near_minus_far", None, None, "q", "C3b", 1, 0)
        yield (*key, LAST, "ledger_near_minus_far", None, None, "v", "C3b", 0, 0)
        yield (*key, LAST, "accuracy", None, None, None, "C5", 0, 0)


def accuracy_row(heads: int, seed: int) -> tuple:
    return (f"natural-heads{heads}-{seed}", "natural", heads, seed, LAST, "accuracy", None, None, None, "C5", 1, 0)


class Maker:
    """Makes tables of one size: only the column `value` differs from study to study."""

    def __init__(self, natural: int, control: int):
        self.natural, self.control = natural, control
        self.table = template(natural, control)
        self.places = {claim: np.flatnonzero(self.table["of"] == claim) for claim in TESTED}
        self.seeds, self.layers = (self.table[name].to_numpy() for name in ("seed", "layer_index"))
        self.at_end = self.table["number"].to_numpy()
        self.is_natural = (self.table["arm"] == "natural").to_numpy()
        self.doublings = np.log2(self.table["num_heads"].to_numpy() / HEADS)
        self.table = self.table.drop(columns=["of", "number", "layer_index"])

    def study(self, scenario: Scenario, random: np.random.Generator, sign: float = 1.0) -> pd.DataFrame:
        values = np.zeros(len(self.table))
        for claim in TESTED:
            statistics = [self.statistic(scenario, claim, arm, random, sign) for arm in ("natural", "scrambled")]
            at = self.places[claim]
            own = np.where(
                self.is_natural[at], *(one[self.seeds[at] % len(one), self.layers[at]] for one in statistics)
            )
            values[at] = self.recorded(claim, own, at)
        return self.table.assign(value=values)

    def statistic(
        self, scenario: Scenario, claim: str, arm: str, random: np.random.Generator, sign: float
    ) -> np.ndarray:
        """The primary statistic, `seed layer`, whose mean over layers has the deviation NOISE over seeds."""
        depth = DEPTH if claim in LAYERED else 1
        effect = scenario.effects.get(claim, 0.0) if arm == "natural" else 0.0
        mean = np.full(depth, effect)
        if scenario.one_layer and claim in LAYERED:
            mean = np.eye(depth)[0] * depth * effect  # the mean over layers has the effect asked for
        seeds = self.natural if arm == "natural" else self.control
        return NOISE * (mean + sign * sqrt(depth) * random.normal(size=(seeds, depth)))

    def recorded(self, claim: str, statistic: np.ndarray, at: np.ndarray) -> np.ndarray:
        """What a run would record, so that judging it gives back the statistic."""
        end = self.at_end[at]
        match claim:
            case "C1":
                return 0.02 * np.exp(statistic * end)
            case "C2":
                return 0.02 * np.exp(-statistic * end)
            case "C3b":
                return 0.3 + statistic * end
            case "C5":
                return 0.6 + statistic * self.doublings[at]
        return 0.1 + statistic * end if claim != "C3c" else statistic
