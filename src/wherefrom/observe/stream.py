"""The residual stream: the tokens of patches before each layer and after the last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.stream import position_in_stream
from wherefrom.models.backbone import as_backbone

ReceiveStream = Callable[[int, Tensor], None]
"""Called with (layer, x): x is the stream before that layer, or after the last for layer = depth."""


@contextlib.contextmanager
def stream_tap(model: nn.Module, receive: ReceiveStream) -> Iterator[None]:
    """Hand the patch tokens `image patch width`, detached, of all forward passes inside the scope to `receive`.

    Where a layer takes or returns several things, the stream is the first tensor among them. What is no stream of
    `image token width` with the tokens of the model's grid is passed over. The hooks are removed at the end of the
    scope, also after an exception.

    Args:
        model: any Vision Transformer that `as_backbone` knows; its layers need not be pre-norm.
        receive: gets each stream as it passes; nothing is kept here.
    """
    backbone = as_backbone(model)

    def note(layer: int, values: object) -> None:
        x = _first_tensor(values)
        if x is not None and x.dim() == 3 and x.shape[1] == backbone.grid.num_tokens:
            receive(layer, x.detach()[:, backbone.grid.num_prefix_tokens :])

    with contextlib.ExitStack() as scope:
        blocks = list(backbone.model.blocks)
        for layer, block in enumerate(blocks):
            handle = block.register_forward_pre_hook(partial(_enter, note, layer), with_kwargs=True)
            scope.callback(handle.remove)
        handle = blocks[-1].register_forward_hook(partial(_leave, note, len(blocks)))
        scope.callback(handle.remove)
        yield


@contextlib.contextmanager
def position_in_stream_rows(
    model: nn.Module, grid: PatchGrid | None = None, split: str = "probe", content: str | None = "shuffled"
) -> Iterator[list[Measurement]]:
    """`position_in_stream` of each layer in the one forward pass inside the scope, as rows of the list it gives.

        with position_in_stream_rows(model) as rows:
            model(content_shuffled(images, grid, generator))

    Args:
        model: any Vision Transformer that `as_backbone` knows.
        grid: positions of the patches; the model's own if left out.
        split: of the images.
        content: of the images.
    """
    positions, rows = grid or as_backbone(model).grid, []

    def receive(layer: int, x: Tensor) -> None:
        x = x if x.dtype.itemsize > 4 else x.float()
        rows.append(
            Measurement("position_in_stream", float(position_in_stream(x, positions)), split, layer, content=content)
        )

    with stream_tap(model, receive):
        yield rows


def _enter(note: Callable[[int, object], None], layer: int, _, args: tuple, kwargs: dict) -> None:
    note(layer, (*args, *kwargs.values()))


def _leave(note: Callable[[int, object], None], layer: int, _, args: tuple, output: object) -> None:
    note(layer, output)


def _first_tensor(values: object) -> Tensor | None:
    parts = values if isinstance(values, (tuple, list)) else (values,)
    return next((part for part in parts if isinstance(part, Tensor)), None)
