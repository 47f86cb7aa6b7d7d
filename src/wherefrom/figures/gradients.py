"""What the gradient asks of attention, by relation of the two patches."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wherefrom.catalogue import MEASURES
from wherefrom.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    legend_above,
    note,
    panels,
    styled,
)
from wherefrom.figures.tables import Series, by_series, layers_of, over_runs, select, with_run_columns

RELATION_SERIES = {
    "self": Series("self", INK, (0, (1, 1))),
    "edge": Series("edge neighbours", BLUE),
    "corner": Series("corner neighbours", SKY, (0, (6, 1.5))),
    "between": Series("between", GREEN, (0, (3, 1, 1, 1))),
    "far": Series("far", RED, (0, (3, 1.5))),
    "row": Series("same row", ORANGE, (0, (5, 1))),
    "column": Series("same column", PURPLE, (0, (5, 1, 1, 1))),
    "mid": Series("elsewhere, not far", FAINT),
}

DEFAULT_RELATIONS = ("edge", "corner", "between", "far")


@styled
def gradients_by_relation(
    table: pd.DataFrame,
    measure: str = "advantage",
    figure: Figure | None = None,
    *,
    relations: Sequence[str] = DEFAULT_RELATIONS,
    against: str | None = None,
    split: str = "train",
) -> np.ndarray:
    """`advantage` or `pressure` over steps: a row of panels a layer, a column an arm, a line a relation.

    Args:
        table: measurements by relation; heads are averaged, bands are 95 % intervals over runs.
        measure: `advantage` or `pressure`.
        figure: an empty figure to draw in; None makes one.
        relations: which to draw.
        against: a relation that is subtracted from each of them, head by head and step by step: what all pairs of a
            batch have in common goes, and intervals are those of the difference. None subtracts nothing.
        split: `train` (each observed batch) or `probe` (held-out images).

    Returns:
        Axes `layer arm`; panels of one layer share their y axis.

    Raises:
        ValueError: if the table has no such row, or a relation is unknown.
    """
    if unknown := {*relations, *([against] if against else [])} - set(RELATION_SERIES):
        raise ValueError(f"unknown relation {sorted(unknown)[0]!r}; known: {', '.join(RELATION_SERIES)}")
    known = select(table, measure, split=split)
    known = _minus(known, against) if against else known
    known = known[known["relation"].isin(relations)]
    arms = list(by_series(known)) or [(Series("all arms", FAINT), known)]
    every = with_run_columns(table[(table["measure"] == measure) & (table["split"] == split)])
    layers = layers_of(every)  # also those whose every value is null
    height = 2.1 if len(layers) <= 4 else 1.6
    axes = panels(len(layers), len(arms), height, figure, share=("all", "row"), legend=True)
    for row, layer in zip(axes, layers, strict=True):
        for ax, (series, rows) in zip(row, arms, strict=True):
            _panel(ax, rows[rows["layer"] == layer], relations, f"layer {layer}, {series.label}")
        row[0].yaxis.set_major_locator(MaxNLocator(4))
    _small_numbers(axes[:, 0], f"{measure}\n− {against}" if against else measure, MEASURES[measure].unit)
    for ax in axes[-1]:
        ax.set_xlabel("training step")
    legend_above(axes[0, 0].figure, axes)
    return axes


def _minus(rows: pd.DataFrame, relation: str) -> pd.DataFrame:
    """Each value minus that of `relation` in the same head at the same step; `relation` itself goes."""
    keys = ["run", "arm", "grid", "step", "layer", "head"]
    base = rows.loc[rows["relation"] == relation, [*keys, "value"]]
    both = rows[rows["relation"] != relation].merge(base, on=keys, suffixes=("", "_base"))
    return both.assign(value=both["value"] - both["value_base"])


def _small_numbers(axes: np.ndarray, name: str, unit: str) -> None:
    """Ticks as multiples of one power of ten, which stands with the unit."""
    largest = max((np.abs(ax.get_ylim()).max() for ax in axes if ax.lines), default=0.0)
    exponent = floor(log10(largest)) if 0 < largest < 0.02 else 0
    power = f"$10^{{{exponent}}}$ " if exponent else ""
    for ax in axes:
        ax.yaxis.set_major_formatter(lambda value, _: f"{value / 10.0**exponent:g}".replace("-", "−"))
        ax.set_ylabel(f"{name}\n({power}{unit})")


def _panel(ax: Axes, rows: pd.DataFrame, relations: Sequence[str], title: str) -> None:
    ax.set_title(title)
    if rows.empty:
        note(ax, "no gradient reaches the patches of this layer")
        return
    summary = over_runs(rows, ["relation", "step"])
    for relation in relations:
        if relation not in summary.index.get_level_values("relation"):
            continue  # a small grid has no pair of this relation
        line, series = summary.loc[relation], RELATION_SERIES[relation]
        ax.fill_between(line.index, line["low"], line["high"], color=series.colour, alpha=0.18, linewidth=0)
        style = {"color": series.colour, "linestyle": series.dashes, "linewidth": 1.6, "label": series.label}
        ax.plot(line.index, line["mean"], **style)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
