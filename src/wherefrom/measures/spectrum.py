"""How coarse is the map? The position embedding by spatial frequency."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import dct_matrix

LOW = 2
"""Frequencies (v, u) with v + u up to this are low: at most one period over the grid."""


def pos_spectrum(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, "v u"]:
    """Σ_d c_vu,d² / Σ_vu,d c_vu,d², c = orthonormal 2-D DCT-II over the grid of each feature d of centred pos_embed.

    Args:
        pos_embed: position embedding of the patches, `patch width`.
        grid: positions of the patches; on a grid with `order` each row goes to its true position first.

    Returns:
        Shares of energy by frequency (v, u) in half periods over the grid, `v u`, summing to 1; (0, 0) is 0,
        since the mean over patches is taken out; 1 / (patches − 1) elsewhere where there is no structure. NaN for a
        table of zeros.

    Raises:
        ValueError: if there are not as many rows as the grid has patches.

    References:
        Ahmed, Natarajan & Rao 1974, Discrete cosine transform.
    """
    if len(pos_embed) != grid.num_patches:
        raise ValueError(
            f"pos_embed has {len(pos_embed)} rows, but a grid of {grid.height} × {grid.width} has {grid.num_patches} "
            f"patches; give one row for each patch, without prefix tokens"
        )
    row, column = torch.as_tensor(grid.coordinates).T
    table = torch.zeros(grid.height, grid.width, pos_embed.shape[1]).to(pos_embed)
    table[row, column] = pos_embed - pos_embed.mean(0)
    down, across = (dct_matrix(size).to(pos_embed) for size in (grid.height, grid.width))
    energy = (down @ table.permute(2, 0, 1) @ across.T).square().sum(0)
    return energy / energy.sum()


def low_frequency_share(spectrum: Float[Tensor, "v u"]) -> Float[Tensor, ""]:
    """Σ of the spectrum over v + u ≤ 2; in [0, 1], 5 / (patches − 1) for noise on a grid of at least 3 × 3.

    Args:
        spectrum: of `pos_spectrum`, `v u`.
    """
    height, width = spectrum.shape
    low = torch.arange(height)[:, None] + torch.arange(width) <= LOW
    return spectrum[low.to(spectrum.device)].sum()
