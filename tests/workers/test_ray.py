"""A study on a Ray cluster of two machines, both of them here; one dies."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.cluster_utils import Cluster

from wherefrom.config import StudyConfig
from wherefrom.store import StudyDirectory
from wherefrom.studies import run_study

pytestmark = pytest.mark.slow


def test_a_study_ends_whole_where_a_machine_dies(
    tmp_path: Path, small: StudyConfig, monkeypatch: pytest.MonkeyPatch, halt, refuse_other_runs
):
    config, release = replace(small, seeds=2), halt(20)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    died = []

    def kill(snapshot) -> None:
        runs = [StudyDirectory(tmp_path).run(key) for key in snapshot.active]
        if not died and len(runs) == 2 and any(run.checkpoint_steps() for run in runs):
            cluster.remove_node(other, allow_graceful=False)
            died.append([run.name for run in runs])
            release()

    try:
        result = run_study(config, tmp_path, on="ray", resources={"num_cpus": 1}, report=kill)
    finally:
        cluster.shutdown()
    assert died
    assert result.failed == {}
    assert not ray.is_initialized()
    refuse_other_runs(tmp_path, set(config.runs()))


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, small: StudyConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127.0.0.1:1"):
        run_study(small, tmp_path, on="ray")
