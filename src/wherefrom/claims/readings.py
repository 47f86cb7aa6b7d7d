"""The tidy table of a study, sorted once, and the few ways in which claims read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd

from wherefrom.config import CUT

T = TypeVar("T")

ANY = object()
"""As a head count: every one."""


class Readings:
    """Rows of a study by measure and arm. A study has half a million rows; text is compared as small whole numbers.

    Args:
        table: `StudyDirectory.measurements()`, one number a row; may be empty. Runs with another value of a
            setting than the arms have no part in any claim.
        num_heads: head count of the arms.
    """

    def __init__(self, table: pd.DataFrame, num_heads: int):
        self.num_heads = num_heads
        self._once: dict = {}
        table = table if len(table) else pd.DataFrame(columns=list(_COLUMNS))
        table = table[(table["setting"] == "").to_numpy()] if "setting" in table else table
        codes, names = zip(*(_codes(table, name) for name in _TEXT), strict=True)
        self._texts = {
            name: {text: code for code, text in enumerate(own)} for name, own in zip(_TEXT, names, strict=True)
        }
        columns = dict(zip(_TEXT, codes, strict=True)) | _numbers(table)
        measure, arm = columns["measure"], columns["arm"]
        order = np.lexsort((arm, measure))
        self._columns = {name: column[order] for name, column in columns.items()}
        self._spans = _spans(measure[order], arm[order])
        # Text as plain objects lies in one block, so that rows are taken from three arrays and not from one a column.
        texts = {name: own.take(self._columns[name]) for name, own in zip(_TEXT, names, strict=True)}
        self._rows = pd.DataFrame(self._columns | texts)
        self._nothing = self._rows.iloc[:0]
        runs, first, place = np.unique(self._columns["run"], return_index=True, return_inverse=True)
        self._counts = {(texts["arm"][row], int(self._columns["num_heads"][row])) for row in first}
        self._last_steps = dict(zip(runs.tolist(), _largest(self._columns["step"], place, len(runs)), strict=True))

    def rows(
        self, measure: str, arm: str = "natural", num_heads=None, grid="model", content="natural", **where
    ) -> pd.DataFrame:
        """Rows of one measure in one arm; a condition is a value or a tuple of values.

        A measure that knows of no grid is the model's; one that knows of no content belongs to natural images.
        """
        span = self._spans.get((self._code("measure", measure), self._code("arm", arm)))
        if span is None:
            return self._nothing
        key = (span, grid, content, num_heads, *where.items())
        return self.once(key, lambda: self._taken(span, num_heads, grid, content, where))

    def _taken(self, span: tuple[int, int], num_heads, grid: str, content: str, where: dict) -> pd.DataFrame:
        part = slice(*span)
        keep = self._is(part, "grid", grid, or_none=grid == "model")
        keep &= self._is(part, "content", content, or_none=content == "natural")
        if num_heads is not ANY:
            keep &= self._columns["num_heads"][part] == (num_heads or self.num_heads)
        for column, value in where.items():
            keep &= self._is(part, column, value)
        at = np.flatnonzero(keep)
        return self._rows.take(span[0] + at) if len(at) else self._nothing

    def records(self, measure: str, arm: str = "natural") -> bool:
        """Whether any run of this arm recorded the measure at all."""
        return (self._code("measure", measure), self._code("arm", arm)) in self._spans

    def _code(self, column: str, text) -> int:
        """The whole number that stands for a text; one that no row has where it is nowhere in the table."""
        return self._texts[column].get(text, -2)

    def _is(self, part: slice, column: str, value, or_none: bool = False) -> np.ndarray:
        values = value if isinstance(value, tuple) else (value,)
        codes = [self._code(column, text) for text in values] if column in self._texts else list(values)
        own = self._columns[column][part]
        keep = own == codes[0] if len(codes) == 1 else np.isin(own, codes)
        return keep | (own == -1) if or_none else keep

    def once(self, key: tuple, compute: Callable[[], T]) -> T:
        """What several claims show is computed once."""
        if key not in self._once:
            self._once[key] = compute()
        return self._once[key]

    def has_runs(self, arm: str) -> bool:
        """Whether there is a finished run of this arm with the arms' head count."""
        return (arm, self.num_heads) in self._counts

    def cuts(self) -> list[str]:
        """What is cut in the arms that have a part of the gradient cut, with the arms' head count, as `pos:q,k`."""
        arms = sorted(arm for arm, num_heads in self._counts if num_heads == self.num_heads)
        return [arm.removeprefix(CUT) for arm in arms if arm.startswith(CUT)]

    def head_counts(self, arm: str = "natural") -> list[int]:
        """Head counts of the runs of one arm, rising."""
        return sorted(num_heads for name, num_heads in self._counts if name == arm)

    def last_steps(self, runs: pd.Series) -> pd.Series:
        """Number of updates done by the end of each run in `runs`."""
        return runs.map(self._last_steps)


def at_start(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at initialisation, before any update."""
    return rows[(rows["step"] == 0).to_numpy()]


def at_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at each run's last step."""
    return rows[_last(rows)]


def by_seed(rows: pd.DataFrame) -> pd.Series:
    """Mean value of each seed; nulls are left out."""
    if rows.empty:
        return pd.Series(dtype=float)
    seeds, place = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    return pd.Series(_means(rows["value"].to_numpy(), place, len(seeds)), pd.Index(seeds, name="seed"))


def by_seed_and(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Mean value of each seed and each value of `columns`, spread out: `seed × columns`; nulls are left out."""
    if rows.empty:
        return pd.DataFrame()
    seeds, names, place = _cells(rows, columns)
    means = _means(rows["value"].to_numpy(), place, len(seeds) * len(names))
    return pd.DataFrame(means.reshape(len(seeds), -1), seeds, names)


def sums_by_seed_and(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sum of the values of each seed and each value of `columns`: `seed × columns`; 0 where there is none."""
    seeds, names, place = _cells(rows, columns)
    sums = np.bincount(place, np.nan_to_num(rows["value"].to_numpy()), len(seeds) * len(names))
    return pd.DataFrame(sums.reshape(len(seeds), -1), seeds, names)


def growth_by_seed_and(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Mean value at each run's last step − that at initialisation: `seed × columns`; without columns, one of them."""
    seeds, names, place = _cells(rows, columns)
    values, number = rows["value"].to_numpy(), len(seeds) * len(names)
    ends = [_means(values[at], place[at], number) for at in (_last(rows), rows["step"].to_numpy() == 0)]
    return pd.DataFrame((ends[0] - ends[1]).reshape(len(seeds), -1), seeds, names)


def _cells(rows: pd.DataFrame, columns: tuple[str, ...]) -> tuple[pd.Index, pd.Index, np.ndarray]:
    """The seeds, the different values of `columns`, both sorted, and the cell of their table that each row is in."""
    seeds, seed = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    names, column = _levels(rows, columns)
    return pd.Index(seeds, name="seed"), names, seed * len(names) + column


def _levels(rows: pd.DataFrame, columns: tuple[str, ...]) -> tuple[pd.Index, np.ndarray]:
    """The different values of `columns`, sorted, and which of them each row has."""
    if not columns:
        return pd.RangeIndex(1), np.zeros(len(rows), dtype=int)
    levels, codes = zip(*(np.unique(rows[name].to_numpy(), return_inverse=True) for name in columns), strict=True)
    if len(columns) == 1:
        return pd.Index(levels[0], name=columns[0]), codes[0]
    sizes = tuple(map(len, levels))
    found, place = np.unique(np.ravel_multi_index(codes, sizes), return_inverse=True)
    values = [level[code] for level, code in zip(levels, np.unravel_index(found, sizes), strict=True)]
    return pd.MultiIndex.from_arrays(values, names=list(columns)), place


def _last(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are at their run's last step."""
    runs, place = np.unique(rows["run"].to_numpy(), return_inverse=True)
    steps = rows["step"].to_numpy()
    return steps == _largest(steps, place, len(runs))[place]


def _means(values: np.ndarray, place: np.ndarray, number: int) -> np.ndarray:
    """Mean of the values at each of `number` places; NaN are left out, and NaN where there is no other."""
    known = ~np.isnan(values)
    counts = np.bincount(place[known], minlength=number)
    sums = np.bincount(place[known], values[known], minlength=number)
    return np.divide(sums, counts, out=np.full(number, np.nan), where=counts > 0)


def _largest(values: np.ndarray, place: np.ndarray, number: int) -> np.ndarray:
    """The largest value at each of `number` places."""
    found = np.full(number, np.iinfo(np.int64).min)
    np.maximum.at(found, place, values)
    return found


def layer_means(heads: pd.DataFrame) -> pd.DataFrame:
    """Mean over the heads of each layer: `seed × (layer, head)` to `seed × layer`."""
    layers, place = np.unique(heads.columns.get_level_values("layer").to_numpy(), return_inverse=True)
    at = np.broadcast_to(np.arange(len(heads))[:, None] * len(layers) + place, heads.shape)
    means = _means(heads.to_numpy(dtype=float).ravel(), at.ravel(), len(heads) * len(layers))
    return pd.DataFrame(means.reshape(len(heads), len(layers)), heads.index, pd.Index(layers, name="layer"))


_TEXT = ("arm", "measure", "split", "route", "relation", "grid", "content")
_WHOLE = ("num_heads", "seed", "step")
_COLUMNS = ("run", *_TEXT, *_WHOLE, "layer", "head", "value", "distance")


def _codes(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of text as whole numbers, −1 for none, and the texts, with None last so that −1 takes it."""
    if name not in table:
        return np.full(len(table), -1), np.array([None], dtype=object)
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, texts = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, texts = pd.factorize(column)
    return codes.astype("int64"), np.array([*texts, None], dtype=object)


def _numbers(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The other columns: runs numbered, whole numbers (−1 for no layer and no head), decimal ones."""
    whole = {"run": pd.factorize(table["run"])[0]} | {name: table[name].to_numpy("int64") for name in _WHOLE}
    places = {name: table[name].to_numpy("float64", na_value=-1).astype("int64") for name in ("layer", "head")}
    return whole | places | {name: table[name].to_numpy("float64", na_value=np.nan) for name in ("value", "distance")}


def _spans(measure: np.ndarray, arm: np.ndarray) -> dict[tuple[int, int], tuple[int, int]]:
    """Of rows sorted by measure and arm: where those of each measure and arm begin and end."""
    starts = np.flatnonzero((np.diff(measure, prepend=-1) != 0) | (np.diff(arm, prepend=-1) != 0)).tolist()
    ends = [*starts[1:], len(measure)]
    return {(int(measure[start]), int(arm[start])): (start, end) for start, end in zip(starts, ends, strict=False)}
