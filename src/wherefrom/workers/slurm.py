"""Runs as jobs of Slurm, by submitit. They live longer than the study that started them, which finds them again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission

from wherefrom.store import RunDirectory, read_json, write_json
from wherefrom.workers.remote import Task
from wherefrom.workers.task import train_run_elsewhere

CLUSTER = "slurm"
"""Of submitit's; a test takes `local`."""
ASK = 30.0
"""Seconds between two questions to Slurm; a job that ends well says so by a file, and that is seen at once."""
ARRAY = 1000
"""Jobs in an array at most: Slurm takes 1,001 unless told otherwise."""
TIMEOUTS = 100
"""How often a job that ran out of its time is queued again, to go on from its checkpoint."""


def refuse_no_slurm() -> None:
    """Raise ValueError where no job can be handed to Slurm."""
    if CLUSTER == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ValueError(
            "--on slurm needs the commands sbatch and srun, which are not here; log in to the cluster first"
        )


class TrainRun(Checkpointable):
    """`train_run_elsewhere`, which submitit queues again after a time limit or preemption; the run goes on."""

    def __call__(self, config: dict, out: str, folder: str) -> dict:
        return train_run_elsewhere(config, out, folder)

    def checkpoint(self, *arguments: Any) -> DelayedSubmission:
        return DelayedSubmission(self, *arguments)


class Slurm:
    """Jobs of a study: their scripts and logs are in its folder `.slurm`, and there the job of each run is noted."""

    every = 1.0

    def __init__(self, study: Path, resources: Mapping):
        self.folder = study.absolute() / ".slurm"
        self._executor = submitit.AutoExecutor(self.folder, cluster=CLUSTER, slurm_max_num_timeout=TIMEOUTS)
        try:
            self._executor.update_parameters(**{"name": study.absolute().name, "timeout_min": 60} | dict(resources))
        except (NameError, ValueError, TypeError, AssertionError) as error:
            known = "timeout_min, gpus_per_node, cpus_per_task, mem_gb, slurm_partition, slurm_account, …"
            raise ValueError(f"submitit does not take these resources: {error}; it knows {known}") from None
        self._asked = time.monotonic()

    def start(self, tasks: list[Task]) -> list[Any]:
        """Hand over runs as job arrays; a run whose job is still there, from a study that died, keeps that one."""
        jobs = {out: job for _, out in tasks if (job := self._left_behind(out))}
        new = [(config, out) for config, out in tasks if out not in jobs]
        for first in range(0, len(new), ARRAY):
            jobs |= self._submit(new[first : first + ARRAY])
        return [jobs[out] for _, out in tasks]

    def _submit(self, tasks: list[Task]) -> dict[Path, Any]:
        with self._executor.batch():
            jobs = {out: self._executor.submit(TrainRun(), config, str(out), os.getcwd()) for config, out in tasks}
        for out, job in jobs.items():
            write_json(self._note(out), {"job": job.job_id})
        return jobs

    def ended(self, handles: list[Any]) -> dict[Any, dict]:
        """Replies are files. What has none may have died, which only Slurm knows, and that is asked more seldom."""
        files = set(os.listdir(self.folder))
        found = [job for job in handles if job.paths.result_pickle.name in files]
        gone = self._gone([job for job in handles if job not in found])
        return {job: _reply(job) for job in found} | {job: self._epitaph(job) for job in gone}

    def _gone(self, jobs: list[Any]) -> list[Any]:
        if not jobs or time.monotonic() - self._asked < ASK:
            return []
        self._asked = time.monotonic()
        jobs[0].done(force_check=True)  # asks Slurm for all of them
        return [job for job in jobs if job.done() and not job.paths.result_pickle.exists()]

    def stop(self, handles: list[Any]) -> None:
        for job in handles:
            job.cancel(check=False)

    def close(self) -> None: ...

    def _note(self, out: Path) -> Path:
        return self.folder / f"{out.name}.json"

    def _left_behind(self, out: Path) -> Any | None:
        if CLUSTER != "slurm" or not self._note(out).is_file():
            return None
        job = submitit.SlurmJob(self.folder, read_json(self._note(out))["job"])
        if job.paths.result_pickle.exists():  # it may have ended a moment ago
            return job if RunDirectory(out).is_finished() else None
        return None if job.done(force_check=True) or job.state == "UNKNOWN" else job

    def _epitaph(self, job: Any) -> dict:
        log = job.paths.stderr
        where = f"its log is {log}" if log.is_file() else f"it left no log: do all machines see {self.folder.parent}?"
        return {"again": True, "sentence": f"its job {job.job_id} ended as {job.state}; {where}"}


def _reply(job: Any) -> dict:
    try:
        return job.result()
    except submitit.core.utils.UncompletedJobError as error:
        return {"again": True, "sentence": f"its job {job.job_id} failed: {str(error).strip().splitlines()[-1]}"}
