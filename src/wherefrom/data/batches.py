"""Batches as a function of (seed, step), with the control arms' permutations of patches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wherefrom.config import ARMS
from wherefrom.data.images import ImageData

PURPOSES = ("epoch", "crop", "flip", "scramble", "scramble test", "shuffle", "probe")
TEST_BATCH = 250


class Batches:
    """What a model is trained and tested on in one arm with one seed. Holds no state: the same call, the same batch.

    Args:
        data: the images.
        arm: `natural`; `shuffled`: one permutation of the patches, the seed's own, for all images; `scrambled`: another
            permutation for every image at every step.
        patch_size: side of a patch in pixels.
        batch_size: images in a training batch.
        seed: of the order of images, crops, mirror images and permutations.

    Raises:
        ValueError: if patch_size does not divide the images, or a batch has more images than an epoch.
    """

    def __init__(self, data: ImageData, *, arm: str, patch_size: int, batch_size: int, seed: int):
        _, height, width = data.image_shape
        if arm not in ARMS:
            raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
        if min(patch_size, batch_size) < 1:
            raise ValueError(f"patch_size and batch_size must be at least 1; found {patch_size} and {batch_size}")
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"patch_size must divide height and width of the images; {data.name} has {height} × {width} pixels and "
                f"patch_size is {patch_size}; choose a divisor of both"
            )
        if height == width == patch_size:
            raise ValueError(
                f"patch_size must leave at least two patches; {data.name} has {height} × {width} pixels and patch_size "
                f"is {patch_size}; choose a smaller divisor of both"
            )
        self.epoch_size = len(data.train_images) * data.views
        if batch_size > self.epoch_size:
            raise ValueError(
                f"batch_size is {batch_size}, but {data.name} has only {self.epoch_size} training images; choose a "
                f"smaller batch_size"
            )
        self.data, self.arm, self.patch_size, self.batch_size, self.seed = data, arm, patch_size, batch_size, seed
        self.num_patches = (height // patch_size) * (width // patch_size)
        self.patch_order: np.ndarray | None = None
        """Shuffled arm: position p holds the patch whose true place is patch_order[p]."""
        if arm == "shuffled":
            self.patch_order = torch.randperm(self.num_patches, generator=self._generator("shuffle")).numpy()
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    def train(self, step: int) -> tuple[Float[Tensor, "batch channel y x"], Int[Tensor, " batch"]]:
        """The batch of one step: crops and mirror images drawn for each image, each image seen once an epoch."""
        epoch, place = divmod(step * self.batch_size, self.epoch_size - self.epoch_size % self.batch_size)
        chosen = self._order(epoch)[place : place + self.batch_size] % len(self.data.train_images)
        images = random_crops(
            self.data.train_images, chosen, self.data.image_shape[1:], self.data.margin, self._generator("crop", step)
        )
        if self.data.flip:
            mirrored = torch.rand(len(images), generator=self._generator("flip", step)) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        orders = self._orders("scramble", step, len(images))
        return self._arranged(normalised(images), orders), self.data.train_labels[chosen]

    def test(self) -> Iterator[tuple[Float[Tensor, "batch channel y x"], Int[Tensor, " batch"]]]:
        """All held-out images, in order; the scrambled arm permutes each in a way of its own, always the same."""
        for part in torch.arange(len(self.data.test_images)).split(TEST_BATCH):
            yield self._held_out(part)

    def probe(self, size: int) -> tuple[Float[Tensor, "batch channel y x"], Int[Tensor, " batch"]]:
        """Held-out images, the same for all seeds, classes in turn; all of them where there are fewer than `size`."""
        generator = torch.Generator().manual_seed(_seed(0, "probe", 0))
        order = torch.randperm(len(self.data.test_images), generator=generator)
        turn = torch.zeros(len(order), dtype=torch.int64)
        labels = self.data.test_labels[order]
        for label in labels.unique():  # first of each class, second of each class, …
            turn[labels == label] = torch.arange(int((labels == label).sum()))
        chosen = order[turn.argsort(stable=True)][:size]
        return self._held_out(chosen)

    def _held_out(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        orders = self._test_orders
        images = normalised(self.data.test_images[chosen])
        return self._arranged(images, None if orders is None else orders[chosen]), self.data.test_labels[chosen]

    @cached_property
    def _test_orders(self) -> Tensor | None:
        return self._orders("scramble test", 0, len(self.data.test_images))

    def _orders(self, purpose: str, step: int, count: int) -> Tensor | None:
        """Scrambled arm: a permutation of the patches for each of `count` images, `image patch`."""
        if self.arm != "scrambled":
            return None
        return torch.rand(count, self.num_patches, generator=self._generator(purpose, step)).argsort(1)

    def _arranged(self, images: Tensor, orders: Tensor | None) -> Tensor:
        order = torch.from_numpy(self.patch_order) if self.patch_order is not None else orders
        return images if order is None else permute_patches(images, order, self.patch_size)

    def _epoch_order(self, epoch: int) -> Tensor:
        return torch.randperm(self.epoch_size, generator=self._generator("epoch", epoch))

    def _generator(self, purpose: str, step: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(_seed(self.seed, purpose, step))


def _seed(seed: int, purpose: str, step: int) -> int:
    words = np.random.SeedSequence([seed, PURPOSES.index(purpose), step + 1]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def random_crops(
    images: UInt8[Tensor, "image channel y x"],
    chosen: Int[Tensor, " batch"],
    size: tuple[int, int],
    margin: int,
    generator: torch.Generator,
) -> UInt8[Tensor, "batch channel height width"]:
    """A crop of `size` from each chosen image, its place drawn for each; beyond the image, up to `margin`, is 0."""
    height, width = images.shape[2:]
    tops, lefts = (
        torch.randint(-margin, full + margin - part + 1, (len(chosen), 1), generator=generator)
        for full, part in ((height, size[0]), (width, size[1]))
    )
    rows, columns = tops + torch.arange(size[0]), lefts + torch.arange(size[1])
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    at = chosen[:, None, None], slice(None), rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    return (images[at] * inside[..., None]).permute(0, 3, 1, 2)


def normalised(images: UInt8[Tensor, "image channel y x"]) -> Float[Tensor, "image channel y x"]:
    """(x − mean of each channel) / deviation over all channels, for each image: neither colour nor contrast tells."""
    pixels = images.float()
    centred = pixels - pixels.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1.0)  # 1 grey level: an even image


def permute_patches(
    images: Float[Tensor, "image channel y x"], order: Int[Tensor, "*image patch"], patch_size: int
) -> Float[Tensor, "image channel y x"]:
    """The image whose patch at place p is the given image's patch at place order[p].

    Args:
        images: `image channel y x`.
        order: one permutation for all images, `patch`, or one for each, `image patch`.
        patch_size: side of a patch in pixels.
    """
    count, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cut = images.reshape(count, channels, rows, patch_size, columns, patch_size)
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[torch.arange(count)[:, None], order.expand(count, -1)]
    grid = moved.unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(count, channels, height, width)
