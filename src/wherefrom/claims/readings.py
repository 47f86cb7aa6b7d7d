"""The tidy table of a study, sorted once, and the few ways in which claims read it."""

from __future__ import annotations

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
        self._nothing = rows.iloc[:0]
        self._groups = dict(iter(rows.groupby(["measure", "arm"], observed=True)))
        first = rows.drop_duplicates("run")
        self._arms = set(zip(first["arm"], first["num_heads"], strict=True))
        self._last_steps = rows.groupby("run")["step"].max()

    def rows(
        self, measure: str, arm: str = "natural", num_heads=None, grid="model", content="natural", **where
    ) -> pd.DataFrame:
        """Rows of one measure in one arm; a condition is a value or a tuple of values.

        A measure that knows of no grid is the model's; one that knows of no content belongs to natural images.
        """
        rows = self._groups.get((measure, arm), self._nothing)
        keep = (rows["grid"] == grid).to_numpy() | (rows["grid"].isna().to_numpy() & (grid == "model"))
        keep &= (rows["content"] == content).to_numpy() | (rows["content"].isna().to_numpy() & (content == "natural"))
        if num_heads is not ANY:
            keep &= (rows["num_heads"] == (num_heads or self.num_heads)).to_numpy()
        for column, value in where.items():
            keep &= (rows[column].isin(value) if isinstance(value, tuple) else rows[column] == value).to_numpy()
        return rows[keep]

    def has_runs(self, arm: str) -> bool:
        """Whether there is a finished run of this arm with the arms' head count."""
        return (arm, self.num_heads) in self._arms

    def cuts(self) -> list[str]:
        """What is cut in the arms that have a part of the gradient cut, with the arms' head count, as `pos:q,k`."""
        arms = sorted(arm for arm, num_heads in self._arms if num_heads == self.num_heads)
        return [arm.removeprefix(CUT) for arm in arms if arm.startswith(CUT)]

    def last_steps(self, runs: pd.Series) -> pd.Series:
        """Number of updates done by the end of each run in `runs`."""
        return runs.map(self._last_steps)


def at_start(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at initialisation, before any update."""
    return rows[rows["step"] == 0]


def at_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at each run's last step."""
    return rows[rows["step"] == rows.groupby("run")["step"].transform("max")]


def by_seed(rows: pd.DataFrame) -> pd.Series:
    """Mean value of each seed; nulls are left out."""
    return rows.groupby("seed")["value"].mean()


def by_seed_and(rows: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Mean value of each seed and each value of `columns`, spread out: `seed × columns`; nulls are left out."""
    if rows.empty:
        return pd.DataFrame()
    return rows.groupby(["seed", *columns])["value"].mean().unstack(list(columns))


def layer_means(heads: pd.DataFrame) -> pd.DataFrame:
    """Mean over the heads of each layer: `seed × (layer, head)` to `seed × layer`."""
    return heads.T.groupby(level="layer").mean().T


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
