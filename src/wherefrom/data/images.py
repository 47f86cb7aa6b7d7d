"""Images in memory: what every data set becomes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageData:
    """Training and held-out images of one data set, which share no pixel.

    Args:
        name: for sentences and records.
        train_images, test_images: `image channel y x`, bytes. Training images may be larger than what a model sees:
            each step takes a new crop of them.
        train_labels, test_labels: classes, `image`, whole numbers from 0.
        class_names: one a class.
        margin: pixels of zeros around training images from which crops may start.
        flip: whether an image may be mirrored left to right and still be of its class.
        views: crops of each training image that make one epoch.

    Raises:
        ValueError: for one class only, or no held-out images.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    margin: int = 0
    flip: bool = False
    views: int = 1

    def __post_init__(self):
        present = self.train_labels.unique()
        if len(present) < 2:
            found = self.class_names[int(present[0])] if len(present) else "none"
            raise ValueError(f"{self.name} has one class only ({found}); a classifier needs at least two classes")
        if not len(self.test_images):
            raise ValueError(f"{self.name} has no held-out images; give each class at least two images")
        if unseen := sorted(set(self.test_labels.tolist()) - set(present.tolist())):
            name = self.class_names[unseen[0]]
            raise ValueError(f"{self.name} has class {name!r} among its test images but not among its training images")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what a model sees."""
        _, channels, height, width = self.test_images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def held_out(labels: Tensor, share: float = 0.2, seed: int = 0) -> Tensor:
    """Which images to hold out: about `share` of each class, at least one of each that has two, booleans."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return chosen


def split(
    name: str, images: Tensor, labels: Tensor, class_names: tuple[str, ...], margin: int = 0, flip: bool = False
) -> ImageData:
    """Images without a split of their own: a fifth of each class is held out, always the same."""
    test = held_out(labels)
    parts = images[~test], labels[~test], images[test], labels[test]
    return ImageData(name, *parts, class_names=class_names, margin=margin, flip=flip)
