"""Batches that users hand over, checked before a model sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def refuse_bad_batch(images: Tensor, labels: Tensor | None) -> None:
    """Raise ValueError unless images are finite numbers `batch channel y x`, and labels whole numbers, one an image."""
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be floating-point numbers of shape batch × channel × height × width; found {images.dtype} of "
            f"shape {tuple(images.shape)}"
        )
    if not len(images):
        raise ValueError("the batch of images is empty; give at least one")
    if not images.isfinite().all():
        raise ValueError("the images hold numbers that are not finite (NaN or infinite); clean them first")
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype != torch.int64):
        raise ValueError(
            f"labels must be whole numbers (int64), one for each of {len(images)} images; found {labels.dtype} of "
            f"shape {tuple(labels.shape)}"
        )


def refuse_bad_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError unless all labels are classes of the model."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie between 0 and {num_classes - 1}, the model's classes; found {low} to {high}")


def run_model(model: nn.Module, images: Tensor) -> Tensor:
    """The model's class scores; a model that cannot take the images is named with their shape.

    Raises:
        ValueError: if the model's layers refuse the shape of the images.
    """
    try:
        output = model(images)
    except RuntimeError as error:
        if "shape" not in str(error) and "size" not in str(error):
            raise
        what = f"{type(model).__name__} cannot take images of shape {tuple(images.shape)}"
        raise ValueError(f"{what}: {str(error).splitlines()[0]}; give it images of the size it was made for") from error
    return output if isinstance(output, Tensor) else output.logits
