"""The role of a head: scores of each image, their interval over images, and what chance gives.

Attention here is that of patch queries to patch keys, rows renormalised (P), unless it is said otherwise. Its mass at
an offset, μ(o) = Σ of P over pairs with offset o / number of patches, sums to 1. An even spread over other patches puts
U_S = (pairs in S) / (all pairs i ≠ j) on a set S of offsets, and the excess of S is

    E_S = (μ(S) − U_S · μ(≠ self)) / (1 − U_S)        0: even; 1: all attention is on S

`local` = E of the 8 neighbours; `near` = E of the patches at most max(1, round(min(height, width) / 8)) rows and
columns away; `horizontal` = min(E_row, μ(row) − μ(column)); `vertical` the other way round; `self` =
(μ(0) − 1/N) / (1 − 1/N). With R(o) the mean of P over pairs with offset o, `offset` = R(first) − R(second) of those
o ≠ 0 that at least a quarter of the patches have. All are sums over offsets, Σ_o w(o) μ(o), so that each image has a
score, too.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures import ties
from wherefrom.measures.content_roles import content_roles, residual_squares, similar_role
from wherefrom.measures.key_roles import place_role, received_by_offsets, sink_role
from wherefrom.measures.scores import NULL_DEVIATIONS, RoleScore, over_images
from wherefrom.measures.sums import LayerSums

NARROW = 3
"""A grid with a side below this has no room for places to look at: all patches are neighbours, or in one row."""

LOOKING_AWAY = ("local", "near", "horizontal", "vertical", "offset")
"""Roles that need such room."""

COMMON = 0.25
"""Share of the patches that must have a partner at an offset for it to be a favourite place."""

NEAR_SHARE = 8
"""`near` is within a side divided by this."""


TIED = 1e-6
"""Displacements in shares of a side that differ by less are tied."""


def role_values(sums: LayerSums) -> dict[str, Float[Tensor, " head"]]:
    """`role_<name>`, and with `_threshold`, `_low`, `_high`, of every head; nothing where attention was not summed.

    `prefix` only where there are prefix tokens, `contour` and `texture` only where the contents of patches are known.
    """
    if not sums.examples:
        return {}
    grid, examples = sums.grid, sums.examples
    patches = grid.num_patches
    lengths = torch.as_tensor(grid.offset_distances)
    distance = (examples["patch_attn"] * lengths).sum((2, 3)) / patches
    attn = examples["patch_attn"]
    squares = residual_squares(examples["squares"], attn, grid)
    scores = offset_roles(attn, grid)
    scores["global"] = global_role(distance, examples["attention_entropy"] / patches, grid)
    scores["direction"] = direction_role(attn, examples["all_squares"], grid)
    positions = received_by_offsets(attn, grid)
    scores["place"] = place_role(examples["patches_received"], examples["all_squares"], positions, grid)
    scores["sink"] = sink_role(examples["received"], examples["token_squares"], positions, grid)
    cosines = examples["similar"], examples["similar_offsets"], examples["similar_squares"]
    scores["similar"] = similar_role(*cosines, (attn, squares), grid)
    if grid.num_prefix_tokens:
        scores["prefix"] = prefix_role(examples["prefix_mass"] / patches, grid)
    if sums.contents is not None:
        scores |= content_roles(examples["content"], squares, sums.contents.squares)
    return {f"role_{role}{part}": value for role, score in scores.items() for part, value in score.parts().items()}


def offset_roles(sums: Float[Tensor, "image head dy dx"], grid: PatchGrid) -> dict[str, RoleScore]:
    """`local`, `near`, `self`, `horizontal`, `vertical`, `offset`.

    Args:
        sums: Σ of P over the pairs of each offset, of each image.
        grid: places of the patches.
    """
    mass = sums.double().cpu().flatten(2) / grid.num_patches
    counts = torch.as_tensor(grid.offset_counts, dtype=torch.float64).flatten()
    others = torch.as_tensor(grid.offset_distances > 0).flatten()
    even = 1 / grid.num_patches
    weights = {"self": (((~others).double() - even) / (1 - even)).expand_as(mass[0])}
    allowed = {"self": torch.ones_like(others)}
    if min(grid.height, grid.width) >= NARROW:
        weights |= _looking_away(mass.mean(0), counts, grid)
    else:
        weights |= {role: torch.full_like(mass[0], torch.nan) for role in LOOKING_AWAY}
    null = {"offset": without_favourite(mass.mean(0), weights["offset"], counts)}
    return {
        role: _linear(mass, null.get(role, mass.mean(0)), w, counts, allowed.get(role, others))
        for role, w in weights.items()
    }


def _looking_away(
    mass: Float[Tensor, "head offset"], counts: Float[Tensor, " offset"], grid: PatchGrid
) -> dict[str, Float[Tensor, "head offset"]]:
    """w(o) of the roles that look at other patches; which is the less of two is read from the mean over images."""
    dy, dx = (d.flatten() for d in _offsets(grid))
    row, column = dy == 0, dx == 0
    steps, radius = torch.maximum(dy.abs(), dx.abs()), near_radius(grid)
    ahead = row.double() - column.double()
    return {
        "local": excess_weights(steps <= 1, counts).expand_as(mass),
        "near": excess_weights(steps <= radius, counts).expand_as(mass),
        "horizontal": _lesser(mass, excess_weights(row, counts), ahead),
        "vertical": _lesser(mass, excess_weights(column, counts), -ahead),
        "offset": favourite_weights(mass, counts),
    }


def near_radius(grid: PatchGrid) -> int:
    """max(1, round(min(height, width) / 8)), patches: at twice the resolution twice as many, so `near` stays itself."""
    return max(1, round(min(grid.height, grid.width) / NEAR_SHARE))


def direction_role(
    sums: Float[Tensor, "image head dy dx"], squares: Float[Tensor, "image head"], grid: PatchGrid
) -> RoleScore:
    """`direction`: mean displacement up, down, left or right, whichever is the largest over images, / mean distance.

    Displacements are in shares of the sides, so that on a long grid, too, a head may look along the short side. The
    threshold is 4 standard deviations of the score where each query's attention is put on the patches in random order,
    the same in all images: Σ_j P_ij d_ij then has the variance Σ_j (P_ij − 1/N)² · Σ_j (d_ij − d̄_i)² / (N − 1) in row
    i, and the mean distance is that of uniform attention. (Permuted offsets would not do: a head that looks exactly one
    patch up would look somewhere in every permutation.)

    Args:
        sums: Σ of P over the pairs of each offset, of each image.
        squares: Σ P² over all pairs of patches.
        grid: positions of the patches.

    References:
        Hoeffding 1951, A combinatorial central limit theorem.
    """
    patches, sides = grid.num_patches, torch.tensor([grid.height, grid.width]).double()
    axes = torch.stack([d.flatten() for d in _offsets(grid)]).double() / sides[:, None]
    mass = sums.double().cpu().flatten(2) / patches
    moved = mass.mean(0) @ axes.T
    best = (moved[:, 1].abs() > moved[:, 0].abs() + TIED).long()  # a tie is a tie, whichever way it was rounded
    weights = moved.gather(1, best[:, None]).sign() * axes[best]
    distance = torch.hypot(*axes)
    scores = (mass * weights).sum(-1) / (mass.mean(0) @ distance)
    if min(grid.height, grid.width) < NARROW:
        scores = torch.full_like(scores, torch.nan)
    uniform = torch.as_tensor(grid.offset_counts).double().flatten() / patches**2
    spread = (sides.square() - 1) / (12 * sides.square())  # mean over patches of (d_ij − d̄_i)², the same in all rows
    rows = (squares.mean(0) - 1).clamp(min=0) / patches / max(1, patches - 1)
    deviation = (spread[best] * rows).sqrt() / (uniform @ distance)
    return RoleScore(*over_images(scores), threshold=NULL_DEVIATIONS * deviation)


def _offsets(grid: PatchGrid) -> tuple[Tensor, Tensor]:
    """dy and dx, `dy dx`."""
    dy, dx = np.mgrid[1 - grid.height : grid.height, 1 - grid.width : grid.width]
    return torch.as_tensor(dy), torch.as_tensor(dx)


def _lesser(mass: Float[Tensor, "head offset"], one: Tensor, other: Tensor) -> Float[Tensor, "head offset"]:
    """For each head the weights of the two under which its mass is less; if they are tied, those of the other."""
    ahead = ((mass * other).sum(-1) - (mass * one).sum(-1)) > ties.TOLERANCE[torch.float32]  # of all attention
    return torch.where(ahead[:, None], one, other)


def excess_weights(chosen: Tensor, counts: Float[Tensor, " offset"]) -> Float[Tensor, " offset"]:
    """w of E_S: (1[o in S] − U_S · 1[o ≠ 0]) / (1 − U_S), the patch itself never in S."""
    others = torch.ones_like(chosen)
    others[len(others) // 2] = False
    chosen = chosen & others
    even = counts[chosen].sum() / counts[others].sum()
    return (chosen.double() - even * others.double()) / (1 - even)


def favourite_weights(
    mass: Float[Tensor, "head offset"], counts: Float[Tensor, " offset"]
) -> Float[Tensor, "head offset"]:
    """w of R(first) − R(second): N/n(o) at the first, −N/n(o) at the second of the common offsets o ≠ 0.

    Offsets that are tied (`measures.ties`) for the second place share its weight; where several are tied for the first,
    none is ahead, and all weights are 0.
    """
    patches = counts[len(counts) // 2]  # pairs of a patch and itself
    means = mass * patches / counts
    means[:, counts < COMMON * patches] = -torch.inf
    means[:, len(counts) // 2] = -torch.inf
    first = ties.largest(means, torch.float32)  # in which attention was had
    second = ties.largest(means.masked_fill(first, -torch.inf), torch.float32)
    second = torch.where(first.sum(-1, keepdim=True) > 1, first, second)
    one, other = (chosen / chosen.sum(-1, keepdim=True) for chosen in (first, second))
    return (one - other) * patches / counts


def without_favourite(
    mass: Float[Tensor, "head offset"], weights: Float[Tensor, "head offset"], counts: Float[Tensor, " offset"]
) -> Float[Tensor, "head offset"]:
    """The map with its favourite place as even as the others: is it ahead as none of the others would be by chance?"""
    rest = torch.where((weights > 0) | (counts == counts.max()), 0.0, counts)
    even = (mass * (rest > 0)).sum(-1, keepdim=True) / rest.sum(-1, keepdim=True)
    return torch.where(weights > 0, even * counts, mass)


def _linear(
    mass: Float[Tensor, "image head offset"],
    null: Float[Tensor, "head offset"],
    weights: Float[Tensor, "head offset"],
    counts: Float[Tensor, " offset"],
    allowed: Tensor,
) -> RoleScore:
    """Σ_o w(o) μ(o) of each image and over images, against the same head with its offsets permuted."""
    mean, deviation = permuted_offsets(null[:, allowed], weights[:, allowed], counts[allowed])
    return RoleScore(*over_images((mass * weights).sum(-1)), threshold=mean + NULL_DEVIATIONS * deviation)


def permuted_offsets(
    mass: Float[Tensor, "head offset"], weights: Float[Tensor, "head offset"], counts: Float[Tensor, " offset"]
) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:
    """Mean and standard deviation of Σ_o w(o) μ_π(o) over all permutations π of the offsets, in closed form.

    What is permuted is z(o) = (μ(o)/n(o) − μ̄) √n(o), with n the pairs of an offset and μ̄ = Σ μ / Σ n: a mean over few
    pairs is noisier, and z is as noisy everywhere. Σ w μ = μ̄ Σ w n + Σ c(o) z(π(o)) with c = w √n, and such a sum has
    mean M·c̄·z̄ and variance Σ (c − c̄)² Σ (z − z̄)² / (M − 1) over the M! permutations.

    References:
        Hoeffding 1951, A combinatorial central limit theorem.
    """
    overall = mass.sum(-1, keepdim=True) / counts.sum()
    z, c = (mass / counts - overall) * counts.sqrt(), weights * counts.sqrt()
    size = counts.numel()
    constant = overall[:, 0] * (weights * counts).sum(-1)
    spread = [(x - x.mean(-1, keepdim=True)).square().sum(-1) for x in (z, c)]
    return constant + size * z.mean(-1) * c.mean(-1), (spread[0] * spread[1] / max(1, size - 1)).sqrt()


def global_role(
    distance: Float[Tensor, "image head"], entropy: Float[Tensor, "image head"], grid: PatchGrid
) -> RoleScore:
    """min(exp(entropy) / tokens, 1 − 5 |distance / distance of even attention − 1|).

    The first is the share of tokens that attention is spread over as if evenly; the second falls to a half where the
    distance is a tenth off. Ends of the interval are the smaller of both parts' ends.

    Args:
        distance: attention distance of each image, patches.
        entropy: attention entropy over all keys, nats.
        grid: places of the patches.
    """
    share = [x.exp() / grid.num_tokens for x in over_images(entropy)]
    mean, low, high = (x / grid.mean_distance if grid.mean_distance else x / 0 for x in over_images(distance))
    nearest = torch.minimum(torch.maximum(torch.ones_like(mean), low), high)
    off = [5 * (x - 1).abs() for x in (mean, low, high, nearest)]
    closeness = [1 - off[0], 1 - torch.maximum(off[1], off[2]), 1 - off[3]]
    score, low, high = (torch.minimum(a, b) for a, b in zip(share, closeness, strict=True))
    return RoleScore(score, low, high, torch.zeros_like(score))


def prefix_role(mass: Float[Tensor, "image head"], grid: PatchGrid) -> RoleScore:
    """(mass on prefix tokens − p) / (1 − p), p = prefix tokens / tokens."""
    even = grid.num_prefix_tokens / grid.num_tokens
    score, low, high = over_images((mass - even) / (1 - even))
    return RoleScore(score, low, high, torch.zeros_like(score))
