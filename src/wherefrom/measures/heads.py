"""Do the heads of a layer differ? Their maps over offsets, or their rows, are compared; two halves give the noise."""

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
    return entropy((p + r) / 2) - (entropy(p) + entropy(r)) / 2


def entropy(p: Float[Tensor, "*lead n"]) -> Float[Tensor, "*lead"]:
    """−Σ p ln p, nats; 0 ln 0 = 0."""
    return -torch.linalg.vecdot(p, p.clamp(min=torch.finfo(p.dtype).tiny).log())  # a fifth of the time of special.entr


def one_minus_correlation(
    x: Float[Tensor, "*#lead n"], y: Float[Tensor, "*#lead n"], weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ...]:
    """1 − Pearson correlation, in [0, 2]; each entry counts by its weight, all alike without weights."""
    share = torch.ones_like(x[..., :1]) / x.shape[-1] if weights is None else weights / weights.sum()
    x, y = (m - (m * share).sum(-1, keepdim=True) for m in (x, y))
    return 1 - (share * x * y).sum(-1) / ((share * x.square()).sum(-1) * (share * y.square()).sum(-1)).sqrt()


def head_divergence(
    halves: Float[Tensor, "2 head dy dx"], dissimilarity: Dissimilarity = jensen_shannon
) -> Float[Tensor, ""]:
    """mean_{g≠h} δ(map_g in one half, map_h in the other) − mean_h δ(map_h in one half, map_h in the other).

    The second term is what noise alone makes of δ, so heads that do the same give 0. NaN for one head.

    Args:
        halves: maps of the heads over offsets on two disjoint halves of the images. For `jensen_shannon` sums of
            attention over the pairs with each offset, so that an offset counts by its pairs; each map is then divided
            by its sum. For signed maps means over pairs.
        dissimilarity: `jensen_shannon`, or for signed maps `one_minus_correlation` weighted by pairs.
    """
    first, second = halves.flatten(2)
    if dissimilarity is jensen_shannon:
        first, second = first / first.sum(-1, keepdim=True), second / second.sum(-1, keepdim=True)
    return between_minus_same(dissimilarity(first[:, None], second[None, :]))


def row_divergence(halves: Float[Tensor, "2 head query key"]) -> Float[Tensor, ""]:
    """mean_{g≠h} mean_i JS(Ā_g[i, :], Ā′_h[i, :]) − mean_h mean_i JS(Ā_h[i, :], Ā′_h[i, :]), nats, at most ln 2.

    Ā and Ā′ are the mean attention over the images of one half and of the other. Unlike `head_divergence`, which
    compares maps over offsets, it tells apart heads that look at different positions whatever the query. The second
    term is what noise alone makes of the first, so heads that do the same give 0. NaN for one head, and where a half
    holds no images.

    Args:
        halves: mean attention of patch queries to patch keys, rows renormalised over patch keys, on two disjoint halves
            of the images.

    References:
        Lin 1991, Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37
        (Jensen–Shannon divergence).
    """
    return between_minus_same(row_dissimilarity(*halves) / halves.shape[2])


def row_dissimilarity(
    first: Float[Tensor, "head query key"], second: Float[Tensor, "head query key"]
) -> Float[Tensor, "head head"]:
    """Σ_i JS(first_g[i, :], second_h[i, :]) for all pairs of heads (g, h); sums of ranges of queries add up."""
    mixed = torch.stack([entropy((row + second) / 2) for row in first])  # one g at a time: memory of one tile
    return (mixed - (entropy(first)[:, None] + entropy(second)) / 2).sum(-1)


def between_minus_same(dissimilarity: Float[Tensor, "head head"]) -> Float[Tensor, ""]:
    """mean_{g≠h} δ_gh − mean_h δ_hh; NaN for one head."""
    same = torch.eye(len(dissimilarity), dtype=torch.bool, device=dissimilarity.device)
    return dissimilarity[~same].mean() - dissimilarity[same].mean()
