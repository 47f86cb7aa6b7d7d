"""Roles of heads that follow contents: correlations of attention with what is in the patches, given the offset.

r = Σ_ij P̃_ij x̃_ij / √(Σ_ij P̃_ij² Σ_ij x̃_ij²) within each image, over pairs i ≠ j; ~ is the residual from the mean over
all pairs of the image with the same offset. The score is the mean of r over images. The threshold is the mean of the
same head's r with x of the next image, + 4 standard errors: what positions alone give.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import KINDS
from wherefrom.measures.scores import RoleScore, above_exchanged

FLAT = 1e-6
"""Share of a sum of squares below which what is left of it beside the offset's mean is rounding."""

TIED = 1e-6
"""Correlations that differ by less are tied."""


def residual_squares(
    squares: Float[Tensor, "image head"], sums: Float[Tensor, "image head dy dx"], grid: PatchGrid
) -> Float[Tensor, "image head"]:
    """Σ x̃² = Σ x² − Σ_o (Σ x)² / n(o) over pairs i ≠ j; NaN where nothing but rounding is left.

    Args:
        squares: Σ x² over i ≠ j.
        sums: Σ x over the pairs of each offset.
        grid: positions of the patches.
    """
    left = squares - _over_offsets(sums, sums, grid)
    return torch.where(left > FLAT * squares, left, torch.nan)


def _over_offsets(one: Tensor, other: Tensor, grid: PatchGrid) -> Float[Tensor, "image head"]:
    """Σ_o≠0 (Σ x)(Σ y) / n(o)."""
    counts = torch.as_tensor(grid.offset_counts, dtype=torch.float64)
    products = (one * other / counts).flatten(2)
    products[..., products.shape[-1] // 2] = 0  # a patch and itself are no pair; subtracting it would cost digits
    return products.sum(-1)


def content_roles(
    products: Float[Tensor, "image head other"],
    attention_squares: Float[Tensor, "image head"],
    content_squares: Float[Tensor, "kind image"],
) -> dict[str, RoleScore]:
    """`contour`, `texture`.

    Args:
        products: Σ P x̃ by image and head: contour and texture of the image itself, then of the next image.
        attention_squares: Σ P̃²; NaN where attention is nothing but the offset's mean.
        content_squares: Σ x̃² of each image, contour and texture.
    """
    own = content_squares.T[:, None]
    other = torch.roll(content_squares, -1, dims=1).T[:, None]
    r = _ratio(products, attention_squares[..., None] * torch.cat([own, other], -1))
    return {kind: above_exchanged(r[..., n], r[..., n + len(KINDS)]) for n, kind in enumerate(KINDS)}


def similar_role(
    followed: Float[Tensor, "image head other"],
    sums: Float[Tensor, "image head kind dy dx"],
    squares: Float[Tensor, "image head kind"],
    attention: tuple[Float[Tensor, "image head dy dx"], Float[Tensor, "image head"]],
    grid: PatchGrid,
) -> RoleScore:
    """`similar`: x_ij is the cosine of keys i and j, or of values i and j, whichever has the larger mean of r.

    Σ P x̃ = Σ P x − Σ_o (Σ P)(Σ x) / n(o), so that sums by offset are all that is needed of x.

    Args:
        followed: Σ P x over i ≠ j: keys and values of the image itself, then those of the next image.
        sums: Σ x over the pairs of each offset, keys and values.
        squares: Σ x² over i ≠ j, keys and values.
        attention: Σ P over the pairs of each offset; Σ P̃², NaN where attention is nothing but the offset's mean.
        grid: positions of the patches.
    """
    mass, attention_squares = attention
    own, exchanged = [], []
    for kind in range(sums.shape[2]):
        left = residual_squares(squares[..., kind], sums[:, :, kind], grid)
        for into, ahead in ((own, 0), (exchanged, 1)):
            x = sums[:, :, kind].roll(-ahead, 0)
            product = followed[..., kind + ahead * sums.shape[2]] - _over_offsets(mass, x, grid)
            into.append(_ratio(product, attention_squares * left.roll(-ahead, 0)))
    keys, values = (r.nanmean(0).nan_to_num(-torch.inf) for r in own)
    better = values > keys + TIED
    return above_exchanged(torch.where(better, own[1], own[0]), torch.where(better, exchanged[1], exchanged[0]))


def _ratio(product: Tensor, squares: Tensor) -> Tensor:
    below = squares.sqrt()
    return torch.where(below > 0, product / below, torch.nan)
