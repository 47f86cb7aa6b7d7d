"""What the page is made of: tables, arrays and runs of one study."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import pandas as pd

from wherefrom.catalogue import COLUMNS
from wherefrom.config import RunKey
from wherefrom.content import of_content
from wherefrom.figures.tables import by_series, without_series
from wherefrom.geometry import PatchGrid
from wherefrom.heads import Matching, study_matching
from wherefrom.store import RunDirectory, StudyDirectory

ARMS = ("natural", "shuffled", "scrambled")


class Material:
    """A study as the sections of the page ask for it; nothing that is missing raises."""

    def __init__(self, study: StudyDirectory):
        self.study = study
        self.settings = study.settings
        self.num_heads = self.settings["num_heads"]

    @cached_property
    def finished(self) -> dict[RunKey, RunDirectory]:
        return self.study.finished_runs()

    @cached_property
    def matching(self) -> dict[str, dict[int, dict[str, Matching]]]:
        """`study_matching`, which takes long."""
        return study_matching(self.study)

    @cached_property
    def everything(self) -> pd.DataFrame:
        """The tidy table of all finished runs."""
        return self.study.measurements()

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """Where the rows of each measure are: sections ask for few of some eighty, and comparing text takes long."""
        return dict(self.everything.groupby("measure", sort=False).indices) if len(self.everything) else {}  # pyrefly: ignore

    def rows(self, measure: str | Iterable[str], content: str = "natural", **where) -> pd.DataFrame:
        """Rows of measures in all finished runs that have these values; with its columns also where there is none."""
        names = [measure] if isinstance(measure, str) else measure
        places = [self._places[name] for name in names if name in self._places]
        if not places:
            return pd.DataFrame(columns=["run", "arm", "num_heads", "seed", "setting", "step", *COLUMNS])
        table = of_content(self.everything.iloc[np.sort(np.concatenate(places))], content)
        for column, value in where.items():
            table = table[table[column] == value]
        return table.reset_index(drop=True)

    def table(self, measure: str | Iterable[str], **where) -> pd.DataFrame:
        """The same, of the runs of arms and head sweep."""
        return without_series(self.rows(measure, **where))

    def arms(self, measure, **where) -> pd.DataFrame:
        """The same, of the runs of `ARMS` with the arms' head count."""
        table = self.with_cuts(measure, **where)
        return table[table["arm"].isin(ARMS)]

    def is_of_an_arm(self, key: RunKey) -> bool:
        """Whether a run has the arms' own head count and settings."""
        return key.num_heads == self.num_heads and not key.setting

    def with_cuts(self, measure, **where) -> pd.DataFrame:
        """The same, and the arms that have a part of the gradient cut."""
        table = self.table(measure, **where)
        return table[table["num_heads"] == self.num_heads]

    @cached_property
    def examples(self) -> dict[str, tuple[RunKey, RunDirectory]]:
        """For each arm its finished run with the lowest seed."""
        runs = [(key, run) for key, run in self.finished.items() if self.is_of_an_arm(key)]
        runs.sort(key=lambda pair: pair[0].seed, reverse=True)
        lowest = {key.arm: (key, run) for key, run in runs}
        return {arm: lowest[arm] for arm in ARMS if arm in lowest}

    @cached_property
    def other_data(self) -> dict[str, str]:
        """By arm what it is trained on, where that is not the data of the study."""
        usual = self.settings["train"].get("data")
        data = {arm: run.config.get("data", usual) for arm, (_, run) in self.examples.items()}
        return {arm: str(own) for arm, own in data.items() if own != usual}

    @cached_property
    def grid(self) -> PatchGrid | None:
        """The grid that the models of the arms see; None where no finished run has noted it."""
        runs = (run for key, run in self.finished.items() if not key.setting)
        return next((run.grid for run in runs if run.grid is not None), None)

    def true_grid(self, run: RunDirectory) -> PatchGrid:
        """The grid of a run's own model before the shuffling; the shuffled arm may have other images than the rest."""
        grid = run.grid or self.grid
        assert grid is not None
        order = self.array(run, "patch_order")
        return grid if order is None else grid.reordered(order)

    def array(self, run: RunDirectory, name: str, step: int | None = None, layer: int | None = None):
        """One array, by default of the first step that has it; None where there is none."""
        steps = run.array_steps(name)
        if not steps or (step is not None and step not in steps):
            return None
        return run.array(name, steps[0] if step is None else step, layer)

    @property
    def nothing_finished(self) -> str | None:
        if self.finished:
            return None
        return "No run of this study has finished yet, so there is nothing to draw."


def last_step(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last step."""
    return rows[rows["step"] == rows.groupby("run")["step"].transform("max")]


def first_step(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's first step."""
    return rows[rows["step"] == rows.groupby("run")["step"].transform("min")]


def by_arm(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each arm and grid, by the name that figures give it."""
    return {series.label: own for series, own in by_series(rows)}
