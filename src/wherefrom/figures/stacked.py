"""Bars of shares stacked on each other; what is below 0 hangs below the line."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from wherefrom.figures.style import INK


def stacked_bars(
    ax: Axes, x: np.ndarray, shares: Mapping[str, np.ndarray], looks: Mapping[str, tuple[str, str]], width: float = 0.8
) -> None:
    """A bar at each x: shares above 0 upwards from 0 in their order, those below 0 downwards; a thin line at 1.

    Args:
        ax: where to draw.
        x: of the bars.
        shares: by name, one a bar; NaN is left out.
        looks: label and colour by name.
        width: of a bar.
    """
    above, below = np.zeros(len(x)), np.zeros(len(x))
    for name, values in shares.items():
        known = np.nan_to_num(np.asarray(values, dtype=float))
        label, colour = looks[name]
        ax.bar(x, known, width, np.where(known >= 0, above, below), color=colour, label=label, linewidth=0)
        above, below = above + known.clip(min=0), below + known.clip(max=0)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.axhline(1, color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
    ax.grid(False, axis="x")
