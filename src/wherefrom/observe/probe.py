"""A model at a step -> rows and arrays of the record."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import pair_contents
from wherefrom.measures.layer import layer_maps, layer_measurements
from wherefrom.measures.sums import layer_sums
from wherefrom.models.backbone import as_backbone
from wherefrom.observe.capture import stream
from wherefrom.observe.positions import position_arrays, position_measurements

Rows = tuple[list[Measurement], dict]
"""Measurements, and arrays by name or (name, layer)."""


def probe(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    grids: Mapping[str, PatchGrid] | None = None,
    permutations: int = 0,
) -> Rows:
    """Everything that is known of a model at one step, from fixed held-out images.

    Args:
        model: any Vision Transformer that `as_backbone` knows.
        images: the probe, `batch channel y x`; one pass forward and backward, so it must fit in memory at once.
        labels: its classes, `batch`.
        grids: places of the patches by name; the model's own if left out.
        permutations: relabellings for the test of the position embedding's falloff; 0 leaves it out.
    """
    backbone = as_backbone(model)
    grids = grids or {"model": backbone.grid}
    attention, arrays = {}, {}
    contents = pair_contents(images, backbone.grid) if images.dim() == 4 else None

    def receive(layer: int, record: AttentionRecord) -> None:
        sums = layer_sums(record, grids, contents=contents)
        attention[layer] = list(layer_measurements(sums, layer, "probe"))
        arrays.update({(name, layer): array.float().numpy() for name, array in layer_maps(sums).items()})

    output = stream(model, images, labels, receive)
    rows = [row for layer in sorted(attention) for row in attention[layer]]
    rows += quality(output, labels, "probe")
    if backbone.pos_embed is not None:
        rows += position_measurements(backbone.pos_embed, grids, permutations)
        shown = position_arrays(backbone.pos_embed, grids.get("true", backbone.grid))
        arrays.update({name: array.numpy() for name, array in shown.items()})
    return rows, arrays


def quality(output: Tensor, labels: Tensor, split: str) -> list[Measurement]:
    """Mean cross-entropy in nats, and share of images classified right."""
    loss = F.cross_entropy(output, labels)
    accuracy = (output.argmax(-1) == labels).double().mean()
    return [Measurement("loss", float(loss), split), Measurement("accuracy", float(accuracy), split)]


def test_quality(model: nn.Module, batches) -> list[Measurement]:
    """`quality` over all batches of held-out images."""
    outputs, labels = [], []
    with torch.no_grad():
        for x, y in batches:
            outputs.append(model(x))
            labels.append(y)
    return quality(torch.cat(outputs), torch.cat(labels), "test")
