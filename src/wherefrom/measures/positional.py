"""What the mean of a head's scores over images is made of: the offset, the key's position, or the pair of positions.

S̄_ij, the mean over images, is all that a head knows of positions alone. The model S̄_ij ≈ h_i + f(offset of j from i) +
g(j) is fitted by least squares; h_i is free, since softmax does not see it. S̄ is centred within rows, and so are the
columns of the design, so only its inner products with them are needed: Σ S̄ by offset and Σ S̄ by key.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures.pairs import offset_sums

MOST_COLUMNS = 3000
"""Offsets and keys together; on larger grids (from 25 × 25 on) the fit would take longer than the probe."""

AGREEMENT = 0.1
"""Correlation of the two halves' means at or below which there is nothing positional to divide: shares are NaN."""

PARTS = ("offset", "key", "pair")


def positional_parts(halves: Float[Tensor, "2 head query key"], grid: PatchGrid) -> Float[Tensor, "part head"]:
    """⟨S̄, P_o S̄′⟩ / V, (⟨S̄, P S̄′⟩ − ⟨S̄, P_o S̄′⟩) / V, 1 − ⟨S̄, P S̄′⟩ / V with V = ⟨S̄, S̄′⟩.

    S̄ and S̄′ are the mean over the images of two halves, centred within rows, so that noise adds nothing to ⟨S̄, S̄′⟩; P_o
    projects on functions of the offset, P on sums of a function of the offset and a function of the key.

    Args:
        halves: mean scores of patch queries to patch keys on two disjoint halves of the images; a constant added to a
            row changes nothing.
        grid: positions of the patches.

    Returns:
        The shares of offset, key alone and query × key; they sum to 1, and noise may carry one beyond [0, 1]. NaN where
        the halves' means hardly agree (correlation ≤ 0.1: no positional part), with one image, for one patch, and
        where offsets and keys together are more than 3000.
    """
    centred = (halves - halves.mean(-1, keepdim=True)).double()
    flat = centred.transpose(0, 1).flatten(2)
    return parts_of_sums(offset_sums(centred, grid), centred.sum(-2), flat @ flat.mT, grid)


def parts_of_sums(
    by_offset: Float[Tensor, "2 head dy dx"],
    by_key: Float[Tensor, "2 head key"],
    products: Float[Tensor, "head 2 2"],
    grid: PatchGrid,
) -> Float[Tensor, "part head"]:
    """`positional_parts` from the sums of S̄ by offset and by key, and the inner products of the halves' S̄."""
    if grid.num_offsets + grid.num_patches > MOST_COLUMNS:
        return products.new_full((len(PARTS), len(products)), torch.nan)
    if grid.order is not None:  # keys by true position, as the offsets are
        by_key = by_key[..., torch.as_tensor(grid.order).argsort()]
    sums = torch.cat([by_offset.flatten(2), by_key], -1).double().cpu()
    # with the Gram matrix G = L Lᵀ, ⟨X, P Y⟩ = (Xᵀ D) G⁻¹ (Dᵀ Y) = ⟨L⁻¹ Dᵀ X, L⁻¹ Dᵀ Y⟩, and the columns of the offsets
    # come first, so their part of that sum is ⟨X, P_o Y⟩
    solved = torch.linalg.solve_triangular(gram_root(grid.height, grid.width), sums.flatten(0, 1).mT, upper=False)
    explained = solved.unflatten(1, sums.shape[:2]).prod(1)
    total, size = products[:, 0, 1], (products[:, 0, 0] * products[:, 1, 1]).sqrt()
    total = torch.where(total > AGREEMENT * size, total, torch.nan)
    offset, key = (part.sum(0) / total for part in explained.split([grid.num_offsets, grid.num_patches]))
    return torch.stack([offset, key, 1 - offset - key])


@lru_cache(maxsize=4)
def gram_root(height: int, width: int) -> Float[Tensor, "column column"]:
    """L with L Lᵀ = Dᵀ D + R Rᵀ: D has the row-centred indicators of each offset and then of each key as its columns.

    With e_i(o) = 1 if query i has a partner at offset o, n(o) = Σ_i e_i(o) and N patches,

        ⟨o, o′⟩ = n(o) 1[o = o′] − Σ_i e_i(o) e_i(o′) / N     ⟨o, k⟩ = 1[k − o on the grid] − n(o) / N
        ⟨k, k′⟩ = N 1[k = k′] − 1

    f + g is the same in every row, and so invisible, exactly for f constant, for g constant, and for f linear in (dy,
    dx) with g = −f taken of the key's position. R pins these four down, by a constant f and a constant and linear g;
    inner products with what D spans do not change.
    """
    grid = PatchGrid(height, width)
    patches, offsets = grid.num_patches, grid.num_offsets
    index = torch.as_tensor(grid.offset_index)
    partner = torch.zeros(patches, offsets, dtype=torch.float64).scatter_(1, index, 1.0)
    from_key = torch.zeros(patches, offsets, dtype=torch.float64).scatter_(1, index.T, 1.0)
    counts = partner.sum(0)
    gram = torch.zeros(offsets + patches, offsets + patches, dtype=torch.float64)
    gram[:offsets, :offsets] = counts.diag() - partner.T @ partner / patches
    gram[offsets:, :offsets] = from_key - counts / patches
    gram[:offsets, offsets:] = gram[offsets:, :offsets].T
    gram[offsets:, offsets:] = patches * torch.eye(patches) - 1
    return torch.linalg.cholesky(gram + _pins(grid) @ _pins(grid).T)


def _pins(grid: PatchGrid) -> Float[Tensor, "column 4"]:
    """R: a constant f; a constant g, and g = row and g = column from the grid's centre. Each of squared length N."""
    pins = torch.zeros(grid.num_offsets + grid.num_patches, 4, dtype=torch.float64)
    pins[: grid.num_offsets, 0] = 1
    pins[grid.num_offsets :, 1] = 1
    places = torch.as_tensor(grid.coordinates).double()
    pins[grid.num_offsets :, 2:] = places - places.mean(0)
    return torch.nn.functional.normalize(pins, dim=0) * grid.num_patches**0.5
