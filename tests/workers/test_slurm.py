"""A study on Slurm: by submitit's own executor on this machine, and by a stand-in for Slurm's commands."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from wherefrom.config import StudyConfig
from wherefrom.store import StudyDirectory, read_json
from wherefrom.studies import run_study
from wherefrom.workers import slurm

pytestmark = pytest.mark.slow


def begun(path: Path, small: StudyConfig) -> set[str]:
    """Names of the runs that have a checkpoint to go on from."""
    runs = [StudyDirectory(path).run(key) for key in small.runs()]
    return {run.name for run in runs if run.exists() and run.checkpoint_steps()}


def test_jobs_that_are_preempted_go_on_from_their_checkpoints(
    tmp_path: Path, small: StudyConfig, monkeypatch: pytest.MonkeyPatch, wait_for, refuse_other_runs
):
    monkeypatch.setattr(slurm, "CLUSTER", "local")

    def preempt(run: str) -> None:
        """As soon as the run has a checkpoint, for it is short."""
        wait_for(lambda: run in begun(tmp_path, small))
        controller = psutil.Process(int(read_json(tmp_path / ".slurm" / f"{run}.json")["job"]))
        for process in controller.children():
            process.send_signal(signal.SIGUSR2)

    with ThreadPoolExecutor() as threads:
        runs = [key.name for key in small.runs()]
        preempted = [threads.submit(preempt, run) for run in runs]
        result = run_study(small, tmp_path, on="slurm", resources={"cpus_per_task": 1})
        assert [each.result() for each in preempted] == [None] * len(runs)
    assert result.failed == {}
    assert len(result.seconds) == len(runs)
    logs = [path.read_text() for path in (tmp_path / ".slurm").glob("*_log.out")]
    assert sum("Requeued job" in log for log in logs) == len(runs)
    refuse_other_runs(tmp_path, set(small.runs()))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the jobs of a stand-in for Slurm."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    program = Path(__file__).with_name("stand_in_slurm.py")
    for name in ("sbatch", "srun", "sacct", "scancel", "scontrol"):
        command = commands / name
        command.write_text(
            f"#!{sys.executable}\nimport sys\nsys.argv[0] = {name!r}\n__file__ = {str(program)!r}\n"
            f"exec(compile(open(__file__).read(), __file__, 'exec'))\n"
        )
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("STAND_IN_SLURM", str(jobs))
    return jobs


def states(jobs: Path) -> list[str]:
    return [json.loads(path.read_text())["state"] for path in jobs.glob("*.json")]


def signal_jobs(jobs: Path, sign: int) -> None:
    for path in jobs.glob("*.json"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(json.loads(path.read_text())["group"], sign)


SCRIPT = """
import wherefrom as wf
from wherefrom.config import *
from wherefrom.studies import run_study
run_study({config!r}, "study", on="slurm", resources={{"slurm_partition": "small", "timeout_min": 5}})
"""


def study(folder: Path, config: StudyConfig) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT.format(config=config)]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def hold(first: subprocess.Popen, path: Path, small: StudyConfig, jobs: Path, wait_for) -> None:
    """Halt all jobs as soon as one of them has begun, else they may be done before anybody looks."""
    before = len(begun(path, small))
    wait_for(lambda: first.poll() is not None or len(begun(path, small)) > before)
    signal_jobs(jobs, signal.SIGSTOP)


def test_jobs_outlive_the_study_and_are_found_again_or_end_with_it(
    tmp_path: Path, small: StudyConfig, stand_in: Path, wait_for, refuse_other_runs
):
    path = tmp_path / "study"
    with study(tmp_path, small) as first:
        hold(first, path, small, stand_in, wait_for)
        first.kill()
    assert set(states(stand_in)) == {"RUNNING"}
    result = run_study(small, path, on="slurm", report=lambda _: signal_jobs(stand_in, signal.SIGCONT))
    assert result.failed == {}
    scripts = list(stand_in.glob("*.sh"))
    assert len(scripts) == 1  # one array for all, and nothing was handed over again
    assert "#SBATCH --partition=small" in scripts[0].read_text()
    assert set(states(stand_in)) == {"COMPLETED"}
    refuse_other_runs(path, set(small.runs()))

    two = replace(small, seeds=2)
    with study(tmp_path, two) as second:
        hold(second, path, two, stand_in, wait_for)
        second.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in second.communicate(timeout=60)[1]
    assert sorted(set(states(stand_in))) == ["CANCELLED", "COMPLETED"]
    assert len(StudyDirectory.open(path).finished_runs()) == len(small.runs())


def test_a_job_that_dies_is_lost_and_names_its_log(
    tmp_path: Path, small: StudyConfig, stand_in: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slurm, "ASK", 0.0)
    (tmp_path / "study").mkdir()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "")
    cluster = slurm.Slurm(tmp_path / "study", {"slurm_setup": ["exit 3"]})
    (job,) = cluster.start([({}, tmp_path / "study" / "run")])
    while not (ended := cluster.ended([job])):
        pass
    assert ended[job]["again"]
    assert f"its job {job.job_id} ended as FAILED" in ended[job]["sentence"]


def test_what_submitit_does_not_know_is_refused(tmp_path: Path, stand_in: Path):
    with pytest.raises(ValueError, match=r"submitit does not take these resources.*partitoin"):
        slurm.Slurm(tmp_path, {"slurm_partitoin": "small"})


def test_a_machine_without_slurm_is_told_so(tmp_path: Path, small: StudyConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs the commands sbatch and srun"):
        run_study(small, tmp_path / "study", on="slurm")
    assert not (tmp_path / "study").exists()
