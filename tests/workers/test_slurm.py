"""A study on Slurm: by submitit's own executor on this machine, and by a stand-in for Slurm's commands."""

import json
import os
import signal
import subprocess
import sys
import threading
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
    tmp_path: Path, small: StudyConfig, monkeypatch: pytest.MonkeyPatch, halt, wait_for, refuse_other_runs
):
    monkeypatch.setattr(slurm, "CLUSTER", "local")
    release, told = halt(20), threading.Barrier(len(small.runs()), action=lambda: release())

    def preempt(run: str) -> None:
        """While the run halts; then it goes on from its checkpoint."""
        wait_for(lambda: run in begun(tmp_path, small))
        controller = psutil.Process(int(read_json(tmp_path / ".slurm" / f"{run}.json")["job"]))
        for process in controller.children():
            process.send_signal(signal.SIGUSR2)
        told.wait(300)

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


SCRIPT = """
import wherefrom as wf
from wherefrom.config import *
from wherefrom.studies import run_study
run_study({config!r}, "study", on="slurm", resources={{"slurm_partition": "small", "timeout_min": 5}})
"""


def study(folder: Path, config: StudyConfig) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT.format(config=config)]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def wait_until_all_have_begun(first: subprocess.Popen, path: Path, config: StudyConfig, wait_for) -> None:
    wait_for(lambda: first.poll() is not None or len(begun(path, config)) == len(config.runs()))


def test_jobs_outlive_the_study_and_are_found_again_or_end_with_it(
    tmp_path: Path, small: StudyConfig, stand_in: Path, halt, wait_for, refuse_other_runs
):
    path, release = tmp_path / "study", halt(20)
    with study(tmp_path, small) as first:
        wait_until_all_have_begun(first, path, small, wait_for)
        first.kill()
    assert set(states(stand_in)) == {"RUNNING"}
    result = run_study(small, path, on="slurm", report=lambda _: release())
    assert result.failed == {}
    scripts = list(stand_in.glob("*.sh"))
    assert len(scripts) == 1  # one array for all, and nothing was handed over again
    assert "#SBATCH --partition=small" in scripts[0].read_text()
    assert set(states(stand_in)) == {"COMPLETED"}
    refuse_other_runs(path, set(small.runs()))

    two = replace(small, seeds=2)
    halt(20)
    with study(tmp_path, two) as second:
        wait_until_all_have_begun(second, path, two, wait_for)
        second.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in second.communicate(timeout=300)[1]
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
