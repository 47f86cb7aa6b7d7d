"""The record of a run or a study as one file that other tools open."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from wherefrom.store.run import RunDirectory
from wherefrom.store.study import StudyDirectory

NAMES = {"parquet": "measurements.parquet", "csv": "measurements.csv", "npz": "arrays.npz"}


def export(path: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write the measurements (parquet, csv) or the arrays (npz) and return the file's path.

    Arrays are named `name/step` or `name/step/layer`, under `run/` for a study.

    Raises:
        ValueError: if `path` is neither a run nor a study, holds nothing yet, or `to` is no known format.
    """
    if to not in NAMES:
        raise ValueError(f"cannot export to {to!r}; known: {', '.join(NAMES)}")
    path = Path(path)
    is_study = (path / "study.json").is_file()
    source = StudyDirectory.open(path) if is_study else RunDirectory.open(path)
    target = Path(out) if out else path / NAMES[to]
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}.{target.name}")
    if to == "npz":
        runs = {f"{key.name}/": run for key, run in source.finished_runs().items()} if is_study else {"": source}
        np.savez_compressed(beside.with_suffix(".npz"), **_arrays(runs))
        beside = beside.with_suffix(".npz")
    else:
        table = source.measurements()
        if not len(table):
            raise ValueError(f"{path} holds no measurements yet; nothing was written")
        table.to_parquet(beside, index=False) if to == "parquet" else table.to_csv(beside, index=False)
    os.replace(beside, target)
    return target


def _arrays(runs: dict[str, RunDirectory]) -> dict[str, np.ndarray]:
    return {
        f"{prefix}{name}/{step}" + ("" if layer is None else f"/{layer}"): run.array(name, step, layer)
        for prefix, run in runs.items()
        for name, step, layer in run.array_keys()
    }
