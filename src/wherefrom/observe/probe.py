"""A model at a step -> rows and arrays of the record."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import is_cut_by, pair_contents
from wherefrom.measures.layer import layer_maps, layer_measurements
from wherefrom.measures.logits import logit_measurements
from wherefrom.measures.sums import layer_sums
from wherefrom.measures.use import content_shuffled
from wherefrom.models.backbone import as_backbone
from wherefrom.observe.capture import stream
from wherefrom.observe.positions import position_arrays, position_measurements
from wherefrom.observe.qk_matrix import qk_rows
from wherefrom.observe.stream import position_in_stream_rows
from wherefrom.observe.training import attention_grids
from wherefrom.observe.use import use_rows

MAP, SHUFFLED_MAP = "attn_offset_map", "attn_offset_map_shuffled"
PERMUTATION_SEED = 0
"""Of the permutations of the content-shuffled probe: every probe of a model is shown the same images."""

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
    natural = ContentProbe("natural", grids)
    output = natural.run(model, images, labels)
    rows, arrays = natural.rows() + quality(output, labels, "probe"), natural.arrays
    if is_cut_by(images, backbone.grid):
        of_shuffled = shuffled_contents(model, images, grids)
        rows, arrays = rows + of_shuffled[0], arrays | of_shuffled[1]
        rows += use_rows(model, [(images, labels)], "probe")
    rows += qk_rows(backbone)
    if backbone.pos_embed is not None:
        rows += position_measurements(backbone.pos_embed, grids, permutations)
        shown = position_arrays(backbone.pos_embed, grids.get("true", backbone.grid))
        arrays |= {name: array.numpy() for name, array in shown.items()}
    return rows, arrays


def shuffled_contents(model: nn.Module, images: Tensor, grids: Mapping[str, PatchGrid]) -> Rows:
    """The probe with the patches of each image permuted anew: what is left is there because of positions.

    Of the arrays it keeps the offset map of attention alone, as ("attn_offset_map_shuffled", layer), `head dy dx`.
    """
    grid = as_backbone(model).grid
    shuffled = shuffled_probe(images, grid)
    attention = ContentProbe("shuffled", grids)
    with position_in_stream_rows(model, grids.get("true", grid)) as of_stream:
        attention.run(model, shuffled, None)
    maps = {(SHUFFLED_MAP, layer): own for (name, layer), own in attention.arrays.items() if name == MAP}
    return attention.rows() + of_stream, maps


def shuffled_probe(images: Tensor, grid: PatchGrid) -> Tensor:
    """The probe images with their patches permuted, each in a way of its own; the same for the same images."""
    return content_shuffled(images, grid, torch.Generator().manual_seed(PERMUTATION_SEED))


class ContentProbe:
    """What attention does on images of one content: measurements of each layer, and maps over offsets as arrays."""

    def __init__(self, content: str, grids: Mapping[str, PatchGrid]):
        self.content, self.grids = content, attention_grids(grids)
        self.layers: dict[int, list[Measurement]] = {}
        self.arrays: dict = {}

    def run(self, model: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        """One pass, backward too where there are labels; gives the model's output."""
        grid = as_backbone(model).grid
        self.contents = pair_contents(images, grid) if images.dim() == 4 else None
        return stream(model, images, labels, self._receive)

    def rows(self) -> list[Measurement]:
        return [row for layer in sorted(self.layers) for row in self.layers[layer]]

    def _receive(self, layer: int, record: AttentionRecord) -> None:
        sums = layer_sums(record, self.grids, contents=self.contents)
        rows = list(layer_measurements(sums, layer, "probe", content=self.content))
        if layer == 0:
            rows += logit_measurements(record, next(iter(self.grids.values())), content=self.content)
        self.layers[layer] = rows
        self.arrays |= {(name, layer): array.float().numpy() for name, array in layer_maps(sums).items()}


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
