"""The layout: positions recovered from the position embedding alone, in the plane."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from wherefrom.figures.images import _check_shape
from wherefrom.figures.style import one_panel, styled
from wherefrom.geometry import PatchGrid

_CORNERS = np.array([[[0.90, 0.62, 0.00], [0.84, 0.37, 0.00]], [[0.34, 0.71, 0.91], [0.00, 0.20, 0.50]]])
"""Colours of the four corners of the image: orange, red; sky, navy. Between them they are mixed."""


@styled
def layout(
    positions: np.ndarray,
    grid: PatchGrid,
    ax: Axes | None = None,
    *,
    title: str | None = None,
) -> Axes:
    """Each patch at its recovered (row, column), coloured by its true place, joined to its true edge neighbours.

    Args:
        positions: `patch 2`, (row, column), unit patches, as `run.array("pos_layout", step)`.
        grid: the true grid of the run.
        ax: where to draw; None makes a figure.
        title: above the panel.

    Raises:
        ValueError: if `positions` has not one row a patch.
    """
    _check_shape("positions", positions, (grid.num_patches, 2))
    ax = one_panel(ax, 4, 4)
    xy = np.asarray(positions)[:, ::-1]  # columns run to the right, rows run down
    pairs = np.argwhere(np.triu(grid.relation_pairs("edge")))
    ax.add_collection(LineCollection(xy[pairs].tolist(), colors="#b5b5b5", linewidths=0.8, zorder=1))
    ax.scatter(*xy.T, c=place_colours(grid), s=max(8, min(34, 2400 / grid.num_patches)), zorder=2, linewidths=0)
    _frame(ax, xy, grid)
    ax.set_title(title or "")
    return ax


def place_colours(grid: PatchGrid) -> np.ndarray:
    """A colour for each patch by its place on the grid, `patch 3`: the four corners' colours, mixed bilinearly."""
    size = np.maximum([grid.height - 1, grid.width - 1], 1)
    row, column = (grid.coordinates / size).T
    across = np.stack([1 - column, column])
    down = np.stack([1 - row, row])
    return np.einsum("rn,cn,rcx->nx", down, across, _CORNERS)


def _frame(ax: Axes, xy: np.ndarray, grid: PatchGrid) -> None:
    """Show at least the grid, and every point."""
    low = np.minimum(xy.min(0), 0) - 0.6
    high = np.maximum(xy.max(0), [grid.width - 1, grid.height - 1]) + 0.6
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#dddddd")
