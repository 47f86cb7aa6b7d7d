"""Averages of any quantity of pairs of patches: by offset, by relation, by distance.

All three are functions of the offset (dy, dx) alone, so sums by offset are enough: they add up over tiles, batches and
processes, and their size grows with the number of tokens, not with its square.
"""

from __future__ import annotations

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
    lead = pairs.shape[:-2]
    by_pair = pairs.reshape(-1, index.numel()).T.contiguous()  # whole rows are added, which is several times faster
    sums = pairs.new_zeros((grid.num_offsets, by_pair.shape[1])).index_add_(0, index, by_pair)
    return sums.T.reshape(*lead, 2 * grid.height - 1, 2 * grid.width - 1)


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
    return {name: _mean_over(grid.relation_offsets(name), sums, counts) for name in (*RELATIONS, *UNIONS)}


def by_distance(
    sums: Float[Tensor, "*lead dy dx"], counts: Float[Tensor, "*#lead dy dx"], grid: PatchGrid
) -> dict[int, Float[Tensor, "*lead"]]:
    """Σ sums / Σ counts over the offsets of each distance, rounded to whole patches."""
    distances = range(int(grid.offset_bins.max()) + 1)
    return {distance: _mean_over(grid.offset_bins == distance, sums, counts) for distance in distances}


def _mean_over(chosen, sums: Tensor, counts: Tensor) -> Tensor:
    mask = torch.as_tensor(chosen, device=sums.device)
    return (sums[..., mask].sum(-1) / counts[..., mask].sum(-1)).expand(sums.shape[:-2])
