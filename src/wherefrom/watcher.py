"""How far a study is, read from the records of its runs, wherever they are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wherefrom.store import RunKey, StudyDirectory


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
    """Follows runs by reading their records, wherever they are trained."""

    def __init__(self, runs: Iterable[RunKey], total_steps: int, study: StudyDirectory):
        self.runs, self.total_steps, self.study = tuple(runs), total_steps, study
        self.finished: dict[RunKey, None] = {}
        self.falloff: dict[RunKey, float] = {}
        self.steps = dict.fromkeys(self.runs, 0)

    def snapshot(self, active: list[RunKey], failed: dict[RunKey, str]) -> Snapshot:
        for key in set(self.runs) - self.finished.keys():
            self._look(key)
        return Snapshot(
            dict(self.steps), self.total_steps, tuple(active), tuple(self.finished), failed, dict(self.falloff)
        )

    def _look(self, key: RunKey) -> None:
        run = self.study.run(key)
        if not run.exists():
            return
        self.steps[key] = run.last_step() or 0
        falloff = run.measurements("similarity_falloff", grid="model")
        if len(falloff):
            self.falloff[key] = float(falloff.value.iloc[-1])
        if run.is_finished():
            self.finished[key] = None
