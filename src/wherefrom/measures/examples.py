"""Sums over one tile of attention, for each image by itself: what an interval over images needs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vecdot

from wherefrom.attention import AttentionTile
from wherefrom.geometry import PatchGrid
from wherefrom.measures import ties
from wherefrom.measures.alignment import centred_r2
from wherefrom.measures.contents import PairContents
from wherefrom.measures.key_roles import received
from wherefrom.measures.pairs import offset_sums_of_rows
from wherefrom.measures.similarity import UnitVectors


def example_sums(
    tile: AttentionTile, grid: PatchGrid, contents: PairContents | None, units: UnitVectors | None
) -> dict[str, Float[Tensor, "image head ..."]]:
    """Sums over the tile's queries, `image head …`, by quantity.

    `attention_entropy, prefix_mass, angle_share, angle_rows, argmax_agreement, score_squares`: of rows. `received`, by
    colour of the query and by token, and `token_squares`, Σ A². Of attention between patches, rows renormalised (P):
    `patch_attn`, by offset; `patches_received`, by colour and patch; `all_squares`, Σ P², and `squares`, that over
    i ≠ j; `similar`, Σ P x with x the cosine of two keys or values; `content`, Σ P x̃ by kind of content.
    """
    patches = tile.patch_attn
    own = patches.diagonal(tile.queries.start, -2, -1)
    sums = _rows(tile) | {"patch_attn": offset_sums_of_rows(patches, grid, tile.queries)}
    sums["all_squares"] = sums["token_squares"] = patches.flatten(2).norm(dim=-1).square()
    sums["patches_received"] = sums["received"] = received(patches, grid, tile.queries)
    if tile.prefix:
        sums["token_squares"] = tile.attn.flatten(2).norm(dim=-1).square()
        sums["received"] = received(tile.attn, grid, tile.queries)
    sums["squares"] = sums["all_squares"] - own.square().sum(-1)
    if units is not None:
        sums["similar"] = units.followed(patches, tile.queries, tile.examples)
    if contents is not None:
        sums["content"] = contents.products(patches, sums["patch_attn"], tile.queries, tile.examples)
    return {name: value.double().cpu() for name, value in sums.items()}


def _rows(tile: AttentionTile) -> dict[str, Float[Tensor, "image head"]]:
    scores, cosine = tile.scores[..., tile.prefix :], tile.cosine[..., tile.prefix :]
    squares = tile.centred_scores.norm(dim=-1).square()
    varying = ties.beyond_rounding(squares, tile.score_means[..., 0], scores.shape[-1])
    r2 = centred_r2(tile.centred_scores, varying, cosine)
    rows = {
        "attention_entropy": _entropy(tile),
        "prefix_mass": tile.attn[..., : tile.prefix].sum(-1),
        "angle_share": r2.nan_to_num(),
        "angle_rows": ~r2.isnan(),
        "argmax_agreement": ties.largest_agreement(scores, cosine),
        "score_squares": squares,
    }
    sums = torch.stack([row.to(r2) for row in rows.values()]).sum(3, dtype=torch.float64).cpu()
    return dict(zip(rows, sums, strict=True))


def _entropy(tile: AttentionTile) -> Float[Tensor, "image head query"]:
    """−Σ_j A ln A = ln Σ_j exp S − Σ_j A S, the first from a row's largest: ln A_max = S_max − ln Σ_j exp S."""
    scores = tile.scores
    if tile.record.bias is not None:  # a masked pair has A = 0 and S = −∞, and counts 0
        scores = scores.clamp(min=torch.finfo(scores.dtype).min)
    return scores.amax(-1) - tile.attn.amax(-1).log() - vecdot(tile.attn, scores)
