"""The main job: which runs, what is kept when runs, processes or the whole study die, and what it leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from wherefrom import studies
from wherefrom.config import ModelConfig, RecordConfig, RunKey, StudyConfig, to_dict
from wherefrom.store import RunDirectory, StudyDirectory, claim
from wherefrom.studies import quick_study, run_study, train_all
from wherefrom.train import fit
from wherefrom.watcher import Watcher
from wherefrom.workers import local
from wherefrom.workers.task import RunFailed, RunLost

TINY = StudyConfig(
    data="digits", shuffled_data="digits", seeds=2, control_seeds=2, heads=(1,), head_seeds=1,
    steps=10, batch_size=16, device="cpu",
    model=ModelConfig(width=16, depth=2, num_heads=2, patch_size=2),
    record=RecordConfig(probe_every=5, gradient_every=5, probe_size=8, checkpoint_every=2),
)  # fmt: skip
CLAIM_KEYS = {"claim", "verdict", "statistic", "interval", "n", "p", "control", "sentence", "details"}


# ---- which runs


def test_the_default_study_is_twenty_runs():
    runs = StudyConfig().runs()
    assert len(runs) == 20
    assert Counter((key.arm, key.num_heads) for key in runs) == {
        ("natural", 4): 6, ("scrambled", 4): 3, ("shuffled", 4): 1, ("natural", 1): 5, ("natural", 8): 5,
    }  # fmt: skip
    assert [key.name for key in runs][:3] == ["natural-heads4-seed0", "shuffled-heads4-seed0", "scrambled-heads4-seed0"]
    for key, config in runs.items():
        assert (config.arm, config.model.num_heads, config.seed) == (key.arm, key.num_heads, key.seed)
        kept = key.arm == "natural" and key.num_heads == 4  # the account of what built the map
        assert config.record.ledger_every == int(kept)
        data = "photos" if key.arm == "shuffled" else "mnist16"
        model = ModelConfig(num_heads=key.num_heads, patch_size=4 if data == "photos" else 2)
        shared = StudyConfig().train
        assert config == replace(shared, data=data, arm=key.arm, seed=key.seed, model=model, record=config.record)


def test_a_quick_study_is_a_part_of_the_whole_one():
    quick = quick_study(StudyConfig())
    assert set(quick.runs()) < set(StudyConfig().runs())
    assert {key.arm for key in quick.runs()} == {"natural", "shuffled", "scrambled"}


# ---- runs in threads of the test, in place of processes


@contextlib.contextmanager
def in_place_of_processes(monkeypatch: pytest.MonkeyPatch, train) -> Iterator[list[str]]:
    """Runs are made by `train(config, out)`, here; gives the names of those that were begun."""
    begun: list[str] = []

    class Here:
        def train(self, config: dict, out: Path) -> float:
            begun.append(out.name)
            return train(config, out)

        def start(self) -> None: ...

        def stop(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(local, "_Worker", Here)
    yield begun


def finish(config: dict, out: Path) -> float:
    with RunDirectory.create(out, config, {}).writing() as run:
        run.set_status(end="finished")
    return 0.5


def test_a_run_whose_process_dies_is_tried_again_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    died: Counter = Counter()

    def train(config: dict, out: Path) -> float:
        name = out.name
        died[name] += 1
        if name == "scrambled-heads2-seed1" or (name == "natural-heads2-seed1" and died[name] == 1):
            raise RunLost("its process ended with code -9; is there enough memory?")
        if name == "shuffled-heads2-seed0":
            raise RunFailed("the loss of step 3 is nan, not a finite number")
        return finish(config, out)

    study = StudyDirectory(tmp_path)
    with in_place_of_processes(monkeypatch, train) as begun, local.Workers(1) as place:
        failed = train_all(TINY.runs(), study, place, None).failed
    assert {key.name: sentence for key, sentence in failed.items()} == {
        "scrambled-heads2-seed1": "its process ended with code -9; is there enough memory?",
        "shuffled-heads2-seed0": "the loss of step 3 is nan, not a finite number",
    }
    assert Counter(begun) == Counter({key.name: 1 for key in TINY.runs()}) + Counter(
        {"scrambled-heads2-seed1": studies.ROUNDS - 1, "natural-heads2-seed1": 1}
    )
    assert {key for key in TINY.runs() if study.run(key).is_finished()} == set(TINY.runs()) - set(failed)


def test_an_unexpected_error_is_reported_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def train(config: dict, out: Path) -> float:
        raise OSError("no more processes")

    with in_place_of_processes(monkeypatch, train), local.Workers(1) as place:
        failed = train_all(TINY.runs(), StudyDirectory(tmp_path), place, None).failed
    assert set(failed.values()) == {"no more processes"}
    assert set(failed) == set(TINY.runs())


def test_it_is_said_when_the_last_run_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun_then, last = [], list(TINY.runs())[-1].name
    told = threading.Event()

    def at_last() -> None:
        begun_then.append(len(begun))
        told.set()

    def train(config: dict, out: Path) -> float:
        if out.name == last and not told.wait(300):
            raise RunFailed("nothing was said")
        return finish(config, out)

    with in_place_of_processes(monkeypatch, train) as begun, local.Workers(1) as place:
        trained = train_all(TINY.runs(), StudyDirectory(tmp_path), place, None, at_last)
    assert trained.failed == {}
    assert set(begun_then) == {len(TINY.runs())}


def test_snapshots_follow_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study, seen = StudyDirectory(tmp_path), []

    def train(config: dict, out: Path) -> float:
        if config["arm"] == "shuffled":
            raise RunFailed("cannot be")
        return finish(config, out)

    with in_place_of_processes(monkeypatch, train), local.Workers(1) as place:
        train_all(TINY.runs(), study, place, seen.append)
    assert set(seen[-1].failed.values()) == {"cannot be"}
    assert len(seen[-1].finished) == len(TINY.runs()) - 1
    assert set(seen[-1].steps) == set(TINY.runs())


def test_a_watcher_reads_how_far_a_run_is(tmp_path: Path):
    key, config = next(iter(TINY.runs().items()))
    study = StudyDirectory(tmp_path)
    watcher = Watcher(TINY.runs(), TINY.steps, study)
    assert watcher.snapshot([], [], {}).share == 0
    with pytest.raises(ZeroDivisionError):
        fit(config, study.run(key).path, progress=lambda step, _: 1 / (step - 6))
    half = watcher.snapshot([key], [], {})
    assert half.steps[key] == 5
    assert half.finished == ()
    assert half.falloff[key] == study.run(key).measurements("similarity_falloff", step=5).value.item()
    fit(config, study.run(key).path, resume=True)
    done = watcher.snapshot([], [key], {})
    assert done.finished == (key,)
    assert done.share == pytest.approx(1 / len(TINY.runs()))


def test_a_look_at_a_study_reads_the_runs_at_work_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study, runs = StudyDirectory(tmp_path), TINY.runs()
    done, at_work, waiting, *_ = runs
    for key in (done, at_work, waiting):
        RunDirectory.create(study.run(key).path, to_dict(runs[key]), {})
    finish(to_dict(runs[done]), study.run(done).path)
    watcher, read = Watcher(runs, TINY.steps, study), []
    monkeypatch.setattr(RunDirectory, "_reader", lambda run: read.append(run.name) or contextlib.nullcontext(Empty()))
    assert watcher.snapshot([done, at_work], [], {}).finished == (done,)
    assert set(read) == {at_work.name}


class Empty:
    """A record that holds nothing."""

    def execute(self, *_):
        return self

    def fetchone(self) -> None: ...

    def fetchall(self) -> list:
        return []


# ---- refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 11}, "steps is 10 there, 11 here"),
        ({"model": ModelConfig(width=32, depth=2, num_heads=2, patch_size=2)}, "model.width is 16 there, 32 here"),
    ],
)
def test_a_folder_with_another_study_is_refused(tmp_path: Path, change: dict, sentence: str):
    StudyDirectory(tmp_path).write_settings(to_dict(TINY.train), 2, list(TINY.runs()))
    with pytest.raises(ValueError, match=rf"other settings \({sentence}\); choose another folder"):
        run_study(replace(TINY, **change), tmp_path)


def test_what_is_no_study_is_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds no study"):
        run_study(TINY, tmp_path)
    with pytest.raises(ValueError, match="unknown data 'digit'"):
        run_study(replace(TINY, data="digit"), tmp_path / "new")
    with pytest.raises(ValueError, match="jobs must be 0 or more"):
        run_study(TINY, tmp_path / "new", jobs=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_study_that_died_at_its_very_start_is_begun_again(tmp_path: Path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".99.part.study.json").touch()
    studies.refuse_other_study(StudyDirectory(tmp_path), TINY)


def test_a_second_study_on_the_same_folder_is_refused(tmp_path: Path):
    with (
        claim(tmp_path / ".lock", "taken"),
        pytest.raises(BlockingIOError, match="another process is at work"),
    ):
        run_study(TINY, tmp_path)
    assert not (tmp_path / "study.json").exists()


# ---- processes


def test_a_worker_says_how_a_run_ended(tmp_path: Path):
    config = to_dict(next(iter(TINY.runs().values())))
    blocked = tmp_path / "file"
    blocked.touch()
    with local.Workers(1) as two:
        ends = {
            "done": two.submit(config, tmp_path / "run"),
            "wrong": two.submit(config | {"data": "digit"}, tmp_path / "wrong"),
            "blocked": two.submit(config, blocked),
            "disk": two.submit(config, blocked / "inside"),
            "nan": two.submit(config | {"learning_rate": 1e30, "warmup_steps": 0}, tmp_path / "nan"),
        }
        errors = {name: future.exception() for name, future in ends.items()}
    assert errors["done"] is None
    assert ends["done"].result() > 0
    assert RunDirectory.open(tmp_path / "run").is_finished()
    kinds = {name: type(error) for name, error in errors.items()}
    assert kinds["wrong"] is kinds["blocked"] is kinds["nan"] is RunFailed
    assert kinds["disk"] is RunLost
    assert "unknown data 'digit'" in str(errors["wrong"])
    assert "the loss of step 1 is nan" in str(errors["nan"])


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_what_cannot_be_trained_is_said_before_anything_is_submitted():
    config, before = to_dict(next(iter(TINY.runs().values()))), set(children())
    wrong = [config | {"data": "digit"}]
    with local.Workers(0) as nobody, pytest.raises(ValueError, match="unknown data 'digit'"):
        nobody.check(wrong)
    with local.Workers(1) as one:
        one.check([config])
        with pytest.raises(ValueError, match="unknown data 'digit'"):
            one.check(wrong)
        with pytest.raises(ValueError, match=r"patch_size must divide .* patch_size is 3"):
            one.check([config, config | {"model": config["model"] | {"patch_size": 3}}])
        (worker,) = set(children()) - before
        worker.kill()
        worker.wait()
        with pytest.raises(ValueError, match="unknown data 'digit'"):  # said here
            one.check(wrong)


def test_a_killed_worker_takes_only_its_own_run_along(tmp_path: Path, halt):
    config, release = to_dict(next(iter(TINY.runs().values()))), halt(5)
    runs, before = [RunDirectory(tmp_path / name) for name in "ab"], set(children())
    with local.Workers(2) as pair:
        futures = [pair.submit(config, run.path) for run in runs]
        wait_for(lambda: all(run.exists() and run.last_step() for run in runs))
        next(iter(set(children()) - before)).kill()
        release()
        done, lost = sorted(futures, key=lambda future: future.exception() is not None)
        assert done.exception() is None
        assert isinstance(lost.exception(), RunLost)
        assert "ended with code -9" in str(lost.exception())
        pair.submit(config, runs[futures.index(lost)].path).result()  # a new process goes on with it
    assert all(run.is_finished() for run in runs)
    assert set(children()) <= before


def wait_for(found, seconds: float = 300):
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return result


# ---- whole studies

SCRIPT = f"""
import wherefrom as wf
from wherefrom.config import ModelConfig, RecordConfig, StudyConfig
study = wf.study(
    "digits", out="study", jobs=2, seeds={{seeds}}, heads=(1,), head_seeds=1, steps={TINY.steps}, batch_size=16,
    device="cpu", model={TINY.model!r}, record={TINY.record!r},
)
print(study.failed)
"""  # a plain script, without `if __name__ == "__main__"`


def script(folder: Path, seeds: int = 2) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(SCRIPT.format(seeds=seeds))
    return subprocess.Popen(
        [sys.executable, "mine.py"], cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_whole_study_from_a_plain_script_and_once_more(tmp_path: Path):
    with script(tmp_path) as process:
        said, complaints = process.communicate()
    assert said == "{}\n", complaints
    study = StudyDirectory.open(tmp_path / "study")
    assert set(study.finished_runs()) == set(TINY.runs())
    verdicts = json.loads((study.path / "verdicts.json").read_text())
    assert [verdict["claim"] for verdict in verdicts] == sorted({verdict["claim"] for verdict in verdicts})
    assert len(verdicts) == 8
    assert all(set(verdict) >= CLAIM_KEYS for verdict in verdicts)
    assert {verdict["n"] for verdict in verdicts if verdict["n"]} <= {1, 2}
    assert "</html>" in (study.path / "report.html").read_text()

    before = {key: contents(run.path) for key, run in study.finished_runs().items()}
    failing = replace(TINY, seeds=3, control_seeds=3)  # two further runs; the others are there
    (study.path / "natural-heads2-seed2").write_text("in the way")
    result = run_study(failing, study.path, jobs=5)
    assert list(result.failed) == ["natural-heads2-seed2"]
    assert "is a file" in result.failed["natural-heads2-seed2"]
    assert len(result.verdicts) == 8
    assert {key: contents(study.run(key).path) for key in before} == before
    assert len(study.finished_runs()) == len(before) + 1

    (study.path / "natural-heads2-seed2").unlink()
    assert run_study(failing, study.path, jobs=1).failed == {}
    assert set(study.finished_runs()) == set(failing.runs())
    assert {key: contents(study.run(key).path) for key in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("pos_embed", ["none", "sincos", "rope"])
def test_a_study_without_a_learned_table_ends_in_a_report(tmp_path: Path, pos_embed: str):
    model = replace(TINY.model, pos_embed=pos_embed)
    result = run_study(replace(TINY, heads=(), model=model), tmp_path, jobs=2)
    assert not result.failed
    verdicts = {verdict["claim"]: verdict for verdict in result.verdicts}
    assert verdicts["C3a"]["verdict"] == verdicts["C3b"]["verdict"] == "not judged"
    why = "are fixed, not learned" if pos_embed == "sincos" else "no learned position embedding"
    assert why in verdicts["C3a"]["sentence"]
    assert "kept no ledger" in verdicts["C3b"]["sentence"]
    assert {verdicts[claim]["n"] for claim in ("C0", "C1", "C2", "C4")} == {2}
    assert "</html>" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_values_that_are_added_to_a_study_are_all_that_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = replace(TINY, steps=2, seeds=1, heads=(1, 16), arms=("natural",), vary={"depth": (1, 2)})
    run_study(small, tmp_path, jobs=2)
    study = StudyDirectory.open(tmp_path)
    before = {key: contents(run.path) for key, run in study.finished_runs().items()}
    assert {key.name for key in before} == {
        "natural-heads2-seed0", "natural-heads1-seed0", "natural-heads16-seed0", "natural-heads2-depth=1-seed0"
    }  # fmt: skip
    begun: list[str] = []
    submit = local.Workers.submit
    monkeypatch.setattr(
        local.Workers, "submit", lambda self, config, out: begun.append(out.name) or submit(self, config, out)
    )
    more = {"depth": (1, 2, 3), "pos_embed": ("learned", "rope")}
    result = run_study(replace(small, vary=more), tmp_path, jobs=2)
    assert begun == ["natural-heads2-depth=3-seed0", "natural-heads2-pos_embed=rope-seed0"]
    assert not result.failed
    assert {key: contents(study.run(key).path) for key in before} == before
    assert result.series("depth", "loss", split="test")["setting_value"].unique().tolist() == [2, 1, 3]
    assert "What depth changes" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_one_seed_is_trained_and_said_to_be_too_few(tmp_path: Path):
    result = run_study(replace(TINY, seeds=1, arms=("natural", "scrambled")), tmp_path, jobs=2)
    assert not result.failed
    assert {verdict["verdict"] for verdict in result.verdicts} == {"not judged", "by construction"}
    assert any("one seed" in verdict["sentence"] for verdict in result.verdicts)
    assert result.report().is_file()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_study_that_is_stopped_leaves_no_process_and_goes_on(tmp_path: Path, halt, sign: int):
    study, release = StudyDirectory(tmp_path / "study"), halt(5)
    first = study.run(RunKey("natural", 2, 0))
    with script(tmp_path, seeds=1) as process:
        wait_for(lambda: process.poll() is not None or (first.exists() and first.last_step()))
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) == 2
        assert all(os.getpgid(worker.pid) != process.pid for worker in started)  # Ctrl-C reaches the parent alone
        os.kill(process.pid, sign) if sign == signal.SIGKILL else os.killpg(process.pid, sign)
        process.wait(300)
        _, alive = psutil.wait_procs(started, timeout=300)
        assert not alive
        if sign == signal.SIGINT:
            assert process.stderr.read().count("Traceback") == 1  # that of the script, and none of its workers
    kept = first.measurements()
    assert not first.is_finished()
    release()
    with script(tmp_path, seeds=1) as process:
        said, complaints = process.communicate()
    assert said == "{}\n", complaints
    again = first.measurements()
    assert len(study.finished_runs()) == 4
    assert again[: len(kept)].equals(kept)


@pytest.mark.slow
def test_the_command_says_that_it_was_interrupted(tmp_path: Path):
    settings = [f"--model.{name}={value}" for name, value in (("width", 16), ("depth", 2), ("patch-size", 2))]
    command = [sys.executable, "-m", "wherefrom", "study", "--data=digits", "--steps=300", "--jobs=1", *settings]
    out = tmp_path / "study"
    with subprocess.Popen(
        [*command, f"--out={out}"], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(lambda: process.poll() is not None or list(out.glob("*/run.sqlite")))
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "everything recorded so far is kept" in said
    assert "Traceback" not in said
    assert not psutil.wait_procs(started, timeout=300)[1]
