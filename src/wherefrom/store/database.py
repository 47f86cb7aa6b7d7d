"""`run.sqlite`: tables, connections, and how a value becomes a row."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

import numpy as np

from wherefrom.catalogue import COLUMNS, MEASURES, Measurement
from wherefrom.store.disk import is_local

ROW = ("step", *COLUMNS)
TYPES = {
    "step": "INTEGER NOT NULL",
    "measure": "TEXT NOT NULL",
    "value": "REAL",
    "layer": "INTEGER",
    "head": "INTEGER",
}
TYPES |= {"split": "TEXT", "route": "TEXT", "relation": "TEXT", "distance": "REAL", "grid": "TEXT", "content": "TEXT"}

SCHEMA = f"""
CREATE TABLE measurements({", ".join(f"{name} {TYPES[name]}" for name in ROW)});
CREATE INDEX measurements_by_measure ON measurements(measure, step);
CREATE TABLE arrays(step INTEGER NOT NULL, layer INTEGER, name TEXT NOT NULL, dtype TEXT, shape TEXT, data BLOB);
CREATE INDEX arrays_by_name ON arrays(name, step, layer);
CREATE TABLE measures(name TEXT PRIMARY KEY, unit TEXT, low REAL, high REAL, "null" TEXT, prefix_treatment TEXT,
                      sentence TEXT, reference TEXT);
CREATE TABLE status(key TEXT PRIMARY KEY, value TEXT);
"""


def create(path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(beside)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.executemany("INSERT INTO measures VALUES (?,?,?,?,?,?,?,?)", [astuple(m) for m in MEASURES.values()])
    os.replace(beside, path)


def choose_journal(connection: sqlite3.Connection) -> None:
    # A write-ahead log lets others read while we write, but all must be on one machine: its index is shared memory.
    connection.execute("PRAGMA busy_timeout=10000")
    local = is_local(Path(connection.execute("PRAGMA database_list").fetchone()[2]))
    try:
        mode = connection.execute(f"PRAGMA journal_mode={'WAL' if local else 'DELETE'}").fetchone()[0]
        connection.execute("SELECT count(*) FROM status").fetchone()
    except sqlite3.OperationalError:
        mode = "none"
    if mode != "wal":
        connection.execute("PRAGMA journal_mode=DELETE")
    # A log is whole also after a power cut; waiting for the disk at every step would only keep the very last ones.
    connection.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}")


def close_journal(connection: sqlite3.Connection) -> None:
    """Bring the log into the file, so that the file alone is the record and can be copied."""
    for _ in range(20):  # SQLite does not wait by itself here, and readers are short
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
            return
        except sqlite3.OperationalError:  # somebody reads; if it stays so, the log stays, and nothing is lost
            time.sleep(0.05)


def connect_to_read(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        connection.execute("SELECT count(*) FROM status").fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        # A folder that cannot be written to: nobody is writing, so the file is fixed.
        for log in (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "journal")):
            if log.exists():
                return _copy_in_memory(path, log)
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    return connection


def _copy_in_memory(path: Path, log: Path) -> sqlite3.Connection:
    """The record with what a killed writer left in the log put in, or taken back, for which SQLite has to write."""
    memory = sqlite3.connect(":memory:")
    with tempfile.TemporaryDirectory() as folder:
        for source in (path, log):
            shutil.copyfile(source, Path(folder) / source.name)
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as copied:
            copied.backup(memory)
    return memory


def columns(connection: sqlite3.Connection) -> str:
    """The columns of `ROW` to select; one that a record from before it was introduced lacks is null."""
    present = {name for _, name, *_ in connection.execute("PRAGMA table_info(measurements)")}
    return ", ".join(name if name in present else f"NULL AS {name}" for name in ROW)


def plain(values: Iterable) -> tuple:
    """The values with numpy's numbers, which SQLite would take for bytes, as Python's."""
    return tuple(value.item() if isinstance(value, np.generic) else value for value in values)


def sql_values(measurement: Measurement) -> tuple:
    value = measurement.value
    known = value is not None and math.isfinite(value)
    assert measurement.measure in MEASURES, f"{measurement.measure} is not in the catalogue"
    return (measurement.measure, float(value) if known else None, *plain(astuple(measurement)[2:]))


def array_row(step: int, key, array) -> tuple:
    name, layer = key if isinstance(key, tuple) else (key, None)
    array = np.asarray(array)
    return *plain((step, layer)), name, array.dtype.str, json.dumps(array.shape), array.tobytes()
