"""Is the position embedding a map of the image? Everything from pos_embed alone, centred over patches first.

C_ij is the cosine of centred pos_i and pos_j, D_ij their Euclidean distance on the grid in patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures import ties
from wherefrom.measures.ridge import ridge_r2


def pos_similarity(pos_embed: Float[Tensor, "patch width"]) -> Float[Tensor, "patch patch"]:
    """C_ij = cos(pos_i − mean, pos_j − mean), in [−1, 1]; 0 for a patch that is the mean but for rounding.

    Args:
        pos_embed: position embedding of the patches (prefix tokens left out), `patch width`.
    """
    centred = pos_embed - pos_embed.mean(0)
    lengths, largest = centred.detach().norm(dim=1, keepdim=True), pos_embed.detach().norm(dim=1).amax()
    centred = centred.masked_fill(lengths <= ties.TOLERANCE[pos_embed.dtype] * largest, 0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    return unit @ unit.T


def similarity_falloff(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, ""]:
    """Pearson correlation of C_ij and −D_ij over i < j: 0 without structure, towards 1 for a map. Differentiable."""
    similarity, distance = _pairs(pos_similarity(pos_embed), grid)
    return _correlation(similarity, -distance)


def similarity_falloff_spearman(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, ""]:
    """Spearman (rank) correlation of C_ij and −D_ij over i < j, in [−1, 1].

    Values that are equal but for rounding (`measures.ties`) share the mean of their ranks: in a map, the cosines of
    pairs that a symmetry of the grid takes to each other.
    """
    similarity, distance = _pairs(pos_similarity(pos_embed), grid)
    if not len(similarity):
        return pos_embed.new_tensor(torch.nan)
    return _correlation(ties.ranks(similarity.detach()), -ties.ranks(distance.double())).to(similarity)


def near_minus_far(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, ""]:
    """mean C over edge neighbours − mean C over far pairs, in [−2, 2]; 0 without structure. NaN without far pairs."""
    similarity = pos_similarity(pos_embed)
    near, far = (torch.as_tensor(grid.relation_pairs(name)) for name in ("edge", "far"))
    return similarity[near].mean() - similarity[far].mean()


def coordinate_r2(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, 3]:
    """1 − Σ (y_i − ŷ_i)² / Σ (y_i − ȳ)², ŷ_i by ridge regression of the place y on pos without patch i.

    The ridge constant is λ = mean feature variance × number of patches, the intercept is free (`ridge_loo`).

    Returns:
        R² of (row and column together, row, column); 1 for a map, about −0.2 for noise, NaN along an axis of length 1.
    """
    return ridge_r2(pos_embed, torch.as_tensor(grid.coordinates).to(pos_embed))


def neighbour_recovery(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, ""]:
    """Share of patches whose most similar other patch is one of its 8 neighbours, in [0, 1].

    mean_i |B_i ∩ N_i| / |B_i|, B_i the other patches tied for the largest C_ij (`measures.ties`), N_i the neighbours:
    of tied patches each has an equal share. A table whose rows are all the same gives chance. NaN for one patch.
    """
    if grid.num_patches == 1:
        return pos_embed.new_tensor(torch.nan)
    best = ties.largest(pos_similarity(pos_embed).fill_diagonal_(-torch.inf))
    neighbours = torch.as_tensor(grid.relation_pairs("edge") | grid.relation_pairs("corner"))
    return ((best & neighbours).sum(1).to(pos_embed) / best.sum(1)).mean()


def neighbour_recovery_chance(grid: PatchGrid) -> float:
    """Mean over patches of (number of its 8 neighbours) / (number of other patches): recovery of a random guess.

    NaN for one patch.
    """
    if grid.num_patches == 1:
        return float("nan")
    neighbours = grid.relation_pairs("edge") | grid.relation_pairs("corner")
    return float(neighbours.sum() / (grid.num_patches * (grid.num_patches - 1)))


def effective_rank(pos_embed: Float[Tensor, "patch width"]) -> Float[Tensor, ""]:
    """exp(−Σ p_i ln p_i), p = squared singular values of centred pos_embed over their sum; in dimensions, ≥ 1.

    References:
        Roy & Vetterli 2007, The effective rank (there with singular values, here with their squares).
    """
    energy = torch.linalg.svdvals(pos_embed - pos_embed.mean(0)).square()
    return torch.special.entr(energy / energy.sum()).sum().exp()


def mirror_similarity(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid) -> Float[Tensor, ""]:
    """mean over mirrored pairs (left–right, up–down) of C − mean C of all pairs at the same distance, in [−2, 2].

    A patch on the axis is its own mirror image and is left out. NaN where there is no other pair to compare with.
    """
    similarity = pos_similarity(pos_embed)
    distance = torch.as_tensor(grid.distances)
    row, column = torch.as_tensor(grid.coordinates).T
    flipped = [(row, grid.width - 1 - column), (grid.height - 1 - row, column)]
    same = [(r[:, None] == row) & (c[:, None] == column) for r, c in flipped]
    mirrored = (same[0] | same[1]) & (distance > 0)
    return _excess_at_equal_distance(similarity, mirrored, distance)


def patch_association(pos_embed: Float[Tensor, "patch width"], sets: Sequence[Sequence[int]]) -> Float[Tensor, ""]:
    """Share of patches i for which the C patches with the largest ⟨pos_i, pos_j⟩ are i's own set of C patches.

    Where patches are tied for the last of these C (`measures.ties`), a patch counts by the share of the choices among
    them that give its set: 1 / binomial(tied, still to be chosen).

    References:
        Jelassi, Sander & Li 2022, Vision Transformers provably learn spatial structure, Definition 2.2.
    """
    product = pos_embed @ pos_embed.T
    return torch.tensor([_chosen_share(product[i], group) for group in sets for i in group]).to(pos_embed).mean()


def _chosen_share(product: Float[Tensor, " patch"], group: Sequence[int]) -> float:
    own = torch.zeros_like(product, dtype=torch.bool)
    own[list(group)] = True
    beyond_last, slack = product - product[own].min(), ties.slack(product)
    if (beyond_last[~own] > slack).any():
        return 0.0
    tied = beyond_last.abs() <= slack
    return 1 / comb(int(tied.sum()), int((tied & own).sum()))


def layout(pos_embed: Float[Tensor, "patch width"], grid: PatchGrid | None = None) -> Float[Tensor, "patch 2"]:
    """Places in the plane from pos_embed alone: classical scaling of the squared distances 2 − 2 C_ij.

    Args:
        pos_embed: `patch width`.
        grid: turn, mirror and scale the result onto these places (nothing else is changed), to be looked at.

    References:
        Torgerson 1952, Multidimensional scaling. Schönemann 1966 (the alignment).
    """
    centred = pos_similarity(pos_embed)
    centred = centred - centred.mean(0) - centred.mean(1, keepdim=True) + centred.mean()
    values, vectors = torch.linalg.eigh(centred)
    places = vectors[:, -2:].flip(1) * values[-2:].flip(0).clamp(min=0).sqrt()
    places = torch.nn.functional.pad(places, (0, 2 - places.shape[1]))  # one patch has one dimension
    return places if grid is None else _aligned(places, torch.as_tensor(grid.coordinates).to(places))


def _aligned(places: Tensor, target: Tensor) -> Tensor:
    middle = target.mean(0)
    u, s, vh = torch.linalg.svd(places.T @ (target - middle))
    return places @ (u @ vh) * (s.sum() / places.square().sum().clamp(min=1e-30)) + middle


def _excess_at_equal_distance(similarity: Tensor, chosen: Tensor, distance: Tensor) -> Tensor:
    excesses = []
    for length in distance[chosen].unique():
        others = similarity[(distance == length) & ~chosen]
        if len(others):
            excesses.append(similarity[chosen & (distance == length)] - others.mean())
    return torch.cat(excesses).mean() if excesses else similarity.new_tensor(torch.nan)


def _pairs(similarity: Tensor, grid: PatchGrid) -> tuple[Tensor, Tensor]:
    if len(similarity) != grid.num_patches:
        raise ValueError(
            f"pos_embed has {len(similarity)} rows, but a grid of {grid.height} × {grid.width} has {grid.num_patches} "
            f"patches; give one row for each patch, without prefix tokens"
        )
    rows, columns = torch.triu_indices(grid.num_patches, grid.num_patches, offset=1)
    return similarity[rows, columns], torch.as_tensor(grid.distances).to(similarity)[rows, columns]


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(), y - y.mean()
    return (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()
