"""One recorded training run. `fit` is the algorithm; what it calls is below it."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.config import TrainConfig, to_dict
from wherefrom.data import Batches, load
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.probe import Rows, probe, test_quality
from wherefrom.observe.training import TrainingStep, add_over_processes
from wherefrom.store import RunDirectory

PERMUTATIONS = 999
"""Random relabellings behind the falloff's p-value and interval, at the first and at the last step."""

Progress = Callable[[int, float], None]
"""Called with (steps done, loss)."""


def fit(
    config: TrainConfig, out: str | Path, *, resume: bool = False, progress: Progress | None = None
) -> RunDirectory:
    """Train one model and record it in the run directory `out`.

    The record of step s holds what is known after s updates: the probe, and the training batch that makes update s + 1.
    Everything random is a function of (seed, step), so a resumed run repeats the uninterrupted one bit for bit.

    Raises:
        ValueError: for a configuration or data that cannot be used, or a directory that holds something else.
        FloatingPointError: if the loss is no finite number; all that was recorded is kept.
        BlockingIOError: if another process is writing `out`.
    """
    with processes() as (rank, world), reproducible(config):
        data = load(config.data)
        batches = Batches(
            data, arm=config.arm, patch_size=config.model.patch_size, batch_size=config.batch_size, seed=config.seed
        )
        device = choose_device(config.device)
        model = ViT(config.model, data.image_shape, data.num_classes).to(device)
        optimizer = make_optimizer(model, config)
        if config.batch_size % world:
            raise ValueError(f"batch_size must be a multiple of the {world} processes; found {config.batch_size}")
        share = slice(rank, None, world)
        forward = nn.parallel.DistributedDataParallel(model) if world > 1 else model
        grids = grids_of(model, batches)
        record = Record(config, model.grid, out, rank, resume)
        with record.writing() as first:
            if record.finished:
                return record.run
            record.restore(model, optimizer, first)
            for step in range(first, config.steps):
                record.checkpoint(step, model, optimizer)
                if due(step, config.record.probe_every) and rank == 0:
                    record.add(*observe(model, batches, grids, config, device, record, step))
                images, labels = (x[share].to(device) for x in batches.train(step))
                set_learning_rate(optimizer, config, step)
                observed = TrainingStep(model, grids) if due(step, config.record.gradient_every) else None
                with observed or contextlib.nullcontext():
                    loss = F.cross_entropy(forward(images), labels)
                    mean_loss = mean_over_processes(loss, world)
                    record.refuse_non_finite(mean_loss, step)
                    optimizer.zero_grad()
                    loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
                optimizer.step()
                if observed:
                    record.add(observed.measurements() + step_rows(mean_loss, norm, optimizer))
                record.write(step)
                if progress:
                    progress(step + 1, mean_loss)
            record.checkpoint(config.steps, model, optimizer)
            if rank == 0:
                record.add(*observe(model, batches, grids, config, device, record, config.steps))
            record.write(config.steps)
            record.end("finished")
        return record.run


# ---- the parts of a step


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up over `warmup_steps`, then half a cosine down to 0 at `steps`.

    >>> config = TrainConfig(steps=110, warmup_steps=10, learning_rate=1.0)
    >>> [round(learning_rate(config, step), 3) for step in (0, 9, 10, 60, 109)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices, none on biases, norms, class token and position embedding."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() == 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, foreach=True)


def mean_over_processes(loss: Tensor, world: int) -> float:
    """The loss of the whole batch, of which each process has an equal share."""
    total = loss.detach().clone()
    add_over_processes([total])
    return total.item() / world


def observe(
    model: ViT, batches: Batches, grids: dict[str, PatchGrid], config: TrainConfig, device, record: Record, step: int
) -> Rows:
    """The probe and the held-out images, at one step."""
    images, labels = (x.to(device) for x in batches.probe(config.record.probe_size))
    permutations = PERMUTATIONS if step in (0, config.steps) else 0
    test = test_quality(model, ((x.to(device), y.to(device)) for x, y in batches.test()))
    record.refuse_non_finite(test[0].value, step)  # before the probe, whose measures need numbers
    rows, arrays = probe(model, images, labels, grids, permutations)
    rows += test
    if step == 0:
        arrays["example_images"] = as_pictures(images[:8])
        if batches.patch_order is not None:
            arrays["patch_order"] = batches.patch_order
    return rows, arrays


def step_rows(loss: float, norm: Tensor, optimizer: torch.optim.Optimizer) -> list[Measurement]:
    values = {"loss": loss, "grad_norm": norm.item(), "learning_rate": optimizer.param_groups[0]["lr"]}
    return [Measurement(measure, value, "train") for measure, value in values.items()]


def grids_of(model: ViT, batches: Batches) -> dict[str, PatchGrid]:
    """Where the patches are, as the model sees them and, if they were shuffled, truly."""
    grids = {"model": model.grid}
    return grids if batches.patch_order is None else grids | {"true": model.grid.reordered(batches.patch_order)}


def as_pictures(images: Tensor) -> np.ndarray:
    """`image y x 3`, bytes: each image stretched from its darkest to its brightest value."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    bright = (images - low) / (high - low).clamp(min=1e-12)
    return (bright * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


# ---- the record of a run, written by the first process alone


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

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Load the checkpoint of `step` and forget what was recorded from there on."""
        if step:
            parameters, state = self.run.checkpoint(step)
            model.load_state_dict(safetensors.torch.load(parameters))
            optimizer.load_state_dict(torch.load(BytesIO(state), weights_only=True))
        if self.rank == 0:
            self.run.forget_after(step - 1)

    def checkpoint(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if self.rank or not (step == self.config.steps or (step and due(step, self.config.record.checkpoint_every))):
            return
        state = BytesIO()
        torch.save(optimizer.state_dict(), state)
        parameters = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        self.run.write_checkpoint(step, safetensors.torch.save(parameters), state.getvalue())

    def add(self, rows: list[Measurement], arrays: dict | None = None) -> None:
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


# ---- surroundings


@contextlib.contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """(rank, number of processes) as torchrun set them; (0, 1) without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def reproducible(config: TrainConfig) -> Iterator[None]:
    """Seed and threads inside the scope, as before after it. On a CPU that is all it takes to get the same bits."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes cuda, then mps, then cpu.

    Raises:
        ValueError: for a device that is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name.partition(":")[0], False):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise ValueError(f"there is no device {name!r} here; available: auto, {there}")
    return torch.device(name)


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
