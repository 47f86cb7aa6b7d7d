"""From the sums of a layer to its measurements and its maps over offsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PREFIX
from wherefrom.measures.alignment import share_of_means
from wherefrom.measures.heads import between_minus_same, head_divergence, offset_sharpness, one_minus_correlation
from wherefrom.measures.pairs import by_distance, by_relation
from wherefrom.measures.positional import PARTS, parts_of_sums
from wherefrom.measures.roles import role_values
from wherefrom.measures.sums import LayerSums

PAIR_MEASURES = ("advantage", "pressure", "attn", "qk_alignment")
ROW_MEASURES = ("attention_entropy", "prefix_mass", "argmax_agreement")
MAPS = PAIR_MEASURES


def layer_measurements(
    sums: LayerSums, layer: int, split: str, distances: bool = True, content: str | None = None
) -> Iterator[Measurement]:
    """Every measure of the layer that the sums hold: by head; pairs by relation and, if asked, by distance.

    Args:
        sums: of the layer.
        layer: its number.
        split: of the images.
        distances: also by distance.
        content: of the images, `natural` or `shuffled`; None where it is not asked for.
    """
    for row in _measurements(sums, layer, split, distances):
        yield replace(row, content=content) if content else row


def _measurements(sums: LayerSums, layer: int, split: str, distances: bool) -> Iterator[Measurement]:
    for measure in PAIR_MEASURES:
        if (measure, sums.grid_name) in sums.pairs:
            yield from _pair_measurements(sums, measure, layer, split, distances)
    for measure, values in _head_values(sums).items():
        for head, value in enumerate(values.tolist()):
            yield Measurement(measure, value, split, layer, head)
    for measure, value in _divergences(sums).items():
        yield Measurement(measure, float(value), split, layer)
    for measure, values in role_values(sums).items():
        for head, value in enumerate(values.tolist()):
            yield Measurement(measure, value, split, layer, head)


def layer_maps(sums: LayerSums) -> dict[str, Float[Tensor, "head dy dx"]]:
    """Mean of each pair measure by offset on the first grid; NaN where no gradient arrives."""
    known = [name for name in MAPS if (name, sums.grid_name) in sums.pairs]
    return {f"{name}_offset_map": offset_means(sums, name).sum(0) for name in known}


def offset_means(sums: LayerSums, measure: str) -> Float[Tensor, "half head dy dx"]:
    """Sum over pairs / number of pairs, so that the halves' shares add up to the mean over all images."""
    return sums.pairs[measure, sums.grid_name] / pair_counts(sums, measure, sums.grid_name).sum(0)


def pair_counts(sums: LayerSums, measure: str, grid: str) -> Float[Tensor, "half head dy dx"]:
    """How many pairs in how many images stand behind each sum; silent queries have no gradient to count."""
    if measure in ("advantage", "pressure"):
        return sums.pairs["heard", grid]
    counts = torch.as_tensor(sums.grids[grid].offset_counts, dtype=torch.float64)
    return (sums.images[:, None, None, None] * counts).expand_as(sums.pairs[measure, grid])


def prefix_means(sums: LayerSums, measure: str) -> Float[Tensor, " head"]:
    """Mean over images, patch queries and prefix keys; NaN where no gradient reaches a patch query."""
    if measure in ("advantage", "pressure"):
        counts = sums.prefix["heard"].sum(0)
    else:
        grid = sums.grid
        counts = sums.images.sum() * grid.num_patches * grid.num_prefix_tokens
    return sums.prefix[measure].sum(0) / counts


def _pair_measurements(sums: LayerSums, measure: str, layer: int, split: str, distances: bool) -> Iterator[Measurement]:
    for name, grid in sums.grids.items():
        parts = sums.pairs[measure, name].sum(0), pair_counts(sums, measure, name).sum(0), grid
        for relation, values in by_relation(*parts).items():
            for head, value in enumerate(values.tolist()):
                yield Measurement(measure, value, split, layer, head, relation=relation, grid=name)
        for head, value in enumerate(prefix_means(sums, measure).tolist() if sums.prefix else ()):
            yield Measurement(measure, value, split, layer, head, relation=PREFIX, grid=name)
        for distance, values in by_distance(*parts).items() if distances else ():
            for head, value in enumerate(values.tolist()):
                yield Measurement(measure, value, split, layer, head, distance=distance, grid=name)


def _head_values(sums: LayerSums) -> dict[str, Float[Tensor, " head"]]:
    if not sums.heads:
        return {}
    grid, heads, images = sums.grid, sums.heads, float(sums.images.sum())
    rows = images * grid.num_patches
    totals = {name: sums.examples[name].sum(0) for name in (*ROW_MEASURES, "angle_share", "angle_rows")}
    values = {name: totals[name] / rows for name in ROW_MEASURES}
    values["angle_share"] = totals["angle_share"] / totals["angle_rows"]
    pairs = rows * grid.num_patches
    parts = heads["score_products"].sum((1, 2)) / rows**2, sums.examples["score_squares"].sum(0) / pairs
    values["positional_share"] = share_of_means(*parts, int(images))
    mass = sums.pairs["patch_attn", sums.grid_name].sum(0) / rows
    values |= _positional_parts(sums)
    values["attention_distance"] = (mass * torch.as_tensor(grid.offset_distances)).sum((1, 2))
    values["offset_sharpness"] = offset_sharpness(mass, torch.as_tensor(grid.offset_counts).to(mass))
    return values


def _positional_parts(sums: LayerSums) -> dict[str, Float[Tensor, " head"]]:
    """Shares of the mean scores' variance."""
    images = sums.images
    by_offset = sums.pairs["scores", sums.grid_name] / images[:, None, None, None]
    by_key = sums.keys["scores"] / images[:, None, None]
    products = sums.heads["score_products"] / (images[:, None] * images)
    shares = parts_of_sums(by_offset, by_key, products, sums.grid)
    return {f"positional_{part}_share": share for part, share in zip(PARTS, shares, strict=True)}


def _divergences(sums: LayerSums) -> dict[str, Float[Tensor, ""]]:
    divergences = {}
    if sums.heads:
        divergences["head_divergence_attn"] = head_divergence(sums.pairs["patch_attn", sums.grid_name])
        dissimilarity = sums.heads["row_dissimilarity"] / sums.grid.num_patches
        divergences["row_divergence"] = between_minus_same(dissimilarity)
        if ("pressure", sums.grid_name) in sums.pairs:
            counts = torch.as_tensor(sums.grid.offset_counts, dtype=torch.float64).flatten()
            unlike = partial(one_minus_correlation, weights=counts)
            divergences["head_divergence_pressure"] = head_divergence(_halves(sums, "pressure"), unlike)
    return divergences


def _halves(sums: LayerSums, measure: str) -> Float[Tensor, "half head dy dx"]:
    return sums.pairs[measure, sums.grid_name] / pair_counts(sums, measure, sums.grid_name)
