"""Advantage and pressure on the very batches that a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn

from wherefrom.attention import AttentionRecord
from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.sums import LayerSums, layer_sums
from wherefrom.models.backbone import as_backbone
from wherefrom.observe.capture import tap


class TrainingStep:
    """Observes all forward and backward passes inside `with TrainingStep(model) as step:`; then `step.measurements()`.

    Each loss must be a mean over its batch. Under torch.distributed each process observes its own images, and all end
    with the same sums.

    Args:
        model: any Vision Transformer that `as_backbone` knows.
        grids: places of the patches by name; the model's own if left out.
        loss_scale: what each mean loss was multiplied by before backward().
    """

    def __init__(self, model: nn.Module, grids: Mapping[str, PatchGrid] | None = None, loss_scale: float = 1.0):
        self.backbone = as_backbone(model)
        self.grids = attention_grids(grids or {"model": self.backbone.grid})
        self.layers: dict[int, LayerSums] = {}
        self._scope = tap(self._receive, self.backbone.depth, loss_scale)

    def __enter__(self) -> TrainingStep:
        self._tap = self._scope.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._scope.__exit__(*error)

    def measurements(self) -> list[Measurement]:
        """Advantage and pressure by layer, head and relation.

        Raises:
            RuntimeError: if not every layer passed the tap, forward and backward.
        """
        self._tap.expect(self.backbone.name)
        rows: list[Measurement] = []
        for layer, sums in sorted(self.layers.items()):
            add_over_processes(sums.tensors())
            rows += layer_measurements(sums, layer, "train", distances=False)
        return rows

    def _receive(self, layer: int, record: AttentionRecord) -> None:
        if record.grad_z is None:  # an evaluation in between
            return
        sums = layer_sums(record, self.grids, gradients_only=True)
        if layer in self.layers:
            for tensor, more in zip(self.layers[layer].tensors(), sums.tensors(), strict=True):
                tensor += more
        else:
            self.layers[layer] = sums


def attention_grids(grids: Mapping[str, PatchGrid]) -> Mapping[str, PatchGrid]:
    """Where attention is measured: on the true grid alone where there is one; that of the model then says nothing."""
    return {"true": grids["true"]} if "true" in grids else grids


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def add_over_processes(tensors: list[torch.Tensor]) -> None:
    """Replace each tensor by its sum over processes; nothing to do in one process."""
    if dist.is_available() and dist.is_initialized():
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
