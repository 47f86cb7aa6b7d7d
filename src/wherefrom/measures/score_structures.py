"""What the scores have become between edge neighbours and between far pairs: three numbers of a layer, with gradients.

    qk_alignment    mean cos(q_i, k_j) over edge pairs − over far pairs, mean over images and heads
    log_attn_edge   mean over heads of ln a_h,   a_h = mean of A_ij over images and edge pairs, A = softmax scale q·k
    log_attn_far    the same over far pairs

With m the pairs' mask and ρ_i = Σ_k A_ik m_ik what row i spends on them, the gradient of a logarithm is had in closed
form:

    ∂ ln a_h / ∂S_ij = A_ij (m_ij − ρ_i) / Σ_bi ρ_i           ∂/∂q_i = scale Σ_j ∂/∂S_ij k_j,   ∂/∂k_j likewise
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from wherefrom.geometry import PatchGrid

NAMES = ("qk_alignment", "log_attn_edge", "log_attn_far")
"""The structures, in the order of every axis `structure`."""


@dataclass(frozen=True)
class ScoreStructures:
    """The three structures of a grid; queries are patches, keys all tokens, prefix tokens first.

    Args:
        pairs: 1 at edge neighbours and 1 at far pairs, else 0, `2 query key`; 0 at prefix keys.
        contrast: weights whose sum with cosines is mean over edge − mean over far, `query key`.
    """

    pairs: Float[Tensor, "2 query key"]
    contrast: Float[Tensor, "query key"]

    @classmethod
    def of(cls, grid: PatchGrid, like: Tensor) -> ScoreStructures:
        """Those of a grid, in dtype and on the device of `like`.

        Raises:
            ValueError: for a grid without edge neighbours or without far pairs.
        """
        pairs = torch.stack([torch.as_tensor(grid.relation_pairs(name)) for name in ("edge", "far")])
        if not pairs.any((1, 2)).all():
            raise ValueError(f"a grid of {grid.height} × {grid.width} has no edge and far pairs to compare")
        pairs = pad(pairs, (grid.num_prefix_tokens, 0)).to(like)
        edge, far = pairs / pairs.sum((1, 2), keepdim=True)
        return cls(pairs, edge - far)

    def values(
        self, q: Float[Tensor, "batch head query head_dim"], k: Float[Tensor, "batch head key head_dim"], scale: float
    ) -> Float[Tensor, " structure"]:
        """The structures in the order of `NAMES`.

        Args:
            q: queries of patches.
            k: keys of all tokens.
            scale: factor on q·k in the scores.

        Returns:
            A cosine in [−2, 2] and two logarithms, nats, ≤ 0; −∞ where no attention at all is on the pairs.
        """
        unit_q, unit_k = (x / _length(x) for x in (q, k))
        alignment = (unit_q * (self.contrast @ unit_k)).sum() / (len(q) * q.shape[1])
        attn = ((q * scale) @ k.mT).softmax(-1).mean(0)
        logs = [((attn * pairs).sum((1, 2)) / pairs.sum()).log().mean() for pairs in self.pairs]
        return torch.stack([alignment, *logs])

    def gradients(
        self, q: Float[Tensor, "batch head query head_dim"], k: Float[Tensor, "batch head key head_dim"], scale: float
    ) -> tuple[
        Float[Tensor, "structure batch head query head_dim"], Float[Tensor, "structure batch head key head_dim"]
    ]:
        """Gradients of `values` (same arguments) with respect to q and k."""
        grad_q, grad_k = ([grad] for grad in self._alignment_gradients(q, k))
        scaled_q, scaled_k = q * scale, k * scale
        attn = (scaled_q @ k.mT).softmax(-1)
        for pairs in self.pairs:
            grad_scores = attn * pairs
            spent = grad_scores.sum(-1, keepdim=True)
            grad_scores.addcmul_(attn, spent, value=-1)
            share = q.shape[1] * spent.sum((0, 2), keepdim=True)[0]
            grad_q.append(grad_scores @ (scaled_k / share))
            grad_k.append(grad_scores.mT @ (scaled_q / share))
        return torch.stack(grad_q), torch.stack(grad_k)

    def _alignment_gradients(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        lengths = [_length(x) for x in (q, k)]
        unit_q, unit_k = q / lengths[0], k / lengths[1]
        weights = self.contrast / (len(q) * q.shape[1])
        return (
            _through_length(weights @ unit_k, unit_q, lengths[0]),
            _through_length(weights.mT @ unit_q, unit_k, lengths[1]),
        )


def _length(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _through_length(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """The gradient on x from that on x / |x|: what points along x goes."""
    return (grad - unit * (unit * grad).sum(-1, keepdim=True)) / length
