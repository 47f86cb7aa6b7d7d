"""Take a part of the gradient away and leave all else as it is: a ledger says what happened, a cut what was needed.

pos:q,k          the routes through q and k are taken from the gradient on pos_embed
pos:mlp.0,v.1.3  the MLP of layer 0, and head 3 of v in layer 1
pairs:edge,far   the pairs of these relations are taken from ∂ℓ/∂S, so that neither q nor k hears of them
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wherefrom.attention import AttentionRecord
from wherefrom.geometry import RELATIONS, UNIONS, PatchGrid
from wherefrom.observe.capture import Tap
from wherefrom.observe.routes import KINDS, Route, RouteGradients

EXPECTED = (
    f"expected pos:ROUTES or pairs:RELATIONS, as in pos:q,k or pos:v.0 (layer 0) or pos:v.0.2 (its head 2) or "
    f"pairs:edge,far; routes: {', '.join(KINDS)}; relations: {', '.join((*RELATIONS, *UNIONS))}"
)


@dataclass(frozen=True)
class Cut:
    """What is cut: routes to pos_embed (None in a route stands for all layers or heads), or relations of pairs."""

    routes: tuple[Route, ...] = ()
    relations: tuple[str, ...] = ()

    def takes(self, route: Route) -> bool:
        """Whether the route is cut."""
        return any(
            cut.kind == route.kind and cut.layer in (None, route.layer) and cut.head in (None, route.head)
            for cut in self.routes
        )

    def kept(self, found: RouteGradients) -> RouteGradients:
        """The gradients with the cut routes at 0; the total is summed anew, so that what is cut leaves no rounding.

        (Adam would blow the rounding up to steps of full size where nothing else is left.)
        """
        if not self.routes:
            return found
        keep = torch.tensor([not self.takes(route) for route in found.routes]).to(found.gradients)
        kept = keep[:, None, None] * found.gradients
        return RouteGradients(found.routes, kept, kept.sum(0))


NOTHING = Cut()
"""Leaves the gradient as it is."""


def parse_cut(text: str, depth: int | None = None, num_heads: int | None = None) -> Cut:
    """The cut that `text` names; an empty one cuts nothing.

    Raises:
        ValueError: for a text that names no cut, or a layer or head that the model does not have.

    >>> parse_cut("pos:q,v.0.2").routes
    (Route(kind='q', layer=None, head=None), Route(kind='v', layer=0, head=2))
    """
    if not text:
        return NOTHING
    what, _, items = text.partition(":")
    names = items.split(",")
    if what == "pairs" and set(names) <= {*RELATIONS, *UNIONS}:
        return Cut(relations=tuple(names))
    if what != "pos":
        raise ValueError(f"cannot cut {text!r}; {EXPECTED}")
    return Cut(routes=tuple(_route(text, name, depth, num_heads) for name in names))


def _route(text: str, name: str, depth: int | None, num_heads: int | None) -> Route:
    kind, *places = name.split(".")
    headless = kind in ("residual", "mlp")
    most = {"residual": 0, "mlp": 1}.get(kind, 2)
    if kind not in KINDS or len(places) > most or not all(place.isdecimal() for place in places):
        raise ValueError(f"cannot cut {name!r} in {text!r}; {EXPECTED}")
    numbers = [int(place) for place in places]
    for what, number, limit in zip(("layer", "head"), numbers, (depth, num_heads), strict=False):
        if limit is not None and number >= limit and not (what == "head" and headless):
            raise ValueError(f"cannot cut {name!r}: the model has {limit} {what}s, numbered from 0")
    return Route(kind, *numbers)


@contextlib.contextmanager
def cutting_pairs(cut: Cut, grid: PatchGrid) -> Iterator[None]:
    """Inside the scope attention is the same forward; backward, q and k do not hear of the cut pairs.

    Raises:
        RuntimeError: inside the scope of a tap.
        ValueError: at attention with a mask or dropout.
    """
    if not cut.relations:
        yield
        return
    real, keep = F.scaled_dot_product_attention, pairs_kept(cut, grid)
    if isinstance(getattr(real, "__self__", None), Tap):
        raise RuntimeError("pairs are cut inside a tap, which would see no gradient; enter the cut before the tap")

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if attn_mask is not None or dropout_p or is_causal or enable_gqa:
            raise ValueError("pairs can be cut only from plain attention, without mask and dropout")
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        return CutAttention.apply(query, key, value, keep.to(query.device), factor, real)

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real


def pairs_kept(cut: Cut, grid: PatchGrid) -> Tensor:
    """`token token`, booleans: False for pairs of patches that are cut."""
    taken = np.any([grid.relation_pairs(name) for name in cut.relations], axis=0)
    keep = torch.ones(grid.num_tokens, grid.num_tokens, dtype=torch.bool)
    keep[grid.num_prefix_tokens :, grid.num_prefix_tokens :] = ~torch.as_tensor(taken)
    return keep


class CutAttention(torch.autograd.Function):
    """z = softmax(scale q·k) v; backward with ∂ℓ/∂S ⊙ keep in place of ∂ℓ/∂S in the gradients on q and k."""

    @staticmethod
    def forward(ctx, q, k, v, keep, scale, real):
        ctx.save_for_backward(q, k, v, keep)
        ctx.scale = scale
        return real(q, k, v, scale=scale)

    @staticmethod
    def backward(ctx, *grads):
        q, k, v, keep = ctx.saved_tensors
        record = AttentionRecord(q, k, v, ctx.scale, grads[0])
        grad_q, grad_k = torch.empty_like(q), torch.zeros_like(k)
        for tile in record.all_tiles():
            grad_scores = -tile.pressure * keep[tile.queries]
            grad_q[tile.examples, :, tile.queries] = ctx.scale * grad_scores @ k[tile.examples]
            grad_k[tile.examples] += ctx.scale * grad_scores.mT @ tile.q
        return grad_q, grad_k, record.grad_v(), None, None, None
