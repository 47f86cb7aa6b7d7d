"""One pass over a layer's attention, tile by tile: sums from which every measure of the layer is had.

Their size is linear in the number of tokens, and sums of batches or of processes add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from wherefrom.attention import AttentionRecord, AttentionTile
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import PairContents
from wherefrom.measures.examples import example_sums
from wherefrom.measures.pairs import offset_sums_of_rows
from wherefrom.measures.similarity import unit_vectors


@dataclass(frozen=True)
class LayerSums:
    """What one layer's attention adds up to.

    Args:
        grids: places of the patches by name, `model` and perhaps `true`.
        images: images in each half, `half`. Halves are every second image: what differs between them is noise.
        pairs: by (quantity, grid name) the sum over images and over pairs of patches with an offset, `half head dy dx`.
        heads: by quantity the sum over images and patch queries, `head`.
        examples: by quantity the sum over patch queries of each image, `image head …`; for the roles of heads.
        contents: what is in the patches of the images, if it is known.
    """

    grids: Mapping[str, PatchGrid]
    images: Float[Tensor, " half"]
    pairs: dict[tuple[str, str], Float[Tensor, "half head dy dx"]]
    heads: dict[str, Float[Tensor, " head"]]
    examples: dict[str, Float[Tensor, "image head ..."]]
    contents: PairContents | None = None

    def tensors(self) -> list[Tensor]:
        """All sums in a fixed order, to be added up over processes in place."""
        parts = (self.pairs[key] for key in sorted(self.pairs))
        return [self.images, *parts, *(self.heads[key] for key in sorted(self.heads))]


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
        grids: places of the patches by name.
        gradients_only: advantage and pressure alone, for training batches; about half the price.
        contents: what is in the patches of the images; without it no head can follow contours or texture.

    Raises:
        ValueError: if the number of tokens is not that of the grids.
    """
    grid = next(iter(grids.values()))
    silent = None if record.grad_z is None else record.silent[grid.num_prefix_tokens :]
    record = _patch_queries(record, grid)
    shape = (2, record.num_heads, *grid.offset_counts.shape)
    pairs: dict[tuple[str, str], Tensor] = {}
    heads: dict[str, Tensor] = {}
    units = None if gradients_only else unit_vectors(record, grid)
    examples: dict[str, Tensor] = units.sums(grid) if units else {}

    def note(tile: AttentionTile) -> None:
        for name, value in example_sums(tile, grid, contents, units).items():
            if name not in examples:
                examples[name] = value.new_zeros(record.num_examples, *value.shape[1:])
            examples[name][tile.examples] += value

    for queries in record.query_ranges():
        for half in range(min(2, record.num_examples)):
            images = _image_sums(record, queries, slice(half, None, 2), silent, None if gradients_only else note)
            for (quantity, value), (name, places) in product(images.items(), grids.items()):
                target = pairs.setdefault((quantity, name), torch.zeros(shape, dtype=torch.float64))
                target[half] += offset_sums_of_rows(value.double(), places, queries).cpu()
        if not gradients_only:
            _add(heads, _score_variance(record, queries))
    if examples:
        pairs["patch_attn", "model"] = torch.stack([examples["patch_attn"][half::2].sum(0) for half in (0, 1)])
    images = torch.tensor([(record.num_examples + 1) // 2, record.num_examples // 2], dtype=torch.float64)
    if silent is not None:
        for name, places in grids.items():
            pairs["heard", name] = images[:, None, None, None] * _heard(silent, places).repeat(record.num_heads, 1, 1)
    return LayerSums(grids, images, pairs, heads, examples, contents)


def _heard(silent: Tensor, grid: PatchGrid) -> Float[Tensor, "dy dx"]:
    """How many pairs of an image have a query that a gradient reaches, by offset."""
    index = torch.as_tensor(grid.offset_index)[~silent.cpu()]
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


def _image_sums(
    record: AttentionRecord,
    queries: slice,
    examples: slice,
    silent: Tensor | None,
    note: Callable[[AttentionTile], None] | None,
) -> dict[str, Float[Tensor, "head query key"]]:
    """Sums over `examples` of pairs of patches; without `note`, which is shown each tile, of the gradient alone."""
    pairs: dict[str, Tensor] = {}
    for tile in record.tiles(queries, examples):
        if silent is not None:
            advantage, pressure = (tile.advantage, tile.pressure) if note else tile.advantage_and_pressure()
            _add(pairs, {"advantage": advantage.sum(0), "pressure": pressure.sum(0)})
        if note:
            _add(pairs, {"attn": tile.attn.sum(0)})
            note(tile)
    if note:
        q, k = record.q[examples, :, queries], record.k[examples]
        pairs["qk_alignment"] = _product(normalize(q, dim=-1), normalize(k, dim=-1))
    prefix = record.num_tokens - record.q.shape[2]
    return {name: value[..., prefix:] for name, value in pairs.items()}


def _score_variance(record: AttentionRecord, queries: slice) -> dict[str, Float[Tensor, " head"]]:
    """Sums of squares of S, centred within rows over patch keys: of each image, and of the mean over images."""
    total = mean = torch.zeros((), device=record.q.device)
    for tile in record.tiles(queries):
        scores = tile.scores[..., tile.prefix :]
        scores = scores - scores.mean(-1, keepdim=True)
        total = total + scores.square().sum((0, 2, 3), dtype=torch.float64)
        mean = mean + scores.sum(0)
    of_means = (mean / record.num_examples).square().sum((1, 2), dtype=torch.float64)
    return {"score_squares": total.cpu(), "mean_score_squares": of_means.cpu()}


def _product(a: Float[Tensor, "batch head query d"], b: Float[Tensor, "batch head key d"]) -> Tensor:
    """Σ over images and d of a·b, `head query key`."""
    return a.permute(1, 2, 0, 3).flatten(2) @ b.permute(1, 2, 0, 3).flatten(2).mT


def _add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value
