"""The record of a run while it is made: rows of a step written at once, checkpoints, where to go on from."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

from wherefrom.catalogue import Measurement
from wherefrom.config import TrainConfig, to_dict
from wherefrom.geometry import PatchGrid
from wherefrom.store import RunDirectory


class Stateful(Protocol):
    """Whatever must survive for a resumed run to go on as if it had not stopped."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps happens at this one; 0: never."""
    return every > 0 and step % every == 0


class Record:
    """Collects the rows of a step and writes them at once; restores and keeps checkpoints."""

    def __init__(self, config: TrainConfig, grid: PatchGrid, out: str | Path, rank: int, resume: bool):
        self.config, self.grid, self.rank, self.resume = config, grid, rank, resume
        self.run = RunDirectory(out)
        self.rows: list[Measurement] = []
        self.arrays: dict = {}
        self.finished = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """Claim the directory; gives the step to go on from."""
        with contextlib.ExitStack() as scope:
            if self.rank == 0:
                RunDirectory.create(self.run.path, to_dict(self.config), environment(), self.grid)
                scope.enter_context(self.run.writing())
                self._refuse_unasked_resume()
                self.finished = self.run.is_finished()
            try:
                yield self._first_step()
            except KeyboardInterrupt:
                self.end("stopped", "interrupted")
                raise

    def restore(self, step: int, model: nn.Module, parts: Mapping[str, Stateful | None]) -> None:
        """Load the checkpoint of `step` and forget what was recorded from there on."""
        if step:
            parameters, state = self.run.checkpoint(step)
            model.load_state_dict(safetensors.torch.load(parameters))
            saved = torch.load(BytesIO(state), weights_only=True)
            for name, part in parts.items():
                if part is not None:
                    part.load_state_dict(saved[name])
        if self.rank == 0:
            self.run.forget_after(step - 1)

    def checkpoint(self, step: int, model: nn.Module, parts: Mapping[str, Stateful | None]) -> None:
        """Write the model, and whatever else must survive, if this step is due."""
        if self.rank or not (step == self.config.steps or (step and due(step, self.config.record.checkpoint_every))):
            return
        state = BytesIO()
        torch.save({name: None if part is None else part.state_dict() for name, part in parts.items()}, state)
        parameters = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        self.run.write_checkpoint(step, safetensors.torch.save(parameters), state.getvalue())

    def add(self, rows: Iterable[Measurement], arrays: dict | None = None) -> None:
        self.rows += rows
        self.arrays |= arrays or {}

    def write(self, step: int) -> None:
        if self.rank == 0 and self.rows:
            self.run.record(step, self.rows, self.arrays)
        self.rows, self.arrays = [], {}

    def refuse_non_finite(self, loss: float | None, step: int) -> None:
        """Raise FloatingPointError and note it, unless the loss is a finite number."""
        if loss is None or not math.isfinite(loss):
            reason = f"the loss of step {step} is {loss}, not a finite number"
            self.end("failed", reason)
            raise FloatingPointError(
                f"{reason}; everything recorded before is kept in {self.run.path}; "
                f"try a lower learning rate or a longer warm-up"
            )

    def end(self, how: str, reason: str = "") -> None:
        if self.rank == 0:
            self.run.set_status(end=how, reason=reason)

    def _first_step(self) -> int:
        first = 0 if self.rank else max(filter(self._is_recorded_until, self.run.checkpoint_steps()), default=0)
        if dist.is_initialized():  # all processes go on from what the first one sees
            shared = torch.tensor([first, int(self.finished)])
            dist.broadcast(shared, 0)
            self.finished = bool(shared[1])
            return int(shared[0])
        return first

    def _is_recorded_until(self, step: int) -> bool:
        """Whether the record reaches the last step due before `step`; where only a part was copied, it may not."""
        every = (self.config.record.probe_every, self.config.record.gradient_every)
        last_due = max(((step - 1) // n * n for n in every if n), default=-1)
        last = self.run.last_step()
        return last_due <= (-1 if last is None else last)

    def _refuse_unasked_resume(self) -> None:
        known = [*self.run.checkpoint_steps(), self.run.last_step()]
        last = max((step for step in known if step is not None), default=None)
        if last is not None and not self.resume:
            raise ValueError(
                f"{self.run.path} already holds this run up to step {last} of {self.config.steps}; add --resume to go "
                f"on from there, or choose another folder"
            )


def environment() -> dict:
    """Versions, machine and commit: what a reader needs to get the same numbers."""
    packages = ("wherefrom", "torch", "numpy", "scipy", "scikit-image", "scikit-learn")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "packages": {name: version(name) for name in packages},
    }


def _commit() -> str | None:
    """The commit of the source code that runs; None where it is not in a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
