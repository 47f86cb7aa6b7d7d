"""One head's arithmetic in closed form: from q, k, v and grad_z to attention, its gradient and the gradient's target.

All gradients are per example (the 1/batch of a mean loss undone). Written out for one query i:

    S_ij = scale · q_i·k_j + bias_ij        A_ij = softmax_j S_ij           z_i = Σ_j A_ij v_j
    G_ij = ∂ℓ/∂A_ij = grad_z_i · v_j        ∂ℓ/∂S_ij = A_ij (G_ij − Σ_k A_ik G_ik)
    T_ij = A_ij − ∂ℓ/∂S_ij                  pressure = T − A = A · advantage

Everything is had tile by tile (some queries, some examples), so that nothing quadratic in tokens need ever be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

TILE_ELEMENTS = 2**17
"""Entries of one tile of attention: about what a processor's cache holds."""


@dataclass(frozen=True)
class AttentionRecord:
    """What attention of one layer was given and what gradient came back.

    Args:
        q, k, v: queries, keys, values, `batch head token head_dim`.
        scale: factor on q·k, usually 1/√head_dim.
        grad_z: ∂ℓ/∂z of each example's own loss, `batch head token head_dim`; None without a backward pass.
        bias: what was added to the scores, broadcastable to `batch head query key`; −inf where a mask forbids.
    """

    q: Float[Tensor, "batch head query head_dim"]
    k: Float[Tensor, "batch head key head_dim"]
    v: Float[Tensor, "batch head key value_dim"]
    scale: float
    grad_z: Float[Tensor, "batch head query value_dim"] | None = None
    bias: Float[Tensor, ...] | None = None

    @property
    def num_examples(self) -> int:
        return self.q.shape[0]

    @property
    def num_heads(self) -> int:
        return self.q.shape[1]

    @property
    def num_tokens(self) -> int:
        return self.k.shape[2]

    @cached_property
    def values(self) -> Float[Tensor, "batch head key value_dim"]:
        """v minus its mean over keys: ∂ℓ/∂S is the same, but a large common part no longer costs the last digits."""
        return self.v - self.v.mean(2, keepdim=True)

    @cached_property
    def inverse_lengths(self) -> tuple[Float[Tensor, "batch head query"], Float[Tensor, "batch head key"]]:
        """1/‖q_i‖ and 1/‖k_j‖; of a vector of zeros, large."""
        q, k = (1 / x.norm(dim=-1).clamp(min=1e-12) for x in (self.q, self.k))
        return q, k

    @cached_property
    def silent(self) -> Tensor:
        """Queries that no gradient reaches in any example or head, `query`, booleans: their pressure is null, not 0.

        So it is for patch queries of the last layer where a class token is the only read-out.
        """
        return self._grad_z().abs().amax(-1).amax((0, 1)) == 0

    def tile(self, queries: slice = slice(None), examples: slice = slice(None)) -> AttentionTile:
        """All keys of some queries of some examples."""
        return AttentionTile(self, queries, examples)

    def query_ranges(self, max_elements: int | None = None) -> Iterator[slice]:
        """Ranges of queries, each small enough for a tile of one example."""
        num_queries = max(1, (max_elements or TILE_ELEMENTS) // (self.num_heads * self.num_tokens))
        for start in range(0, self.q.shape[2], num_queries):
            yield slice(start, min(start + num_queries, self.q.shape[2]))

    def tiles(
        self, queries: slice, examples: slice = slice(None), max_elements: int | None = None
    ) -> Iterator[AttentionTile]:
        """Tiles of a range of queries that together cover `examples` (which may have a step)."""
        rows = self.num_heads * self.num_tokens * (queries.stop - queries.start)
        chosen = range(self.num_examples)[examples]
        size = max(1, (max_elements or TILE_ELEMENTS) // rows)
        for first in range(0, len(chosen), size):
            part = chosen[first : first + size]
            yield self.tile(queries, slice(part.start, part.stop, part.step))

    def all_tiles(self, max_elements: int | None = None) -> Iterator[AttentionTile]:
        """Tiles that together cover everything."""
        for queries in self.query_ranges(max_elements):
            yield from self.tiles(queries, max_elements=max_elements)

    # ---- whole matrices, for small models and for tests; memory is quadratic in tokens

    def scores(self) -> Float[Tensor, "batch head query key"]:
        """S_ij = scale · q_i·k_j + bias_ij."""
        return self.tile().scores

    def attn(self) -> Float[Tensor, "batch head query key"]:
        """A_ij = softmax_j S_ij; rows sum to 1."""
        return self.tile().attn

    def grad_attn(self) -> Float[Tensor, "batch head query key"]:
        """G_ij = ∂ℓ/∂A_ij = grad_z_i · v_j, up to a constant in each row (v centred over keys)."""
        return self.tile().grad_attn

    def grad_scores(self) -> Float[Tensor, "batch head query key"]:
        """∂ℓ/∂S_ij = A_ij (G_ij − Σ_k A_ik G_ik); rows sum to 0."""
        return -self.tile().pressure

    def implied_target(self) -> Float[Tensor, "batch head query key"]:
        """T_ij = A_ij − ∂ℓ/∂S_ij; rows sum to 1, entries may leave [0, 1]."""
        return self.tile().implied_target

    def pressure(self) -> Float[Tensor, "batch head query key"]:
        """T_ij − A_ij = −∂ℓ/∂S_ij, nats: how hard the loss pushes the score of the pair up (+) or down (−)."""
        return self.tile().pressure

    def advantage(self) -> Float[Tensor, "batch head query key"]:
        """Σ_k A_ik G_ik − G_ij, nats: loss saved per unit of attention moved from the row's average onto j."""
        return self.tile().advantage

    # ---- gradients of what went in, tile by tile

    def grad_q(self) -> Float[Tensor, "batch head query head_dim"]:
        """∂ℓ/∂q_i = scale · Σ_j (A_ij − T_ij) k_j."""
        keys = self.k - self.k.mean(2, keepdim=True)  # rows of A − T sum to 0
        grad = torch.empty_like(self.q)
        for tile in self.all_tiles():
            grad[tile.examples, :, tile.queries] = -self.scale * tile.pressure @ keys[tile.examples]
        return grad

    def grad_k(self) -> Float[Tensor, "batch head key head_dim"]:
        """∂ℓ/∂k_j = scale · Σ_i (A_ij − T_ij) q_i."""
        grad = torch.zeros_like(self.k)
        for tile in self.all_tiles():
            grad[tile.examples] -= self.scale * tile.pressure.mT @ self.q[tile.examples, :, tile.queries]
        return grad

    def grad_v(self) -> Float[Tensor, "batch head key value_dim"]:
        """∂ℓ/∂v_j = Σ_i A_ij grad_z_i."""
        grad = torch.zeros_like(self.v)
        for tile in self.all_tiles():
            grad[tile.examples] += tile.attn.mT @ tile.grad_z
        return grad

    def _grad_z(self) -> Tensor:
        if self.grad_z is None:
            raise ValueError("this record has no grad_z: it was taken without a backward pass; capture with labels")
        return self.grad_z


@dataclass(frozen=True)
class AttentionTile:
    """Attention of some queries of some examples to all keys; each matrix is made once, when asked for."""

    record: AttentionRecord
    queries: slice
    examples: slice

    @property
    def prefix(self) -> int:
        """Number of keys that are no queries: prefix tokens, where the record was cut to patch queries."""
        return self.record.num_tokens - self.record.q.shape[2]

    @property
    def q(self) -> Float[Tensor, "batch head query head_dim"]:
        return self.record.q[self.examples, :, self.queries]

    @property
    def grad_z(self) -> Float[Tensor, "batch head query value_dim"]:
        return self.record._grad_z()[self.examples, :, self.queries]

    @cached_property
    def scores(self) -> Float[Tensor, "batch head query key"]:
        scores = (self.q * self.record.scale) @ self.record.k[self.examples].mT
        return scores if self.record.bias is None else scores + self._bias(self.record.bias)

    @cached_property
    def cosine(self) -> Float[Tensor, "batch head query key"]:
        """cos(q_i, k_j)."""
        q, k = self.record.inverse_lengths
        if self.record.bias is None:  # cheaper than a second product
            cosine = self.scores * (q[self.examples, :, self.queries] / self.record.scale)[..., None]
        else:
            cosine = (self.q * q[self.examples, :, self.queries, None]) @ self.record.k[self.examples].mT
        return cosine.mul_(k[self.examples, :, None])

    @cached_property
    def attn(self) -> Float[Tensor, "batch head query key"]:
        return self.scores.softmax(-1)

    @cached_property
    def grad_attn(self) -> Float[Tensor, "batch head query key"]:
        return self._grad_attn()

    @cached_property
    def advantage(self) -> Float[Tensor, "batch head query key"]:
        grad = self._grad_attn()
        gain = torch.linalg.vecdot(self.attn, grad)[..., None]  # Σ_k A_ik G_ik, the row's average of G
        return torch.sub(gain, grad, out=grad)  # in the memory of G: new memory is what half the time would go to

    @cached_property
    def pressure(self) -> Float[Tensor, "batch head query key"]:
        return self.attn * self.advantage

    @property
    def implied_target(self) -> Float[Tensor, "batch head query key"]:
        return self.attn + self.pressure

    # ---- patch keys alone, where the record was cut to patch queries

    @cached_property
    def score_means(self) -> Float[Tensor, "batch head query 1"]:
        """Mean of S_ij over patch keys."""
        return self.scores[..., self.prefix :].mean(-1, keepdim=True)

    @cached_property
    def centred_scores(self) -> Float[Tensor, "batch head query patch"]:
        """S_ij minus its mean over patch keys."""
        return self.scores[..., self.prefix :] - self.score_means

    @cached_property
    def patch_attn(self) -> Float[Tensor, "batch head query patch"]:
        """A_ij / Σ_j A_ij over patch keys."""
        patches = self.attn[..., self.prefix :]
        return patches / patches.sum(-1, keepdim=True) if self.prefix else patches

    def _grad_attn(self) -> Tensor:
        return self.grad_z @ self.record.values[self.examples].mT

    def _bias(self, bias: Tensor) -> Tensor:
        full = bias.expand(self.record.num_examples, self.record.num_heads, -1, self.record.num_tokens)
        return full[self.examples, :, self.queries] if full.shape[2] > 1 else full[self.examples]
