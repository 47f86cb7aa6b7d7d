"""One run directory.

config.json        the resolved configuration
environment.json   versions, commit, device
run.sqlite         measurements, arrays, measures, status; one transaction a recorded step
checkpoints/       step-000050.safetensors (model), step-000050.state (optimizer)
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wherefrom.catalogue import COLUMNS, Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.store import database
from wherefrom.store.files import claim, config_differences, read_json, write_bytes, write_json

if TYPE_CHECKING:
    import pandas as pd


class RunDirectory:
    """One run on disk: append while training, read at any time from anywhere.

    `RunDirectory.create` starts one, `RunDirectory.open` takes one that is there; `writing()` claims it for one writer.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._writer: sqlite3.Connection | None = None

    # ---- start and open

    @classmethod
    def create(
        cls, path: str | Path, config: Mapping, environment: Mapping, grid: PatchGrid | None = None
    ) -> RunDirectory:
        """A new run directory, or the one already there if it holds the same configuration.

        Raises:
            ValueError: if another run, or something that is no run, is in the way.
        """
        run = cls(path)
        if not run.exists():
            _refuse_foreign_folder(run.path)
            with run._claimed():
                if not run.exists():
                    run._start(config, environment, grid)
        if differences := config_differences(run.config, config):
            raise ValueError(
                f"{run.path} already holds a run with another configuration ({'; '.join(differences)}); "
                f"choose another folder or delete this one"
            )
        run.status()  # raises its own sentence for a damaged record
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """The run directory at `path`.

        Raises:
            ValueError: if there is none.
        """
        run = cls(path)
        if not run.exists():
            what = "it holds no config.json and run.sqlite" if run.path.is_dir() else "there is no such folder"
            raise ValueError(f"{run.path} is not a run directory: {what}")
        return run

    def _start(self, config: Mapping, environment: Mapping, grid: PatchGrid | None) -> None:
        if grid is not None:
            write_json(self.path / "grid.json", asdict(grid))
        write_json(self.path / "environment.json", environment)
        database.create(self.path / "run.sqlite")
        write_json(self.path / "config.json", config)  # last: it says that the directory is whole

    def exists(self) -> bool:
        return (self.path / "config.json").is_file() and (self.path / "run.sqlite").is_file()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> dict:
        return read_json(self.path / "config.json")

    @property
    def grid(self) -> PatchGrid | None:
        """The grid of patches as the model sees it; None where it was not recorded."""
        path = self.path / "grid.json"
        return PatchGrid(**read_json(path)) if path.is_file() else None

    @property
    def environment(self) -> dict:
        return read_json(self.path / "environment.json")

    # ---- write

    @contextlib.contextmanager
    def writing(self) -> Iterator[RunDirectory]:
        """Claim the run for this process; a second writer gets a sentence instead of a mixed record.

        Raises:
            BlockingIOError: if another process is writing.
        """
        with self._claimed():
            self._writer = sqlite3.connect(self.path / "run.sqlite", isolation_level=None)
            try:
                database.choose_journal(self._writer)
                yield self
            finally:
                database.close_journal(self._writer)
                self._writer.close()
                self._writer = None

    def _claimed(self) -> contextlib.AbstractContextManager[None]:
        return claim(self.path / ".lock", f"another process is writing {self.path}; wait for it or stop it")

    def record(self, step: int, measurements: Iterable[Measurement], arrays: Mapping | None = None) -> None:
        """Add all of one step in one transaction. Keys of `arrays` are names or (name, layer)."""
        rows = [(*database.plain([step]), *database.sql_values(measurement)) for measurement in measurements]
        blobs = [database.array_row(step, key, array) for key, array in (arrays or {}).items()]
        with self._transaction() as writer:
            writer.executemany(f"INSERT INTO measurements VALUES ({','.join('?' * len(database.ROW))})", rows)
            writer.executemany("INSERT INTO arrays VALUES (?,?,?,?,?,?)", blobs)

    def forget_after(self, step: int) -> None:
        """Remove what was recorded after `step` (it will be recorded again) and any note of an end."""
        with self._transaction() as writer:
            writer.execute("DELETE FROM measurements WHERE step > ?", (step,))
            writer.execute("DELETE FROM arrays WHERE step > ?", (step,))
            writer.execute("DELETE FROM status")

    def set_status(self, **status: str) -> None:
        """Note how the run ended: `end="finished"`, or `end="stopped", reason=…`."""
        with self._transaction() as writer:
            writer.executemany("INSERT OR REPLACE INTO status VALUES (?,?)", status.items())

    def write_checkpoint(self, step: int, model: bytes, state: bytes) -> None:
        """Write both files beside their names, then rename: a half-written checkpoint is never seen."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        if self._writer is not None:  # the record reaches the disk before the checkpoint
            with contextlib.suppress(sqlite3.OperationalError):
                self._writer.execute("PRAGMA wal_checkpoint").fetchone()
        write_bytes(folder / f"step-{step:06d}.safetensors", model)
        write_bytes(folder / f"step-{step:06d}.state", state)  # last: a step counts once its state is there
        kept = {f"step-{step:06d}" for step in self.checkpoint_steps()[-2:]}
        for file in folder.iterdir():  # also what a killed writer left half done
            if file.stem not in kept:
                file.unlink()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._writer is not None, "write inside `with run.writing():`"
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):  # such as a full disk
                raise OSError(f"cannot write {self.path / 'run.sqlite'}: {error}") from None
            raise

    # ---- read

    def measurements(
        self, measure: str | Iterable[str] | None = None, step: int | None = None, **where
    ) -> pd.DataFrame:
        """The table of measurements, one number a row: `step` and the columns of `Measurement`.

        Args:
            measure: only this measure, or these.
            step: only this step.
            where: only rows whose column has this value; None asks for rows where it does not apply.
        """
        from wherefrom.store.table import table

        return table(self.rows(measure, step, **where))

    def rows(self, measure: str | Iterable[str] | None = None, step: int | None = None, **where) -> list[tuple]:
        """The same, as plain rows of `database.ROW`."""
        if unknown := set(where) - set(COLUMNS):
            raise ValueError(f"unknown column {sorted(unknown)[0]!r}; known: {', '.join(database.ROW)}")
        conditions = {"step": step} if step is not None else {}
        conditions |= where
        clauses = [f"{column} IS ?" for column in conditions]
        values = list(conditions.values())
        if measure is not None:
            names = [measure] if isinstance(measure, str) else list(measure)
            clauses.append(f"measure IN ({','.join('?' * len(names))})")
            values += names
        query = "FROM measurements" + (" WHERE " + " AND ".join(clauses) if clauses else "") + " ORDER BY rowid"
        with self._reader() as reader:
            return reader.execute(f"SELECT {database.columns(reader)} {query}", database.plain(values)).fetchall()

    def account(self) -> dict[str, float]:
        """The largest `route_closure` and `ledger_residual` recorded: what routes and ledgers miss; empty without."""
        table = self.measurements(("route_closure", "ledger_residual"))
        return table.groupby("measure").value.max().dropna().to_dict()

    def array(self, name: str, step: int, layer: int | None = None) -> np.ndarray:
        """One recorded array.

        Raises:
            ValueError: if there is none; the sentence says which steps there are.
        """
        with self._reader() as reader:
            query = "SELECT dtype, shape, data FROM arrays WHERE name = ? AND step = ? AND layer IS ?"
            row = reader.execute(query, database.plain((name, step, layer))).fetchone()
        if row is None:
            known = ", ".join(self.array_names()) if not (steps := self.array_steps(name)) else f"steps {steps}"
            raise ValueError(
                f"{self.path} holds no array {name!r} at step {step}, layer {layer}; it holds {known or 'none'}"
            )
        return np.frombuffer(row[2], dtype=row[0]).reshape(json.loads(row[1]))

    def array_steps(self, name: str) -> list[int]:
        with self._reader() as reader:
            return [
                step
                for (step,) in reader.execute("SELECT DISTINCT step FROM arrays WHERE name = ? ORDER BY 1", (name,))
            ]

    def array_names(self) -> list[str]:
        with self._reader() as reader:
            return [name for (name,) in reader.execute("SELECT DISTINCT name FROM arrays ORDER BY 1")]

    def array_keys(self) -> list[tuple[str, int, int | None]]:
        """(name, step, layer) of every recorded array."""
        with self._reader() as reader:
            return reader.execute("SELECT name, step, layer FROM arrays ORDER BY rowid").fetchall()

    def last_step(self) -> int | None:
        """The last recorded step; None before the first."""
        with self._reader() as reader:
            return reader.execute("SELECT MAX(step) FROM measurements").fetchone()[0]

    def newest(self, measure: str, **where) -> tuple[int, float | None] | None:
        """(step, value) of the measure's last row, found by its index however long the record is; None before that."""
        clauses = "".join(f" AND {column} IS ?" for column in where)
        query = f"SELECT step, value FROM measurements WHERE measure = ?{clauses} ORDER BY step DESC LIMIT 1"
        with self._reader() as reader:
            return reader.execute(query, (measure, *where.values())).fetchone()

    def status(self) -> dict[str, str]:
        with self._reader() as reader:
            return dict(reader.execute("SELECT key, value FROM status").fetchall())

    def is_finished(self) -> bool:
        return self.exists() and self.status().get("end") == "finished"

    def checkpoint_steps(self) -> list[int]:
        """Steps whose checkpoint is whole."""
        states = (self.path / "checkpoints").glob("step-*.state")
        whole = (path for path in states if path.with_suffix(".safetensors").is_file())
        return sorted(int(path.stem.removeprefix("step-")) for path in whole)

    def checkpoint(self, step: int) -> tuple[bytes, bytes]:
        """(model, state) as they were written."""
        stem = self.path / "checkpoints" / f"step-{step:06d}"
        return stem.with_suffix(".safetensors").read_bytes(), stem.with_suffix(".state").read_bytes()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        path = self.path / "run.sqlite"
        try:
            with contextlib.closing(database.connect_to_read(path)) as connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"cannot read {path}: {error}; if it is damaged, delete {self.path} and make the run again"
            ) from None


def _refuse_foreign_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; a run needs a folder")
    known = {"config.json", "environment.json", "grid.json", "run.sqlite", ".lock", "checkpoints"}
    foreign = [
        item.name for item in path.glob("*") if item.name not in known and not item.name.startswith((".", "run.sqlite"))
    ]
    if foreign:
        raise ValueError(f"{path} is not empty and holds no run (found {sorted(foreign)[0]}); choose another folder")
    if (path / "run.sqlite").is_file() and RunDirectory(path).last_step() is not None:
        raise ValueError(f"{path} holds a record whose config.json is missing; put it back or choose another folder")
