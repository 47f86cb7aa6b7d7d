"""The record of a run or a study as one file that other tools open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wherefrom.store.files import replacing
from wherefrom.store.run import RunDirectory
from wherefrom.store.study import StudyDirectory

NAMES = {"parquet": "measurements.parquet", "csv": "measurements.csv", "npz": "arrays.npz"}
WRITERS = {
    "parquet": lambda path, table: table.to_parquet(path, index=False),
    "csv": lambda path, table: table.to_csv(path, index=False),
    "npz": lambda path, arrays: _write_npz(path, arrays),
}


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
    if to == "npz":
        found = _arrays({f"{key.name}/": run for key, run in source.finished_runs().items()} if is_study else {"": source})
    else:
        found = source.measurements()
    if not len(found):
        what = "arrays" if to == "npz" else "measurements"
        raise ValueError(f"{path} holds no {what} yet" + (" in finished runs" if is_study else "") + "; nothing was written")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as beside:
        WRITERS[to](beside, found)
    return target


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add a suffix to it
        np.savez_compressed(file, **arrays)


def _arrays(runs: dict[str, RunDirectory]) -> dict[str, np.ndarray]:
    return {
        f"{prefix}{name}/{step}" + ("" if layer is None else f"/{layer}"): run.array(name, step, layer)
        for prefix, run in runs.items()
        for name, step, layer in run.array_keys()
    }
