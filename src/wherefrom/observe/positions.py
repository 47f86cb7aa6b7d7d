"""Measurements of a position embedding: no data, no gradient, only the table of vectors and the grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from wherefrom import measures
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.statistics import mantel

SCALARS = (
    "similarity_falloff",
    "similarity_falloff_spearman",
    "near_minus_far",
    "neighbour_recovery",
    "mirror_similarity",
)


def position_measurements(
    pos_embed: Tensor, grids: Mapping[str, PatchGrid], permutations: int = 0
) -> Iterator[Measurement]:
    """Every measure of the position embedding on each grid.

    Args:
        pos_embed: `patch width`, prefix tokens left out.
        grids: places of the patches by name.
        permutations: random relabellings for the test of the falloff; 0 leaves it out.
    """
    pos_embed = pos_embed.detach().double().cpu()
    yield Measurement("effective_rank", float(measures.effective_rank(pos_embed)))
    for name, grid in grids.items():
        for measure, value in _on_grid(pos_embed, grid, permutations):
            yield Measurement(measure, value, grid=name)
        yield from _similarity(pos_embed, grid, name)


def position_arrays(pos_embed: Tensor, grid: PatchGrid) -> dict[str, Tensor]:
    """`pos_embed`, its `pos_similarity`, its `pos_layout` aligned to `grid` and its `pos_spectrum` on it."""
    table = pos_embed.detach().double().cpu()
    arrays = {"pos_similarity": measures.pos_similarity(table), "pos_layout": measures.layout(table, grid)}
    arrays["pos_spectrum"] = measures.pos_spectrum(table, grid)
    return {"pos_embed": pos_embed.detach().cpu()} | {name: array.float() for name, array in arrays.items()}


def _on_grid(pos_embed: Tensor, grid: PatchGrid, permutations: int) -> Iterator[tuple[str, float]]:
    for name in SCALARS:
        yield name, float(getattr(measures, name)(pos_embed, grid))
    yield "neighbour_recovery_chance", measures.neighbour_recovery_chance(grid)
    names = ("coordinate_r2", "coordinate_r2_row", "coordinate_r2_column")
    yield from zip(names, measures.coordinate_r2(pos_embed, grid).tolist(), strict=True)
    yield "pos_low_frequency_share", float(measures.low_frequency_share(measures.pos_spectrum(pos_embed, grid)))
    if permutations:
        similarity = measures.pos_similarity(pos_embed).numpy()
        test = mantel(similarity, grid.distances, permutations=permutations)
        names = ("similarity_falloff_p", "similarity_falloff_null_low", "similarity_falloff_null_high")
        yield from zip(names, (test.p, test.low, test.high), strict=True)


def _similarity(pos_embed: Tensor, grid: PatchGrid, name: str) -> Iterator[Measurement]:
    sums = measures.offset_sums(measures.pos_similarity(pos_embed), grid)
    counts = torch.as_tensor(grid.offset_counts).to(sums)
    for relation, value in measures.by_relation(sums, counts, grid).items():
        yield Measurement("pos_similarity", float(value), relation=relation, grid=name)
    for distance, value in measures.by_distance(sums, counts, grid).items():
        yield Measurement("pos_similarity", float(value), distance=distance, grid=name)
