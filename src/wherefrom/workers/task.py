"""One run, trained in whatever process was found for it, and how it ended as plain data that any place can carry."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is loaded where runs are trained, and nowhere else
    from wherefrom.config import TrainConfig
    from wherefrom.data import ImageData

AGAIN = 1.0
"""Seconds between two looks at a run that somebody else is writing."""

ERRORS = {kind.__name__: kind for kind in (ValueError, OSError, ImportError)}
"""What users can mend."""


class RunFailed(Exception):
    """The run cannot succeed; to try it again would end the same way."""


class RunLost(Exception):
    """The process died or its disk failed; what was recorded is kept, and another try may succeed."""


def train_run(config: dict, out: str) -> dict:
    """Train a run, or the rest of it: {"seconds": …}, or {"sentence": …, "again": whether another try may succeed}."""
    from wherefrom.config import from_dict

    try:
        run = from_dict(config)
        data = _data(run.data)
        begun = time.perf_counter()
        _fit(run, out, data)
    except (OSError, MemoryError, subprocess.SubprocessError) as error:
        return {"again": True, "sentence": _sentence(error)}
    except Exception as error:  # whatever it is, the other runs go on
        return {"again": False, "sentence": _sentence(error)}
    return {"seconds": time.perf_counter() - begun}


def train_run_elsewhere(config: dict, out: str, folder: str) -> dict:
    """The same on another machine, where `folder` was the working directory of the study."""
    study = Path(out).parent
    if not (study / "study.json").is_file():
        sentence = (
            f"{platform.node()} does not see the study folder {study}; Slurm and Ray need one on a file system that "
            f"all machines share: choose it with --out"
        )
        return {"again": False, "sentence": sentence}
    if os.path.isdir(folder):
        os.chdir(folder)  # the images may be named by a path from there
    return train_run(config, out)


def check_runs(configs: list[dict]) -> None:
    """Look for the device and load the data once, so that what is wrong is said before anything is written.

    Raises:
        ValueError: for a device that is not there, data that cannot be used, or settings that do not fit them.
        OSError, ImportError: for data that cannot be read, or a package that is missing.
    """
    from wherefrom.config import from_dict
    from wherefrom.data import Batches
    from wherefrom.train import choose_device

    runs = [from_dict(config) for config in configs]
    choose_device(runs[0].device)
    data = _data(runs[0].data)
    for patch_size, batch_size in {(run.model.patch_size, run.batch_size) for run in runs}:
        Batches(data, arm="natural", patch_size=patch_size, batch_size=batch_size, seed=0)


def checked(configs: list[dict]) -> dict:
    """`check_runs` in another process: {}, or {"error": its kind, "sentence": …}."""
    try:
        check_runs(configs)
    except Exception as error:
        kind = next((kind for kind in ERRORS.values() if isinstance(error, kind)), RuntimeError)
        return {"error": kind.__name__, "sentence": str(error) if kind is not RuntimeError else repr(error)}
    return {}


def raise_error(reply: dict) -> None:
    """Raise what `checked` found."""
    if reply:
        raise ERRORS.get(reply["error"], RuntimeError)(reply["sentence"])


def seconds_in(reply: dict) -> float:
    """What `train_run` said; raises RunFailed or RunLost where that was an error."""
    if "seconds" not in reply:
        raise (RunLost if reply["again"] else RunFailed)(reply["sentence"])
    return reply["seconds"]


def _fit(run: TrainConfig, out: str, data: ImageData) -> None:
    """A run that another process is writing, such as a job left by a study that died, is waited for."""
    from wherefrom.train import fit

    while True:
        try:
            fit(run, out, resume=True, data=data)
            return
        except BlockingIOError:
            time.sleep(AGAIN)


@lru_cache(maxsize=1)
def _data(name: str) -> ImageData:
    """The runs of a study share their images, so that a process reads them once."""
    from wherefrom.data import load

    return load(name)


def _sentence(error: Exception) -> str:
    meant_for_users = isinstance(error, (ValueError, FloatingPointError, OSError)) and str(error)
    return str(error) if meant_for_users else f"{type(error).__name__}: {error}"
