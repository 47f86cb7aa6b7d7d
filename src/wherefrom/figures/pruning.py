"""What is lost without a head, and which heads are copies of each other."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wherefrom.figures.style import BLUE, FAINT, INK, RED, one_panel, styled
from wherefrom.figures.tables import layers_of, select


@styled
def ablation_by_layer(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    run: str | None = None,
    small: float | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Change of the loss without each head, by layer; of one run with its 95 % interval over images.

    Args:
        table: rows `ablation_loss_change`, `_low` and `_high` of a study or of one run.
        ax: where to draw; None makes a figure.
        run: name of the run whose intervals are drawn; None: the first.
        small: change up to which a head is called idle; drawn as a line.
        title: above the panel.
        legend: explain dots and lines in the panel.

    Raises:
        ValueError: if the table has no such row.
    """
    rows = select(table, "ablation_loss_change")
    run = rows["run"].iloc[0] if run is None else run
    ax = one_panel(ax)
    for own, colour, size, label in (
        (rows[rows["run"] != run], FAINT, 9, "heads of other seeds"),
        (rows[rows["run"] == run], BLUE, 22, "heads of one run, with 95 % interval"),
    ):
        if len(own):
            x = _beside(own)
            ax.scatter(x, own["value"], s=size, color=colour, linewidths=0, alpha=0.85, label=label, zorder=3)
            if colour == BLUE:
                low, high = _ends(table, own)
                ax.vlines(x, low, high, color=colour, linewidth=1.1)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    if small is not None:
        ax.axhline(small, color=RED, linewidth=1, linestyle=(0, (4, 2)), label=f"idle below {small:g} nats", zorder=1)
    _layers_below(ax, layers_of(rows))
    ax.set(ylabel="change of the loss (nats)", title=title or "")
    if legend:
        ax.legend()
    return ax


def _ends(table: pd.DataFrame, own: pd.DataFrame) -> list[np.ndarray]:
    """Lower and upper ends of the intervals, in the order of `own`."""
    keys = ["run", "layer", "head"]
    ends = (select(table, f"ablation_loss_change{ending}") for ending in ("_low", "_high"))
    return [own[keys].merge(end[[*keys, "value"]], on=keys, how="left")["value"].to_numpy() for end in ends]


def _beside(rows: pd.DataFrame) -> np.ndarray:
    """The layer, and the heads of a layer side by side around it."""
    heads = rows["head"].astype(float)
    return (rows["layer"].astype(float) + 0.7 * ((heads + 0.5) / (heads.max() + 1) - 0.5)).to_numpy()


def _layers_below(ax: Axes, layers: list[int]) -> None:
    ax.set(xlabel="layer", xticks=layers, xlim=(min(layers) - 0.5, max(layers) + 0.5))
    ax.grid(False, axis="x")


@styled
def copies_by_layer(
    pairs: pd.DataFrame,
    ax: Axes | None = None,
    *,
    copy: float | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """A dot for each two heads of a layer: how alike what they write is, over how alike they look.

    Args:
        pairs: `layer, attn, contribution`, a row a pair of heads: correlation of offset maps, CKA of contributions.
        ax: where to draw; None makes a figure.
        copy: likeness of contributions from which on heads are called copies; drawn as a line.
        title: above the panel.
        legend: name the layers, or three of them where they are many.

    Raises:
        ValueError: if there is no pair.
    """
    if pairs.empty:
        raise ValueError("expected pairs of heads; found none: a layer with one head has no pair")
    ax = one_panel(ax)
    layers = layers_of(pairs)
    named = layers if len(layers) <= 6 else (layers[0], layers[len(layers) // 2], layers[-1])
    for layer, colour, marker in zip(layers, *_looks(len(layers)), strict=True):
        own = pairs[pairs["layer"] == layer]
        ax.scatter(own["attn"], own["contribution"], s=16, color=colour, marker=marker, linewidths=0, alpha=0.8,
                   label=f"layer {layer}" if layer in named else None)  # fmt: skip
    if copy is not None:
        ax.axhline(copy, color=RED, linewidth=1, linestyle=(0, (4, 2)), label=f"copies from {copy:g} on")
    ax.set(xlim=(-1.04, 1.04), ylim=(-0.03, 1.03), title=title or "")
    ax.set(xlabel="they look at the same places (correlation)", ylabel="they write the same (CKA)")
    if legend:
        ax.legend(fontsize=8)
    return ax


def _looks(number: int) -> tuple[list, list[str]]:
    """A colour from dark to light and a mark for each layer."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, number)).tolist()
    return colours, [("o", "s", "^", "D", "v", "P")[place % 6] for place in range(number)]
