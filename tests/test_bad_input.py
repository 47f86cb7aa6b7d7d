"""What a user sees who makes a mistake: one sentence that names it, and everything on disk as it was."""
# ruff: noqa: E501 - tables, one case a line

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import nn

import wherefrom as wf
from wherefrom.cli import main
from wherefrom.config import ModelConfig, RunKey, TrainConfig, to_dict
from wherefrom.models.vit import ViT
from wherefrom.store import StudyDirectory

SMALL = "--data digits --steps 2 --batch-size 8 --record.probe-size 8 --record.probe-every 0"
SMALL += " --model.width 8 --model.depth 1 --model.num-heads 2 --model.patch-size 4"


class Case(NamedTuple):
    line: str
    """What is typed after `wherefrom`. It runs in a folder that holds a recorded run, `run`."""
    words: str
    """What the sentence must contain."""
    prepare: Callable[[], None] = lambda: None


# ---- what is there before the command


def picture(path: str, size=(6, 4)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def pictures(*paths: str) -> Callable[[], None]:
    return lambda: [picture(path) for path in paths] and None


def text(path: str, content: str = "something") -> Callable[[], None]:
    def write() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)

    return write


def two_sizes() -> None:
    pictures("two/a/1.png", "two/b/1.png")()
    picture("two/b/2.png", (5, 4))


def broken_picture() -> None:
    pictures("broken/a/1.png", "broken/b/1.png")()
    text("broken/b/2.png")()


def study(steps=200) -> Callable[[], None]:
    config, runs = TrainConfig(steps=steps, threads=1), [RunKey("natural", 4, 0)]
    return lambda: StudyDirectory("study").write_settings(to_dict(config.resolved()), 4, runs)


CASES = {
    # words that are no command, no option, no value
    "unknown command": Case("studdy", "there is no command 'studdy'; did you mean 'study'? known: study, train"),
    "option before the command": Case("--steps 3 train", "there is no command '--steps'; known: study, train"),
    "unknown option": Case("train --stepz 4", "unrecognized options: --stepz, 4; did you mean --steps?"),
    "option of another command": Case("train --seeds 4", "unrecognized options: --seeds, 4"),
    "a word too many": Case("data photos", "unrecognized options: photos; see wherefrom data --help"),
    "a word too few": Case("report", "missing from wherefrom report: PATH folder of the study"),
    "option without its value": Case("train --steps", "missing value for argument '--steps'; see wherefrom train"),
    "text for a whole number": Case("train --steps abc", "--steps: expected a whole number, found 'abc'"),
    "fraction for a whole number": Case("train --seed 1.5", "--seed: expected a whole number, found '1.5'"),
    "text for a number": Case("train --learning-rate fast", "--learning-rate: expected a number, found 'fast'"),
    "unknown arm": Case("train --arm naturel", "invalid choice 'naturel' for argument '--arm'; expected one of ('natural'"),
    "unknown format": Case("export run --to xls", "invalid choice 'xls' for argument '--to'; expected one of ('parquet'"),
    # values that cannot be
    "no steps": Case("train --steps 0", "steps must be at least 1; found 0"),
    "no seeds": Case("study --seeds 0", "seeds must be at least 1; found 0"),
    "negative learning rate": Case("train --learning-rate -1", "learning_rate must be 0 or more; found -1.0"),
    "learning rate that is no number": Case("train --learning-rate nan", "learning_rate must be a finite number; found nan"),
    "infinite learning rate": Case("study --learning-rate inf", "learning_rate must be a finite number; found inf"),
    "huge seed": Case("train --seed 9999999999999999999", "seed must be below 2^63"),
    "heads that do not divide": Case("train --model.num-heads 3", "width 64 is not a multiple of num_heads 3; choose num_heads"),
    "heads of a sweep": Case("study --heads 1 5", "width 64 is not a multiple of num_heads 5; choose num_heads from [1, 2"),
    "setting to vary": Case("study --vary patchsize 2 4", "'patchsize' is no setting that can be varied; did you mean 'patch_size'? known: width"),
    "value to vary": Case("study --vary depth 1 three", "depth takes a whole number; found 'three'"),
    "word to vary": Case("study --vary pos_embed none ropes", "unknown pos_embed 'ropes'; did you mean 'rope'? known: learned, sincos"),
    "setting without values": Case("study --vary depth", "vary needs a setting and its values, as in --vary patch_size 2 4 8; found no value of depth"),
    "nothing to vary": Case("study --vary", "vary needs a setting and its values, as in --vary patch_size 2 4 8; found nothing"),
    "varied patch size": Case("study --vary patch_size 4 5", "mnist16 has 16 × 16 pixels and patch_size is 5"),
    "varied batch larger than the data": Case("study --data digits --vary batch_size 5000 --model.patch-size 4", "batch_size is 5000, but digits has only"),
    "heads too small for rope": Case("train --model.pos-embed rope --model.num-heads 32", "rope needs heads of a size that 4 divides; found width 64 in 32 heads, 2 each"),
    "study without natural": Case("study --arms shuffled", "arms must name natural"),
    "negative jobs": Case("study --jobs -1", "jobs must be 0 or more; found -1"),
    "unknown device": Case("train --data digits --model.patch-size 4 --device tpu", "there is no device 'tpu' here; available: auto"),
    "unknown device of a study": Case("study --device tpu", "there is no device 'tpu' here; available: auto"),
    # images
    "unknown data": Case("train --data phtoos", "unknown data 'phtoos': no data set has that name and no such path exists; did you mean 'photos'?"),
    "unknown data of a study": Case("study --data mnits", "did you mean 'mnist'?"),
    "empty folder": Case("train --data empty", "empty should hold one folder of pictures for each class; it holds nothing", lambda: Path("empty").mkdir()),
    "folder without classes": Case("train --data flat", "flat should hold one folder of pictures for each class; it holds 1 pictures", pictures("flat/1.png")),
    "one class": Case("train --data one", "one has one class only (a)", pictures("one/a/1.png", "one/a/2.png")),
    "images of two sizes": Case("train --data two", "all images must have one size; two/a/1.png has 4 × 6", two_sizes),
    "unreadable picture": Case("train --data broken", "cannot read the picture broken/b/2.png", broken_picture),
    "no parquet": Case("study --data x.parquet", "cannot read x.parquet as parquet", text("x.parquet")),
    "patch size": Case("train --data digits --model.patch-size 3", "digits has 8 × 8 pixels and patch_size is 3; choose a divisor"),
    "patch size of a study": Case("study --model.patch-size 5", "mnist16 has 16 × 16 pixels and patch_size is 5"),
    "a single patch": Case("study --vary patch_size 4 16", "patch_size must leave at least two patches; mnist16 has 16 × 16 pixels and patch_size is 16"),
    "batch larger than the data": Case("train --data digits --model.patch-size 4 --batch-size 5000", "batch_size is 5000, but digits has only 1438 training images"),
    # a configuration file
    "no such file": Case("train --config none.toml", "cannot read the configuration none.toml: there is no such file"),
    "not TOML": Case("train --config c.toml", "cannot read the configuration c.toml: Expected", text("c.toml", "steps: 3")),
    "unknown setting": Case("train --config c.toml", "c.toml: the configuration does not fit: model: unknown setting 'widht', did you mean 'width'?", text("c.toml", "[model]\nwidht = 3")),
    "setting of a wrong type": Case("train --config c.toml", "steps: expected a whole number, found '3'", text("c.toml", "steps = '3'")),
    "setting out of range": Case("train --config c.toml", "batch_size must be at least 1; found 0", text("c.toml", "batch_size = 0")),
    # folders in the way
    "out is a file": Case(f"train {SMALL} --out file", "file is a file; a run needs a folder", text("file")),
    "out holds other things": Case(f"train {SMALL} --out other", "other is not empty and holds no run (found letter.txt)", text("other/letter.txt")),
    "out of a study is a file": Case("study --out file", "file is there already and holds no study", text("file")),
    "out of a study holds other things": Case("study --out other", "other is there already and holds no study", text("other/letter.txt")),
    "run of another configuration": Case(f"train {SMALL} --seed 1 --out run", "already holds a run with another configuration (seed is 0 there, 1 here)"),
    "run that was started": Case(f"train {SMALL} --out run", "run already holds this run up to step 2 of 2; add --resume"),
    "study of other settings": Case("study --steps 9 --out study", "study holds a study with other settings (steps is 7 there, 9 here)", study(steps=7)),
    "page that is a folder": Case("report study -o run", "expected a file name for the report; found the folder run", study()),
    "export to a folder": Case("export run -o run", "expected the name of a file; run is a folder"),
    # folders that hold something else
    "report of nothing": Case("report none", "none is not a study directory: there is no such folder"),
    "report of a run": Case("report run", "run is not a study directory: it holds no study.json"),
    "export of nothing": Case("export none", "none is not a run directory: there is no such folder"),
    "export of a study without a run": Case("export study", "cannot export study: its finished runs hold nothing yet", study()),
    # damage
    "damaged study.json": Case("report study", "cannot read study/study.json: Expecting value", text("study/study.json", "oops")),
    "study.json of something else": Case("report study", "cannot read study/study.json: it has no 'train'", text("study/study.json", "{}")),
    "study.json that is a list": Case("export study", "cannot read study/study.json: expected a dict, found list", text("study/study.json", "[]")),
    "damaged config.json": Case(f"train {SMALL} --out run --resume", "cannot read run/config.json", text("run/config.json", "{")),
    "damaged record": Case("export run", "cannot read run/run.sqlite: file is not a database; if it is damaged, delete run", text("run/run.sqlite", "no record " * 99)),
    "training on a damaged record": Case(f"train {SMALL} --out run --resume", "cannot read run/run.sqlite: file is not a database", text("run/run.sqlite", "no record " * 99)),
    "emptied record": Case("export run", "cannot read run/run.sqlite: no such table", text("run/run.sqlite", "")),
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "run"
    assert main(["train", *SMALL.split(), "--out", str(path)]) == 0
    return path


@pytest.fixture
def folder(tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run; it holds a finished run."""
    shutil.copytree(recorded, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | list[str] | None]:
    """Every file and folder, of a record what it says; a lock is no content."""
    paths = [path for path in folder.rglob("*") if path.name != ".lock"]
    return {str(path.relative_to(folder)): content(path) for path in paths}


def content(path: Path) -> bytes | list[str] | None:
    if path.name == "run.sqlite":
        with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())
    return path.read_bytes() if path.is_file() else None


def refused(line: str, capsys: pytest.CaptureFixture) -> str:
    """The one sentence that a command says as it refuses."""
    capsys.readouterr()
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("wherefrom: ")
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


@pytest.mark.parametrize("name", CASES)
def test_a_command_says_what_is_wrong_and_leaves_all_as_it_was(name, folder, capsys):
    line, words, prepare = CASES[name]
    prepare()
    before = contents(folder)
    assert words in refused(line, capsys)
    assert contents(folder) == before


# ---- what the surroundings do


def test_a_run_that_another_process_is_writing(folder, capsys):
    program = "import sys, filelock\nwith filelock.FileLock('run/.lock'): print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout.readline() == "held\n"
        before = contents(folder)
        found = refused(f"train {SMALL} --out run --resume", capsys)
        other.stdin.close()
    assert "another process is writing run; wait for it or stop it" in found
    assert contents(folder) == before


def test_a_folder_that_cannot_be_written_to(folder, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    folder.joinpath("locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(f"train {SMALL} --out locked/run", capsys)
    assert "cannot write locked/run.parquet: permission denied" in refused("export run -o locked/run.parquet", capsys)


def test_a_batch_that_the_processes_cannot_share(folder, capsys, monkeypatch):
    monkeypatch.setattr("wherefrom.train.processes", lambda: contextlib.nullcontext((0, 3)))
    before = contents(folder)
    found = refused(f"train {SMALL} --out shared", capsys)
    assert "batch_size must be a multiple of the 3 processes; found 8" in found
    assert contents(folder) == before


def test_a_loss_that_is_no_number_keeps_what_was_recorded(folder, capsys):
    line = f"train {SMALL} --steps 40 --warmup-steps 0 --learning-rate 1e30 --out wild"
    assert main(line.split()) == 2
    found = capsys.readouterr().err.splitlines()[-1]
    assert "not a finite number; everything recorded before is kept in wild; try a lower learning rate" in found
    assert len(wf.open_run("wild").measurements("loss"))


# ---- from Python


def vit(**settings) -> ViT:
    torch.manual_seed(0)
    return ViT(ModelConfig(**{"width": 8, "depth": 1, "num_heads": 2, "patch_size": 2} | settings), (1, 4, 4), 3)


class Dropping(nn.Module):
    """Nearly a Vision Transformer, with dropout in its attention."""

    def __init__(self):
        super().__init__()
        self.blocks, self.patch_embed = nn.ModuleList([nn.Linear(1, 1)]), nn.Identity()
        self.grid = wf.PatchGrid(2, 2)

    def forward(self, images):
        q = images.reshape(len(images), 1, 4, 4)
        return torch.nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.1).mean((1, 2))


def with_long_table() -> ViT:
    model = vit()
    model.pos_embed = nn.Parameter(torch.zeros(1, 9, 8))
    return model


IMAGES, LABELS = torch.zeros(3, 1, 4, 4), torch.tensor([0, 1, 2])

CALLS = {
    "no Vision Transformer": (lambda: wf.capture(nn.Linear(3, 3), IMAGES), "Linear is no Vision Transformer known here"),
    "attention dropout": (lambda: wf.capture(Dropping(), IMAGES), "layer 0 uses attention dropout 0.1.* set it to 0"),
    "grid of another model": (
        lambda: wf.probe(vit(), IMAGES, LABELS, {"model": wf.PatchGrid(3, 3)}),
        r"4 queries to 4 keys does not fit a grid of 3 × 3 patches .* give the model's own grid",
    ),
    "position embedding of another grid": (lambda: wf.probe(with_long_table(), IMAGES, LABELS), "pos_embed has 9 rows"),
    "labels beyond the classes": (lambda: wf.capture(vit(), IMAGES, LABELS + 90), "labels must lie between 0 and"),
    "too few labels": (lambda: wf.capture(vit(), IMAGES, LABELS[:1]), "labels must be whole numbers .* one for each"),
    "labels that are no classes": (lambda: wf.capture(vit(), IMAGES, LABELS.float()), "found torch.float32"),
    "images of another size": (lambda: wf.capture(vit(), IMAGES[..., :2], LABELS), "ViT cannot take images of shape"),
    "one image without batch": (lambda: wf.capture(vit(), IMAGES[0]), "of shape batch × channel × height × width"),
    "images as bytes": (lambda: wf.capture(vit(), IMAGES.byte()), "must be floating-point numbers .* found torch.uint8"),
    "images that are not finite": (lambda: wf.probe(vit(), IMAGES / 0, LABELS), "numbers that are not finite"),
    "no images": (lambda: wf.capture(vit(), IMAGES[:0]), "the batch of images is empty"),
    "grid of another model's table": (
        lambda: wf.measures.similarity_falloff(torch.zeros(5, 3), wf.PatchGrid(2, 2)),
        "pos_embed has 5 rows, but a grid of 2 × 2 has 4 patches",
    ),
    "grid without patches": (lambda: wf.PatchGrid(0, 3), "height and width of at least 1 .* found 0 × 3"),
    "patch size": (lambda: vit(patch_size=3), "patch_size must divide .* found 4 × 4 pixels and patch_size 3"),
    "sincos of odd width": (lambda: vit(width=6, pos_embed="sincos"), "a width that 4 divides; found 6"),
    "rope of an odd head": (lambda: vit(pos_embed="rope", width=12), "heads of a size that 4 divides; found width 12 in 2 heads, 6 each"),
    "unknown read-out": (lambda: wf.ModelConfig(pool="max"), "unknown pool 'max'; known: mean, class"),
    "no hidden width": (lambda: wf.ModelConfig(mlp_ratio=0), "hidden width of at least 1; found 0"),
    "unknown arm": (lambda: wf.TrainConfig(arm="mixed"), "unknown arm 'mixed'; known: natural, shuffled, scrambled"),
    "study of an unknown arm": (lambda: wf.study(arms=("natural", "x")), "unknown arm 'x'; known: natural"),
    "negative cadence": (lambda: wf.RecordConfig(probe_every=-1), "probe_every must be 0 or more; found -1"),
    "no run": (lambda: wf.open_run("nowhere"), "nowhere is not a run directory: there is no such folder"),
    "unknown column": (lambda: wf.open_run("run").measurements(colour=1), "unknown column 'colour'; known: step, measure"),
    "array that is not there": (lambda: wf.open_run("run").array("pos_embed", step=1), r"holds no array 'pos_embed'.*steps \[2\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_what_is_wrong(name, folder):
    call, words = CALLS[name]
    with pytest.raises(ValueError, match=words) as found:
        call()
    assert "\n" not in str(found.value)
