"""A study directory: its runs as one table, and the files beside them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from wherefrom.catalogue import COLUMNS, Measurement
from wherefrom.config import RunKey
from wherefrom.store import StudyDirectory
from wherefrom.store.export import export

KEYS = [RunKey("natural", 4, 0), RunKey("scrambled", 4, 0), RunKey("natural", 1, 2)]


def study(path: Path, finished: list[RunKey]) -> StudyDirectory:
    directory = StudyDirectory(path)
    directory.write_settings({"steps": 3}, 4, KEYS)
    for key in KEYS:
        run = directory.run(key).create(directory.run(key).path, {"seed": key.seed}, {})
        with run.writing():
            run.record(0, [Measurement("loss", float(key.num_heads), "train"), Measurement("accuracy", None, "test")])
            if key in finished:
                run.set_status(end="finished")
    return directory


def test_the_table_holds_finished_runs_alone_and_says_which(tmp_path: Path):
    directory = study(tmp_path, [KEYS[0], KEYS[2]])
    table = StudyDirectory.open(tmp_path).measurements()
    assert list(table.columns) == ["run", "arm", "num_heads", "seed", "setting", "step", *COLUMNS]
    assert table.run.tolist() == ["natural-heads4-seed0"] * 2 + ["natural-heads1-seed2"] * 2
    assert table.num_heads.tolist() == [4, 4, 1, 1]
    assert table.seed.tolist() == [0, 0, 2, 2]
    assert str(table.dtypes["layer"]) == "Int64"
    assert table.dtypes["value"] == "float64"
    assert directory.measurements("loss").value.tolist() == [4.0, 1.0]
    assert list(directory.finished_runs()) == [KEYS[0], KEYS[2]]


def test_a_study_without_a_finished_run_has_an_empty_table(tmp_path: Path):
    directory = study(tmp_path, [])
    assert directory.measurements().empty
    with pytest.raises(ValueError, match="yet"):
        export(tmp_path, "parquet")
    assert not (tmp_path / "measurements.parquet").exists()


def test_settings_come_back(tmp_path: Path):
    directory = study(tmp_path, [])
    assert directory.run_keys() == KEYS
    assert directory.num_heads == 4
    assert directory.settings["train"] == {"steps": 3}


def test_what_is_no_study_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no study\.json"):
        StudyDirectory.open(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot read .*study.json"):
        StudyDirectory.open(tmp_path).run_keys()


def test_a_study_is_exported_with_the_names_of_its_runs(tmp_path: Path):
    study(tmp_path, KEYS)
    table = pd.read_parquet(export(tmp_path, "parquet"))
    assert table.groupby("run").size().to_dict() == {key.name: 2 for key in KEYS}


VARIED = [
    *KEYS,
    RunKey("natural", 4, 1),
    RunKey("natural", 4, 0, "patch_size=8"),
    RunKey("natural", 4, 0, "pos_embed=rope"),
]


def varied(path: Path) -> StudyDirectory:
    directory = StudyDirectory(path)
    model = {"num_heads": 4, "patch_size": 4, "pos_embed": "learned"}
    directory.write_settings({"batch_size": 3, "model": model}, 4, VARIED)
    for number, key in enumerate(VARIED):
        run = directory.run(key).create(directory.run(key).path, {"seed": key.seed}, {})
        with run.writing():
            run.record(0, [Measurement("loss", float(number), "train")])
            run.set_status(end="finished")
    return directory


@pytest.mark.parametrize(
    ("name", "values", "numbers"),
    [
        ("num_heads", [4, 1, 4], [0, 2, 3]),
        ("patch_size", [4, 4, 8], [0, 3, 4]),
        ("pos_embed", ["learned", "learned", "rope"], [0, 3, 5]),
    ],
)
def test_a_series_holds_the_arm_and_the_runs_of_one_setting(tmp_path: Path, name, values, numbers):
    table = varied(tmp_path).series(name, "loss")
    assert table["setting_value"].tolist() == values
    assert table["value"].tolist() == numbers
    assert set(table["setting"]) == {name}


def test_which_settings_were_varied(tmp_path: Path):
    directory = varied(tmp_path)
    assert directory.varied() == ["num_heads", "patch_size", "pos_embed"]
    with pytest.raises(ValueError, match=r"'depth' was not varied in .*; it varies num_heads, patch_size, pos_embed"):
        directory.series("depth")
    assert directory.measurements()["setting"].tolist() == [key.setting for key in VARIED]
    table = pd.read_csv(export(tmp_path, "csv"), keep_default_na=False)
    assert table["setting"].tolist() == [key.setting for key in VARIED]


def test_a_study_written_before_settings_could_vary_is_read(tmp_path: Path):
    study(tmp_path, KEYS)
    path = tmp_path / "study.json"
    old = json.loads(path.read_text())
    for key in old["runs"]:
        del key["setting"]
    path.write_text(json.dumps(old))
    directory = StudyDirectory.open(tmp_path)
    assert directory.run_keys() == KEYS
    assert directory.varied() == ["num_heads"]
    assert set(directory.measurements()["setting"]) == {""}
