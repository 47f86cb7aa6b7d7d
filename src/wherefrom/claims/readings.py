"""The tidy table of a study, sorted once, and the few ways in which claims read it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wherefrom.config import CUT

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
        table = table if len(table) else pd.DataFrame(columns=list(_COLUMNS))
        rows = _compact(table[table["setting"] == ""] if "setting" in table else table)
        measure, arm = (rows[name].cat.codes.to_numpy() for name in ("measure", "arm"))
        order = np.lexsort((arm, measure))
        self._rows = rows.iloc[order]
        self._columns = {name: _codes(self._rows[name]) for name in self._rows.columns}
        self._texts = {name: {text: code for code, text in enumerate(rows[name].cat.categories)} for name in _TEXT}
        starts = np.flatnonzero(np.diff(measure[order], prepend=-1) | np.diff(arm[order], prepend=-1))
        ends = [*starts[1:].tolist(), len(order)][: len(starts)]
        names = zip(measure[order][starts].tolist(), arm[order][starts].tolist(), strict=True)
        self._spans = dict(zip(names, zip(starts.tolist(), ends, strict=True), strict=True))
        first = rows.drop_duplicates("run")
        self._counts = set(zip(first["arm"], first["num_heads"].tolist(), strict=True))
        runs, place = np.unique(self._columns["run"], return_inverse=True)
        self._last_steps = dict(zip(runs.tolist(), _largest(self._columns["step"], place, len(runs)), strict=True))

    def rows(
        self, measure: str, arm: str = "natural", num_heads=None, grid="model", content="natural", **where
    ) -> pd.DataFrame:
        """Rows of one measure in one arm; a condition is a value or a tuple of values.

        A measure that knows of no grid is the model's; one that knows of no content belongs to natural images.
        """
        span = self._spans.get((self._code("measure", measure), self._code("arm", arm)))
        if span is None:
            return self._rows.iloc[:0]
        part = slice(*span)
        keep = self._is(part, "grid", grid, or_none=grid == "model")
        keep &= self._is(part, "content", content, or_none=content == "natural")
        if num_heads is not ANY:
            keep &= self._columns["num_heads"][part] == (num_heads or self.num_heads)
        for column, value in where.items():
            keep &= self._is(part, column, value)
        return self._rows.iloc[span[0] + np.flatnonzero(keep)]

    def _code(self, column: str, text) -> int:
        """The whole number that stands for a text; one that no row has where it is nowhere in the table."""
        return self._texts[column].get(text, -2)

    def _is(self, part: slice, column: str, value, or_none: bool = False) -> np.ndarray:
        values = value if isinstance(value, tuple) else (value,)
        codes = [self._code(column, text) for text in values] if column in self._texts else list(values)
        own = self._columns[column][part]
        keep = own == codes[0] if len(codes) == 1 else np.isin(own, codes)
        return keep | (own == -1) if or_none else keep

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
    return rows[rows["step"] == 0]


def at_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at each run's last step."""
    runs, place = np.unique(rows["run"].to_numpy(), return_inverse=True)
    steps = rows["step"].to_numpy()
    return rows[steps == _largest(steps, place, len(runs))[place]]


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
    seeds, seed = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    names, column = _levels(rows, columns)
    means = _means(rows["value"].to_numpy(), seed * len(names) + column, len(seeds) * len(names))
    return pd.DataFrame(means.reshape(len(seeds), len(names)), pd.Index(seeds, name="seed"), names)


def _levels(rows: pd.DataFrame, columns: tuple[str, ...]) -> tuple[pd.Index, np.ndarray]:
    """The different values of `columns`, sorted, and which of them each row has."""
    if len(columns) == 1:
        values, place = np.unique(rows[columns[0]].to_numpy(), return_inverse=True)
        return pd.Index(values, name=columns[0]), place
    values, place = np.unique(rows[list(columns)].to_numpy(), axis=0, return_inverse=True)
    return pd.MultiIndex.from_arrays(list(values.T), names=list(columns)), place.ravel()


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


def _compact(table: pd.DataFrame) -> pd.DataFrame:
    table = table if "content" in table else table.assign(content=None)
    text = {name: table[name].astype("category") for name in _TEXT}
    whole = {"run": pd.factorize(table["run"])[0]} | {name: table[name].astype("int64") for name in _WHOLE}
    places = {name: table[name].astype("Int64").fillna(-1).astype("int64") for name in ("layer", "head")}
    numbers = {name: table[name].astype("float64") for name in ("value", "distance")}
    return pd.DataFrame(text | whole | places | numbers)


def _codes(column: pd.Series) -> np.ndarray:
    return column.cat.codes.to_numpy() if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()
