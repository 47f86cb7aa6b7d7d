"""Which heads of a layer do the same: where they look, and what they write."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def map_correlation(maps: Float[Tensor, "head dy dx"], counts: Float[Tensor, "dy dx"]) -> Float[Tensor, "head head"]:
    """Pearson correlation over pairs of patches of R_g(offset) and R_h(offset), an offset counted once a pair.

    It compares where two heads look more or less than on average, however small the differences: two heads that look
    nearly everywhere alike may still be told apart.

    Args:
        maps: offset maps of the heads of a layer.
        counts: pairs with each offset, `PatchGrid.offset_counts`.

    Returns:
        In [−1, 1]; NaN for a head whose map is the same everywhere.

    References:
        Walmer et al. 2023, Teaching Matters (offset maps).
    """
    share = counts / counts.sum()
    centred = maps - (maps * share).sum((1, 2), keepdim=True)
    product = torch.einsum("gyx,hyx,yx->gh", centred, centred, share)
    size = product.diagonal().clamp(min=0).sqrt()
    flat = size <= 1e-9 * maps.abs().amax((1, 2))  # rounding of a map that is the same everywhere
    size = torch.where(flat, torch.nan, size)
    return product / size[:, None] / size


def linear_cka(
    covariance: Float[Tensor, "head d head d"], w_o: Float[Tensor, "head width d"]
) -> Float[Tensor, "head head"]:
    """‖C_gᵀ C_h‖² / (‖C_gᵀ C_g‖ ‖C_hᵀ C_h‖),  C_h = z_h w_o,hᵀ over images and tokens, centred; Frobenius norms.

    1: what one head writes into the tokens is the other's, but for a rotation and a scale; a linear map after the heads
    could read one where it now reads the other. 0: nothing linear in common. From the covariance S_gh = Σ z_g z_hᵀ
    alone: ‖C_gᵀ C_h‖² = tr(M_g S_gh M_h S_ghᵀ) with M_h = w_o,hᵀ w_o,h.

    Args:
        covariance: S, of z centred over images and tokens.
        w_o: the columns of the projection after attention that belong to each head.

    Returns:
        In [0, 1]; NaN for a head that writes the same for all images and tokens.

    References:
        Kornblith et al. 2019, Similarity of Neural Network Representations Revisited.
    """
    metric = w_o.mT @ w_o
    blocks = covariance.transpose(1, 2)  # head head d d
    product = (metric[:, None] @ blocks @ metric[None]).mul(blocks).sum((2, 3))
    size = product.diagonal()
    size = torch.where(size > 1e-24, size, torch.nan).sqrt()
    return (product / size[:, None] / size).clamp(0, 1)
