"""Rows of `measurements` as a table. Loads pandas, which a process that only writes its record does without."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import fields

import numpy as np
import pandas as pd

from wherefrom.config import RunKey
from wherefrom.store.database import ROW, TYPES

PART = 200_000
"""Rows that become a table at once: one a run would take longer, all of them more memory."""

ABSENT = pd.Series(["text", None]).iloc[1]
"""What pandas itself makes of None beside text: None up to version 2, then NaN."""


def table(rows: list[tuple]) -> pd.DataFrame:
    """Rows of `measurements` with a type a column. A text that is in many rows is kept once: a study has millions."""
    columns = ([row[place] for row in rows] for place in range(len(ROW)))  # zip(*rows) takes four times as long
    return pd.DataFrame({name: _column(TYPES[name], values) for name, values in zip(ROW, columns, strict=True)})


def _column(kind: str, values: list):
    if "TEXT" in kind:
        absent = ABSENT if any(values) else None
        return pd.Series([sys.intern(value) if value else absent for value in values], dtype="object")
    if kind == "INTEGER":  # may be absent
        numbers, absent = [value or 0 for value in values], [value is None for value in values]
        return pd.arrays.IntegerArray(np.array(numbers, dtype="int64"), np.array(absent, dtype=bool))
    return np.array(values, dtype="float64" if kind == "REAL" else "int64")


def table_of_runs(runs: Iterable[tuple[RunKey, list[tuple]]]) -> pd.DataFrame:
    """Rows of several runs, with what says whose they are before them."""
    part: dict[RunKey, list[tuple]] = {}
    tables = []
    for key, rows in runs:
        part[key] = rows
        if sum(map(len, part.values())) > PART:
            tables.append(_with_keys(part))
            part = {}
    tables += [_with_keys(part)] if part else []
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _with_keys(runs: dict[RunKey, list[tuple]]) -> pd.DataFrame:
    keys, lengths = list(runs), [len(rows) for rows in runs.values()]
    whole = table([row for rows in runs.values() for row in rows])
    for place, name in enumerate(("run", *(each.name for each in fields(RunKey)))):
        values = pd.Series([key.name if name == "run" else getattr(key, name) for key in keys])
        whole.insert(place, name, values.repeat(lengths).array)  # as text of numpy it would be converted row by row
    return whole
