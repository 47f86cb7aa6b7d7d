"""The command line as one types it: good paths, what it prints and where."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wherefrom as wf
from wherefrom.cli import COMMANDS, main

TINY = "--data digits --batch-size 8 --record.probe-size 8 --record.probe-every 2"
TINY += " --model.width 8 --model.depth 1 --model.num-heads 2 --model.patch-size 4"


def run(line: str, capsys: pytest.CaptureFixture) -> tuple[str, str]:
    """(standard output, standard error) of a command that succeeds."""
    capsys.readouterr()
    assert main(line.split()) == 0
    return tuple(capsys.readouterr())


def help_of(name: str, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- help

OPTIONS = {
    "study": {"data", "out", "seeds", "heads", "vary", "arms", "quick", "jobs", "device", "steps", "batch-size"},
    "train": {"config", "out", "resume", "data", "arm", "seed", "steps", "device"},
    "report": {"out"},
    "export": {"to", "out"},
    "data": {"json"},
}


@pytest.mark.parametrize("line", ["", "--help", "-h"])
def test_help_names_every_command(line, capsys):
    shown, _ = run(line, capsys)
    assert all(re.search(rf"^  {name} .*\.$", shown, re.MULTILINE) for name in COMMANDS)
    assert "wherefrom study --quick" in shown


def test_version(capsys):
    assert run("--version", capsys)[0] == f"wherefrom {wf.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_option(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = help_of(name, capsys)
    assert shown.startswith(f"usage: wherefrom {name} ")
    plain = re.sub("[│╭╮╰╯─]", "", shown)
    options = re.split(r"^ *(?=--?[a-z])", plain, flags=re.MULTILINE)[1:]
    assert set(re.findall(r"--([a-z-]+)", " ".join(options))) >= OPTIONS[name]
    assert all(len(option.split()) > 4 for option in options), options  # a name, and a sentence
    assert not re.search(r"tyro|None\}|partial", shown)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "data"])
def test_examples_in_the_help_can_be_typed(name, capsys):
    shown = help_of(name, capsys)
    examples = re.findall(rf"^    (?:wherefrom|torchrun.* wherefrom) {name}\b([^#\n]*)", shown, re.MULTILINE)
    assert examples
    assert set(re.findall(r"--[a-z][a-z.-]*", " ".join(examples))) <= set(re.findall(r"--[a-z][a-z.-]*", shown))


def test_help_is_quick_to_come():
    program = "import sys; from wherefrom.cli import main\ntry: main(['study', '--help'])\nexcept SystemExit: pass\n"
    program += "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# ---- train, export


def test_train_and_export(here, capsys):
    shown, told = run(f"train {TINY} --steps 3 -o runs/one", capsys)
    assert shown == ""  # standard output is for machines
    assert told.splitlines()[-1] == "recorded in runs/one"
    assert "step 3 of 3, loss " in told
    recorded = wf.open_run("runs/one")
    assert recorded.is_finished()
    table = recorded.measurements()

    assert run("export runs/one", capsys)[0] == "runs/one/measurements.parquet\n"
    pd.testing.assert_frame_equal(pd.read_parquet("runs/one/measurements.parquet"), table, check_dtype=False)
    run("export runs/one --to csv -o deep/er/table.csv", capsys)
    with open("deep/er/table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"] or "nan") for row in rows] == pytest.approx(table.value.tolist(), nan_ok=True)
    run("export runs/one --to npz", capsys)
    with np.load("runs/one/arrays.npz") as arrays:
        np.testing.assert_array_equal(arrays["pos_embed/3"], recorded.array("pos_embed", 3))
        offset_map = recorded.array("attn_offset_map", 2, layer=0)
        np.testing.assert_array_equal(arrays["attn_offset_map/2/0"], offset_map)
    assert not list(here.rglob("*.part*"))


def test_options_outdo_the_file_and_the_file_outdoes_the_defaults(here, capsys):
    here.joinpath("run.toml").write_text(
        'data = "digits"\nsteps = 9\nbatch_size = 8\nseed = 3\n'
        "[model]\nwidth = 8\ndepth = 1\nnum_heads = 2\npatch_size = 4\n[record]\nprobe_every = 0\nprobe_size = 8\n"
    )
    for line in ("--config run.toml --steps 2 --model.num-heads 1 -o a", "-o b --steps=2 --config=run.toml"):
        run(f"train {line}", capsys)
    first, second = wf.open_run("a").config, wf.open_run("b").config
    assert (first["steps"], first["seed"], first["model"]["width"], first["model"]["num_heads"]) == (2, 3, 8, 1)
    assert (second["steps"], second["model"]["num_heads"]) == (2, 2)
    assert first["learning_rate"] == wf.TrainConfig().learning_rate


def test_a_finished_run_resumed_is_left_as_it_is(here, capsys):
    run(f"train {TINY} --steps 2 -o one", capsys)
    before = wf.open_run("one").measurements()
    _, told = run(f"train {TINY} --steps 2 -o one --resume", capsys)
    assert told == "recorded in one\n"
    pd.testing.assert_frame_equal(wf.open_run("one").measurements(), before)


def test_interrupted_training_says_how_to_go_on(here, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("wherefrom.train.fit", interrupted)
    assert main(["train", "-o", "one"]) == 130
    assert capsys.readouterr().err == (
        "wherefrom: interrupted; everything recorded so far is kept in one; --resume goes on from there\n"
    )


# ---- study, report


def test_study_and_report(here, capsys):
    line = f"study {TINY} --steps 4 --seeds 1 --head-seeds 1 --heads 2 --arms natural scrambled --jobs 1 -o small"
    shown, told = run(line, capsys)
    assert told.splitlines()[0] == "2 runs of 4 steps on digits; recorded in small"
    assert told.splitlines()[-1] == "report: small/report.html"
    assert re.search(r"^natural-heads2-seed0 finished, falloff [+-]\d\.\d\d$", told, re.MULTILINE)
    verdicts = json.loads(Path("small/verdicts.json").read_text())
    assert all(verdict["claim"] in shown for verdict in verdicts)
    assert {key.name for key in wf.open_study("small").finished_runs()} == {
        "natural-heads2-seed0", "scrambled-heads2-seed0"
    }  # fmt: skip

    assert run("report small -o page.html", capsys)[0] == "page.html\n"
    assert Path("page.html").read_bytes() == Path("small/report.html").read_bytes()
    run("export small --to npz", capsys)
    with np.load("small/arrays.npz") as arrays:
        assert "scrambled-heads2-seed0/pos_embed/4" in arrays


def test_study_with_settings_to_vary(here, capsys):
    line = f"study {TINY} --steps 2 --seeds 1 --head-seeds 1 --heads 2 --arms natural --jobs 1 -o small"
    _, told = run(f"{line} --vary depth 1 2 --vary pos-embed none rope", capsys)
    assert told.splitlines()[0] == "4 runs of 2 steps on digits; recorded in small"
    assert re.search(r"^natural-heads2-depth=2-seed0 finished, falloff", told, re.MULTILINE)
    assert re.search(r"^natural-heads2-pos_embed=rope-seed0 finished$", told, re.MULTILINE)
    run("export small --to csv", capsys)
    with open("small/measurements.csv", newline="") as file:
        settings = {row["setting"] for row in csv.DictReader(file)}
    assert settings == {"", "depth=2", "pos_embed=none", "pos_embed=rope"}


def test_quick_is_a_smaller_study():
    from wherefrom.studies import StudyConfig, quick_study

    quick, default = quick_study(StudyConfig()), StudyConfig()
    assert len(quick.runs()) < len(default.runs())
    assert quick.steps < default.steps
    assert {key.arm for key in quick.runs()} == {key.arm for key in default.runs()}


# ---- data, and the command as a process


def test_data(capsys):
    shown, _ = run("data", capsys)
    known = json.loads(run("data --json", capsys)[0])
    assert [row["data"] for row in known][:4] == ["mnist16", "photos", "mnist", "digits"]
    assert all(row["data"] in shown for row in known)


def test_python_m_is_the_command_and_its_code_is_the_exit_code(here):
    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "wherefrom", *words], capture_output=True, text=True)

    good, bad = call("data", "--json"), call("train", "--steps", "x")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "wherefrom: --steps: expected a whole number, found 'x'; see wherefrom train --help\n"
