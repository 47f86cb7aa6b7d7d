"""Pictures of arrays: likeness of position embeddings as tiles, example images."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wherefrom.figures.style import COSINE_COLOURS, one_panel, styled
from wherefrom.geometry import PatchGrid


@styled
def similarity_tiles(
    similarity: np.ndarray,
    grid: PatchGrid,
    ax: Axes | None = None,
    *,
    title: str | None = None,
    limit: float | None = None,
    colour_bar: bool | None = None,
) -> Axes:
    """Tile (r, c) shows C_ij of the patch i at row r, column c with every patch j, each j at its own place.

    Args:
        similarity: C_ij, `patch patch`, cosine, as `run.array("pos_similarity", step)`.
        grid: where the patches are; `grid.reordered(order)` reads a shuffled model on its true grid.
        ax: where to draw; None makes a figure.
        title: above the tiles.
        limit: cosine at which colours are fullest; None takes `colour_limit([similarity])`.
        colour_bar: beside the tiles; by default where `ax` is None.

    Returns:
        The axes; its image is `tile_mosaic(similarity, grid)`.

    Raises:
        ValueError: if `similarity` has not one row and column a patch.

    References:
        Dosovitskiy et al. 2020, Fig. 7 (centre).
    """
    _check_shape("similarity", similarity, (grid.num_patches, grid.num_patches))
    colour_bar = ax is None if colour_bar is None else colour_bar
    ax = one_panel(ax, 5.0, 0.8 + 3.9 * mosaic_aspect(grid))
    limit = colour_limit([similarity]) if limit is None else limit
    mosaic = tile_mosaic(similarity, grid)
    ax.imshow(mosaic, cmap=COSINE_COLOURS, vmin=-limit, vmax=limit, interpolation="none")
    ax.set_facecolor("#9a9a9a")
    pitch = (grid.width + 1, grid.height + 1)
    ax.set_xticks(_centres(grid.width, pitch[0]), _some_labels(grid.width))
    ax.set_yticks(_centres(grid.height, pitch[1]), _some_labels(grid.height))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    ax.set(xlabel="column of the patch", ylabel="row of the patch", title=title or "")
    if colour_bar:
        cosine_bar(ax.figure, ax)
    return ax


def tile_mosaic(similarity: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """The tiles side by side with a gap of one cell (NaN) between them, `height·(height+1)−1 width·(width+1)−1`."""
    height, width = grid.height, grid.width
    place = np.empty(grid.num_patches, int)  # the position that holds each place
    place[grid.coordinates[:, 0] * width + grid.coordinates[:, 1]] = np.arange(grid.num_patches)
    tiles = np.full((height, height + 1, width, width + 1), np.nan)
    tiles[:, :height, :, :width] = (
        np.asarray(similarity)[np.ix_(place, place)].reshape(height, width, height, width).transpose(0, 2, 1, 3)
    )
    return tiles.reshape(height * (height + 1), width * (width + 1))[:-1, :-1]


def colour_limit(similarities: Sequence[np.ndarray]) -> float:
    """The tenth (0.1 … 1) that 99 % of the pairs of different patches stay below in size."""
    pairs = [np.abs(np.asarray(s)[~np.eye(len(s), dtype=bool)]) for s in similarities]
    largest = float(np.nanpercentile(np.concatenate(pairs), 99)) if sum(map(len, pairs)) else 1.0
    return min(1.0, max(0.1, ceil(largest * 10) / 10))


def mosaic_aspect(grid: PatchGrid) -> float:
    """Height of the tiles of `grid` as a multiple of their width."""
    return grid.height * (grid.height + 1) / (grid.width * (grid.width + 1))


def cosine_bar(figure, axes) -> None:
    """The colour bar of `similarity_tiles`, for one or many of them."""
    image = np.ravel(axes)[0].images[0]
    bar = figure.colorbar(image, ax=axes, fraction=0.04, shrink=0.6, aspect=25, pad=0.015, extend="both")
    bar.locator = MaxNLocator(5)
    bar.set_label("cosine with the tile's own patch")
    bar.outline.set_visible(False)
    for collection in bar.ax.collections:
        collection.set_rasterized(True)  # 256 rectangles would be half of the file


@styled
def example_images(images: np.ndarray, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """The images side by side, each pixel one cell.

    Args:
        images: `image height width 3`, as `run.array("example_images", 0)`.
        ax: where to draw; None makes a figure.
        title: above the images.

    Raises:
        ValueError: if `images` is no stack of RGB images.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise ValueError(f"expected images of shape (image, height, width, 3); found {images.shape}")
    ax = one_panel(ax, 9, 0.4 + 8.6 * images.shape[1] / (images.shape[2] * len(images)))
    gap = max(1, images.shape[2] // 12)
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    ax.imshow(np.concatenate(padded, 1)[:, :-gap], interpolation="none")
    ax.set_axis_off()
    ax.set_title(title or "")
    return ax


def _centres(count: int, pitch: int) -> np.ndarray:
    return np.arange(count) * pitch + (pitch - 2) / 2


def _some_labels(count: int) -> list[str]:
    every = -(-count // 8)
    return [str(n) if n % every == 0 else "" for n in range(count)]


def _check_shape(name: str, array: np.ndarray, shape: tuple) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"expected {name} of shape {shape}, as the grid has it; found {np.shape(array)}")
