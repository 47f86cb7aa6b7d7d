"""What makes a score: the angle of query and key, their lengths; the place, the content."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vecdot

TIE = 32
"""Numbers of a size of about 1 are equal if they differ by no more than this many units of rounding."""


def qk_cosine(
    q: Float[Tensor, "*lead query head_dim"], k: Float[Tensor, "*lead key head_dim"]
) -> Float[Tensor, "*lead query key"]:
    """cos(q_i, k_j), in [−1, 1]."""
    return torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).mT


def angle_share(
    scores: Float[Tensor, "*lead query key"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead"]:
    """mean_i corr_j(S_ij, cos(q_i, k_j))²: within-row R² of scores on the cosine, in [0, 1].

    Rows in which either does not vary are left out; NaN if there is no other.
    """
    return angle_r2(scores, cosine).nanmean(-1)


def angle_r2(
    scores: Float[Tensor, "*lead query key"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead query"]:
    """corr_j(S_ij, cos(q_i, k_j))² of each row, in [0, 1]; NaN where either does not vary."""
    s, c = (x - x.mean(-1, keepdim=True) for x in (scores, cosine))
    return centred_r2(s, c, vecdot(s, s))


def centred_r2(
    s: Float[Tensor, "*lead query key"], c: Float[Tensor, "*lead query key"], squares: Float[Tensor, "*lead query"]
) -> Float[Tensor, "*lead query"]:
    """(Σ_j s_ij c_ij)² / (Σ_j s_ij² Σ_j c_ij²), with `squares` Σ_j s_ij²."""
    return vecdot(s, c).square() / (squares * vecdot(c, c))


def argmax_agreement(
    scores: Float[Tensor, "*lead query key"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead"]:
    """Share of rows in which some key has both the highest score and the highest cosine, in [0, 1]; see `same_key`."""
    return same_key(scores, cosine).to(scores).mean(-1)


def same_key(
    scores: Float[Tensor, "*lead query key"], cosine: Float[Tensor, "*lead query key"]
) -> Bool[Tensor, "*lead query"]:
    """Whether max_j (s_ij + cos_ij) = max_j s_ij + max_j cos_ij, with s = S / max_j |S|.

    That is so if and only if one key is the highest of both. What is nearer than rounding counts as equal, so keys that
    tie do not depend on the processor.
    """
    highest, lowest = scores.amax(-1, keepdim=True), scores.amin(-1, keepdim=True)
    size = torch.maximum(highest.abs(), torch.nan_to_num(lowest, neginf=0.0).abs())  # a masked key has −∞
    size = 1 / size.clamp(min=torch.finfo(scores.dtype).tiny)
    both = torch.addcmul(cosine, scores, size).amax(-1, keepdim=True)
    apart = highest * size + cosine.amax(-1, keepdim=True) - both
    return (apart <= TIE * torch.finfo(scores.dtype).eps)[..., 0]


def positional_share(scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, " head"]:
    """Var_ij(mean_b S_ijb) / Var_ijb(S_ijb), S centred within each row; in (−∞, 1], 0: contents only, 1: places only.

    The variance of the means is corrected by (variance within pairs) / images, so that contents alone give 0. NaN for
    fewer than two images.
    """
    images, _, queries, keys = scores.shape
    centred = scores - scores.mean(-1, keepdim=True)
    pairs = queries * keys
    total = centred.square().sum((0, 2, 3)) / (images * pairs)
    return share_of_means(centred.mean(0).square().sum((1, 2)) / pairs, total, images)


def share_of_means(
    of_means: Float[Tensor, "*lead"], total: Float[Tensor, "*lead"], images: int
) -> Float[Tensor, "*lead"]:
    """(V_means − V_within / images) / total, with V_within = (total − V_means) · images / (images − 1)."""
    if images < 2:
        return torch.full_like(total, torch.nan)
    return (of_means - (total - of_means) / (images - 1)) / total
