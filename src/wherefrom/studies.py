"""The main job: train all arms with all seeds and head counts, judge the claims, write the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from wherefrom.claims import Verdict, judge
from wherefrom.config import RunKey, StudyConfig, TrainConfig, to_dict
from wherefrom.heads import matching_as_dict, study_matching
from wherefrom.report import write_report
from wherefrom.store import StudyDirectory, claim
from wherefrom.store.files import config_differences
from wherefrom.watcher import Snapshot, Watcher
from wherefrom.workers import RunFailed, Workers

ROUNDS = 3
"""How often a run is tried whose process died or whose disk failed; one that cannot succeed is not tried again."""

Report = Callable[[Snapshot], None]


def quick_study(config: StudyConfig) -> StudyConfig:
    """A smaller study of the same kind: fewer seeds, head counts and steps; every sentence says preliminary."""
    return replace(config, seeds=3, head_seeds=3, heads=config.heads[:1], steps=min(config.steps, 140))


@dataclass(frozen=True)
class Study:
    """A study on disk, trained and judged."""

    path: Path
    failed: dict[str, str] = field(default_factory=dict)
    """Sentence of each run that could not be made, by its name."""

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
        return write_report(self.path, out)


def run_study(config: StudyConfig, out: str | Path, *, jobs: int = 0, report: Report | None = None) -> Study:
    """Train what is not trained yet, judge, write `verdicts.json` and `report.html`.

    Args:
        config: which runs.
        out: the study directory; finished runs in it are kept, unfinished ones go on where they stopped.
        jobs: processes at once, one thread each; 0: one a processor.
        report: called about twice a second while runs are trained.

    Raises:
        ValueError: for data or settings that cannot be used, or a directory that holds another study.
        BlockingIOError: if another process is at work on the same study.
    """
    study = StudyDirectory(out)
    if jobs < 0:
        raise ValueError(f"jobs must be 0 or more; found {jobs}")
    refuse_other_study(study, config)
    check_machine_and_data(config)
    with claim(study.path / ".lock", f"another process is at work on {study.path}; wait for it or stop it"):
        study.write_settings(to_dict(config.train), config.model.num_heads, list(config.runs()))
        failed = train_all(config.runs(), study, jobs or available_processors(), report)
        conclude(study)
    return Study(study.path, {key.name: sentence for key, sentence in failed.items()})


def conclude(study: StudyDirectory) -> list[Verdict]:
    """Judge the claims from the finished runs and write verdicts and report."""
    grid = next((run.grid for key, run in study.finished_runs().items() if not key.setting), None)
    num_tokens = None if grid is None else grid.num_tokens
    beside = {"C4": {"seed_matching": matching_as_dict(study_matching(study))}}
    verdicts = judge(study.measurements(), num_heads=study.num_heads, num_tokens=num_tokens, beside=beside)
    study.write_verdicts([verdict.to_dict() for verdict in verdicts])
    write_report(study.path)
    return verdicts


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


def check_machine_and_data(config: StudyConfig) -> None:
    """Look for the device and load the data once, so that what is wrong is said before anything is written."""
    from wherefrom.data import Batches, load
    from wherefrom.train import choose_device

    choose_device(config.device)
    data = load(config.data)
    for patch_size, batch_size in {(run.model.patch_size, run.batch_size) for run in config.runs().values()}:
        Batches(data, arm="natural", patch_size=patch_size, batch_size=batch_size, seed=0)


# ---- many runs at once


def train_all(
    runs: dict[RunKey, TrainConfig], study: StudyDirectory, jobs: int, report: Report | None
) -> dict[RunKey, str]:
    """Train all runs that are not finished; returns the sentence of each that failed."""
    failed: dict[RunKey, str] = {}
    lost: dict[RunKey, str] = {}
    for _ in range(ROUNDS):
        open_runs = {key: config for key, config in runs.items() if not study.run(key).is_finished()}
        again = {key: config for key, config in open_runs.items() if key not in failed}
        if not again:
            return failed
        with Workers(min(jobs, len(again))) as workers:
            futures = {workers.submit(to_dict(config), study.run(key).path): key for key, config in again.items()}
            _wait_for(futures, Watcher(runs, next(iter(runs.values())).steps, study), failed, report)
        failed |= _sentences(futures, RunFailed)
        lost = _sentences(futures, Exception)
    return lost | failed


def _wait_for(
    futures: dict[Future, RunKey], watcher: Watcher, failed: dict[RunKey, str], report: Report | None
) -> None:
    waiting = set(futures)
    while waiting:
        _, waiting = wait(waiting, timeout=0.5)
        if report:
            active = [key for future, key in futures.items() if future.running()]
            report(watcher.snapshot(active, failed | _sentences(futures, RunFailed)))


def _sentences(futures: dict[Future, RunKey], kind: type[Exception]) -> dict[RunKey, str]:
    """Sentence of each run that ended with this kind of error."""
    errors = {key: future.exception() for future, key in futures.items() if future.done()}
    return {key: str(error) for key, error in errors.items() if isinstance(error, kind)}


def available_processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def study(
    data: str = "photos", *, out: str | Path = "runs/study", jobs: int = 0, quick: bool = False, **settings
) -> Study:
    """The main job, from Python: train the arms, judge the claims, write the report; progress goes to the terminal.

    Args:
        data: name of a data set, or the path of an image folder or parquet file.
        out: the study directory; finished runs in it are kept.
        jobs: processes at once, one thread each; 0: one a processor.
        quick: a smaller study of the same kind.
        settings: any field of `StudyConfig`: seeds, heads, arms, steps, model, …

    Raises:
        ValueError: for data or settings that cannot be used, or a directory that holds another study.
    """
    from rich.console import Console

    from wherefrom.display import study_progress

    config = StudyConfig(data=data, **settings)
    with study_progress(Console(stderr=True)) as report:
        return run_study(quick_study(config) if quick else config, out, jobs=jobs, report=report)
