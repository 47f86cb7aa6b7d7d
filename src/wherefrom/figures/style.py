"""How every figure looks, and where it is drawn. No global state is left changed and no window system is touched."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 9.0
"""Width of a figure of several panels in inches; at 96 pixels an inch, a column of text."""

INK, FAINT = "#222222", "#8a8a8a"

BLUE, SKY, GREEN, ORANGE, RED, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
"""Okabe & Ito's palette, which colour-blind readers can tell apart; every line also has its own dashes."""

COSINE_COLOURS = "RdBu_r"
"""Diverging, white at 0, safe for the colour-blind."""

_RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2.0,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.color": INK,
}

P = ParamSpec("P")
R = TypeVar("R")
Share = Literal["all", "row", "col", "none"]


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Draw in the house style, and leave matplotlib's settings as they were."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_RC):
            return function(*args, **kwargs)

    return draw


def new_figure() -> Figure:
    """A figure that a notebook shows by itself; a plain one where nothing is interactive."""
    if "ipykernel" in sys.modules or "matplotlib.pyplot" in sys.modules:
        from matplotlib import pyplot

        return pyplot.figure()
    return Figure()


def one_panel(ax: Axes | None, width: float = 5.6, height: float = 3.6) -> Axes:
    """`ax`, or the only axes of a new figure of `width × height` inches."""
    return ax if ax is not None else panels(1, 1, height, width=width)[0, 0]


@styled
def panels(
    rows: int,
    columns: int,
    height: float,
    figure: Figure | None = None,
    *,
    width: float = WIDTH,
    share: tuple[Share, Share] = ("none", "none"),
    legend: bool = False,
) -> np.ndarray:
    """Axes `row column` in `figure` (or a new one), which is given its size.

    Args:
        rows: number of panels downwards.
        columns: number of panels across.
        height: of one row in inches, its labels included.
        figure: an empty figure to draw in; None makes one.
        width: of the whole figure in inches.
        share: whether panels share x and y, as `Figure.subplots` says it.
        legend: leave a line above the panels for a legend.
    """
    figure = figure if figure is not None else new_figure()
    figure.set_size_inches(width, rows * height + 0.35 * legend)
    figure.set_layout_engine("constrained")
    return figure.subplots(rows, columns, squeeze=False, sharex=share[0], sharey=share[1])


@styled
def legend_above(figure: Figure, axes) -> None:
    """One legend for all panels, each label once, in a row above them."""
    entries = {}
    for ax in np.ravel(axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = max(1, int(figure.get_size_inches()[0] / 1.8))
        figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=min(len(entries), columns))


def limit_to_lines(axes, beyond: float = 1.0) -> None:
    """Show of y what lines that share it span, and `beyond` times as much on either side; wider bands are cut off.

    With two seeds an interval is 25 times as wide as their distance: it would flatten all lines.
    """
    drawn = [np.ravel(line.get_ydata()) for ax in np.ravel(axes) for line in ax.lines]
    values = np.concatenate([np.asarray(own, dtype=float) for own in drawn] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if len(values) == 0 or np.ptp(values) == 0:
        return
    room = beyond * np.ptp(values)
    for ax in np.ravel(axes):
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, values.min() - room), min(high, values.max() + room))


@styled
def note(ax: Axes, sentence: str) -> None:
    """A sentence in the middle of a panel that has nothing to show."""
    ax.text(0.5, 0.5, sentence, transform=ax.transAxes, ha="center", va="center", color=FAINT)
    ax.tick_params(left=False, labelleft=False)
    ax.grid(False)
