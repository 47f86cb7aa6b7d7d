"""Roles of heads that look at a few keys whatever the query: `place`, the same in all images, `sink`, in each its own.

Favourites are the k = max(1, round(keys / 16)) keys that get the most attention. They are chosen by some rows and their
mass is measured in others, so that chance gives no head a favourite: patches are coloured like a chessboard, and black
ones measure what white ones chose and the other way round; for `place` the two halves of the images as well.

    score = (mass on the favourites − k / keys) / (1 − k / keys)      0: uniform; 1: all attention is on them
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures.scores import NULL_DEVIATIONS, RoleScore, over_images

KEYS_PER_FAVOURITE = 16
TIED = 1e-6
"""Keys are tied where what they receive differs by less than this share of the most that one receives."""
FITS = 30
"""Rounds of fitting a head that knows offsets alone."""
ROWS_AT_ONCE = 2**20
"""Pairs of patches worked on at a time."""


def received(
    attn: Float[Tensor, "*lead query key"], grid: PatchGrid, queries: slice
) -> Float[Tensor, "*lead colour key"]:
    """Σ of attention over the queries of each colour: patches of even row + column, then the others."""
    colour = torch.as_tensor(grid.coordinates[queries].sum(1) % 2, device=attn.device)
    return torch.stack([colour == 0, colour == 1]).to(attn) @ attn


def favourites(received: Float[Tensor, "*lead key"], count: int) -> Float[Tensor, "*lead key"]:
    """1 for the `count` keys that receive the most, else 0; keys tied with the last of them share what is left."""
    last = received.topk(count, dim=-1).values[..., -1:]
    tolerance = TIED * received.amax(-1, keepdim=True)
    ahead, tied = received > last + tolerance, (received - last).abs() <= tolerance
    left = count - ahead.sum(-1, keepdim=True)
    return ahead + tied * left / tied.sum(-1, keepdim=True)


def sink_role(
    received: Float[Tensor, "image head colour key"],
    squares: Float[Tensor, "image head"],
    positions: Float[Tensor, "head colour patch"],
    grid: PatchGrid,
) -> RoleScore:
    """`sink`: the favourites of each image, chosen by the queries of the other colour; prefix tokens are keys too.

    Args:
        received: what each token received from the patches of each colour.
        squares: Σ A² over patch queries and all keys.
        positions: what patches would receive from a head that knows offsets alone (`received_by_offsets`).
        grid: positions of the patches.
    """
    score = _score(received, received, grid)
    prefix = grid.num_prefix_tokens
    uniform = positions.sum(-1, keepdim=True) / grid.num_tokens
    null = torch.cat([uniform.expand(-1, -1, prefix), positions * (1 - prefix / grid.num_tokens)], -1)
    return RoleScore(*over_images(score), threshold=_threshold(null, squares, grid))


def place_role(
    received: Float[Tensor, "image head colour patch"],
    squares: Float[Tensor, "image head"],
    positions: Float[Tensor, "head colour patch"],
    grid: PatchGrid,
) -> RoleScore:
    """`place`: the favourites of the other half of the images, chosen by the queries of the other colour.

    Args:
        received: what each patch received from the patches of each colour, rows renormalised over patch keys.
        squares: Σ P² over all pairs of patches.
        positions: what patches would receive from a head that knows offsets alone (`received_by_offsets`).
        grid: positions of the patches.
    """
    halves = torch.stack([received[1::2].sum(0), received[::2].sum(0)])  # every second image chooses for the others
    score = _score(received, halves[torch.arange(len(received)) % 2], grid)
    score = score if len(received) > 1 else torch.full_like(score, torch.nan)
    return RoleScore(*over_images(score), threshold=_threshold(positions, squares, grid))


def _score(
    received: Float[Tensor, "*image head colour key"],
    choosing: Float[Tensor, "*image head colour key"],
    grid: PatchGrid,
) -> Float[Tensor, "*image head"]:
    """(mass − k / keys) / (1 − k / keys), mass on the favourites of the other colour in `choosing`; NaN for one key."""
    keys = received.shape[-1]
    count = favourite_count(keys)
    mass = (received * favourites(choosing.flip(-2), count)).sum((-2, -1)) / grid.num_patches
    return (mass - count / keys) / (1 - count / keys) if keys > 1 else torch.full_like(mass, torch.nan)


def favourite_count(keys: int) -> int:
    """k = max(1, round(keys / 16))."""
    return max(1, round(keys / KEYS_PER_FAVOURITE))


def _threshold(
    null: Float[Tensor, "head colour key"], squares: Float[Tensor, "image head"], grid: PatchGrid
) -> Float[Tensor, " head"]:
    """Score of a head with the same mean attention at each offset that knows nothing else, + 4 standard deviations.

    The first: what the border does (a patch in the corner has fewer that could look at it). The second: each query's
    attention put on the keys in random order, the same in all images. The mass on k of T keys then has the variance
    k (T − k) / (T (T − 1)) · Σ_j (A_ij − 1/T)² in row i, and rows are independent.

    References:
        Hoeffding 1951, A combinatorial central limit theorem.
    """
    keys = null.shape[-1]
    count = favourite_count(keys)
    spread = (squares.mean(0) - grid.num_patches / keys).clamp(min=0)
    variance = count * (keys - count) / (keys * max(1, keys - 1)) * spread / grid.num_patches**2
    return _score(null, null, grid) + NULL_DEVIATIONS * variance.sqrt() / max(1 - count / keys, 1e-12)


def received_by_offsets(sums: Float[Tensor, "image head dy dx"], grid: PatchGrid) -> Float[Tensor, "head colour patch"]:
    """What patches receive where P_ij = w(o_ij) / Σ_j w(o_ij): scores are a function of the offset alone.

    w is such that the mean of P at each offset is that of `sums`.

    Args:
        sums: Σ of P over the pairs of each offset.
        grid: positions of the patches.
    """
    weights = offset_weights(sums.mean(0), grid).flatten(1)
    total = weights.new_zeros(len(weights), 2, grid.num_patches)
    step = max(1, ROWS_AT_ONCE // (len(weights) * grid.num_patches))
    for start in range(0, grid.num_patches, step):
        queries = slice(start, min(start + step, grid.num_patches))
        attn = weights[:, torch.as_tensor(grid.offset_index[queries])]
        total += received(attn / attn.sum(-1, keepdim=True), grid, queries)
    return total


def offset_weights(sums: Float[Tensor, "head dy dx"], grid: PatchGrid) -> Float[Tensor, "head dy dx"]:
    """w(o) = Σ P / Σ_i 1/Z_i over patches i that have a partner at o, Z_i = Σ_j w(o_ij): a fixed point, by iteration.

    It is the softmax with scores f(o) that fits P best: a patch at the border spreads its attention over fewer others.

    References:
        Darroch & Ratcliff 1972, Generalized iterative scaling for log-linear models.
    """
    rows, columns = (_windows(side).to(sums) for side in (grid.height, grid.width))
    weights = sums / torch.as_tensor(grid.offset_counts)
    for _ in range(FITS):
        total = rows @ weights @ columns.T
        weights = sums / (rows.T @ (1 / total) @ columns)
    return weights


def _windows(side: int) -> Float[Tensor, "position offset"]:
    """1 where position + offset is still on the grid; offsets from 1 − side."""
    there = torch.arange(side)[:, None] + torch.arange(1 - side, side)
    return ((there >= 0) & (there < side)).double()
