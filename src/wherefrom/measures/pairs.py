"""Averages of any quantity of pairs of patches: by offset, by relation, by distance.

All three are functions of the offset (dy, dx) alone, so sums by offset are enough: they add up over tiles, batches and
processes, and their size grows with the number of tokens, not with its square.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import RELATIONS, UNIONS, PatchGrid


def offset_sums(pairs: Float[Tensor, "*lead query key"], grid: PatchGrid) -> Float[Tensor, "*lead dy dx"]:
    """R(dy, dx) = Σ pairs[i, j] over all j = i + (dy, dx).

    Args:
        pairs: any quantity of patch queries and patch keys (prefix tokens left out).
        grid: places of the patches.
    """
    return offset_sums_of_rows(pairs, grid, slice(None))


def offset_sums_of_rows(
    pairs: Float[Tensor, "*lead query key"], grid: PatchGrid, queries: slice
) -> Float[Tensor, "*lead dy dx"]:
    """`offset_sums` where `pairs` holds only these queries; sums of all ranges of queries add up to the whole."""
    index = torch.as_tensor(grid.offset_index[queries], device=pairs.device).flatten()
    sums = pairs.new_zeros((*pairs.shape[:-2], grid.num_offsets)).index_add_(-1, index, pairs.flatten(-2))
    return sums.unflatten(-1, (2 * grid.height - 1, 2 * grid.width - 1))


def offset_map(pairs: Float[Tensor, "*lead query key"], grid: PatchGrid) -> Float[Tensor, "*lead dy dx"]:
    """R(dy, dx) = mean of pairs[i, j] over all j = i + (dy, dx): the aligned aggregated map.

    References:
        Walmer et al. 2023, Teaching Matters.
    """
    return offset_sums(pairs, grid) / torch.as_tensor(grid.offset_counts).to(pairs)


def by_relation(
    sums: Float[Tensor, "*lead dy dx"], counts: Float[Tensor, "*#lead dy dx"], grid: PatchGrid
) -> dict[str, Float[Tensor, "*lead"]]:
    """Σ sums / Σ counts over the offsets of each relation and each union of relations; NaN for an empty one."""
    names = (*RELATIONS, *UNIONS)
    return dict(zip(names, _means([grid.relation_offsets(name) for name in names], sums, counts), strict=True))


def by_distance(
    sums: Float[Tensor, "*lead dy dx"], counts: Float[Tensor, "*#lead dy dx"], grid: PatchGrid
) -> dict[int, Float[Tensor, "*lead"]]:
    """Σ sums / Σ counts over the offsets of each distance, rounded to whole patches."""
    distances = range(int(grid.offset_bins.max()) + 1)
    means = _means([grid.offset_bins == distance for distance in distances], sums, counts)
    return dict(zip(distances, means, strict=True))


def _means(classes: list[np.ndarray], sums: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
    """Σ sums / Σ counts over the offsets of each class; all of them in one product."""
    masks = torch.as_tensor(np.stack(classes)).flatten(1).to(sums).T
    return (sums.flatten(-2) @ masks / (counts.to(sums).flatten(-2) @ masks)).unbind(-1)
