"""One study directory: many run directories, and what was concluded from them.

study.json         settings of the study and the list of its runs
<run name>/        one run directory each, e.g. natural-heads4-seed0
verdicts.json      a list, one object a claim
report.html        the page
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from wherefrom.config import RunKey
from wherefrom.store.files import read_json, write_json
from wherefrom.store.run import RunDirectory

if TYPE_CHECKING:
    import pandas as pd


class StudyDirectory:
    """A study on disk."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | Path) -> StudyDirectory:
        """The study at `path`.

        Raises:
            ValueError: if there is none.
        """
        study = cls(path)
        if not (study.path / "study.json").is_file():
            what = "it holds no study.json" if study.path.is_dir() else "there is no such folder"
            raise ValueError(f"{study.path} is not a study directory: {what}")
        return study

    @property
    def settings(self) -> dict:
        """`study.json`: {"train": the shared TrainConfig, "num_heads": of the arms, "runs": [RunKey, …]}."""
        path = self.path / "study.json"
        settings = read_json(path)
        if missing := [key for key in ("train", "num_heads", "runs") if key not in settings]:
            raise ValueError(f"cannot read {path}: it has no {missing[0]!r}; it is damaged, or not written by a study")
        return settings

    def write_settings(self, train: dict, num_heads: int, runs: list[RunKey]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        data = {"train": train, "num_heads": num_heads, "runs": [asdict(key) for key in runs]}
        write_json(self.path / "study.json", data)

    @property
    def num_heads(self) -> int:
        """Head count of the arms; the other counts belong to the head sweep."""
        return self.settings["num_heads"]

    def run_keys(self) -> list[RunKey]:
        return [RunKey(**key) for key in self.settings["runs"]]

    def run(self, key: RunKey) -> RunDirectory:
        return RunDirectory(self.path / key.name)

    def finished_runs(self) -> dict[RunKey, RunDirectory]:
        return {key: run for key in self.run_keys() if (run := self.run(key)).is_finished()}

    def measurements(self, measure=None, **where) -> pd.DataFrame:
        """The tidy table of all finished runs: `run, arm, num_heads, seed, setting` before a run's own columns.

        `setting` is empty in the arms and in the head sweep, and else what a run has other than they, `patch_size=8`.
        """
        return self._table(self.finished_runs(), measure, where)

    def varied(self) -> list[str]:
        """Settings that were varied by themselves; `num_heads` where there are other head counts than the arms'."""
        keys = self.run_keys()
        heads = ["num_heads"] if any(key.num_heads != self.num_heads for key in keys) else []
        return heads + list(dict.fromkeys(key.setting.partition("=")[0] for key in keys if key.setting))

    def series(self, name: str, measure=None, **where) -> pd.DataFrame:
        """The tidy table of one setting: natural runs that differ in it and the seed alone, the arm among them.

        `setting` holds its name, and a further column `setting_value` what each run has of it, a number or text.

        Raises:
            ValueError: for a setting that was not varied in this study.
        """
        if name not in self.varied():
            known = ", ".join(self.varied()) or "nothing"
            raise ValueError(f"{name!r} was not varied in {self.path}; it varies {known}")
        values = {run: value for run in self.finished_runs() if (value := self._value(run, name)) is not None}
        table = self._table({key: self.run(key) for key in values}, measure, where)
        if len(table):
            names = {key.name: value for key, value in values.items()}
            table["setting"] = name
            table.insert(list(table).index("setting") + 1, "setting_value", table["run"].map(names))
        return table

    def _value(self, key: RunKey, name: str):
        """What a run has of the setting; None if it is not of this series."""
        own, _, text = key.setting.partition("=")
        if key.arm != "natural" or own not in ("", name):
            return None
        if name == "num_heads":
            return key.num_heads
        if own:
            return _number_or_text(text)
        return value_in(self.settings["train"], name) if key.num_heads == self.num_heads else None

    def _table(self, runs: dict[RunKey, RunDirectory], measure, where: dict) -> pd.DataFrame:
        from wherefrom.store.table import table_of_runs

        return table_of_runs((key, run.rows(measure, **where)) for key, run in runs.items())

    @property
    def verdicts(self) -> list[dict]:
        return read_json(self.path / "verdicts.json", list)

    def write_verdicts(self, verdicts: list[dict]) -> None:
        write_json(self.path / "verdicts.json", verdicts)

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"


def value_in(train: dict, name: str):
    """A setting of a training configuration as plain data, or of its model."""
    model = train.get("model", {})
    return model[name] if name in model else train[name]


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
