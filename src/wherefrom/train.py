"""One recorded training run. `fit` is the algorithm; what it calls is below it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.config import TrainConfig
from wherefrom.data import Batches, ImageData, load
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.ablation import pruning_rows
from wherefrom.observe.account import Account
from wherefrom.observe.alignment_ledger import AlignmentLedger
from wherefrom.observe.cuts import Cut, cutting_pairs, parse_cut
from wherefrom.observe.probe import Rows, probe, shuffled_probe, test_quality
from wherefrom.observe.training import TrainingStep, add_over_processes
from wherefrom.observe.unscrambling import PIXEL_BATCHES, Unscrambling, follow_places, pixel_measurements
from wherefrom.observe.use import use_rows
from wherefrom.recording import Record, due
from wherefrom.store import RunDirectory

PERMUTATIONS = 999
"""Random relabellings behind the falloff's p-value and interval, at the first and at the last step."""

ALIGNMENT_PROBE = 16
"""Images on which the account of q–k alignment is kept."""

Progress = Callable[[int, float], None]
"""Called with (steps done, loss)."""


def fit(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    data: ImageData | None = None,
) -> RunDirectory:
    """Train one model and record it in the run directory `out`.

    The record of step s holds what is known after s updates: the probe, and the training batch that makes update s + 1.
    Everything random is a function of (seed, step), so a resumed run repeats the uninterrupted one bit for bit.

    Args:
        config: everything the run depends on.
        out: the run directory.
        resume: go on with a run that is there already.
        progress: called after each step.
        data: images that are in memory already; else they are loaded by the name in `config`.

    Raises:
        ValueError: for a configuration or data that cannot be used, or a directory that holds something else.
        FloatingPointError: if the loss is no finite number; all that was recorded is kept.
        BlockingIOError: if another process is writing `out`.
    """
    config = config.resolved()
    with processes() as (rank, world), reproducible(config):
        data = data or load(config.data)
        batches = Batches(
            data, arm=config.arm, patch_size=config.model.patch_size, batch_size=config.batch_size, seed=config.seed
        )
        device = choose_device(config.device)
        model = ViT(config.model, data.image_shape, data.num_classes).to(device)
        optimizer = make_optimizer(model, config)
        cut = parse_cut(config.cut, config.model.depth, config.model.num_heads)
        if config.batch_size % world:
            raise ValueError(f"batch_size must be a multiple of the {world} processes; found {config.batch_size}")
        share = slice(rank, None, world)
        forward = nn.parallel.DistributedDataParallel(model) if world > 1 else model
        grids = grids_of(model, batches)
        account = make_account(model, optimizer, grids, config, cut, batches)
        places = follow_places(model.pos_embed, grids)
        parts = {"optimizer": optimizer, "account": account, "places": places}
        record = Record(config, model.grid, out, rank, resume)
        with record.writing() as first:
            if record.finished:
                return record.run
            record.restore(first, model, parts)
            for step in range(first, config.steps):
                record.checkpoint(step, model, parts)
                if due(step, config.record.probe_every) and rank == 0:
                    record.add(*observe(model, batches, grids, config, device, record, step, places))
                    record.add(account.rows() if account else [])
                images, labels = (x[share].to(device) for x in batches.train(step))
                set_learning_rate(optimizer, config, step)
                observed = TrainingStep(model, grids) if due(step, config.record.gradient_every) else None
                heard = account.listening(step) if account else contextlib.nullcontext()
                with cutting_pairs(cut, model.grid), observed or contextlib.nullcontext(), heard:
                    loss = F.cross_entropy(forward(images), labels)
                    mean_loss = mean_over_processes(loss, world)
                    record.refuse_non_finite(mean_loss, step)
                    optimizer.zero_grad()
                    loss.backward()
                if account:
                    account.take()
                norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
                with account.update() if account else contextlib.nullcontext():
                    optimizer.step()
                if places:
                    places.note()
                if observed:
                    record.add(observed.measurements() + step_rows(mean_loss, norm, optimizer))
                    record.add(account.force_rows() if account else [])
                record.write(step)
                if progress:
                    progress(step + 1, mean_loss)
            record.checkpoint(config.steps, model, parts)
            if rank == 0:
                record.add(*observe(model, batches, grids, config, device, record, config.steps, places))
                record.add(account.rows() if account else [])
            record.write(config.steps)
            record.end("finished")
        return record.run


# ---- the parts of a step


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
    model: ViT,
    batches: Batches,
    grids: dict[str, PatchGrid],
    config: TrainConfig,
    device,
    record: Record,
    step: int,
    places: Unscrambling | None = None,
) -> Rows:
    """The probe and the held-out images, at one step."""
    images, labels = (x.to(device) for x in batches.probe(config.record.probe_size))
    permutations = PERMUTATIONS if step in (0, config.steps) else 0
    test = test_quality(model, ((x.to(device), y.to(device)) for x, y in batches.test()))
    record.refuse_non_finite(test[0].value, step)  # before the probe, whose measures need numbers
    rows, arrays = probe(model, images, labels, grids, permutations)
    rows += test
    if step in (0, config.steps):  # several forward passes over all held-out images
        rows += use_rows(model, ((x.to(device), y.to(device)) for x, y in batches.test()), "test")
    if step == config.steps and len(images) > 1:  # a forward pass a head: once, at the end
        maps = {layer: arrays["attn_offset_map", layer] for layer in range(config.model.depth)}
        pruning = pruning_rows(model, images, labels, maps, model.grid)
        rows, arrays = rows + pruning[0], arrays | pruning[1]
    if step == 0:
        arrays["example_images"] = as_pictures(images[:8])
        if batches.patch_order is not None:
            arrays["patch_order"] = batches.patch_order
    if places:
        put_back = places.measurements()
        rows, arrays = rows + put_back[0], arrays | put_back[1]
        if step == 0:
            rows += pixel_measurements((batches.train(number)[0] for number in range(PIXEL_BATCHES)), grids["true"])
    return rows, arrays


def make_account(
    model: ViT,
    optimizer: torch.optim.Optimizer,
    grids: dict[str, PatchGrid],
    config: TrainConfig,
    cut: Cut,
    batches: Batches,
) -> Account | None:
    """The account of pos_embed, where one is asked for or a route to pos_embed is cut."""
    every, name = config.record.ledger_every, "true" if "true" in grids else "model"
    second = config.record.alignment_ledger and all(grids[name].relation_pairs(pair).any() for pair in ("edge", "far"))
    if not (every or second or cut.routes):
        return None
    alignment = None
    if second:
        images = shuffled_probe(batches.probe(ALIGNMENT_PROBE)[0], model.grid).to(model.head.weight.device)
        alignment = AlignmentLedger(model, optimizer, grids[name], images, name, cut=cut)
    return Account(model, optimizer, grids[name], name, cut, every, alignment)


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
