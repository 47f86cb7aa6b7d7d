"""What is nearly equal is equal: the one home of ties, so that no measure hangs on how a processor rounds.

x and y are tied if |x − y| ≤ τ · size: τ is the `TOLERANCE` of the dtype they were computed in, size the largest |x|
they are compared among. Two sums of the same terms in another order differ by some 1e-16 (float32: 1e-7) of that; τ is
far above it, and far below any difference that means something.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wherefrom.statistics import TIED

TOLERANCE = {torch.float64: TIED, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""τ by dtype."""


def slack(x: Float[Tensor, "*lead n"], dtype: torch.dtype | None = None) -> Float[Tensor, "*lead 1"]:
    """τ · max |x| along the last axis, ±∞ left out: the largest difference that is none. NaN where x holds NaN.

    Args:
        x: what is compared.
        dtype: in which x was computed, if it has since been made a larger one.
    """
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)  # aminmax takes six times as long
    if low.isinf().any() or high.isinf().any():  # the score of a masked pair
        return slack(x.masked_fill(x.isinf(), 0), dtype)
    return TOLERANCE[dtype or x.dtype] * torch.maximum(-low, high)


def largest(x: Float[Tensor, "*lead n"], dtype: torch.dtype | None = None) -> Bool[Tensor, "*lead n"]:
    """Which entries are tied with the largest along the last axis; none where x holds NaN."""
    return x >= x.amax(-1, keepdim=True) - slack(x, dtype)


def largest_agreement(x: Float[Tensor, "*lead n"], y: Float[Tensor, "*lead n"]) -> Float[Tensor, "*lead"]:
    """|X ∩ Y| / |X ∪ Y|, X and Y the entries tied for the largest of x and of y; in [0, 1].

    Without ties 1 where the same entry is largest, else 0. It is 1 where the same entries are tied, and 1/n where one
    entry is largest in x while y, the same everywhere, says nothing. A NaN agrees with nothing: 0, or NaN in both.
    """
    (first, one), (second, other) = _lead(x), _lead(y)
    tied = ~(one & other)
    some, others = first[tied] > 0, second[tied] > 0
    agreement = (first.mul_(second).sum(-1) > 0).to(x)  # several times faster than sets, and the same without ties
    agreement[tied] = (some & others).sum(-1).to(x) / (some | others).sum(-1)
    return agreement


def _lead(x: Float[Tensor, "*lead n"]) -> tuple[Float[Tensor, "*lead n"], Bool[Tensor, "*lead"]]:
    """max(x − (largest − slack), 0), at or above 0 for entries tied with the largest; and whether there is but one."""
    least = slack(x).clamp(min=torch.finfo(x.dtype).tiny)
    lead = (x - (x.amax(-1, keepdim=True) - least)).clamp_(min=0)
    return lead, lead.sum(-1) <= 1.02 * least[..., 0]  # the largest itself leads by the slack, but for rounding


def ranks(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Ranks from 1, tied values sharing the mean of theirs; float64.

    Values in order are one group as long as each is tied with the next. A group wider than τ · size is cut into pieces
    of that width from its smallest value on, so that many values close together are not all one.
    """
    ordered, order = x.sort()
    width = slack(x)
    begins = torch.ones_like(x, dtype=torch.bool)
    begins[1:] = ordered.diff() > width
    smallest = ordered[begins][begins.cumsum(0) - 1]
    piece = ((ordered - smallest) / width.clamp(min=torch.finfo(x.dtype).tiny)).floor()
    begins[1:] |= piece.diff() > 0
    group = begins.cumsum(0) - 1
    count = group.bincount()
    shared = count.cumsum(0) - (count - 1).double() / 2
    return torch.empty_like(x, dtype=torch.float64).scatter_(0, order, shared[group])


def centred(x: Float[Tensor, "*lead n"]) -> tuple[Float[Tensor, "*lead n"], Float[Tensor, "*lead"]]:
    """x − mean along the last axis, and Σ (x − mean)²; that sum is NaN where all of x is one value but for rounding."""
    mean = x.mean(-1, keepdim=True)
    away = x - mean
    return away, beyond_rounding(away.norm(dim=-1).square(), mean.squeeze(-1), x.shape[-1])


def beyond_rounding(
    squares: Float[Tensor, "*lead"], mean: Float[Tensor, "*lead"], count: int
) -> Float[Tensor, "*lead"]:
    """Σ (x − mean)² of `count` numbers; NaN where it is no more than rounding makes of one value, mean, repeated."""
    rounding = TOLERANCE[squares.dtype] ** 2 * count * mean.square()
    return torch.where(squares <= rounding, torch.nan, squares)
