"""A run directory under rough treatment: writers that die, readers at any moment, full disks, read-only folders."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wherefrom.catalogue import COLUMNS, MEASURES, Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.store import RunDirectory
from wherefrom.store.export import export

CONFIG = {"steps": 9, "model": {"width": 16}}
NOBODY = 65534


def new(path: Path) -> RunDirectory:
    return RunDirectory.create(path, CONFIG, {"python": "3"}, PatchGrid(2, 3, 1))


def losses(step: int, count: int = 3) -> list[Measurement]:
    return [Measurement("loss", step + place / 10, "train", layer=place) for place in range(count)]


def steps_of(run: RunDirectory) -> list[int]:
    return run.measurements().step.unique().tolist()


# ---- whole steps


def test_a_step_that_fails_half_way_leaves_nothing(tmp_path: Path):
    run = new(tmp_path)
    with run.writing():
        run.record(0, losses(0), {"pos_embed": np.zeros(2)})
        with pytest.raises(sqlite3.Error):  # the layer is no number, which shows after the measurements are in
            run.record(1, losses(1), {("attn_offset_map", object()): np.zeros(2)})
        assert steps_of(run) == [0]
        run.record(1, losses(1))
    assert steps_of(run) == [0, 1]
    assert run.array_steps("pos_embed") == [0]


def test_a_full_disk_is_said_and_what_was_recorded_is_kept(tmp_path: Path):
    run = new(tmp_path)
    with run.writing():
        run.record(0, losses(0))
        pages = run._writer.execute("PRAGMA page_count").fetchone()[0]
        run._writer.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(OSError, match=r"run\.sqlite: database or disk is full"):
            run.record(1, losses(1), {"pos_embed": np.zeros(10_000)})
        assert steps_of(run) == [0]
        run._writer.execute("PRAGMA max_page_count=1000000")  # somebody made room
        run.record(1, losses(1), {"pos_embed": np.zeros(10_000)})
    assert steps_of(run) == [0, 1]


WRITER = """
import sys, itertools, numpy as np
from wherefrom.catalogue import Measurement
from wherefrom.store import RunDirectory
run = RunDirectory.open(sys.argv[1])
with run.writing():
    for step in itertools.count():
        rows = [Measurement("loss", step + place / 10, "train", layer=place) for place in range(200)]
        run.record(step, rows, {"pos_embed": np.full(5000, step)})
        print(step, flush=True)
"""


@contextlib.contextmanager
def another_writer(path: Path) -> Iterator[subprocess.Popen]:
    """A process that records step after step until it is killed; it has recorded the first."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield process
        finally:
            process.kill()


def test_readers_see_whole_steps_while_another_process_writes_and_after_it_was_killed(tmp_path: Path):
    run = new(tmp_path)
    with another_writer(tmp_path) as process:
        last = []
        while not last or last[-1] < last[0] + 5:
            table = run.measurements()
            assert (table.groupby("step").size() == 200).all()
            last.append(table.step.max())
            assert table.step.nunique() == last[-1] + 1
            assert (run.array("pos_embed", last[-1]) == last[-1]).all()
        with pytest.raises(BlockingIOError, match="another process is writing"), run.writing():
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "run.sqlite-wal").stat().st_size > 0
    kept = steps_of(run)
    assert kept == list(range(len(kept)))
    assert len(kept) > last[-1]
    assert kept == run.array_steps("pos_embed")
    with run.writing():  # its claim died with it
        run.record(len(kept), losses(len(kept)))
    assert not (tmp_path / "run.sqlite-wal").exists()
    assert steps_of(run) == [*kept, len(kept)]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """As a user who may read, not write."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_finished_run_is_one_file_that_can_be_read_where_nothing_can_be_written(tmp_path: Path, open_folder: Path):
    run = new(tmp_path / "run")
    with run.writing():
        run.record(0, losses(0))
    (open_folder / "copy").mkdir()
    for name in ("config.json", "run.sqlite"):
        shutil.copy(run.path / name, open_folder / "copy" / name)
    copy = RunDirectory.open(open_folder / "copy")
    expected = run.measurements()
    with read_only(copy.path):
        with pytest.raises(PermissionError):
            (copy.path / "x").touch()
        pd.testing.assert_frame_equal(copy.measurements(), expected)


def test_the_log_of_a_killed_writer_is_read_where_nothing_can_be_written(tmp_path: Path, open_folder: Path):
    run = new(tmp_path / "run")
    with run.writing():
        run.record(0, losses(0))
        copy = RunDirectory(shutil.copytree(run.path, open_folder / "copy"))  # as if the writer died at this moment
        (copy.path / "run.sqlite-shm").unlink()
    assert (copy.path / "run.sqlite-wal").stat().st_size
    expected = run.measurements()
    with read_only(copy.path):
        pd.testing.assert_frame_equal(copy.measurements(), expected)
        assert copy.last_step() == 0


def test_a_reader_that_stays_does_not_keep_the_writer_from_ending(tmp_path: Path):
    run = new(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "run.sqlite")) as reader:
        with run.writing():
            run.record(0, losses(0))
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM measurements").fetchone() == (3,)
            run.record(1, losses(1))
        assert reader.execute("SELECT count(*) FROM measurements").fetchone() == (3,)  # its own moment in time
    assert steps_of(run) == [0, 1]


def test_a_reader_at_the_very_end_does_not_leave_the_record_in_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, waited = new(tmp_path), []
    reader = sqlite3.connect(f"file:{run.path / 'run.sqlite'}?mode=ro", uri=True)
    monkeypatch.setattr("wherefrom.store.database.time.sleep", lambda _: waited.append(0) or reader.close())
    with run.writing():
        run.record(0, losses(0))
        reader.execute("SELECT count(*) FROM measurements").fetchone()
    assert waited  # while the reader read
    assert not (tmp_path / "run.sqlite-wal").exists()
    assert steps_of(run) == [0]


def test_without_a_write_ahead_log_the_record_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, connect = new(tmp_path), sqlite3.connect

    def without_shared_memory(database, **settings):  # as on network disks
        return connect(f"file:{database}?vfs=unix-dotfile", uri=True, **settings)

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    with run.writing():
        monkeypatch.setattr(sqlite3, "connect", connect)
        assert run._writer.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        run.record(0, losses(0))
        assert steps_of(run) == [0]
        run.record(1, losses(1))
        assert not (tmp_path / "run.sqlite-wal").exists()
    assert steps_of(run) == [0, 1]


# ---- one writer, one configuration


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path):
    run = new(tmp_path)
    with (
        run.writing(),
        pytest.raises(BlockingIOError, match="another process is writing"),
        RunDirectory.open(tmp_path).writing(),
    ):
        pass
    with RunDirectory.open(tmp_path).writing() as second:
        second.record(0, losses(0))


def test_the_same_configuration_opens_and_another_is_refused(tmp_path: Path):
    new(tmp_path)
    assert new(tmp_path).grid == PatchGrid(2, 3, 1)
    with pytest.raises(ValueError, match=r"model.width is 16 there, 8 here"):
        RunDirectory.create(tmp_path, {"steps": 9, "model": {"width": 8}}, {})


@pytest.mark.parametrize("missing", ["config.json", "run.sqlite"])
def test_a_directory_whose_making_was_cut_short_is_made_again(tmp_path: Path, missing: str):
    (new(tmp_path).path / missing).unlink()
    with new(tmp_path).writing() as run:
        run.record(0, losses(0))


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no such folder"):
        RunDirectory.open(tmp_path / "none")
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(ValueError, match=r"not empty and holds no run \(found thesis.tex\)"):
        new(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        new(tmp_path / "thesis.tex")


def test_a_record_is_not_overwritten_when_its_configuration_was_lost(tmp_path: Path):
    with new(tmp_path).writing() as run:
        run.record(0, losses(0))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        new(tmp_path)


# ---- checkpoints


def test_checkpoints_are_whole_and_only_the_last_two_are_kept(tmp_path: Path):
    run = new(tmp_path)
    folder = tmp_path / "checkpoints"
    for step in (3, 6, 9):
        run.write_checkpoint(step, b"model %d" % step, b"state %d" % step)
    assert run.checkpoint_steps() == [6, 9]
    assert run.checkpoint(9) == (b"model 9", b"state 9")
    (folder / "step-000012.safetensors").write_bytes(b"killed before its state")
    (folder / "step-000015.state").write_bytes(b"without a model")
    (folder / ".77.part.step-000012.state").write_bytes(b"hal")
    assert run.checkpoint_steps() == [6, 9]
    run.write_checkpoint(12, b"model 12", b"state 12")
    names = [f"step-0000{step}.{suffix}" for step in ("09", "12") for suffix in ("safetensors", "state")]
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("act", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, fails_at: int
):
    run, calls, real = new(tmp_path), [], getattr(os, act)
    run.write_checkpoint(3, b"model", b"state")
    old = {path.name for path in (tmp_path / "checkpoints").iterdir()}

    def full(*arguments) -> None:
        calls.append(arguments)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, act, full)
    with pytest.raises(OSError, match="No space left"):
        run.write_checkpoint(6, b"new model", b"new state")
    assert run.checkpoint_steps() == [3]
    assert run.checkpoint(3) == (b"model", b"state")
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()} - old
    assert left == (set() if fails_at == 1 else {"step-000006.safetensors"})  # nothing half, under any name


# ---- what is in it


def test_measurements_are_filtered_and_typed(tmp_path: Path):
    rows = [
        Measurement("advantage", 0.25, "train", 1, 2, None, "edge", None, "model"),
        Measurement("advantage", float("nan"), "train", 1, 3, None, "edge", None, "model"),
        Measurement("attn", np.float32(0.5), "probe", np.int64(0), np.uint8(0), None, None, 1.5, "model"),
        Measurement("loss", float("inf"), "test"),
    ]
    with new(tmp_path).writing() as run:
        run.record(0, rows)
        run.record(5, rows)
    table = run.measurements()
    assert list(table.columns) == ["step", *COLUMNS]
    assert table.dtypes.astype(str).to_dict() == dict.fromkeys(table.columns, "object") | {
        "step": "int64", "value": "float64", "distance": "float64", "layer": "Int64", "head": "Int64",
    }  # fmt: skip
    assert table.step.tolist() == [0] * 4 + [5] * 4
    assert table.measure.tolist() == [row.measure for row in rows] * 2
    np.testing.assert_array_equal(table.value[:4], [0.25, np.nan, 0.5, np.nan])
    assert table.route.isna().all()
    assert len(run.measurements("advantage")) == 4
    assert len(run.measurements(["advantage", "attn"], step=5)) == 3
    assert run.measurements(relation=None, distance=None).measure.tolist() == ["loss", "loss"]
    assert run.measurements("advantage", step=0, head=3).index.tolist() == [0]
    assert run.measurements("accuracy").empty
    assert run.measurements("accuracy").dtypes.equals(table.dtypes)
    with pytest.raises(ValueError, match="unknown column 'haed'"):
        run.measurements(haed=1)


def test_measures_that_are_not_in_the_catalogue_are_not_recorded(tmp_path: Path):
    with new(tmp_path).writing() as run, pytest.raises(AssertionError, match="beauty"):
        run.record(0, [Measurement("beauty", 1.0)])


def test_the_file_explains_its_measures(tmp_path: Path):
    run = new(tmp_path)
    with contextlib.closing(sqlite3.connect(run.path / "run.sqlite")) as connection:
        rows = connection.execute("SELECT * FROM measures").fetchall()
    assert rows == [astuple(measure) for measure in MEASURES.values()]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.float64(1.5),
        np.zeros((0, 3), dtype=np.int64),
        np.array([True, False]),
        np.arange(4, dtype=">i4"),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.array([np.nan, -0.0, np.inf], dtype=np.float16),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: np.ndarray):
    with new(tmp_path).writing() as run:
        run.record(4, [], {"pos_embed": array, ("pos_embed", 1): array + array})
    back = run.array("pos_embed", 4)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array, strict=True)
    np.testing.assert_array_equal(run.array("pos_embed", 4, layer=1), array + array)
    assert run.array_keys() == [("pos_embed", 4, None), ("pos_embed", 4, 1)]
    with pytest.raises(ValueError, match=r"no array 'pos_embed' at step 5, layer None; it holds steps \[4\]"):
        run.array("pos_embed", 5)


def test_what_is_forgotten_is_gone_and_the_end_is_open_again(tmp_path: Path):
    with new(tmp_path).writing() as run:
        for step in (0, 5, 10):
            run.record(step, losses(step), {"pos_embed": np.zeros(1)})
        run.set_status(end="finished")
        assert run.is_finished()
        run.forget_after(5)
    assert steps_of(run) == run.array_steps("pos_embed") == [0, 5]
    assert run.last_step() == 5
    assert not run.is_finished()
    assert run.status() == {}


def test_a_damaged_record_is_said_in_a_sentence(tmp_path: Path):
    run = new(tmp_path)
    (tmp_path / "run.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match=r"cannot read .*run.sqlite"):
        run.measurements()


# ---- for other tools


@pytest.mark.parametrize(("to", "read"), [("parquet", pd.read_parquet), ("csv", pd.read_csv)])
def test_exported_tables_open_elsewhere(tmp_path: Path, to: str, read):
    with new(tmp_path / "run").writing() as run:
        run.record(0, [*losses(0), Measurement("attn", None, "probe", 0, 1, None, None, 1.5, "model")])
    path = export(run.path, to)
    assert path == run.path / f"measurements.{to}"
    table, expected = read(path), run.measurements()
    assert list(table.columns) == list(expected.columns)
    np.testing.assert_array_equal(table.value, expected.value)
    assert table.measure.tolist() == expected.measure.tolist()
    assert table["head"].isna().tolist() == [True] * 3 + [False]
    assert sorted(item.name for item in path.parent.iterdir() if item.name.startswith(".")) == [".lock"]


def test_exported_arrays_open_elsewhere(tmp_path: Path):
    with new(tmp_path / "run").writing() as run:
        run.record(2, [], {"pos_embed": np.eye(3), ("attn_offset_map", 1): np.zeros((2, 3), dtype=np.float32)})
    with np.load(export(run.path, "npz", tmp_path / "out" / "arrays.npz")) as arrays:
        assert set(arrays) == {"pos_embed/2", "attn_offset_map/2/1"}
        np.testing.assert_array_equal(arrays["pos_embed/2"], np.eye(3))
        assert arrays["attn_offset_map/2/1"].dtype == np.float32


# ---- a disk that many machines share


def test_a_disk_that_is_shared_has_no_log_that_needs_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mounts").write_text(f"1 0 8:1 / / rw - ext4 a rw\n2 1 0:4 / {tmp_path} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr("wherefrom.store.disk.MOUNTS", tmp_path / "mounts")
    run = new(tmp_path / "run")
    with run.writing():
        assert run._writer.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        run.record(0, losses(0))
        assert steps_of(run) == [0]
        assert run.newest("loss") == (0, 0.2) == run.newest("loss", layer=2)


def test_a_transaction_that_a_killed_writer_left_there_is_taken_back(tmp_path: Path):
    run, copy = new(tmp_path / "run"), tmp_path / "copy"
    with run.writing():
        run._writer.execute("PRAGMA journal_mode=DELETE")
        run.record(0, losses(0))
        run._writer.execute("PRAGMA cache_size=1")
        run._writer.execute("BEGIN IMMEDIATE")  # so much that some of it is in the file before it is committed
        rows = [(1, "loss", float(number)) for number in range(20_000)]
        run._writer.executemany("INSERT INTO measurements(step, measure, value) VALUES (?,?,?)", rows)
        shutil.copytree(run.path, copy)
        assert (copy / "run.sqlite-journal").stat().st_size
        run._writer.execute("ROLLBACK")
    assert (copy / "run.sqlite").stat().st_size > 2 * (run.path / "run.sqlite").stat().st_size / 3
    assert steps_of(RunDirectory.open(copy)) == [0]
    assert len(RunDirectory.open(copy).measurements()) == 3
