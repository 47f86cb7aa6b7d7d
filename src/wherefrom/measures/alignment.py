"""What makes a score: the angle of query and key, their lengths; the place, the content."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.measures import ties


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
    return centred_r2(*ties.centred(scores), cosine)


def centred_r2(
    s: Float[Tensor, "*lead query key"], squares: Float[Tensor, "*lead query"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead query"]:
    """`angle_r2` of scores less their mean, with their squares."""
    c, cosine_squares = ties.centred(cosine)
    return c.mul_(s).sum(-1).square() / (squares * cosine_squares)  # new memory would cost as much as the product


def argmax_agreement(
    scores: Float[Tensor, "*lead query key"], cosine: Float[Tensor, "*lead query key"]
) -> Float[Tensor, "*lead"]:
    """mean_i |B_i ∩ C_i| / |B_i ∪ C_i|: share of rows whose highest score is also the highest cosine, in [0, 1].

    B_i and C_i are the keys tied for the highest score and for the highest cosine (`measures.ties`), one each where
    there are no ties: a row with ties counts by the share that is the same. Keys that are equal, such as those of two
    blank patches, are tied in both and count 1.
    """
    return ties.largest_agreement(scores, cosine).mean(-1)


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
