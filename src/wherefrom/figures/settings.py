"""What a setting does: runs that differ in it alone, at their last step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from wherefrom.catalogue import MEASURES
from wherefrom.figures.style import BLUE, FAINT, note, one_panel, panels, styled
from wherefrom.figures.tables import first_and_last, over_runs
from wherefrom.role_counts import DECIDING, roles_per_head


@dataclass(frozen=True)
class Outcome:
    """A number that a setting may change."""

    title: str
    unit: str
    split: str | None = None


OUTCOMES = {
    "accuracy": Outcome("test accuracy", MEASURES["accuracy"].unit, "test"),
    "loss": Outcome("test loss", MEASURES["loss"].unit, "test"),
    "similarity_falloff": Outcome("falloff of likeness", MEASURES["similarity_falloff"].unit),
    "head_divergence_attn": Outcome("divergence of heads", MEASURES["head_divergence_attn"].unit, "probe"),
    "offset_sharpness": Outcome("sharpness of offset maps", MEASURES["offset_sharpness"].unit, "probe"),
    "roles": Outcome("roles found", "roles a head"),
}
"""What is held against a setting, by measure; `roles` is counted from the roles' own measures."""


RECORDED = (*OUTCOMES, *DECIDING)
"""Measures that these figures read."""


def final_values(table: pd.DataFrame) -> pd.DataFrame:
    """The last step of each run: `run, seed, setting_value, measure, value`, mean over layers and heads.

    Args:
        table: `study.series(name)`.

    Raises:
        ValueError: for a table of another kind.
    """
    if "setting_value" not in table.columns:
        raise ValueError(
            "expected the table of one setting, with a column setting_value; found a table without; pass "
            'study.series("num_heads"), or another setting that was varied'
        )
    parts = [_rows(table, measure).assign(measure=measure) for measure in OUTCOMES]
    last = pd.concat([first_and_last(part)[1] for part in parts if len(part)] or [table.iloc[:0]])
    of_run = table.drop_duplicates("run").set_index("run")["setting_value"]
    last = last.assign(setting_value=last["run"].map(of_run))  # counts of roles know nothing of it
    keys = ["run", "seed", "setting_value", "measure"]
    return last.dropna(subset=["value"]).groupby(keys, sort=False)["value"].mean().reset_index()


def _rows(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    if measure == "roles":
        return roles_per_head(table)
    rows, split = table[table["measure"] == measure], OUTCOMES[measure].split
    rows = rows if split is None else rows[rows["split"] == split]
    return rows[rows["grid"] == "model"] if measure == "similarity_falloff" else rows


@styled
def setting_sweep(table: pd.DataFrame, figure: Figure | None = None) -> np.ndarray:
    """Every recorded outcome at the last step against one setting: see `over_setting`.

    Args:
        table: `study.series(name)`.
        figure: an empty figure to draw in; None makes one.

    Returns:
        Axes, one for each measure of `OUTCOMES` that was recorded.

    Raises:
        ValueError: for a table of another kind, or without any outcome.
    """
    values = final_values(table)
    found = set(values["measure"])
    if not found:
        raise ValueError("expected runs that have recorded an outcome, such as accuracy; found none of them")
    drawn = [measure for measure in OUTCOMES if measure in found]
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    axes = panels(rows, columns, 2.7, figure).ravel()
    for ax, measure in zip(axes, drawn, strict=False):
        _panel(ax, values, measure, _setting_of(table))
    for ax in axes[len(drawn) :]:
        ax.remove()
    return axes[: len(drawn)]


@styled
def over_setting(table: pd.DataFrame, measure: str, ax: Axes | None = None) -> Axes:
    """One outcome at the last step against one setting: means over seeds with 95 % t-intervals, seeds as faint lines.

    Where the setting is a word, as pos_embed, there are points and no lines.

    Args:
        table: `study.series(name)`.
        measure: one of `OUTCOMES`.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: for a table of another kind, or a measure that is no outcome.
    """
    if measure not in OUTCOMES:
        raise ValueError(f"unknown outcome {measure!r}; known: {', '.join(OUTCOMES)}")
    ax = one_panel(ax)
    _panel(ax, final_values(table), measure, _setting_of(table))
    return ax


def _setting_of(table: pd.DataFrame) -> str:
    return str(table["setting"].iloc[0]) if len(table) else ""


def _panel(ax: Axes, values: pd.DataFrame, measure: str, setting: str) -> None:
    """One outcome of `final_values`."""
    places = _places(list(dict.fromkeys(values["setting_value"])))
    rows = values[values["measure"] == measure].assign(place=lambda rows: rows["setting_value"].map(places))
    if rows.empty:
        note(ax, "not recorded")
    line, aside = ("none", 0.15) if _is_word(places) else ("-", 0)
    for _, seed in rows.sort_values("place").groupby("seed"):
        ax.plot(
            seed["place"] - aside,
            seed["value"],
            "o",
            linestyle=line,
            color=FAINT,
            linewidth=0.8,
            markersize=3,
            alpha=0.7,
        )
    mean = over_runs(rows, ["place"])
    reach = (mean["high"] - mean["mean"]).fillna(0)
    ax.errorbar(
        mean.index, mean["mean"], reach, color=BLUE, linestyle=line, marker="o", markersize=6, capsize=3, linewidth=1.8
    )
    _axis_of(ax, places)
    if measure == "roles":  # a number of things begins at 0, also where none were found
        ax.set_ylim(0, max(1, 1.05 * rows["value"].max()))
    ax.set(title=OUTCOMES[measure].title, xlabel=setting, ylabel=OUTCOMES[measure].unit)


def _is_word(places: dict) -> bool:
    return any(isinstance(value, str) for value in places)


def _places(values: list) -> dict:
    """Where each value stands: positive numbers at themselves, all else in its order, one after the other."""
    if any(isinstance(value, str) for value in values):
        return {value: place for place, value in enumerate(values)}
    ordered = sorted(values)
    return {value: value if ordered[0] > 0 else place for place, value in enumerate(ordered)}


def _axis_of(ax: Axes, places: dict) -> None:
    """Logarithmic for positive numbers, which stand at themselves."""
    low, high = min(places.values(), default=0), max(places.values(), default=0)
    if low > 0:
        ax.set_xscale("log", base=2)
        ax.set_xlim(low / 1.4, high * 1.4)
    else:
        ax.set_xlim(low - 0.5, high + 0.5)
    ax.set_xticks(list(places.values()), [value if isinstance(value, str) else f"{value:g}" for value in places])
    ax.xaxis.set_minor_locator(NullLocator())
