"""Does the residual stream know where its patches are?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures.ridge import ridge_r2


def position_in_stream(x: Float[Tensor, "image patch width"], grid: PatchGrid) -> Float[Tensor, ""]:
    """1 − Σ_bi |y_i − ŷ_bi|² / Σ_bi |y_i − ȳ|², ŷ_bi by ridge regression of (row, column) on x without row (b, i).

    The formula of `coordinate_r2` with one row for each patch of each image: λ = mean feature variance × number of
    rows. So a direction counts by its variance: with variance v in it, it is shrunk by v / (v + mean variance).

    Args:
        x: the stream of patch tokens, prefix tokens left out, `image patch width`. Of content-shuffled images: on
            natural ones, what images have in common at a position would be read too.
        grid: positions of the patches.

    Returns:
        R² of row and column together, a share: 1 where x tells the position, about 0 (somewhat below) where it does
        not; NaN on a 1 × 1 grid.

    Raises:
        ValueError: if there are not as many patches as the grid has.
    """
    if x.shape[1] != grid.num_patches:
        raise ValueError(
            f"the stream has {x.shape[1]} tokens an image, but a grid of {grid.height} × {grid.width} has "
            f"{grid.num_patches} patches; give patch tokens alone"
        )
    coordinates = torch.as_tensor(grid.coordinates).to(x)
    return ridge_r2(x.flatten(0, 1), coordinates.repeat(len(x), 1))[0]
