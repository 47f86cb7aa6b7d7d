"""How far a study is, read from the records of its runs, wherever they are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from wherefrom.store import RunDirectory, RunKey, StudyDirectory


@dataclass(frozen=True)
class Snapshot:
    """How far a study is: steps done by run, which runs are at work, what failed."""

    steps: dict[RunKey, int]
    total_steps: int
    """Of each run."""
    active: tuple[RunKey, ...]
    finished: tuple[RunKey, ...]
    failed: dict[RunKey, str]
    falloff: dict[RunKey, float]
    """Newest falloff of the position embedding, on the model's grid."""

    @property
    def share(self) -> float:
        return sum(self.steps.values()) / (self.total_steps * max(1, len(self.steps)))


class Watcher:
    """Follows runs by reading their records, wherever they are trained. Who has finished is not read again."""

    def __init__(self, runs: Iterable[RunKey], total_steps: int, study: StudyDirectory):
        self.runs, self.total_steps, self.study = tuple(runs), total_steps, study
        self.finished: dict[RunKey, None] = {}
        self.falloff: dict[RunKey, float] = {}
        self.steps = dict.fromkeys(self.runs, 0)
        self._look(self.runs)

    def is_finished(self, key: RunKey) -> bool:
        self._look([key])
        return key in self.finished

    def snapshot(self, active: Iterable[RunKey], ended: Iterable[RunKey], failed: dict[RunKey, str]) -> Snapshot:
        """How far the study is, after a look at the runs at work and at those that have ended since the last one."""
        active = tuple(active)
        with contextlib.suppress(ValueError):  # what cannot be read now, on a busy disk, may be at the next look
            self._look((*active, *ended))
        return Snapshot(dict(self.steps), self.total_steps, active, tuple(self.finished), failed, dict(self.falloff))

    def _look(self, keys: Iterable[RunKey]) -> None:
        for key in keys:
            run = self.study.run(key)
            if key not in self.finished and run.exists():
                self._read(key, run)

    def _read(self, key: RunKey, run: RunDirectory) -> None:
        if newest := run.newest("loss"):
            self.steps[key] = newest[0]
        newest = run.newest("similarity_falloff", grid="model")
        if newest and newest[1] is not None:
            self.falloff[key] = newest[1]
        if run.is_finished():
            self.finished[key] = None
