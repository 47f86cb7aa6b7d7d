"""What each head is good for: its output replaced by its mean, and the loss of each image looked at again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.copies import linear_cka, map_correlation
from wherefrom.models.backbone import Backbone, as_backbone
from wherefrom.observe.capture import evaluating
from wherefrom.observe.inputs import refuse_bad_batch, refuse_bad_labels, run_model
from wherefrom.statistics import t_interval

ChangeZ = Callable[[int, Tensor], Tensor]
"""(layer, z) -> z, `batch head token head_dim`."""


@torch.no_grad()
def ablate(model: nn.Module, images: Tensor, labels: Tensor) -> Float[Tensor, "layer head image"]:
    """Δ_lhb = ℓ_b(z_lhbi replaced by (1/B) Σ_b' z_lhb'i at every token i) − ℓ_b, nats.

    What a head does alike for all images stays, place by place; what it does for one image is lost. The heads before
    and beside it are untouched, those after it see the change. Above 0: the image was classified better with the head.

    The model is read in evaluation mode and left as it was, to the bit. One forward pass a head.

    Args:
        model: any Vision Transformer that `as_backbone` knows and whose attention is fused.
        images: `batch channel y x`, at least two: the mean over one image is the image.
        labels: their classes, `batch`.

    Raises:
        ValueError: for a model or a batch that cannot be used.
        RuntimeError: if not every layer's attention passed.

    References:
        Michel, Levy & Neubig 2019, Are Sixteen Heads Really Better than One? (there to 0, not to the mean).
    """
    backbone = _checked(model, images, labels)
    heads: dict[int, int] = {}

    def see(layer: int, z: Tensor) -> Tensor:
        heads[layer] = z.shape[1]
        return z

    with evaluating(model):
        whole = _losses(model, images, labels, backbone, see)
        changes = [
            torch.stack(
                [_losses(model, images, labels, backbone, without(layer, head)) for head in range(heads[layer])]
            )
            for layer in range(backbone.depth)
        ]
    return torch.stack(changes) - whole


def without(layer: int, head: int) -> ChangeZ:
    """Replaces z of one head by its mean over images, token by token."""

    def change(place: int, z: Tensor) -> Tensor:
        if place != layer:
            return z
        z = z.clone()
        z[:, head] = z[:, head].mean(0)
        return z

    return change


@torch.no_grad()
def contribution_similarity(model: nn.Module, images: Tensor) -> Float[Tensor, "layer head head"]:
    """`linear_cka` of the contributions z_h w_o,hᵀ of the heads of each layer, over images and tokens.

    Raises:
        ValueError: for a model whose projection after attention is not known.
        RuntimeError: if not every layer's attention passed.
    """
    backbone = _checked(model, images, None)
    maps = [output_maps(backbone, layer) for layer in range(backbone.depth)]
    found: dict[int, Tensor] = {}

    def receive(layer: int, z: Tensor) -> Tensor:
        rows = z.double().transpose(1, 2).flatten(0, 1).flatten(1)  # image·token head·head_dim
        rows = rows - rows.mean(0)
        heads, d = z.shape[1], z.shape[3]
        found[layer] = linear_cka((rows.mT @ rows / len(rows)).reshape(heads, d, heads, d), maps[layer])
        return z

    with evaluating(model):
        _forward(model, images, backbone, receive)
    return torch.stack([found[layer] for layer in range(backbone.depth)])


def output_maps(backbone: Backbone, layer: int) -> Float[Tensor, "head width d"]:
    """The columns of the projection after attention, by head.

    Raises:
        ValueError: if it is not found, or is not all that lies between the heads and the tokens.
    """
    attn = getattr(backbone.model.blocks[layer], "attn", None)
    linear = getattr(attn, "w_o", None) or getattr(attn, "proj", None)
    norm = getattr(attn, "norm", None)
    if not isinstance(linear, nn.Linear) or not isinstance(norm, (nn.Identity, type(None))):
        raise ValueError(
            f"what a head writes is known only where one linear map follows the heads, attn.w_o (ours) or attn.proj "
            f"(timm), with no norm between; found {type(attn).__name__} in layer {layer} of {backbone.name}"
        )
    heads = int(attn.num_heads)  # pyrefly: ignore
    return linear.weight.detach().double().unflatten(1, (heads, -1)).transpose(0, 1)


def pruning_rows(
    model: nn.Module, images: Tensor, labels: Tensor, offset_maps: Mapping[int, np.ndarray], grid: PatchGrid
) -> tuple[list[Measurement], dict]:
    """What a person needs to prune: loss change of each head with its 95 % interval, likeness of heads as arrays.

    Args:
        model: as for `ablate`.
        images: the probe.
        labels: its classes.
        offset_maps: of attention, by layer, `head dy dx`.
        grid: of the maps.
    """
    rows = []
    for layer, heads in enumerate(ablate(model, images, labels).double().cpu().numpy()):
        for head, changes in enumerate(heads):
            low, high = t_interval(changes)
            for ending, value in (("", changes.mean()), ("_low", low), ("_high", high)):
                rows.append(Measurement(f"ablation_loss_change{ending}", float(value), "probe", layer, head))
    counts = torch.as_tensor(grid.offset_counts, dtype=torch.float64)
    written = contribution_similarity(model, images).cpu().numpy()
    arrays = {("contribution_similarity", layer): value for layer, value in enumerate(written)}
    for layer, maps in offset_maps.items():
        looks = map_correlation(torch.as_tensor(maps, dtype=torch.float64), counts)
        arrays["attn_similarity", layer] = looks.numpy()
    return rows, arrays


def _checked(model: nn.Module, images: Tensor, labels: Tensor | None) -> Backbone:
    refuse_bad_batch(images, labels)
    if len(images) < 2:
        raise ValueError(f"a head is replaced by its mean over images, so at least two are needed; found {len(images)}")
    return as_backbone(model)


def _losses(model: nn.Module, images: Tensor, labels: Tensor, backbone: Backbone, change: ChangeZ) -> Tensor:
    """Cross-entropy of each image."""
    output = _forward(model, images, backbone, change)
    refuse_bad_labels(labels, output.shape[-1])
    return F.cross_entropy(output, labels, reduction="none")


def _forward(model: nn.Module, images: Tensor, backbone: Backbone, change: ChangeZ) -> Tensor:
    with changing_z(change, backbone.depth) as calls:
        output = run_model(model, images)
    if (seen := next(calls)) != backbone.depth:
        raise RuntimeError(
            f"expected {backbone.depth} layers of attention in a forward pass, saw {seen} calls of "
            f"torch.nn.functional.scaled_dot_product_attention in {backbone.name}; use fused attention (timm: set "
            f"fused_attn) with one call a layer"
        )
    return output


@contextlib.contextmanager
def changing_z(change: ChangeZ, depth: int) -> Iterator[Iterator[int]]:
    """Inside the scope the output z of each layer's attention is `change(layer, z)`; gives the counter of calls."""
    real, thread, calls = F.scaled_dot_product_attention, threading.get_ident(), count()

    def attention(*args, **kwargs):
        z = real(*args, **kwargs)
        return change(next(calls) % depth, z) if threading.get_ident() == thread else z

    F.scaled_dot_product_attention = attention
    try:
        yield calls
    finally:
        F.scaled_dot_product_attention = real
