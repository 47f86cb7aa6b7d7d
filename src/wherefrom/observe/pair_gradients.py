"""The gradient on w_q and w_k, split by the relation of query and key.

    ∂L/∂w_q = scale Σ_ij ∂L/∂S_ij k_j y_iᵀ            ∂L/∂w_k = scale Σ_ij ∂L/∂S_ij q_i y_jᵀ

y is what the projections are given. Both are sums over pairs of tokens, so they split exactly: a part is the sum over
the pairs of one relation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from wherefrom.attention import AttentionRecord, AttentionTile
from wherefrom.geometry import PatchGrid
from wherefrom.observe.routes import Route, RouteGradients

OTHER = "other"
"""All pairs of tokens that are in no relation named, those with a prefix token among them."""

TILE_ELEMENTS = 2**17
"""Entries of one tile of scores: small enough that a tile and its masked copy stay in a processor's cache."""


@dataclass(frozen=True)
class PairParts:
    """Parts of the pairs of tokens, with which a gradient is split.

    Args:
        routes: what each part is.
        masks: 1 at the pairs of each part, else 0, `part query key`; no pair is in two.
    """

    routes: tuple[Route, ...]
    masks: Float[Tensor, "part query key"]

    @classmethod
    def of(cls, grid: PatchGrid, relations: Iterable[str], keep: Tensor, like: Tensor) -> PairParts:
        """The pairs of each relation, and all `other` pairs.

        Args:
            grid: where the patches truly are.
            relations: names of relations of patches that share no pair.
            keep: False at pairs that are cut, `query key`; they are in no part.
            like: tensor of the dtype and on the device wanted.

        Raises:
            ValueError: for relations that are not known or share a pair.
        """
        names, prefix = tuple(relations), grid.num_prefix_tokens
        pairs = torch.stack([torch.as_tensor(grid.relation_pairs(name)) for name in names])
        if (pairs.sum(0) > 1).any():
            raise ValueError(f"a gradient is split over relations that share no pair; found {', '.join(names)}")
        pairs = pad(pairs, (prefix, 0, prefix, 0))
        masks = torch.cat([pairs, ~pairs.any(0, keepdim=True)]) & keep
        return cls(tuple(map(Route, (*names, OTHER))), masks.to(like))

    @torch.no_grad()
    def split(self, record: AttentionRecord, y: Float[Tensor, "batch token width"]) -> dict[str, RouteGradients]:
        """The gradients of the mean loss on w_q and w_k, part by part, that on the bias as a last column.

        Args:
            record: attention of the layer, with gradients; all tokens are queries.
            y: what w_q and w_k were given.

        Returns:
            For `q` and `k` the gradients, `part out width+1`.
        """
        given = pad(y.to(record.q), (0, 1), value=1.0) * (-record.scale / len(y))  # ∂ℓ/∂S is minus the pressure
        width = record.q.shape[1] * record.q.shape[3]
        sums = {kind: given.new_zeros(len(self.masks), width, given.shape[2]) for kind in ("q", "k")}
        for tile in record.all_tiles(TILE_ELEMENTS):
            self._add(tile, given[tile.examples], sums)
        return {kind: RouteGradients(self.routes, parts, parts.sum(0)) for kind, parts in sums.items()}

    def _add(self, tile: AttentionTile, y: Tensor, sums: dict[str, Float[Tensor, "part out width"]]) -> None:
        """Add what a tile holds; one part at a time, so that no more than one copy of the tile is made."""
        q, k = tile.q.contiguous(), tile.record.k[tile.examples].contiguous()
        pressure = tile.attn.mul_(tile.advantage)  # in the memory of A, for the last time
        own = torch.empty_like(pressure)
        for number, mask in enumerate(self.masks[:, tile.queries]):
            torch.mul(pressure, mask, out=own)
            _add_product(sums["q"][number], own @ k, y[:, tile.queries])
            _add_product(sums["k"][number], own.mT @ q, y)


def _add_product(
    total: Float[Tensor, "out width"],
    part: Float[Tensor, "batch head token head_dim"],
    y: Float[Tensor, "batch token width"],
) -> None:
    """total += Σ part yᵀ over images and tokens."""
    total.addmm_(part.transpose(1, 2).flatten(0, 1).flatten(1).mT, y.flatten(0, 1))
