"""The main job: train all arms with all seeds and head counts, judge the claims, write the report."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wherefrom.config import RunKey, StudyConfig, TrainConfig, to_dict
from wherefrom.process import Helper
from wherefrom.store import StudyDirectory, claim
from wherefrom.store.files import config_differences
from wherefrom.watcher import Snapshot, Watcher
from wherefrom.workers import Executor, Place, executor, refuse_missing
from wherefrom.workers.task import RunFailed

if TYPE_CHECKING:
    import pandas as pd

ROUNDS = 3
"""How often a run is tried whose process died or whose disk failed; one that cannot succeed is not tried again."""

Report = Callable[[Snapshot], None]
T = TypeVar("T")


def quick_study(config: StudyConfig) -> StudyConfig:
    """A smaller study of the same kind: fewer seeds, head counts and steps; every sentence says preliminary."""
    few = min(config.control_seeds, 3)
    return replace(config, seeds=3, control_seeds=few, head_seeds=3, heads=(), steps=min(config.steps, 150))


@dataclass(frozen=True)
class Study:
    """A study on disk, trained and judged."""

    path: Path
    failed: dict[str, str] = field(default_factory=dict)
    """Sentence of each run that could not be made, by its name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each run took that was trained just now, by its name; without the start of its process."""

    @property
    def verdicts(self) -> list[dict]:
        """One object a claim, as in `verdicts.json`."""
        return StudyDirectory.open(self.path).verdicts

    def measurements(self, measure=None, **where) -> pd.DataFrame:
        """The tidy table of all finished runs."""
        return StudyDirectory.open(self.path).measurements(measure, **where)

    def series(self, name: str, measure=None, **where) -> pd.DataFrame:
        """The tidy table of one setting that was varied, for `wf.plot.setting_sweep`."""
        return StudyDirectory.open(self.path).series(name, measure, **where)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the page again, to `report.html` in the study or to `out`."""
        from wherefrom.report import write_report

        return write_report(self.path, out)


def run_study(
    config: StudyConfig,
    out: str | Path,
    *,
    jobs: int = 0,
    on: Place = "local",
    resources: Mapping | None = None,
    report: Report | None = None,
) -> Study:
    """Train what is not trained yet, judge, write `verdicts.json` and `report.html`.

    Args:
        config: which runs.
        out: the study directory; finished runs in it are kept, unfinished ones go on where they stopped.
        jobs: runs at once; 0: one a processor, and on slurm or ray as many as there is room for.
        on: where runs are trained: local, slurm or ray.
        resources: what slurm or ray give to each run, in the words of submitit or Ray: {"gpus_per_node": 1}, …
        report: called about twice a second while runs are trained.

    Raises:
        ValueError: for data, settings or a place that cannot be used, or a directory that holds another study.
        BlockingIOError: if another process is at work on the same study.
    """
    study = StudyDirectory(out)
    if jobs < 0:
        raise ValueError(f"jobs must be 0 or more; found {jobs}")
    refuse_other_study(study, config)
    refuse_missing(on, resources or {})
    to_train = sum(not study.run(key).is_finished() for key in config.runs())
    second = Helper("wherefrom.report.second")
    with second, executor(on, jobs, to_train, study.path, resources or {}) as place:
        place.check([to_dict(run) for run in config.runs().values()])
        with claim(study.path / ".lock", f"another process is at work on {study.path}; wait for it or stop it"):
            study.write_settings(to_dict(config.train), config.model.num_heads, list(config.runs()))
            # pandas and matplotlib are loaded while runs are trained
            threading.Thread(target=importlib.import_module, args=["wherefrom.conclude"]).start()
            trained = train_all(config.runs(), study, place, report, at_last=second.start)
            from wherefrom.conclude import conclude

            conclude(study, second)
    return Study(study.path, named(trained.failed), named(trained.seconds))


def named(found: Mapping[RunKey, T]) -> dict[str, T]:
    return {key.name: value for key, value in found.items()}


def refuse_other_study(study: StudyDirectory, config: StudyConfig) -> None:
    """Raise ValueError if runs in this directory were made with other settings, or it is no study."""
    if (study.path / "study.json").is_file():
        if differences := config_differences(study.settings["train"], to_dict(config.train)):
            raise ValueError(
                f"{study.path} holds a study with other settings ({'; '.join(differences)}); choose another folder "
                f"with --out, or delete this one"
            )
    elif study.path.exists() and (not study.path.is_dir() or _visible(study.path)):
        raise ValueError(f"{study.path} is there already and holds no study; choose another folder with --out")


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, without the lock and half-written file that a study killed at its start leaves."""
    return [item for item in folder.iterdir() if not item.name.startswith(".")]


# ---- many runs at once


@dataclass
class Trained:
    """How the runs ended that were trained just now."""

    seconds: dict[RunKey, float] = field(default_factory=dict)
    failed: dict[RunKey, str] = field(default_factory=dict)
    """Sentence of each run that cannot be made."""
    lost: dict[RunKey, str] = field(default_factory=dict)
    """Sentence of each run that another try may make."""

    def note(self, key: RunKey, future: Future[float]) -> None:
        error = future.exception()
        if error is None:
            self.seconds[key] = future.result()
        else:
            (self.failed if isinstance(error, RunFailed) else self.lost)[key] = str(error)


def train_all(
    runs: dict[RunKey, TrainConfig],
    study: StudyDirectory,
    place: Executor,
    report: Report | None,
    at_last: Callable[[], object] = lambda: None,
) -> Trained:
    """Train all runs that are not finished; lost ones again, and what is lost at last has failed.

    `at_last` is called when only one run is at work, so that a processor may have nothing to do.
    """
    trained, watcher = Trained(), Watcher(runs, next(iter(runs.values())).steps, study)
    for _ in range(ROUNDS):
        again = {key: config for key, config in runs.items() if not (key in trained.failed or watcher.is_finished(key))}
        if not again:
            break
        trained.lost.clear()
        futures = {place.submit(to_dict(config), study.run(key).path): key for key, config in again.items()}
        _wait_for(futures, watcher, trained, report, at_last)
    trained.failed |= {key: sentence for key, sentence in trained.lost.items() if not watcher.is_finished(key)}
    return trained


def _wait_for(
    futures: dict[Future, RunKey],
    watcher: Watcher,
    trained: Trained,
    report: Report | None,
    at_last: Callable[[], object],
) -> None:
    """Until all have ended. Each look costs as much as there are runs at work, however many have ended or wait."""
    waiting, pause = set(futures), 0.5
    while waiting:
        first = len(waiting) == 2  # one is left then, and that is of interest at once
        done, waiting = wait(waiting, pause, FIRST_COMPLETED if first else ALL_COMPLETED)
        for future in done:
            trained.note(futures[future], future)
        if len(waiting) == 1:
            at_last()
        if report:
            begun = time.monotonic()
            active = [key for future, key in futures.items() if future.running()]
            report(watcher.snapshot(active, [futures[future] for future in done], dict(trained.failed)))
            pause = max(0.5, 10 * (time.monotonic() - begun))  # hundreds of runs on a slow disk


def study(
    data: str = "mnist16",
    *,
    out: str | Path = "runs/study",
    jobs: int = 0,
    on: Place = "local",
    resources: Mapping | None = None,
    quick: bool = False,
    **settings,
) -> Study:
    """The main job, from Python: train the arms, judge the claims, write the report; progress goes to the terminal.

    Args:
        data: name of a data set, or the path of an image folder or parquet file.
        out: the study directory; finished runs in it are kept.
        jobs: runs at once; 0: one a processor, and on slurm or ray as many as there is room for.
        on: where runs are trained: local, slurm or ray.
        resources: what slurm or ray give to each run, in the words of submitit or Ray: {"gpus_per_node": 1}, …
        quick: a smaller study of the same kind.
        settings: any field of `StudyConfig`: seeds, heads, arms, steps, model, …

    Raises:
        ValueError: for data or settings that cannot be used, or a directory that holds another study.
    """
    from rich.console import Console

    from wherefrom.display import study_progress

    config = StudyConfig(data=data, **settings)
    with study_progress(Console(stderr=True)) as report:
        config = quick_study(config) if quick else config
        return run_study(config, out, jobs=jobs, on=on, resources=resources, report=report)
