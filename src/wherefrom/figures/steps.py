"""Numbers over the steps of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from wherefrom.figures.style import FAINT, one_panel, styled
from wherefrom.figures.tables import Series, axis_label, by_series, over_runs, select


@styled
def over_steps(
    table: pd.DataFrame,
    measure: str,
    ax: Axes | None = None,
    *,
    split: str | None = None,
    content: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """One thin line a run, one thick line for the mean over the runs of an arm.

    Args:
        table: measurements of a study or of one run; layers and heads of a run are averaged.
        measure: a name of the catalogue.
        ax: where to draw; None makes a figure.
        split: only this split.
        content: of the probe images, `natural` or `shuffled`.
        title: above the panel.
        legend: name the arms in the panel.

    Raises:
        ValueError: if the table has no such row.
    """
    rows = select(table, measure, content, split=split)
    ax = one_panel(ax)
    for series, own in by_series(rows):
        _lines(ax, own, series)
    ax.set(xlabel="training step", ylabel=axis_label(measure), title=title or "")
    if legend:
        ax.legend()
    return ax


def _lines(ax: Axes, rows: pd.DataFrame, series: Series) -> None:
    runs = list(rows.groupby("run"))
    for _, run in runs if len(runs) > 1 else []:
        line = run.groupby("step")["value"].mean()
        ax.plot(line.index, line, color=series.colour, linewidth=0.7, alpha=0.45)
    mean = over_runs(rows, ["step"])["mean"]
    ax.plot(mean.index, mean, color=series.colour, linestyle=series.dashes, label=series.label)


@styled
def falloff_over_steps(
    table: pd.DataFrame, ax: Axes | None = None, *, title: str | None = None, legend: bool = True
) -> Axes:
    """`over_steps` of similarity_falloff; the band is where it lies in 99 % of random relabellings of the patches."""
    ax = over_steps(table, "similarity_falloff", one_panel(ax), title=title, legend=False)
    ends = table.groupby("measure")["value"].mean()
    bounds = [f"similarity_falloff_null_{end}" for end in ("low", "high")]
    if ends.reindex(bounds).notna().all():
        ax.axhspan(*ends[bounds], color=FAINT, alpha=0.25, linewidth=0, label="99 % of random relabellings", zorder=0)
    if legend:
        ax.legend()
    return ax


@styled
def accuracy_over_steps(
    table: pd.DataFrame, ax: Axes | None = None, *, split: str = "test", title: str | None = None, legend: bool = True
) -> Axes:
    """`over_steps` of accuracy, by default on the test images."""
    return over_steps(table, "accuracy", ax, split=split, title=title, legend=legend)
