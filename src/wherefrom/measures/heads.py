"""Do the heads of a layer differ? Maps over relative offsets are compared, two halves of the probe giving the noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Dissimilarity = Callable[[Tensor, Tensor], Tensor]


def offset_sharpness(mass: Float[Tensor, "*lead dy dx"], counts: Float[Tensor, "dy dx"]) -> Float[Tensor, "*lead"]:
    """KL(m ‖ u) = Σ_o m_o ln(m_o / u_o): how far the offsets at which a head looks are from those of even attention.

    m_o is the share of a patch's attention at offset o = (dy, dx), mean over patches and images; u_o is the share of
    all pairs that have this offset, which is m_o of uniform attention. Nats, from 0 to ln(number of patches): that is
    reached where every patch looks at one place, and the offset says which.

    Args:
        mass: m, sums to 1; rows of attention renormalised over patch keys.
        counts: number of pairs with each offset.
    """
    uniform = counts / counts.sum()
    return torch.special.xlogy(mass, mass / uniform).sum((-2, -1))


def jensen_shannon(p: Float[Tensor, "*#lead n"], r: Float[Tensor, "*#lead n"]) -> Float[Tensor, ...]:
    """H((p + r)/2) − (H(p) + H(r))/2 with H the entropy; nats, in [0, ln 2]."""
    entropy = [torch.special.entr(x).sum(-1) for x in ((p + r) / 2, p, r)]
    return entropy[0] - (entropy[1] + entropy[2]) / 2


def one_minus_correlation(x: Float[Tensor, "*#lead n"], y: Float[Tensor, "*#lead n"]) -> Float[Tensor, ...]:
    """1 − Pearson correlation, in [0, 2]."""
    x, y = (m - m.mean(-1, keepdim=True) for m in (x, y))
    return 1 - (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def head_divergence(
    halves: Float[Tensor, "2 head dy dx"], dissimilarity: Dissimilarity = jensen_shannon
) -> Float[Tensor, ""]:
    """mean_{g≠h} δ(map_g in one half, map_h in the other) − mean_h δ(map_h in one half, map_h in the other).

    The second term is what noise alone makes of δ, so heads that do the same give 0. NaN for one head.

    Args:
        halves: offset maps of the heads on two disjoint halves of the images.
        dissimilarity: `jensen_shannon` (maps are normalised to sum 1) or `one_minus_correlation` (signed maps).
    """
    num_heads = halves.shape[1]
    first, second = halves.flatten(2)
    if dissimilarity is jensen_shannon:
        first, second = first / first.sum(-1, keepdim=True), second / second.sum(-1, keepdim=True)
    between = dissimilarity(first[:, None], second[None, :])
    same = torch.eye(num_heads, dtype=torch.bool, device=halves.device)
    return between[~same].mean() - between[same].mean()
