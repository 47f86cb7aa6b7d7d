"""Where the runs of a study are trained: processes here, jobs of Slurm, tasks of Ray. One protocol, one choice.

A place takes `submit(config, out)` and gives a Future of the seconds that the run took. All
else is in the run directory, which all machines see: there a run is claimed, goes on from its checkpoint, and is read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol

from wherefrom.process import available_processors

Place = Literal["local", "slurm", "ray"]
NEEDS = {"slurm": "submitit", "ray": "ray"}
"""The package behind a place; the extra to install has the place's own name."""


class Executor(Protocol):
    """Trains runs. At the end of the scope nothing of it is left; after an exception its runs are stopped."""

    def check(self, configs: list[dict]) -> None:
        """`task.check_runs`, before any is submitted."""
        ...

    def submit(self, config: dict, out: Path) -> Future[float]:
        """Train one run; the future gives the seconds it took, or raises RunFailed or RunLost."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, error: type[BaseException] | None, *_) -> None: ...


def refuse_missing(on: Place, resources: Mapping) -> None:
    """Raise ValueError where this place cannot be used from here."""
    if on == "local" and resources:
        raise ValueError(f"resources are for --on slurm and --on ray; found {', '.join(resources)} with --on local")
    if (package := NEEDS.get(on)) and importlib.util.find_spec(package) is None:
        raise ValueError(f"--on {on} needs the package {package}; install it by: pip install 'wherefrom[{on}]'")
    if on == "slurm":
        from wherefrom.workers.slurm import refuse_no_slurm

        refuse_no_slurm()


def executor(on: Place, jobs: int, runs: int, study: Path, resources: Mapping) -> Executor:
    """The place named `on`, where at most `jobs` runs are trained at once.

    Args:
        on: local, slurm or ray.
        jobs: runs at once; 0: one a processor, and as many as slurm or ray have room for.
        runs: how many there are to train.
        study: folder of the study, which all machines see.
        resources: what a run is given, in the words of submitit or of Ray.

    Raises:
        ValueError: for resources that the place does not know.
    """
    if on == "local":
        from wherefrom.workers.local import Workers

        return Workers(min(jobs or available_processors(), runs))
    from wherefrom.workers.remote import Remote

    if on == "slurm":
        from wherefrom.workers.slurm import Slurm

        return Remote(Slurm(study, resources), jobs)
    from wherefrom.workers.ray import Ray

    return Remote(Ray(max(jobs, available_processors()), resources), jobs)
