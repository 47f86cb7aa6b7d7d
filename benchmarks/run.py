"""Ratios of what observing costs, each of two things measured in turn in one run; a JSON line each.

    make bench

Ratios compare medians of repeated measurements; both medians, in seconds or bytes, stand beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sweep import sweep

import wherefrom as wf
from wherefrom.measures.sums import layer_sums
from wherefrom.models.vit import ViT
from wherefrom.observe.account import Account
from wherefrom.observe.capture import stream
from wherefrom.observe.routes import RouteTap
from wherefrom.observe.training import TrainingStep

SMALL = wf.ModelConfig(width=384, depth=12, num_heads=6, patch_size=16, mlp_ratio=4.0, pool="class")
"""ViT-S/16: 197 tokens at 224 × 224 pixels."""
BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each of the two")
    parser.add_argument("--only", choices=list(BENCHMARKS), nargs="*", help="which benchmarks; all if left out")
    parser.add_argument("--memory", choices=list(MEMORY), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(MEMORY[options.memory]()))
        return
    for name in options.only or BENCHMARKS:
        print(json.dumps({"benchmark": name} | BENCHMARKS[name](options.repeats)), flush=True)


# ---- time


def in_turn(first: Callable, second: Callable, repeats: int, limit: float | None) -> dict:
    """Median seconds of both, and the median of the ratios of neighbours."""
    first(), second()
    pairs = [(_seconds(first), _seconds(second)) for _ in range(repeats)]
    ratio = statistics.median(a / b for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"ratio": round(ratio, 3), "limit": limit, "seconds": round(a, 4), "against": round(b, 4)}


def _seconds(act: Callable) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def small_step(pixels: int = 224, batch: int = BATCH, config: wf.ModelConfig = SMALL):
    """A ViT-S, and a function that makes one forward and backward pass inside a scope."""
    torch.manual_seed(0)
    model = ViT(config, (3, pixels, pixels), 1000)
    images, labels = torch.randn(batch, 3, pixels, pixels), torch.arange(batch)

    def step(scope=contextlib.nullcontext):
        model.zero_grad()
        with scope() as observed:
            F.cross_entropy(model(images), labels).backward()
        return observed

    return model, step, images, labels


def observed_step(repeats: int) -> dict:
    """A forward and backward pass with advantage and pressure of all layers, against a plain one."""
    model, step, *_ = small_step()
    return in_turn(lambda: step(lambda: TrainingStep(model)).measurements(), step, repeats, 1.15)


def observed_step_against_eager(repeats: int) -> dict:
    """The same against attention written out, with its scores' gradient kept by autograd."""
    model, step, *_ = small_step()

    @contextlib.contextmanager
    def eager():
        real, kept = F.scaled_dot_product_attention, []

        def attention(q, k, v):
            kept.append(q @ k.mT * q.shape[-1] ** -0.5)
            kept[-1].retain_grad()
            return kept[-1].softmax(-1) @ v

        F.scaled_dot_product_attention = attention
        try:
            yield
        finally:
            F.scaled_dot_product_attention = real

    return in_turn(lambda: step(lambda: TrainingStep(model)).measurements(), lambda: step(eager), repeats, 1.0)


def full_probe(repeats: int) -> dict:
    """Everything that is measured of attention and its gradient, against a plain forward and backward pass."""
    model, step, images, labels = small_step()

    def probe():
        grids = {"model": model.grid}
        stream(model, images, labels, lambda _, record: layer_sums(record, grids))

    return in_turn(probe, step, repeats, 1.15)


def watched_training(repeats: int) -> dict:
    """300 steps of the default model with `watch` at its default cadence, against the same steps without."""

    def train(watching):
        torch.manual_seed(0)
        model = ViT(wf.ModelConfig(), (3, 32, 32), 15)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        images, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 15
        with tempfile.TemporaryDirectory() as folder:
            scope = contextlib.nullcontext()
            if watching:
                scope = wf.watch(model, optimizer, probe=(images, labels), out=folder)
            with scope:
                for _ in range(300):
                    optimizer.zero_grad()
                    F.cross_entropy(model(images), labels).backward()
                    optimizer.step()

    return in_turn(lambda: train(True), lambda: train(False), max(3, repeats // 2), 1.05)


def routes(repeats: int) -> dict:
    """A forward and backward pass of the default model split into routes, against a plain one."""
    model, step, *_ = small_step(32, 64, wf.ModelConfig())
    return in_turn(lambda: step(lambda: RouteTap(model)).gradients(), step, 5 * repeats, 1.3)


def routes_small(repeats: int) -> dict:
    """The same in a ViT-S, 12 layers deep."""
    model, step, *_ = small_step()
    return in_turn(lambda: step(lambda: RouteTap(model)).gradients(), step, repeats, 1.3)


def ledger(repeats: int) -> dict:
    """A step of training of the default model, each entered in the account, against a plain one."""
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 15

    def trained(keep: bool) -> Callable:
        model = ViT(wf.ModelConfig(), (3, 32, 32), 15)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
        account = Account(model, optimizer, model.grid) if keep else None

        def step():
            with account.listening(0) if account else contextlib.nullcontext():
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()
            if account:
                account.take()
            with account.update() if account else contextlib.nullcontext():
                optimizer.step()

        return step

    return in_turn(trained(True), trained(False), 5 * repeats, None)


def import_time(repeats: int) -> dict:
    """Seconds that `import wherefrom` adds to `import torch`."""

    def python(code: str):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    both, alone = python("import torch, wherefrom"), python("import torch")
    result = in_turn(both, alone, repeats, 1.0)
    added = round(result["seconds"] - result["against"], 3)
    return {"added": added, "limit": 0.3, "seconds": result["seconds"], "against": result["against"]}


# ---- memory: the peak of a process of its own


def peak_memory(repeats: int) -> dict:
    """Peak memory of an observed pass above the model, against a plain one."""
    start, plain, observed = (_peak(name) for name in ("start", "plain", "observed"))
    return {"ratio": round((observed - start) / (plain - start), 3), "limit": 1.1,
            "bytes": observed - start, "against": plain - start}  # fmt: skip


def peak_memory_1370_tokens(repeats: int) -> dict:
    """Peak memory above the model at 518 pixels and patch 14, with every measure."""
    return {"bytes": _peak("large") - _peak("start_large"), "limit": 1_500_000_000}


def _peak(name: str) -> int:
    command = [sys.executable, str(Path(__file__)), "--memory", name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measured(act: Callable) -> int:
    act()
    with contextlib.suppress(
        OSError
    ):  # Linux; its rusage would begin with the peak of the process that started this one
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _memory_of(kind: str) -> int:
    model, step, *_ = small_step()
    if kind == "start":
        return _measured(lambda: None)
    scope = (lambda: TrainingStep(model)) if kind == "observed" else contextlib.nullcontext
    return _measured(lambda: step(scope))


def _memory_large(kind: str) -> int:
    config = wf.ModelConfig(width=384, depth=12, num_heads=6, patch_size=14, mlp_ratio=4.0, pool="class")
    model, _, images, labels = small_step(518, 1, config)
    if kind == "start":
        return _measured(lambda: None)
    return _measured(lambda: stream(model, images, labels, lambda _, r: layer_sums(r, {"model": model.grid})))


MEMORY = {kind: (lambda kind=kind: _memory_of(kind)) for kind in ("start", "plain", "observed")}
MEMORY |= {"start_large": lambda: _memory_large("start"), "large": lambda: _memory_large("large")}

BENCHMARKS = {
    act.__name__: act
    for act in (
        observed_step, observed_step_against_eager, full_probe, watched_training, routes, routes_small, ledger,
        import_time, peak_memory, peak_memory_1370_tokens, sweep,
    )
}  # fmt: skip

if __name__ == "__main__":
    main()
