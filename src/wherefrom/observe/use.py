"""Does the model use its positions? What it loses on images whose patches are shuffled."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wherefrom.catalogue import Measurement
from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import is_cut_by
from wherefrom.measures.use import content_shuffled
from wherefrom.models.backbone import as_backbone
from wherefrom.observe.capture import evaluating
from wherefrom.observe.inputs import refuse_bad_batch, refuse_bad_labels, run_model

PERMUTATIONS = 4
"""Permutations of each image."""
AT_ONCE = 64
"""Images in a forward pass at most: on a CPU, 256 small ones take half as long again."""


def position_use(
    model: nn.Module,
    images: Float[Tensor, "image channel y x"],
    labels: Int[Tensor, " image"],
    grid: PatchGrid,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> tuple[float, float]:
    """mean over images and permutations π of ℓ(π image) − ℓ(image), with ℓ the cross-entropy; and the accuracy lost.

    π permutes the patches among the positions, `permutations` of them for each image, drawn uniformly. For a table of
    absolute positions and mean pooling it is the same as permuting the table's rows by π⁻¹.

    Args:
        model: any Vision Transformer that `as_backbone` knows; read in evaluation mode, left as it was.
        images: `image channel y x`.
        labels: their classes, `image`.
        grid: of the model.
        permutations: of each image.
        seed: of the permutations; the same for the same seed, number of images and grid, on any device.

    Returns:
        (change of the loss in nats, accuracy lost as a share in [−1, 1]). 0 for a model that does not use positions,
        above 0 for one that does.

    Raises:
        ValueError: if the grid does not divide the images, or the batch does not fit the model.

    References:
        Naseer et al. 2021, Intriguing Properties of Vision Transformers (NeurIPS), shuffle patches at test time.
    """
    changes = use_changes(model, [(images, labels)], grid, permutations, seed)
    loss, accuracy = changes.mean(0).tolist()
    return loss, accuracy


def use_rows(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    split: str,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Measurement]:
    """`position_use` and `position_use_accuracy` over all batches; nothing where the grid does not divide the images.

    Args:
        model: any Vision Transformer that `as_backbone` knows.
        batches: of (images, labels); how they are cut changes nothing but rounding.
        split: of the images, `test` or `probe`.
        permutations: of each image.
        seed: of the permutations.
    """
    grid = as_backbone(model).grid
    batches = list(batches)
    if not batches or not all(is_cut_by(images, grid) for images, _ in batches):
        return []
    loss, accuracy = use_changes(model, batches, grid, permutations, seed).mean(0).tolist()
    return [Measurement("position_use", loss, split), Measurement("position_use_accuracy", accuracy, split)]


@torch.no_grad()
def use_changes(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    grid: PatchGrid,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Float[Tensor, "image 2"]:
    """Loss added and accuracy lost of each image, mean over its permutations; arguments as of `position_use`."""
    if permutations < 1:
        raise ValueError(f"position use needs at least one permutation of each image; found {permutations}")
    generator, changes = torch.Generator().manual_seed(seed), []
    with evaluating(model):
        for images, labels in batches:
            refuse_bad_batch(images, labels)
            before = _losses(model, images, labels)
            shuffled = content_shuffled(images.repeat_interleave(permutations, 0), grid, generator)
            after = _losses(model, shuffled, labels.repeat_interleave(permutations))
            changes.append(after.unflatten(0, (-1, permutations)).mean(1) - before)
    return torch.cat(changes)


def _losses(model: nn.Module, images: Tensor, labels: Tensor) -> Float[Tensor, "image 2"]:
    """Cross-entropy in nats of each image, and 0 where it is classified right, else 1."""
    found = []
    for x, y in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        output = run_model(model, x)
        refuse_bad_labels(y, output.shape[-1])
        losses = F.cross_entropy(output, y, reduction="none").double().cpu()
        found.append(torch.stack([losses, (output.argmax(-1) != y).double().cpu()], 1))
    return torch.cat(found)
