"""The content-shuffled images: what a model still does on them, it does because of positions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wherefrom.geometry import PatchGrid
from wherefrom.measures.contents import images_of, patches_of


def content_shuffled(
    images: Float[Tensor, "image channel y x"], grid: PatchGrid, generator: torch.Generator
) -> Float[Tensor, "image channel y x"]:
    """Each image with its patches in an order of its own, drawn uniformly from all permutations.

    Orders are drawn image after image, so those of a batch do not depend on how images are cut into batches.

    Args:
        images: `image channel y x`.
        grid: of the model.
        generator: on the CPU.

    Raises:
        ValueError: if the grid does not divide the image.

    References:
        Naseer et al. 2021, Intriguing Properties of Vision Transformers (NeurIPS), shuffle patches at test time.
    """
    orders = [torch.randperm(grid.num_patches, generator=generator) for _ in range(len(images))]
    return move_patches(images, torch.stack(orders) if orders else torch.empty(0, grid.num_patches).long(), grid)


def move_patches(
    images: Float[Tensor, "image channel y x"], orders: Int[Tensor, "image patch"], grid: PatchGrid
) -> Float[Tensor, "image channel y x"]:
    """Images whose patch at position p is the patch that was at position orders[image, p].

    Args:
        images: `image channel y x`.
        orders: a permutation for each image, `image patch`.
        grid: of the model.

    Raises:
        ValueError: if the grid does not divide the image.
    """
    image = torch.arange(len(images), device=images.device)[:, None]
    return images_of(patches_of(images, grid)[image, orders.to(images.device)], grid)
