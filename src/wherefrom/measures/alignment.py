"""What makes a score: the angle of query and key, their lengths; the place, the content."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Numbers that differ by no more than this share of the largest they are compared among are equal but for rounding."""


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
    """corr_j(S_ij, cos(q_i, k_j))² of each row, in [0, 1]; NaN where either does not vary but for rounding."""
    mean = scores.mean(-1, keepdim=True)
    return centred_r2(scores - mean, squares_of(scores - mean, mean), cosine)


def centred_r2(
    s: Float[Tensor, "*lead query key"], squares: Float[Tensor, "*lead query"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead query"]:
    """`angle_r2` of scores less their mean, with their squares."""
    mean = cosine.mean(-1, keepdim=True)
    c = cosine - mean
    below = squares * squares_of(c, mean)
    return c.mul_(s).sum(-1).square() / below  # new memory would cost as much as the product


def squares_of(
    centred: Float[Tensor, "*lead query key"], mean: Float[Tensor, "*lead query 1"]
) -> Float[Tensor, "*lead query"]:
    """Σ_j x_ij² of rows less their mean; NaN where what is left of a row beside its mean is rounding."""
    squares = centred.norm(dim=-1).square()
    rounding = TOLERANCE[centred.dtype] ** 2 * centred.shape[-1] * mean[..., 0].square()
    return torch.where(squares <= rounding, torch.nan, squares)


def argmax_agreement(
    scores: Float[Tensor, "*lead query key"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead"]:
    """mean_i |B_i ∩ C_i| / |B_i ∪ C_i|: share of rows whose highest score is also the highest cosine, in [0, 1].

    B_i and C_i are the keys tied for the highest score and for the highest cosine, one each where there are no ties.
    """
    return largest_agreement(scores, cosine).mean(-1)


def largest_agreement(x: Float[Tensor, "*lead n"], y: Float[Tensor, "*lead n"]) -> Float[Tensor, "*lead"]:
    """|X ∩ Y| / |X ∪ Y|, X and Y the entries tied for the largest of x and of y; in [0, 1]."""
    (first, one), (second, other) = _lead(x), _lead(y)
    tied = ~(one & other)
    some, others = first[tied] > 0, second[tied] > 0
    agreement = (first.mul_(second).sum(-1) > 0).to(x)  # several times faster than sets, and the same without ties
    agreement[tied] = (some & others).sum(-1).to(x) / (some | others).sum(-1)
    return agreement


def _lead(x: Float[Tensor, "*lead n"]) -> tuple[Float[Tensor, "*lead n"], Bool[Tensor, "*lead"]]:
    """max(x − (largest − slack), 0), above 0 for entries tied with the largest; and whether there is but one."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)  # aminmax takes six times as long
    size = torch.maximum(-low.nan_to_num(neginf=0.0), high)  # the score of a masked pair is −∞
    slack = TOLERANCE[x.dtype] * size.clamp(min=torch.finfo(x.dtype).tiny / TOLERANCE[x.dtype])
    lead = (x - (high - slack)).clamp_(min=0)
    return lead, lead.sum(-1) <= 1.5 * slack[..., 0]


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
