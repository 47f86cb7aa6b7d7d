"""The record of a run or a study as one file that other tools open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wherefrom.store.files import replacing
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
    source = StudyDirectory.open(path) if (path / "study.json").is_file() else RunDirectory.open(path)
    target = Path(out) if out else path / NAMES[to]
    found = _arrays(source) if to == "npz" else source.measurements()
    if not len(found):
        where = "its finished runs hold" if isinstance(source, StudyDirectory) else "it holds"
        raise ValueError(f"cannot export {path}: {where} nothing yet")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside:
        _write(beside, to, found)
    return target


def _write(path: Path, to: str, found) -> None:
    if to == "parquet":
        found.to_parquet(path, index=False)
    elif to == "csv":
        found.to_csv(path, index=False)
    else:
        with open(path, "wb") as file:  # given a name, numpy would add a suffix to it
            np.savez_compressed(file, **found)


def _arrays(source: RunDirectory | StudyDirectory) -> dict[str, np.ndarray]:
    is_run = isinstance(source, RunDirectory)
    runs = {"": source} if is_run else {f"{key.name}/": run for key, run in source.finished_runs().items()}
    return {
        f"{prefix}{name}/{step}" + ("" if layer is None else f"/{layer}"): run.array(name, step, layer)
        for prefix, run in runs.items()
        for name, step, layer in run.array_keys()
    }
