"""How many seeds does the default study need? Studies simulated from the effects that a real one has found.

    python benchmarks/power.py runs/study

Takes mean and standard deviation over seeds of each claim's statistic, natural and scrambled, from a study on disk;
draws normal seeds for other numbers of seeds and head counts; prints how often each claim is decided.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tables import markdown

from wherefrom.claims.primary import PRIMARY, Case, by_head_count, case, slopes
from wherefrom.claims.readings import Readings
from wherefrom.claims.rule import decide
from wherefrom.store import open_study

DESIGNS = tuple((natural, scrambled) for natural in (4, 5, 6, 8) for scrambled in (2, 3, 4, 5))
"""Natural and scrambled seeds."""
SWEEPS = tuple((counts, seeds) for counts in ((1, 4, 8), (1, 2, 4, 8)) for seeds in (3, 4, 5, 6))
"""Head counts and seeds of each: the accuracy's slope on log2(heads)."""


@dataclass(frozen=True)
class Pilot:
    """What a real study has found."""

    cases: dict[str, Case]
    accuracy: pd.DataFrame
    """Final test accuracy, `seed × head count`, over seeds that have every count."""
    num_heads: int

    def draw(self, claim: str, control: bool, seeds: int, rng: np.random.Generator) -> pd.Series:
        """Normal seeds with the mean and standard deviation of the pilot's."""
        pilot = self.cases[claim].control if control else self.cases[claim].values
        assert pilot is not None
        return pd.Series(rng.normal(pilot.mean(), pilot.std(ddof=1), seeds))


def read_pilot(path: Path) -> Pilot:
    study = open_study(path)
    readings = Readings(study.measurements(), study.num_heads)
    cases = {claim: case(claim, readings) for claim in PRIMARY}
    judged = {claim: one for claim, one in cases.items() if one.reason is None}
    return Pilot(judged, by_head_count(readings, "accuracy", split="test").dropna(), study.num_heads)


def simulated(pilot: Pilot, natural: int, scrambled: int, rng: np.random.Generator) -> dict[str, str]:
    """Verdict of each claim in one simulated study; heads are left to `sweep_power`, and counted in the correction."""
    cases = []
    for claim, found in pilot.cases.items():
        control = None if found.control is None else pilot.draw(claim, True, scrambled, rng)
        cases.append(Case(claim, pilot.draw(claim, False, natural, rng), control))
    return {decision.case.claim: decision.verdict for decision in decide(cases)}


def powers(pilot: Pilot, natural: int, scrambled: int, studies: int) -> dict[str, float]:
    """Share of studies in which each claim is decided, either way."""
    rng = np.random.default_rng([natural, scrambled])
    decided = dict.fromkeys(pilot.cases, 0)
    for _ in range(studies):
        for claim, verdict in simulated(pilot, natural, scrambled, rng).items():
            decided[claim] += verdict in ("supported", "contradicted")
    return {claim: count / studies for claim, count in decided.items()}


def sweep_power(pilot: Pilot, counts: tuple[int, ...], seeds: int, studies: int) -> float:
    """The same of C5: accuracies of a seed's head counts are drawn together, as the pilot's seeds vary together."""
    accuracy = pilot.accuracy[[count for count in counts if count in pilot.accuracy]]
    found = slopes(accuracy, np.log2(accuracy.columns.to_numpy(dtype=float)))
    rng, decided = np.random.default_rng([len(counts), seeds]), 0
    others = [Case(claim, reason="not simulated") for claim in pilot.cases if claim != "C5"]
    for _ in range(studies):
        drawn = pd.Series(rng.normal(found.mean(), found.std(ddof=1), seeds))
        decided += decide([Case("C5", drawn), *others])[0].verdict in ("supported", "contradicted")
    return decided / studies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a study that has found the effects")
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies of each design")
    options = parser.parse_args()
    pilot = read_pilot(options.study)
    for line in (*effects(pilot), "", *designs(pilot, options.studies), "", *sweeps(pilot, options.studies)):
        print(line)


def effects(pilot: Pilot) -> list[str]:
    """What the simulation starts from."""
    rows = [
        [claim, *(f"{part.mean():.4g} ({part.std(ddof=1):.2g}), n {len(part)}" for part in _parts(found))]
        for claim, found in pilot.cases.items()
    ]
    return markdown(["claim", "natural: mean (standard deviation)", "scrambled"], [[*row, "none"][:3] for row in rows])


def _parts(found: Case) -> list[pd.Series]:
    return [found.values] if found.control is None else [found.values, found.control]


def designs(pilot: Pilot, studies: int) -> list[str]:
    claims = [claim for claim in pilot.cases if claim != "C5"]
    rows = []
    for natural, scrambled in DESIGNS:
        found = powers(pilot, natural, scrambled, studies)
        rows.append([str(natural), str(scrambled), *(f"{found[claim]:.2f}" for claim in claims)])
    return markdown(["natural seeds", "scrambled seeds", *claims], rows)


def sweeps(pilot: Pilot, studies: int) -> list[str]:
    known = [(counts, seeds) for counts, seeds in SWEEPS if set(counts) <= set(pilot.accuracy)]
    rows = [
        [
            ", ".join(map(str, counts)),
            str(seeds),
            str((len(counts) - 1) * seeds),
            f"{sweep_power(pilot, counts, seeds, studies):.2f}",
        ]
        for counts, seeds in known
    ]
    return markdown(["head counts", "seeds", "further runs", "C5"], rows)


if __name__ == "__main__":
    main()
