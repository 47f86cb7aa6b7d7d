"""The main job: train all arms with all seeds and head counts, judge the claims, write the report."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from wherefrom.claims import Verdict, judge
from wherefrom.config import ARMS, Arm, ModelConfig, RecordConfig, TrainConfig, from_dict, to_dict
from wherefrom.report import write_report
from wherefrom.store import RunKey, StudyDirectory, claim
from wherefrom.store.files import config_differences
from wherefrom.watcher import Snapshot, Watcher

ROUNDS = 3
"""How often a run is tried whose process died or whose disk failed; one that cannot succeed is not tried again."""

Report = Callable[[Snapshot], None]


@dataclass(frozen=True)
class StudyConfig:
    """Which runs a study is made of."""

    data: str = "photos"
    """Name of a data set (`wherefrom data` lists them), or the path of an image folder or parquet file."""
    seeds: int = 5
    """Runs of the natural and of the scrambled arm, one a seed. Seeds are the unit of evidence."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Head counts of the head sweep, in the natural arm, at equal width and parameters."""
    head_seeds: int = 3
    """Seeds of each further head count."""
    arms: tuple[Arm, ...] = ("natural", "shuffled", "scrambled")
    """Control arms; shuffled runs once, as a demonstration."""
    steps: int = 200
    """Training steps of each run."""
    batch_size: int = 64
    """Images in a training batch."""
    learning_rate: float = 3e-3
    """Highest learning rate."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda or mps."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model of all runs; its num_heads is that of the arms."""
    record: RecordConfig = field(default_factory=RecordConfig)
    """What is recorded."""

    def __post_init__(self):
        for name in ("seeds", "head_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; found {getattr(self, name)}")
        if unknown := [arm for arm in self.arms if arm not in ARMS]:
            raise ValueError(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
        if "natural" not in self.arms:
            raise ValueError(f"arms must name natural, which all others are held against; found {', '.join(self.arms)}")
        self.runs()  # raises its own sentence for an impossible head count

    @property
    def train(self) -> TrainConfig:
        """What all runs share."""
        return TrainConfig(
            data=self.data, steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate,
            device=self.device, threads=1, model=self.model, record=self.record,
        )  # fmt: skip

    def runs(self) -> dict[RunKey, TrainConfig]:
        """Every run of the study: first one seed of each arm, so that there is soon something to see."""
        keys = [RunKey(arm, self.model.num_heads, 0) for arm in ARMS if arm in self.arms]
        for seed in range(1, self.seeds):
            keys += [RunKey(arm, self.model.num_heads, seed) for arm in self.arms if arm != "shuffled"]
        others = [count for count in self.heads if count != self.model.num_heads]
        keys += [RunKey("natural", count, seed) for seed in range(self.head_seeds) for count in others]
        return {key: self._run(key) for key in keys}

    def _run(self, key: RunKey) -> TrainConfig:
        model = replace(self.model, num_heads=key.num_heads)
        return replace(self.train, arm=key.arm, seed=key.seed, model=model)


def quick_study(config: StudyConfig) -> StudyConfig:
    """A smaller study of the same kind: fewer seeds, head counts and steps; every sentence says preliminary."""
    return replace(config, seeds=2, head_seeds=2, heads=config.heads[:1], steps=min(config.steps, 150))


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
    refuse_other_study(study, config)
    check_data(config)
    with claim(study.path / ".lock", f"another process is at work on {study.path}; wait for it or stop it"):
        study.write_settings(to_dict(config.train), config.model.num_heads, list(config.runs()))
        failed = train_all(config.runs(), study, jobs or available_processors(), report)
        conclude(study)
    return Study(study.path, {key.name: sentence for key, sentence in failed.items()})


def conclude(study: StudyDirectory) -> list[Verdict]:
    """Judge the claims from the finished runs and write verdicts and report."""
    grid = next((run.grid for run in study.finished_runs().values()), None)
    verdicts = judge(study.measurements(), num_heads=study.num_heads, num_tokens=grid and grid.num_tokens)
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
    elif study.path.exists() and (not study.path.is_dir() or any(study.path.iterdir())):
        raise ValueError(f"{study.path} is there already and holds no study; choose another folder with --out")


def check_data(config: StudyConfig) -> None:
    """Load the data once, so that what is wrong with it is said before anything is trained."""
    from wherefrom.data import Batches, load

    data = load(config.data)
    Batches(data, arm="natural", patch_size=config.model.patch_size, batch_size=config.batch_size, seed=0)


# ---- many runs at once


def train_all(
    runs: dict[RunKey, TrainConfig], study: StudyDirectory, jobs: int, report: Report | None
) -> dict[RunKey, str]:
    """Train all runs that are not finished; returns the sentence of each that failed."""
    failed: dict[RunKey, str] = {}
    for _ in range(ROUNDS):
        open_runs = {key: config for key, config in runs.items() if not study.run(key).is_finished()}
        again = {key: config for key, config in open_runs.items() if key not in failed}
        if not again:
            break
        with workers(min(jobs, len(again))) as executor:
            failed |= _train_round(executor, again, runs, study, report)
    lost = {
        key: "its process died each time; is there enough memory?" for key in runs if not study.run(key).is_finished()
    }
    return lost | failed


def _train_round(
    executor: Executor, again: dict[RunKey, TrainConfig], runs: dict, study: StudyDirectory, report: Report | None
) -> dict[RunKey, str]:
    futures = {
        executor.submit(train_one, to_dict(config), str(study.run(key).path)): key for key, config in again.items()
    }
    watcher, waiting = Watcher(runs, next(iter(runs.values())).steps, study), set(futures)
    while waiting:
        _, waiting = wait(waiting, timeout=0.5)
        if report:
            active = [key for future, key in futures.items() if future.running()]
            report(watcher.snapshot(active, _failures(futures)))
    return _failures(futures)


def _failures(futures: dict[Future, RunKey]) -> dict[RunKey, str]:
    """Runs that failed for a reason of their own; those whose process died are tried again."""
    errors = {key: future.exception() for future, key in futures.items() if future.done()}
    final = (ValueError, FloatingPointError, RuntimeError)
    broken = BrokenProcessPool
    return {
        key: str(error) for key, error in errors.items() if isinstance(error, final) and not isinstance(error, broken)
    }


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """Processes of one thread each. Two of them do 1.75 times the work of one process with two threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker) as executor:
        try:
            yield executor
        except BaseException:  # Ctrl-C: what was recorded is whole at any moment, so nothing need be waited for
            executor.shutdown(wait=False, cancel_futures=True)
            for process in list((executor._processes or {}).values()):
                process.terminate()
            raise


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the parent decides
    parent = multiprocessing.parent_process()

    def leave_with_parent():
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def train_one(config: dict, out: str) -> None:
    """One run, from its beginning or where it stopped."""
    from wherefrom.train import fit

    fit(from_dict(config), out, resume=True)


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
