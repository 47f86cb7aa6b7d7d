"""One run in whatever process: it is waited for where somebody else writes it, and it says what it cannot see."""

import threading
from pathlib import Path

import pytest

from wherefrom import workers
from wherefrom.config import StudyConfig, to_dict
from wherefrom.store import RunDirectory
from wherefrom.workers import task


def test_a_run_that_somebody_else_is_writing_is_waited_for_and_not_made_again(
    tmp_path: Path, small: StudyConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task, "AGAIN", 0.02)
    config, replies = to_dict(next(iter(small.runs().values()))), []
    other = RunDirectory.create(tmp_path / "run", config, {})
    with other.writing():
        late = threading.Thread(target=lambda: replies.append(task.train_run(config, str(other.path))))
        late.start()
        late.join(0.5)
        assert late.is_alive()
        other.set_status(end="finished")
    late.join()
    assert set(replies[0]) == {"seconds"}
    assert other.last_step() is None


def test_a_folder_that_the_machine_does_not_see_is_named(tmp_path: Path, small: StudyConfig):
    reply = task.train_run_elsewhere(to_dict(small.train), str(tmp_path / "study" / "run"), str(tmp_path))
    assert not reply["again"]
    assert f"does not see the study folder {tmp_path / 'study'}" in reply["sentence"]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs the package submitit; install it by: pip install 'wherefrom\[slurm\]'"
    ):
        workers.refuse_missing("slurm", {})
    with pytest.raises(ValueError, match=r"needs the package ray; install it by: pip install 'wherefrom\[ray\]'"):
        workers.refuse_missing("ray", {})


def test_processes_here_take_no_resources():
    with pytest.raises(ValueError, match="resources are for --on slurm and --on ray; found num_gpus"):
        workers.refuse_missing("local", {"num_gpus": 1})
