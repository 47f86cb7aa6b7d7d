"""One run: the algorithm, that watching changes nothing, and that no way of dying loses or repeats anything."""

import io
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

from wherefrom.claims.primary import PRIMARY, case
from wherefrom.claims.readings import Readings
from wherefrom.config import ModelConfig, RecordConfig, TrainConfig, to_dict
from wherefrom.data import Batches, load
from wherefrom.models.vit import ViT
from wherefrom.observe.ablation import ablate
from wherefrom.store import RunDirectory
from wherefrom.train import fit, learning_rate, make_optimizer

MODEL = ModelConfig(width=16, depth=2, num_heads=2, patch_size=2)
RECORD = RecordConfig(probe_every=4, gradient_every=2, ledger_every=1, probe_size=8, checkpoint_every=3)
TINY = TrainConfig(
    data="digits", steps=14, batch_size=16, warmup_steps=3, device="cpu", threads=1, model=MODEL, record=RECORD
)


def parameters(run: RunDirectory) -> bytes:
    """Of the last checkpoint."""
    return run.checkpoint(run.checkpoint_steps()[-1])[0]


def optimizer_state(run: RunDirectory) -> list[torch.Tensor]:
    state = torch.load(io.BytesIO(run.checkpoint(run.checkpoint_steps()[-1])[1]), weights_only=True)["optimizer"][
        "state"
    ]
    return [state[place][name] for place in sorted(state) for name in sorted(state[place])]


def refuse_differences(run: RunDirectory, reference: RunDirectory, steps: list[int] | None = None) -> None:
    """All that is recorded of these steps, or all there is, is bit for bit the same."""
    table, expected = run.measurements(), reference.measurements()
    if steps is not None:
        expected = expected[expected.step.isin(steps)].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected, check_exact=True)
    keys = [key for key in reference.array_keys() if steps is None or key[1] in steps]
    assert run.array_keys() == keys
    for name, step, layer in keys:
        array, twin = run.array(name, step, layer), reference.array(name, step, layer)
        assert (array.dtype, array.shape, array.tobytes()) == (twin.dtype, twin.shape, twin.tobytes()), (name, step)


def refuse_other_end(run: RunDirectory, reference: RunDirectory) -> None:
    """The whole record, the parameters and the state of the optimizer are bit for bit the same."""
    refuse_differences(run, reference)
    assert run.status() == reference.status() == {"end": "finished", "reason": ""}
    assert run.checkpoint_steps() == reference.checkpoint_steps()
    assert parameters(run) == parameters(reference)
    assert all(map(torch.equal, optimizer_state(run), optimizer_state(reference)))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run that nobody interrupted."""
    return fit(TINY, tmp_path_factory.mktemp("reference") / "run")


# ---- the algorithm


def test_learning_rate_rises_in_a_line_and_falls_along_half_a_cosine():
    config = replace(TINY, steps=14, warmup_steps=4, learning_rate=8.0)
    found = [learning_rate(config, step) for step in range(14)]
    assert found[:5] == [2.0, 4.0, 6.0, 8.0, 8.0]
    np.testing.assert_allclose(found[4:], [4 + 4 * np.cos(np.pi * n / 10) for n in range(10)], atol=1e-12)
    assert learning_rate(replace(config, warmup_steps=0), 0) == 8.0
    assert learning_rate(replace(config, warmup_steps=20), 13) == 5.6


def test_the_recorded_learning_rate_is_that_of_the_step(reference: RunDirectory):
    rows = reference.measurements("learning_rate")
    assert rows.step.tolist() == list(range(0, 14, 2))
    assert rows.value.tolist() == [learning_rate(TINY, step) for step in rows.step]


def test_weight_decay_is_on_matrices_alone():
    model = ViT(replace(MODEL, pool="class"), (1, 8, 8), 10)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = make_optimizer(model, TINY).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (TINY.weight_decay, 0.0)
    matrices = {names[id(parameter)] for parameter in decayed["params"]}
    others = {names[id(parameter)] for parameter in free["params"]}
    assert {"patch_embed.proj.weight", "head.weight", "blocks.1.attn.w_q.weight", "blocks.0.mlp.0.weight"} <= matrices
    assert {"pos_embed", "cls_token", "norm.weight", "head.bias", "blocks.0.norm1.weight"} <= others
    assert matrices | others == set(names.values())
    assert all(name.endswith(".weight") and "norm" not in name for name in matrices)


def test_the_loss_falls(reference: RunDirectory, tmp_path: Path):
    longer = replace(TINY, steps=150, record=replace(RECORD, probe_every=0, gradient_every=0))
    assert fit(longer, tmp_path).measurements("accuracy", split="test").value.item() > 0.3  # ten classes
    losses = reference.measurements("loss", split="train").value
    assert abs(losses[0] - np.log(10)) < 1  # untrained: as good as guessing


def test_a_seed_gives_the_same_bits_and_another_gives_others(reference: RunDirectory, tmp_path: Path):
    torch.rand(7)  # what happened before does not matter
    refuse_other_end(fit(TINY, tmp_path / "same"), reference)
    other = fit(replace(TINY, seed=1), tmp_path / "other")
    assert parameters(other) != parameters(reference)


def test_training_leaves_the_surroundings_as_they_were(tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads, attention = torch.get_num_threads(), torch.nn.functional.scaled_dot_product_attention
    fit(replace(TINY, steps=2), tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert torch.nn.functional.scaled_dot_product_attention is attention


@pytest.mark.parametrize("steps", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_observation_changes_no_bit_of_the_training(tmp_path: Path, steps: int):
    silent = RecordConfig(probe_every=0, gradient_every=0, probe_size=8, checkpoint_every=0)
    watched = replace(silent, probe_every=1, gradient_every=1, ledger_every=1)
    runs = [
        fit(replace(TINY, steps=steps, record=record), tmp_path / name)
        for name, record in (("silent", silent), ("watched", watched))
    ]
    assert [len(run.measurements().step.unique()) for run in runs] == [1, steps + 1]
    assert parameters(runs[0]) == parameters(runs[1])
    assert all(map(torch.equal, optimizer_state(runs[0]), optimizer_state(runs[1])))


MODELS = {
    "class token": {"pool": "class"},
    "sincos": {"pos_embed": "sincos"},
    "no position embedding": {"pos_embed": "none"},
    "rope": {"pos_embed": "rope"},
    "rope beside a class token": {"pos_embed": "rope", "pool": "class"},
    "one head": {"num_heads": 1},
    "depth 1": {"depth": 1},
    "one patch a row": {"patch_size": 4},
}


@pytest.mark.parametrize("arm", ["natural", "shuffled", "scrambled"])
@pytest.mark.parametrize("settings", MODELS.values(), ids=list(MODELS))
def test_every_kind_of_model_is_trained_and_recorded(tmp_path: Path, settings: dict, arm: str):
    model = replace(MODEL, **settings)
    kept = replace(RECORD, ledger_every=int(model.pos_embed == "learned"))
    run = fit(replace(TINY, steps=4, arm=arm, model=model, record=kept), tmp_path)
    table = run.measurements()
    assert run.is_finished()
    assert run.grid.num_prefix_tokens == (model.pool == "class")
    advantage = table[table.measure == "advantage"]
    assert set(advantage.layer) == set(range(model.depth))
    assert set(advantage["head"]) == set(range(model.num_heads))
    assert advantage.groupby("split").step.unique().map(list).to_dict() == {"probe": [0, 4], "train": [0, 2]}
    assert ("pos_embed" in run.array_names()) == (model.pos_embed in ("learned", "sincos"))
    assert ("patch_order" in run.array_names()) == (arm == "shuffled")
    of_table = {"model"} if model.pos_embed in ("learned", "sincos") else set()  # attention has the true grid alone
    assert set(table.grid.dropna()) == ({"true"} | of_table if arm == "shuffled" else {"model"})
    prefix_mass = table[table.measure == "prefix_mass"].value
    assert (prefix_mass > 0).all() if model.pool == "class" else (prefix_mass == 0).all()
    alone = table[table.measure == "head_divergence_attn"].value.isna()
    assert alone.all() if model.num_heads == 1 else not alone.any()
    assert table[table.measure.isin(["loss", "accuracy", "attention_distance"])].value.notna().all()


def test_what_each_head_is_worth_is_recorded_at_the_last_step_of_the_trained_model(reference: RunDirectory):
    rows = reference.measurements("ablation_loss_change")
    assert set(rows["step"]) == {TINY.steps}
    vit = ViT(MODEL, (1, 8, 8), 10)
    vit.load_state_dict(safetensors.torch.load(parameters(reference)))
    data = load("digits")
    batches = Batches(data, arm="natural", patch_size=2, batch_size=16, seed=0)
    changes = ablate(vit, *batches.probe(RECORD.probe_size)).mean(2)
    np.testing.assert_allclose(rows["value"], changes.flatten(), rtol=1e-4, atol=1e-7)
    for name in ("attn_similarity", "contribution_similarity"):
        assert reference.array_steps(name) == [TINY.steps]
        assert reference.array(name, TINY.steps, 1).shape == (2, 2)


def test_images_that_are_not_square(tmp_path: Path):
    noise = np.random.default_rng(0)
    for place in range(40):
        folder = tmp_path / "images" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    config = replace(TINY, data=str(tmp_path / "images"), steps=3, batch_size=8)
    run = fit(config, tmp_path / "run")
    assert (run.grid.height, run.grid.width) == (3, 4)
    assert run.array("pos_similarity", 0).shape == (12, 12)
    assert run.array("attn_offset_map", 3, layer=1).shape == (2, 5, 7)
    assert run.array("example_images", 0).shape[1:] == (6, 8, 3)


# ---- a run that blows up


@pytest.mark.parametrize(
    ("steps", "probe_every", "step"),
    [
        (12, 4, 1),  # seen in the batch
        (12, 1, 1),  # seen in the held-out images, before measures that need numbers
        (1, 0, 1),  # seen after the last update
        (12, 4, 6),  # after some steps, and a checkpoint
        (12, 2, 6),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, probe_every: int, step: int
):
    """The update before that step is so large that squares overflow: how the processor rounds does not matter."""
    monkeypatch.setattr("wherefrom.train.learning_rate", lambda _, number: 1e30 if number == step - 1 else 1e-3)
    record = replace(RECORD, probe_every=probe_every, gradient_every=1)
    config = replace(TINY, steps=steps, record=record)
    with pytest.raises(FloatingPointError, match=rf"the loss of step {step} is .*nan.*lower learning rate"):
        fit(config, tmp_path)
    run = RunDirectory.open(tmp_path)
    assert not run.is_finished()
    assert run.status() == {"end": "failed", "reason": f"the loss of step {step} is nan, not a finite number"}
    assert run.measurements("loss", split="train").step.tolist() == list(range(step))
    with pytest.raises(FloatingPointError, match=f"step {step} "):  # again the same, and it still says so
        fit(config, tmp_path, resume=True)
    assert run.status()["end"] == "failed"
    assert run.measurements("loss", split="train").step.tolist() == list(range(step))


# ---- go on


def test_a_finished_run_is_left_alone(reference: RunDirectory):
    before = reference.measurements()
    with pytest.raises(ValueError, match="already holds this run up to step 14 of 14; add --resume"):
        fit(TINY, reference.path)
    assert fit(TINY, reference.path, resume=True).is_finished()
    pd.testing.assert_frame_equal(reference.measurements(), before)
    with pytest.raises(ValueError, match="steps is 14 there, 15 here"):
        fit(replace(TINY, steps=15), reference.path, resume=True)


class Stop(Exception):
    """Thrown by the test into a run."""


def stopped(path: Path, at: int, config: TrainConfig = TINY, error: type[BaseException] = Stop) -> RunDirectory:
    """A run that ended with an exception after so many steps."""

    def progress(step: int, _: float) -> None:
        if step == at:
            raise error

    with pytest.raises(error):
        fit(config, path, progress=progress)
    return RunDirectory.open(path)


def test_an_interrupted_run_says_so_and_goes_on(reference: RunDirectory, tmp_path: Path):
    run = stopped(tmp_path, 8, error=KeyboardInterrupt)
    assert run.status() == {"end": "stopped", "reason": "interrupted"}
    assert run.last_step() == 6
    with pytest.raises(ValueError, match="up to step 6 of 14; add --resume"):
        fit(TINY, tmp_path)
    refuse_other_end(fit(TINY, tmp_path, resume=True), reference)


def test_a_run_without_a_record_is_not_resumed_unasked(tmp_path: Path):
    config = replace(TINY, record=replace(RECORD, probe_every=0, gradient_every=0))
    stopped(tmp_path, 8, config)
    with pytest.raises(ValueError, match="up to step 6 of 14; add --resume"):
        fit(config, tmp_path)


def test_a_record_that_is_ahead_of_the_checkpoint_is_made_again(reference: RunDirectory, tmp_path: Path):
    run = stopped(tmp_path, 13)
    for step in run.checkpoint_steps():
        (tmp_path / "checkpoints" / f"step-{step:06d}.state").unlink()
    refuse_other_end(fit(TINY, tmp_path, resume=True), reference)


def test_a_checkpoint_that_is_ahead_of_the_record_is_not_used(reference: RunDirectory, tmp_path: Path):
    early, late = stopped(tmp_path / "early", 8), stopped(tmp_path / "late", 13)
    assert (early.last_step(), late.checkpoint_steps()) == (6, [9, 12])
    shutil.copy(early.path / "run.sqlite", late.path / "run.sqlite")  # such as from an older copy
    refuse_other_end(fit(TINY, late.path, resume=True), reference)


# ---- killed

KILLED = """
import os, signal, sqlite3
from wherefrom.config import from_dict
from wherefrom.train import fit

def nth(calls, real, n):
    def counted(*arguments, **settings):
        calls.append(0)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **settings)
    return counted

if point == "rename":  # each checkpoint is two of them
    os.replace = nth([], os.replace, number)
elif point == "commit":  # rows are in, and the transaction is not yet done
    connect, commit = sqlite3.connect, nth([], lambda: None, number)
    def traced(*arguments, **settings):
        connection = connect(*arguments, **settings)
        connection.set_trace_callback(lambda sql: commit() if sql == "COMMIT" else None)
        return connection
    sqlite3.connect = traced
fit(from_dict(config), out, resume=True)
"""
# A run renames 3 files of its own and 2 for each of 5 checkpoints, and commits 1 + 8 + 1 times.
POINTS = [("rename", 2), ("rename", 4), ("rename", 8), ("rename", 9), ("commit", 1), ("commit", 6), ("commit", 9)]
MOMENTS = [("time", (place + random.Random(place).random()) / 10) for place in range(10)]


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Starts processes that have torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wherefrom.train"])
    return context


def start(processes, out: Path, point: str = "", number: int = 0) -> multiprocessing.Process:
    names = {"config": to_dict(TINY), "out": str(out), "point": point, "number": number}
    process = processes.Process(target=exec, args=(KILLED, names))
    process.start()
    return process


@pytest.fixture(scope="module")
def duration(processes, reference: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of an uninterrupted run in such a process, which is the same run."""
    out = tmp_path_factory.mktemp("timed") / "run"
    for path in (out.with_name("first"), out):  # the first one also waits for torch
        begin = time.monotonic()
        start(processes, path).join()
    seconds = time.monotonic() - begin
    refuse_other_end(RunDirectory.open(out), reference)
    return seconds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("point", "number"), POINTS + MOMENTS)
def test_a_killed_run_holds_whole_steps_and_goes_on_bit_for_bit(
    processes, duration: float, reference: RunDirectory, tmp_path: Path, point: str, number: float
):
    out = tmp_path / "run"
    process = start(processes, out, point, number)
    if point == "time":
        process.join(number * duration)
        process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL or (point == "time" and RunDirectory(out).is_finished())
    if RunDirectory(out).exists():
        run = RunDirectory.open(out)
        kept = run.measurements().step.unique().tolist()
        assert kept == reference.measurements().step.unique().tolist()[: len(kept)]
        refuse_differences(run, reference, kept)
    refuse_other_end(fit(TINY, out, resume=True), reference)


def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(
    processes, duration: float, reference: RunDirectory, tmp_path: Path
):
    moments = random.Random(3)
    for _ in range(5):
        process = start(processes, tmp_path / "run")
        process.join(duration * moments.uniform(0.3, 0.8))
        process.kill()
        process.join()
    refuse_other_end(fit(TINY, tmp_path / "run", resume=True), reference)


# ---- from the command line

SETTINGS = [
    f"--{name.replace('_', '-')}={value}" for name, value in to_dict(TINY).items() if not isinstance(value, dict)
]
SETTINGS += [
    f"--{part}.{name.replace('_', '-')}={value}"
    for part in ("model", "record")
    for name, value in to_dict(TINY)[part].items()
    if not isinstance(value, bool)  # off, as it is without a word
]


def command(out: Path, *more: str, steps: int | None = None, **environment: str) -> subprocess.Popen:
    changed = [] if steps is None else [f"--steps={steps}"]
    return subprocess.Popen(
        [sys.executable, "-m", "wherefrom", "train", *SETTINGS, *changed, f"--out={out}", *more],
        stderr=subprocess.PIPE, text=True, env=os.environ | environment, start_new_session=True,
    )  # fmt: skip


def wait_for_step(run: RunDirectory, step: int, *processes: subprocess.Popen) -> None:
    """Wait until the run has recorded this step, where it halts."""
    end = time.monotonic() + 300
    while not (run.exists() and (run.last_step() or 0) >= step):
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), [process.stderr.read() for process in processes]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_command_that_is_stopped_is_resumed(tmp_path: Path, halt, sign: int, code: int):
    run, steps = RunDirectory(tmp_path / "run"), 60
    release = halt(20)
    with command(run.path, steps=steps) as process:
        wait_for_step(run, 20, process)
        os.killpg(process.pid, sign)
        _, said = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in said
    assert run.last_step() < steps
    if sign == signal.SIGINT:
        assert "--resume goes on from there" in said
        assert run.status()["end"] == "stopped"
    release()
    with command(run.path, "--resume", steps=steps) as process:
        _, said = process.communicate()
        assert process.returncode == 0, said
    refuse_other_end(run, fit(replace(TINY, steps=steps), tmp_path / "reference"))


# ---- on many processes


def together(out: Path, *more: str, world: int = 2) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    return [command(out, *more, **address, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(world)]


ROUNDING = {"route_closure", "ledger_residual"}
"""Measures that are nothing but rounding; so is any ledger's own residual."""


OF_LOSSES = ("position_use", "ablation_loss_change")
"""Beginnings of measures that are differences of losses: rounding is that of a loss, however small they are."""


def refuse_far(run: RunDirectory, reference: RunDirectory) -> None:
    """Two processes add in another order. Parameters: within 1e-6; measures: within 1e-5 of the measure's largest, and
    ledgers, which are sums over all steps before, within 1e-4.
    """
    ours, theirs = (safetensors.torch.load(parameters(each)) for each in (run, reference))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
    table, expected = run.measurements(), reference.measurements()
    pd.testing.assert_frame_equal(table.drop(columns="value"), expected.drop(columns="value"))
    assert table.value.isna().equals(expected.value.isna())
    losses = expected.value[expected.measure == "loss"].max()
    for measure, rows in expected.groupby("measure"):
        size = max(rows.value.abs().max(), losses if measure.startswith(OF_LOSSES) else 1e-6)
        relative = 1e-4 if measure.startswith("ledger_") else 1e-5
        tolerance = 1e-4 if measure in ROUNDING or measure.endswith("_residual") else relative * size
        assert (table.value[rows.index] - rows.value).abs().max() <= tolerance, measure
    refuse_far_arrays(run, reference)
    refuse_far_statistics(run, reference)


def refuse_far_arrays(run: RunDirectory, reference: RunDirectory) -> None:
    """Maps, layouts and embeddings: within 1e-5 of the array's largest entry. What is no decimal number: the same."""
    assert run.array_keys() == reference.array_keys() != []
    for name, step, layer in reference.array_keys():
        ours, theirs = (each.array(name, step, layer) for each in (run, reference))
        atol = 1e-5 * np.nanmax(np.abs(theirs)) if theirs.dtype.kind == "f" else 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=f"{name}, step {step}, layer {layer}")


def refuse_far_statistics(run: RunDirectory, reference: RunDirectory) -> None:
    """What verdicts are made of, one number a seed and claim: within 1e-4 of itself, or 1e-7, a loss's own rounding."""
    config = reference.config
    key = {"run": "run", "arm": config["arm"], "num_heads": config["model"]["num_heads"], "seed": config["seed"]}
    ours, theirs = (Readings(each.measurements().assign(**key), key["num_heads"]) for each in (run, reference))
    judged = 0
    for claim in PRIMARY:
        found, expected = case(claim, ours), case(claim, theirs)
        assert found.reason == expected.reason
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-7, err_msg=claim)
        judged += len(expected.values)
    assert judged >= (4 if config["arm"] == "natural" else 0)


@pytest.mark.slow
def test_two_processes_make_the_run_of_one_also_after_one_was_killed(reference: RunDirectory, tmp_path: Path, halt):
    pair = together(tmp_path / "run")
    said = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    refuse_far(RunDirectory.open(tmp_path / "run"), reference)

    run, release = RunDirectory(tmp_path / "killed"), halt(4)
    pair = together(run.path)
    wait_for_step(run, 4, *pair)
    pair[1].kill()
    release()
    codes = [process.communicate() and process.returncode for process in pair]
    assert 0 not in codes
    pair = together(run.path, "--resume")
    said = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    refuse_differences(run, RunDirectory.open(tmp_path / "run"))


@pytest.mark.slow
def test_two_processes_make_the_run_of_one_with_shuffled_patches_and_both_accounts(tmp_path: Path):
    config = replace(TINY, arm="shuffled", record=replace(RECORD, alignment_ledger=True))
    reference = fit(config, tmp_path / "reference")
    pair = together(tmp_path / "run", "--arm=shuffled", "--record.alignment-ledger")
    said = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    ledgers = {name for name in reference.measurements().measure.unique() if name.startswith("ledger_")}
    assert {"ledger_residual", "ledger_similarity_falloff"} <= ledgers
    assert any("alignment" in name for name in ledgers)
    refuse_far(RunDirectory.open(tmp_path / "run"), reference)


def test_a_batch_must_be_shared_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wherefrom.train.dist.init_process_group", lambda backend: None)
    monkeypatch.setattr("wherefrom.train.dist.destroy_process_group", lambda: None)
    monkeypatch.setattr("wherefrom.train.dist.get_rank", lambda: 0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes; found 16"):
        fit(TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()
