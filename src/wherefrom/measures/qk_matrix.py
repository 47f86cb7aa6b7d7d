"""What queries and keys are made to match, from the weights alone: M = w_qᵀ w_k of each head, `width width`.

With y the normalised tokens before the gain, S_ij = scale · y_iᵀ M y_j (biases left out), where w_q and w_k have
LayerNorm's gain folded in (`fold_gain`). M has rank head_dim at most, so head_dim × head_dim matrices are enough.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fold_gain(w: Float[Tensor, "head head_dim width"], gain: Float[Tensor, " width"]) -> Tensor:
    """w · diag(γ): the map from normalised tokens before the gain γ; `head head_dim width`.

    That LayerNorm also takes out the mean over the width is not folded in.
    """
    return w * gain


def qk_symmetric_share(
    w_q: Float[Tensor, "head head_dim width"], w_k: Float[Tensor, "head head_dim width"]
) -> Float[Tensor, " head"]:
    """‖(M + Mᵀ)/2‖² / ‖M‖² = (1 + tr(M M) / tr(Mᵀ M)) / 2.

    tr(M M) = tr(N N) with N = w_k w_qᵀ, and tr(Mᵀ M) = tr(w_q w_qᵀ w_k w_kᵀ).

    Args:
        w_q: projection to queries, gain folded in, `head head_dim width`.
        w_k: projection to keys, gain folded in, `head head_dim width`.

    Returns:
        A share in [0, 1] for each head: 1 where i scores j as j scores i, 0 where the signs are opposite, about 0.5
        (½ + 1 / (2 width)) for matrices drawn independently; NaN for a matrix of zeros.

    References:
        Trockman & Kolter 2023, Mimetic Initialization of Self-Attention Layers (https://arxiv.org/abs/2305.09828).
    """
    mixed = w_k @ w_q.mT
    squared = (mixed * mixed.mT).sum((1, 2))
    norm = ((w_q @ w_q.mT) * (w_k @ w_k.mT)).sum((1, 2))
    return (1 + squared / norm) / 2


def qk_effective_rank(
    w_q: Float[Tensor, "head head_dim width"], w_k: Float[Tensor, "head head_dim width"]
) -> Float[Tensor, " head"]:
    """exp(−Σ_n p_n ln p_n), p = squared singular values of M over their sum.

    With w_qᵀ = Q_q R_q and w_kᵀ = Q_k R_k (Q orthonormal) they are those of R_q R_kᵀ, `head_dim head_dim`.

    Args:
        w_q: projection to queries, gain folded in, `head head_dim width`.
        w_k: projection to keys, gain folded in, `head head_dim width`.

    Returns:
        Dimensions, from 1 to min(head_dim, width), for each head; NaN for a matrix of zeros.

    References:
        Roy & Vetterli 2007, The effective rank (there with singular values, here with their squares).
        Pan, Philip & Schwartz 2024 (https://arxiv.org/abs/2405.14880), for singular vectors of M.
    """
    r_q, r_k = (torch.linalg.qr(w.mT).R for w in (w_q, w_k))
    energy = torch.linalg.svdvals(r_q @ r_k.mT).square()
    return torch.special.entr(energy / energy.sum(1, keepdim=True)).sum(1).exp()


def qk_position_trace(
    w_q: Float[Tensor, "head head_dim width"],
    w_k: Float[Tensor, "head head_dim width"],
    pos_embed: Float[Tensor, "patch width"],
    scale: float | None = None,
) -> Float[Tensor, " head"]:
    """scale · tr(M Cov(pos)) = scale · mean_i (w_q p_i)·(w_k p_i), p = pos_embed − its mean over patches.

    It is the mean score of a position with itself minus the mean over all pairs, as far as pos_embed alone makes it and
    the tokens' deviation is 1. Sign: > 0 where positions with similar embeddings attend to each other, < 0 where they
    avoid each other.

    Args:
        w_q: projection to queries, gain folded in, `head head_dim width`.
        w_k: projection to keys, gain folded in, `head head_dim width`.
        pos_embed: position embedding of the patches, `patch width`.
        scale: factor on q·k; 1/√head_dim if left out.

    Returns:
        Nats (units of a score) for each head; 0 where position embeddings do not differ.
    """
    p = pos_embed - pos_embed.mean(0)
    scale = w_q.shape[1] ** -0.5 if scale is None else scale
    return scale * ((p @ w_q.mT) * (p @ w_k.mT)).sum((1, 2)) / len(p)
