"""One pass over a layer's attention, tile by tile: sums from which every measure of the layer is had.

Their size is linear in the number of tokens, and sums of batches or of processes add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.attention import AttentionRecord, AttentionTile
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import PairContents
from wherefrom.measures.examples import example_sums
from wherefrom.measures.heads import row_dissimilarity
from wherefrom.measures.pairs import offset_sums_of_rows
from wherefrom.measures.similarity import unit_vectors


@dataclass(frozen=True)
class LayerSums:
    """What one layer's attention adds up to.

    Args:
        grids: positions of the patches by name, `model` and perhaps `true`.
        images: images in each half, `half`. Halves are every second image: what differs between them is noise.
        pairs: by (quantity, grid name) the sum over images and over pairs of patches with an offset, `half head dy dx`.
        prefix: by quantity the sum over images, patch queries and prefix keys, `half head`; nothing without prefix
            tokens.
        heads: by quantity the sum over images and patch queries, or over patch queries of the means over images,
            `head …`.
        keys: by quantity the sum over images and patch queries, by patch key, `half head key`.
        examples: by quantity the sum over patch queries of each image, `image head …`; for the roles of heads.
        contents: what is in the patches of the images, if it is known.
    """

    grids: Mapping[str, PatchGrid]
    images: Float[Tensor, " half"]
    pairs: dict[tuple[str, str], Float[Tensor, "half head dy dx"]] = field(default_factory=dict)
    prefix: dict[str, Float[Tensor, "half head"]] = field(default_factory=dict)
    heads: dict[str, Float[Tensor, "head ..."]] = field(default_factory=dict)
    keys: dict[str, Float[Tensor, "half head key"]] = field(default_factory=dict)
    examples: dict[str, Float[Tensor, "image head ..."]] = field(default_factory=dict)
    contents: PairContents | None = None

    @property
    def grid(self) -> PatchGrid:
        """The grid that all is measured on that has no grid to its name: the first."""
        return self.grids[self.grid_name]

    @property
    def grid_name(self) -> str:
        return next(iter(self.grids))

    def tensors(self) -> list[Tensor]:
        """Sums of the gradient in a fixed order, to be added up over batches and processes in place."""
        pairs = [self.pairs[key] for key in sorted(self.pairs)]
        return [self.images, *pairs, *(self.prefix[key] for key in sorted(self.prefix))]


@torch.no_grad()
def layer_sums(
    record: AttentionRecord,
    grids: Mapping[str, PatchGrid],
    gradients_only: bool = False,
    contents: PairContents | None = None,
) -> LayerSums:
    """All sums of one layer.

    Args:
        record: what attention was given; without `grad_z` there are no sums of the gradient.
        grids: positions of the patches by name.
        gradients_only: advantage and pressure alone, for training batches; about half the price.
        contents: what is in the patches of the images; without it no head can follow contours or texture.

    Raises:
        ValueError: if the number of tokens is not that of the grids.
    """
    grid = next(iter(grids.values()))
    silent = None if record.grad_z is None else record.silent[grid.num_prefix_tokens :].cpu()
    record = _patch_queries(record, grid)
    images = torch.tensor([(record.num_examples + 1) // 2, record.num_examples // 2], dtype=torch.float64)
    units = None if gradients_only else unit_vectors(record, grid)
    sums = LayerSums(grids, images, examples=units.sums(grid) if units else {}, contents=contents)

    def note(tile: AttentionTile) -> None:
        assert units is not None
        for name, value in example_sums(tile, grid, contents, units).items():
            if name not in sums.examples:
                sums.examples[name] = value.new_zeros(record.num_examples, *value.shape[1:])
            sums.examples[name][tile.examples].add_(value)

    for queries in record.query_ranges():
        halves = [_half_sums(record, queries, half, None if gradients_only else note) for half in (0, 1)]
        _add_pairs(sums, halves, queries)
        if not gradients_only:
            _add_rows(sums, halves)
    if not gradients_only:
        sums.pairs["patch_attn", sums.grid_name] = torch.stack(
            [sums.examples["patch_attn"][half::2].sum(0) for half in (0, 1)]
        )
    if silent is not None:
        _count_heard(sums, silent, record.num_heads)
    return sums


def _add_pairs(sums: LayerSums, halves: list[dict[str, Tensor]], queries: slice) -> None:
    """Add Σ over images by offset, and over prefix keys."""
    for quantity in halves[0].keys() - {"patch_attn"}:
        value = torch.stack([half[quantity] for half in halves]).double()
        patches = sums.grid.num_patches
        for name, grid in sums.grids.items():
            _add(sums.pairs, {(quantity, name): offset_sums_of_rows(value[..., -patches:], grid, queries).cpu()})
        if value.shape[-1] > patches:
            _add(sums.prefix, {quantity: value[..., :-patches].sum((2, 3)).cpu()})


def _add_rows(sums: LayerSums, halves: list[dict[str, Tensor]]) -> None:
    """Add what is read from whole rows of the two halves' means: mean scores, and the heads' mean attention."""
    scores = torch.stack([half["scores"] for half in halves], 1).double()
    flat = scores.flatten(2)
    _add(sums.keys, {"scores": scores.sum(2).transpose(0, 1).cpu()})
    attn = [half["patch_attn"].double() / images for half, images in zip(halves, sums.images, strict=True)]
    _add(
        sums.heads,
        {"score_products": (flat @ flat.mT).cpu(), "row_dissimilarity": row_dissimilarity(*attn).cpu()},
    )


def _count_heard(sums: LayerSums, silent: Tensor, num_heads: int) -> None:
    """How many pairs of the images have a query that a gradient reaches: by offset, and with prefix keys."""
    for name, grid in sums.grids.items():
        sums.pairs["heard", name] = sums.images[:, None, None, None] * _heard(silent, grid).repeat(num_heads, 1, 1)
    prefix = grid.num_prefix_tokens
    if prefix:
        sums.prefix["heard"] = (sums.images * prefix * int((~silent).sum()))[:, None].repeat(1, num_heads)


def _heard(silent: Tensor, grid: PatchGrid) -> Float[Tensor, "dy dx"]:
    """How many pairs of an image have a query that a gradient reaches, by offset."""
    index = torch.as_tensor(grid.offset_index)[~silent]
    counts = torch.bincount(index.flatten(), minlength=grid.num_offsets)
    return counts.double().unflatten(0, (2 * grid.height - 1, 2 * grid.width - 1))


def _patch_queries(record: AttentionRecord, grid: PatchGrid) -> AttentionRecord:
    """The record with patch queries alone; prefix tokens stay among the keys."""
    prefix = grid.num_prefix_tokens
    if not record.q.shape[2] == record.num_tokens == grid.num_tokens:
        raise ValueError(
            f"attention of {record.q.shape[2]} queries to {record.num_tokens} keys does not fit a grid of "
            f"{grid.height} × {grid.width} patches with {prefix} prefix tokens ({grid.num_tokens} tokens); give the "
            f"model's own grid"
        )
    bias = record.bias
    if bias is not None and bias.shape[-2] > 1:
        bias = bias[..., prefix:, :]
    grad_z = None if record.grad_z is None else record.grad_z[:, :, prefix:]
    return replace(record, q=record.q[:, :, prefix:], grad_z=grad_z, bias=bias)


def _half_sums(
    record: AttentionRecord, queries: slice, half: int, note: Callable[[AttentionTile], None] | None
) -> dict[str, Float[Tensor, "head query _"]]:
    """Sums over every second image, to all keys; `scores` and `patch_attn` to patch keys.

    Without `note`, which is shown each tile, of the gradient alone.
    """
    shape = record.num_heads, queries.stop - queries.start
    names = [] if record.grad_z is None else ["advantage", "pressure"]
    names += ["attn", "qk_alignment", "scores", "patch_attn"] if note else []
    sums = {name: record.q.new_zeros(*shape, record.num_tokens) for name in names}
    for name in {"scores", "patch_attn"} & set(names):
        sums[name] = record.q.new_zeros(*shape, record.q.shape[2])
    for tile in record.tiles(queries, slice(half, None, 2)):
        if note:
            note(tile)
            _add_images(sums["attn"], tile.attn)
            _add_images(sums["qk_alignment"], tile.cosine)
            _add_images(sums["scores"], tile.centred_scores)
            if tile.prefix:
                _add_images(sums["patch_attn"], tile.patch_attn)
        if record.grad_z is not None:
            _add_images(sums["advantage"], tile.advantage)
            _add_images(sums["pressure"], tile.attn.mul_(tile.advantage))  # in the memory of A, for the last time
    if note and record.num_tokens == record.q.shape[2]:
        sums["patch_attn"] = sums["attn"]
    return sums


def _add_images(total: Float[Tensor, "head query key"], more: Float[Tensor, "image head query key"]) -> None:
    """Add the sum over images, in place."""
    total += more[0] if len(more) == 1 else more.sum(0)


def _add(sums: dict[Any, Tensor], more: Mapping[Any, Tensor]) -> None:
    for name, value in more.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value
