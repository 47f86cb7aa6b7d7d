"""Where attention looks: distance of each head, alignment of queries and keys."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wherefrom.figures.style import FAINT, INK, legend_above, note, one_panel, panels, styled
from wherefrom.figures.tables import axis_label, by_series, first_and_last, layers_of, over_runs, select

PANELS_A_ROW = 4


@styled
def attention_distance(
    table: pd.DataFrame,
    mean_distance: float | None = None,
    ax: Axes | None = None,
    *,
    content: str = "natural",
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """A dot for each head of each run, by layer: hollow at the first step, filled at the last.

    Args:
        table: measurements with `attention_distance`; each arm has its colour.
        mean_distance: `PatchGrid.mean_distance`, the value of uniform attention; drawn as a line.
        ax: where to draw; None makes a figure.
        content: of the probe images, `natural` or `shuffled`.
        title: above the panel.
        legend: explain the dots in the panel.

    Raises:
        ValueError: if the table has no such row.

    References:
        Dosovitskiy et al. 2020, Fig. 7 (right).
    """
    rows = select(table, "attention_distance", content)
    ax = one_panel(ax)
    arms = list(by_series(rows))
    slot = 0.8 / len(arms)  # each arm has its own place beside the layer's number
    for place, (series, own) in enumerate(arms):
        left = slot * place - 0.4
        whose = f"{series.label}, " if len(arms) > 1 else ""
        first, last = first_and_last(own)
        ax.scatter(_spread(first, left, slot / 2), first["value"], s=18, facecolors="none", edgecolors=FAINT,
                   linewidths=0.9, label="at the first step" if place == 0 else None)  # fmt: skip
        ax.scatter(_spread(last, left + slot / 2, slot / 2), last["value"], s=18, color=series.colour, alpha=0.75,
                   linewidths=0, label=f"{whose}at the last step")  # fmt: skip
    if mean_distance is not None:
        ax.axhline(mean_distance, color=INK, linewidth=1, linestyle=(0, (4, 2)), label="uniform attention")
    _layer_axis(ax, layers_of(rows))
    ax.set(ylabel=axis_label("attention_distance"), title=title or "")
    middle = rows["value"].mean() if mean_distance is None else mean_distance
    ax.update_datalim([(0, middle - 0.5), (0, middle + 0.5)], updatex=False)  # small differences shall look small
    ax.autoscale_view(scalex=False)
    if legend:
        ax.legend()
    return ax


def _spread(rows: pd.DataFrame, left: float, width: float) -> np.ndarray:
    """Layer + left …: the dots of one layer side by side over `width`, in rising order."""
    rank = rows.groupby("layer")["value"].rank(method="first") - 1
    count = rows.groupby("layer")["value"].transform("size")
    return (rows["layer"].astype(float) + left + width * (0.1 + 0.8 * (rank + 0.5) / count)).to_numpy()


def _layer_axis(ax: Axes, layers: list[int]) -> None:
    ax.set(xlabel="layer", xticks=layers, xlim=(min(layers) - 0.5, max(layers) + 0.5))
    ax.grid(False, axis="x")


@styled
def alignment_by_distance(table: pd.DataFrame, figure: Figure | None = None) -> np.ndarray:
    """Cosine of query and key over the distance of their patches: a panel a layer, dotted first, full line last step.

    Args:
        table: measurements with `qk_alignment` by distance; heads are averaged, bands are 95 % intervals over runs.
        figure: an empty figure to draw in; None makes one.

    Returns:
        Axes of the layers, in order.

    Raises:
        ValueError: if the table has no such row.
    """
    rows = select(table, "qk_alignment")
    rows = rows[rows["distance"].notna()]
    layers = layers_of(rows)
    if not layers:
        raise ValueError("expected rows of qk_alignment by distance; found them by relation only")
    columns = min(len(layers), PANELS_A_ROW)
    grid = panels(-(-len(layers) // columns), columns, 2.6, figure, share=("all", "all"), legend=True)
    for ax, layer in zip(grid.flat, layers, strict=False):
        _alignment_panel(ax, rows[rows["layer"] == layer], f"layer {layer}")
    axes = _drop_empty(grid, len(layers))
    for ax in grid[:, 0]:
        ax.set_ylabel("cosine of q and k")
    legend_above(axes[0].figure, axes)
    return axes


def _alignment_panel(ax: Axes, rows: pd.DataFrame, title: str, bands: Container[str] | None = None) -> None:
    """`bands`: only these series have one; None is all."""
    for series, own in by_series(rows):
        first, last = (over_runs(part, ["distance"]) for part in first_and_last(own))
        ax.plot(first.index, first["mean"], color=series.colour, linewidth=1.1, linestyle=":")
        ax.plot(last.index, last["mean"], color=series.colour, linestyle=series.dashes, label=series.label)
        if bands is None or series.label in bands:
            ax.fill_between(last.index, last["low"], last["high"], color=series.colour, alpha=0.18, linewidth=0)
    ax.plot([], [], color=FAINT, linewidth=1.1, linestyle=":", label="at the first step")
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(title=title, xlabel="distance (patches)")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if rows.empty:
        note(ax, "no value in this layer")


def _drop_empty(grid: np.ndarray, count: int) -> np.ndarray:
    """Remove panels beyond `count`; the panels above them get the numbers of the x axis."""
    columns = grid.shape[1]
    for place in range(count, grid.size):
        grid.flat[place].remove()
        above = grid.flat[place - columns]
        above.tick_params(labelbottom=True)
    for place in range(count):
        if place + columns < count:
            grid.flat[place].set_xlabel("")
    return grid.ravel()[:count]
