"""Watch somebody's own training loop: `with watch(model, optimizer, probe=(x, y), out="runs/mine"): …`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.models.backbone import as_backbone
from wherefrom.observe.probe import probe as run_probe
from wherefrom.observe.training import TrainingStep
from wherefrom.store import RunDirectory


class Watch:
    """What `watch` gives: `step`, the number of updates seen, and `run`, the record."""

    def __init__(self, model, optimizer, probe, every: int, run: RunDirectory, loss_scale: Callable[[], float]):
        self.model, self.optimizer, self.probe, self.every, self.run = model, optimizer, probe, every, run
        self.loss_scale = loss_scale
        self.step = 0
        self._rows: list[Measurement] = []
        self._arrays: dict = {}
        self._observed: TrainingStep | None = None

    def begin_step(self) -> None:
        """Probe the model and listen to the batches of the update that follows, if this step is due."""
        if self.step % self.every == 0:
            self.measure()
            self._observed = TrainingStep(self.model, loss_scale=self.loss_scale())
            self._observed.__enter__()

    def measure(self) -> None:
        """Probe the model now, once a step."""
        if self.probe is not None and not self._rows:
            self._rows, self._arrays = run_probe(self.model, *self.probe)

    def before_update(self, *_) -> None:
        """Write what was observed since the last update."""
        if self._observed is not None:
            observed, self._observed = self._observed, None
            observed.__exit__(None, None, None)
            rate = Measurement("learning_rate", self.optimizer.param_groups[0]["lr"], "train")
            self._rows += [*observed.measurements(), rate]
        self._write()

    def after_update(self, *_) -> None:
        self.step += 1
        self.begin_step()

    def end(self) -> None:
        """Stop listening; keep the probe of the last step."""
        if self._observed is not None:
            self._observed.__exit__(None, None, None)
            self._observed = None
        self._write()

    def _write(self) -> None:
        if self._rows:
            self.run.record(self.step, self._rows, self._arrays)
        self._rows, self._arrays = [], {}


@contextlib.contextmanager
def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    out: str | Path,
    probe: tuple[Tensor, Tensor] | None = None,
    every: int = 100,
    loss_scale: Callable[[], float] = lambda: 1.0,
) -> Iterator[Watch]:
    """Record where the model's sense of space comes from while it trains in the scope; the training is not changed.

    Every `every` updates: advantage and pressure on the batches of the next update. Every `every` updates, and at the
    end: the model on the probe images.

    Args:
        model: any Vision Transformer that `as_backbone` knows.
        optimizer: each of its steps counts as one update.
        out: a new run directory.
        probe: (images, labels) to measure the model on, held out from training; None measures training batches alone.
        every: number of updates from one observation to the next.
        loss_scale: gives what the mean loss is multiplied by before backward(), such as a GradScaler's `get_scale`.

    Raises:
        ValueError: for a model that is not known, or a folder that holds a run already.
        RuntimeError: if the model's attention does not pass the tap.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1; found {every}")
    backbone = as_backbone(model)
    config = {"watched": backbone.name, "optimizer": type(optimizer).__name__, "every": every}
    run = RunDirectory.create(out, config, {}, backbone.grid)
    if run.last_step() is not None:
        raise ValueError(f"{run.path} already holds a recorded run; choose another folder")
    with run.writing(), contextlib.ExitStack() as scope:
        watching = Watch(model, optimizer, probe, every, run, loss_scale)
        scope.callback(watching.end)  # also after an error: the probe already made is kept
        scope.callback(optimizer.register_step_pre_hook(watching.before_update).remove)
        scope.callback(optimizer.register_step_post_hook(watching.after_update).remove)
        watching.begin_step()
        yield watching
        watching.measure()
        run.set_status(end="finished")
