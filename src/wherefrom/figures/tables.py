"""From the tidy table to what is drawn: rows of one measure, series with their colours, means over runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pandas as pd
from scipy import special

from wherefrom.catalogue import MEASURES
from wherefrom.config import CUT
from wherefrom.content import of_content
from wherefrom.figures.style import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, RED, SKY


@dataclass(frozen=True)
class Series:
    """One arm, read on one grid, and how it is drawn everywhere."""

    label: str
    colour: str
    dashes: str | tuple = "-"


SERIES: dict[tuple[str, str | None], Series] = {
    ("natural", "model"): Series("natural", BLUE),
    ("shuffled", "true"): Series("shuffled, true grid", GREEN, (0, (6, 1.5))),
    ("shuffled", "model"): Series("shuffled, model's grid", PURPLE, (0, (1, 1))),
    ("scrambled", "model"): Series("scrambled", RED, (0, (3, 1.5))),
    ("natural", None): Series("natural", BLUE),
    ("shuffled", None): Series("shuffled", GREEN, (0, (6, 1.5))),
    ("scrambled", None): Series("scrambled", RED, (0, (3, 1.5))),
}
"""Arm and grid (None: the measure knows no grid), in the order of legends."""


CUT_LOOKS: tuple[tuple[str, str | tuple], ...] = (
    (ORANGE, (0, (8, 2))),
    (SKY, (0, (4, 1, 1, 1))),
    (INK, (0, (2, 1))),
    (PURPLE, (0, (5, 1, 1, 1, 1, 1))),
    (GREEN, (0, (1, 2))),
)
"""Colours and dashes of cut arms, in the order of their names; beyond the last they repeat."""


def cut_label(arm: str) -> str:
    """
    >>> cut_label("cut-pos:q,v.0.2"), cut_label("cut-pairs:edge,far")
    ('without q, v (layer 0, head 2)', 'without edge, far pairs')
    """
    kind, _, items = arm.removeprefix(CUT).partition(":")
    names = ", ".join(_place(name) for name in items.split(","))
    return f"without {names} pairs" if kind == "pairs" else f"without {names}"


def _place(route: str) -> str:
    kind, *places = route.split(".")
    where = ", ".join(f"{what} {number}" for what, number in zip(("layer", "head"), places, strict=False))
    return f"{kind} ({where})" if where else kind


def select(table: pd.DataFrame, measure: str, content: str = "natural", **where) -> pd.DataFrame:
    """Rows of `measure` whose value is known, with `run, arm, num_heads, seed`.

    Args:
        table: measurements of a study, or of one run (which then is one run of an unnamed arm).
        measure: a name of the catalogue.
        content: of the probe images, `natural` or `shuffled`.
        where: only rows whose column has this value; None is no condition.

    Raises:
        ValueError: if the table is no table of measurements, or has no such row at all.
    """
    if not {"step", "measure", "value"} <= set(table.columns):
        raise ValueError(
            f"expected a table of measurements with columns step, measure, value; found {list(table.columns)}; "
            f"pass run.measurements() or study.measurements()"
        )
    rows = without_series(of_content(table[table["measure"] == measure], content))
    for column, value in where.items():
        rows = rows if value is None else rows[rows[column] == value]
    if rows.empty:
        asked = " ".join(f"{column}={value}" for column, value in where.items() if value is not None)
        raise ValueError(
            f"expected rows of measure {measure!r} {asked}".strip() + f"; found {found_measures(table)}; "
            f"pass a table that holds them, as study.measurements({measure!r})"
        )
    return with_run_columns(rows[rows["value"].notna()])


def without_series(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of the arms and of the head sweep; those with a setting of their own are left to `setting_sweep`."""
    return table[table["setting"] == ""] if "setting" in table else table


def found_measures(table: pd.DataFrame) -> str:
    names = sorted(table["measure"].unique())
    return "measures " + ", ".join(names) if names else "an empty table"


def with_run_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table of one run lacks what tells runs apart; give it one name for all."""
    missing = {"run": "run", "arm": "this run", "num_heads": 0, "seed": 0}
    return table.assign(**{name: value for name, value in missing.items() if name not in table.columns})


def by_series(rows: pd.DataFrame) -> Iterator[tuple[Series, pd.DataFrame]]:
    """The rows of each arm and grid, in the order of `SERIES`; then cut arms, then those it does not know."""
    rows = rows if "grid" in rows else rows.assign(grid=None)
    groups = rows.groupby(["arm", "grid"], dropna=False, sort=False)
    series = {(arm, None if pd.isna(grid) else grid): own for (arm, grid), own in groups}
    cuts = sorted({str(arm) for arm, _ in series if str(arm).startswith(CUT)})
    looks = dict(zip(cuts, cycle(CUT_LOOKS), strict=False))
    known = SERIES | {(arm, grid): Series(cut_label(arm), *looks[arm]) for arm in cuts for grid in ("model", None)}
    order = list(known)
    for pair in sorted(series, key=lambda pair: (order.index(pair) if pair in known else len(order), str(pair))):
        yield known.get(pair, Series(str(pair[0]), FAINT)), series[pair]


def over_runs(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean over runs and its 95 % t-interval; the run is the unit, all within it (heads, layers) is averaged first.

    Args:
        rows: with columns `run`, `value` and those of `by`.
        by: columns to tell apart.

    Returns:
        Indexed by `by`: `mean, low, high, n`; low and high are NaN where there is one run only.
    """
    by = list(by)
    per_run = rows.groupby([*by, "run"], dropna=False)["value"].mean()
    summary = per_run.groupby(level=by, dropna=False).agg(["mean", "std", "count"])
    freedom = (summary["count"] - 1).clip(lower=1)
    half = special.stdtrit(freedom, 0.975) * summary["std"] / np.sqrt(summary["count"])
    return pd.DataFrame(
        {"mean": summary["mean"], "low": summary["mean"] - half, "high": summary["mean"] + half, "n": summary["count"]}
    )


def first_and_last(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of each run's first and of its last step."""
    steps = rows.groupby("run")["step"]
    return rows[rows["step"] == steps.transform("min")], rows[rows["step"] == steps.transform("max")]


def axis_label(measure: str) -> str:
    """Name and unit as the catalogue has them.

    >>> axis_label("attention_distance")
    'attention distance (patches)'
    """
    return f"{measure.replace('_', ' ').replace('r2', 'R²')} ({MEASURES[measure].unit})"


def layers_of(rows: pd.DataFrame) -> list[int]:
    return sorted(int(layer) for layer in rows["layer"].dropna().unique())
