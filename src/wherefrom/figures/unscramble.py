"""Shuffled images put back together by what the position embedding says, and how well that went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wherefrom.figures.style import BLUE, FAINT, GREEN, RED, one_panel, panels, styled
from wherefrom.figures.tables import axis_label
from wherefrom.geometry import PatchGrid

RECOVERY = {
    "edge_recovery_path": ("path of the position embedding", BLUE, "-"),
    "edge_recovery": ("position embedding as it is", RED, (0, (5, 1.5))),
    "edge_recovery_pixels": ("pixels alone", GREEN, (0, (1, 1.2))),
    "edge_recovery_chance": ("chance", FAINT, (0, (3, 2))),
}
"""Label, colour and dashes of each line."""


def put_back(image: np.ndarray, order: Sequence[int] | np.ndarray, grid: PatchGrid) -> np.ndarray:
    """The image whose patch at place order[p] is the given image's patch p, `y x 3`.

    Args:
        image: as the shuffled model sees it, `y x 3`.
        order: place of each patch.
        grid: height and width.

    Raises:
        ValueError: if the grid does not divide the image, or `order` is no arrangement of its patches.
    """
    height, width = np.shape(image)[:2]
    if height % grid.height or width % grid.width or sorted(order) != list(range(grid.num_patches)):
        raise ValueError(
            f"expected an image and an arrangement of the patches of a grid of {grid.height} × {grid.width}; "
            f"found {height} × {width} pixels and {len(order)} places"
        )
    cut = np.reshape(image, (grid.height, height // grid.height, grid.width, width // grid.width, -1)).swapaxes(1, 2)
    patches = cut.reshape(grid.num_patches, *cut.shape[2:])[np.argsort(order)]
    return patches.reshape(cut.shape).swapaxes(1, 2).reshape(np.shape(image))


def clearest(images: np.ndarray, grid: PatchGrid) -> int:
    """Which of the images is best looked at in patches: where the patches' mean colours differ most, hue before light.

    Args:
        images: `image y x 3`.
        grid: cuts the images into patches.
    """
    count, height, width = images.shape[:3]
    cut = images.reshape(count, grid.height, height // grid.height, grid.width, width // grid.width, -1).astype(float)
    colours = cut.mean((2, 4)).reshape(count, grid.num_patches, -1)
    light = colours.mean(2, keepdims=True)
    return int(((colours - light).std(1).mean(1) + 0.1 * light.std(1).mean(1)).argmax())


@styled
def unscrambled(
    image: np.ndarray,
    arrangements: Mapping[str, Sequence[int] | np.ndarray],
    grid: PatchGrid,
    figure: Figure | None = None,
) -> np.ndarray:
    """One shuffled image under several arrangements, side by side.

    Args:
        image: as the shuffled model sees it, `y x 3`, one of `run.array("example_images", 0)`.
        arrangements: the title of a panel and the place of each patch, as `run.array("pos_arrangement_path", step)`.
        grid: height and width.
        figure: an empty figure to draw in; None makes one.

    Returns:
        The axes, one an arrangement.
    """
    axes = panels(1, len(arrangements), 0.35 + 8.6 / len(arrangements) * grid.height / grid.width, figure)[0]
    for number, (ax, (title, order)) in enumerate(zip(axes, arrangements.items(), strict=True)):
        drawn = ax.imshow(put_back(image, order, grid), interpolation="none")
        drawn.set_gid(f"panel{number}")  # else two equal pictures in an SVG have one id
        ax.set_axis_off()
        ax.set_title(title)
    return axes


@styled
def recovery_over_steps(
    table: pd.DataFrame, ax: Axes | None = None, *, title: str | None = None, legend: bool = True
) -> Axes:
    """Edge recovery over training, by the path of the position embedding and as it is, beside pixels alone and chance.

    Args:
        table: measurements of a study or of one run; the mean over runs is drawn.
        ax: where to draw; None makes a figure.
        title: above the panel.
        legend: name the lines in the panel.

    Raises:
        ValueError: if the table has no edge recovery.
    """
    mean = table[table["measure"].isin(RECOVERY)].groupby(["measure", "step"])["value"].mean()
    if mean.empty:
        raise ValueError("the table holds no edge_recovery; it is measured in the shuffled arm")
    ax = one_panel(ax)
    for measure, (label, colour, dashes) in RECOVERY.items():
        if measure not in mean:
            continue
        line = mean[measure]
        if measure in ("edge_recovery_pixels", "edge_recovery_chance"):  # the same at every step
            ax.axhline(float(line.iloc[0]), color=colour, linestyle=dashes, label=label)
        else:
            ax.plot(line.index, line, color=colour, linestyle=dashes, label=label)
    ax.set(xlabel="training step", ylabel=axis_label("edge_recovery"), ylim=(-0.02, 1.04), title=title or "")
    if legend:
        ax.legend()
    return ax
