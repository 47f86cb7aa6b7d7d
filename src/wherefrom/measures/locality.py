"""Where attention looks. All take attention of one layer with prefix tokens first, rows summing to 1."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wherefrom.geometry import PatchGrid


def patch_attention(attn: Float[Tensor, "*lead query key"], grid: PatchGrid) -> Float[Tensor, "*lead patch patch"]:
    """A_ij / Σ_j A_ij over patch queries and patch keys: prefix tokens left out, rows renormalised."""
    prefix = grid.num_prefix_tokens
    patches = attn[..., prefix:, prefix:]
    return patches / patches.sum(-1, keepdim=True)


def attention_distance(attn: Float[Tensor, "*lead query key"], grid: PatchGrid) -> Float[Tensor, "*lead"]:
    """mean_i Σ_j A_ij D_ij over patches, self included, rows renormalised over patch keys; unit patches.

    Uniform attention gives 2.0080 on 4×4, 4.1365 on 8×8, 7.2808 on 14×14.

    References:
        Raghu et al. 2021, Do ViTs See Like CNNs? (there in pixels).
    """
    distance = torch.as_tensor(grid.distances).to(attn)
    return (patch_attention(attn, grid) * distance).sum(-1).mean(-1)


def attention_entropy(attn: Float[Tensor, "*lead query key"], grid: PatchGrid) -> Float[Tensor, "*lead"]:
    """mean_i −Σ_j A_ij ln A_ij over patch queries i and all keys j; nats, from 0 to ln(number of tokens)."""
    return torch.special.entr(attn[..., grid.num_prefix_tokens :, :]).sum(-1).mean(-1)


def prefix_mass(attn: Float[Tensor, "*lead query key"], grid: PatchGrid) -> Float[Tensor, "*lead"]:
    """mean_i Σ_{j prefix} A_ij over patch queries i: attention on class and register tokens; in [0, 1]."""
    prefix = grid.num_prefix_tokens
    return attn[..., prefix:, :prefix].sum(-1).mean(-1)
