"""A study small enough to be trained again and again, and its runs as one process makes them."""

import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from wherefrom.config import ModelConfig, RecordConfig, RunKey, StudyConfig
from wherefrom.store import RunDirectory, StudyDirectory
from wherefrom.train import fit

SMALL = StudyConfig(
    data="digits", seeds=1, heads=(2,), arms=("natural", "scrambled"), ledger=False,
    steps=60, batch_size=16, device="cpu",
    model=ModelConfig(width=16, depth=2, num_heads=2, patch_size=2),
    record=RecordConfig(probe_every=10, gradient_every=5, probe_size=8, checkpoint_every=7),
)  # fmt: skip


@pytest.fixture(scope="session")
def small() -> StudyConfig:
    return SMALL


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[RunKey, RunDirectory]:
    """The runs that nobody interrupted."""
    folder, config = tmp_path_factory.mktemp("references"), replace(SMALL, seeds=2)
    return {key: fit(run, folder / key.name) for key, run in config.runs().items()}


@pytest.fixture(scope="session")
def refuse_other_runs(references: dict[RunKey, RunDirectory]):
    """Every run of a study is whole and, in record and parameters, the same bits as that of one process."""

    def refuse(path: Path, runs: set[RunKey]) -> None:
        found = StudyDirectory.open(path).finished_runs()
        assert set(found) == runs
        for key, run in found.items():
            pd.testing.assert_frame_equal(run.measurements(), references[key].measurements(), check_exact=True)
            assert run.checkpoint(60)[0] == references[key].checkpoint(60)[0]

    return refuse


@pytest.fixture(scope="session")
def wait_for():
    def wait(found, seconds: float = 300):
        end = time.monotonic() + seconds
        while not (result := found()):
            assert time.monotonic() < end
            time.sleep(0.02)
        return result

    return wait
