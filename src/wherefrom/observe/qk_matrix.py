"""Measurements of w_qᵀ w_k of every head: no data, no gradient, only the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wherefrom import measures
from wherefrom.catalogue import Measurement
from wherefrom.models.backbone import Backbone, Layer

GAINS = ("layernorm", "rmsnorm")
"""Norms whose weight is a gain on each feature, by their class's name in small letters."""
NO_NORM = (nn.Identity, type(None))


def qk_rows(backbone: Backbone) -> Iterator[Measurement]:
    """`qk_symmetric_share`, `qk_effective_rank` and, with a table of positions, `qk_position_trace` by layer and head.

    Nothing for a model whose layers are not known, and for layers in which scores are not a bilinear form of the
    normalised tokens as far as their parts tell: an unknown norm before attention, or a norm on queries and keys. With
    rope the matrix is that of a patch and itself.

    Args:
        backbone: of the model.
    """
    try:
        layers = backbone.layers
    except ValueError:
        return
    for number, layer in enumerate(layers):
        weights = query_key_weights(layer)
        if weights is None:
            continue
        values = {name: getattr(measures, name)(*weights) for name in ("qk_symmetric_share", "qk_effective_rank")}
        if backbone.pos_embed is not None:
            values["qk_position_trace"] = measures.qk_position_trace(*weights, backbone.pos_embed.double().cpu())
        for measure, of_heads in values.items():
            for head, value in enumerate(of_heads.tolist()):
                yield Measurement(measure, value, layer=number, head=head)


@torch.no_grad()
def query_key_weights(layer: Layer) -> tuple[Tensor, Tensor] | None:
    """w_q and w_k with the gain of norm1 folded in, `head head_dim width`, float64; None where they are not known."""
    attn: Any = layer.block.attn
    normed = not all(isinstance(getattr(attn, f"{x}_norm", None), NO_NORM) for x in "qk")
    projections = list(layer.projections.values())
    if normed or not all(isinstance(projection, nn.Linear) for projection in projections):
        return None
    weights = [projection.weight.double().cpu() for projection in projections]
    parts = weights[0].chunk(3) if "qkv" in layer.projections else weights
    gain = _gain(layer.norm1, weights[0].shape[1])
    head_dim = getattr(attn, "head_dim", len(parts[0]) // layer.num_heads)
    if gain is None or not len(parts[0]) == len(parts[1]) == layer.num_heads * head_dim:  # fewer keys than queries
        return None
    w_q, w_k = (measures.fold_gain(w.unflatten(0, (layer.num_heads, -1)), gain) for w in parts[:2])
    return w_q, w_k


def _gain(norm: nn.Module, width: int) -> Tensor | None:
    """γ of a LayerNorm or RMSNorm; ones where it has none, None for another norm."""
    if not any(name in type(norm).__name__.lower() for name in GAINS):
        return None
    weight = getattr(norm, "weight", None)
    gain = torch.ones(width) if weight is None else weight.detach()
    return gain.double().cpu() if gain.shape == (width,) else None
