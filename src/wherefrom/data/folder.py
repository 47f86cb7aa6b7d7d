"""Image folders: `train/<class>/…` beside `test/<class>/…`, or `<class>/…` alone."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from wherefrom.data.images import ImageData, split

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
TEST_NAMES = ("test", "val", "validation", "valid")
MARGIN = 1 / 8
"""Crops of training images may start this share of the image outside of it."""


def image_folder(path: Path, image_size: int | None = None) -> ImageData:
    """Pictures whose class is the name of their folder.

    Raises:
        ValueError: for an empty folder, one without class folders, an unreadable picture, or pictures of several sizes.
    """
    parts = [path / name for name in TEST_NAMES if (path / name).is_dir()]
    if (path / "train").is_dir() and parts:
        train, test = _classes(path / "train"), _classes(parts[0])
        if unknown := sorted(set(test) - set(train)):
            raise ValueError(f"{parts[0]} has class {unknown[0]!r}, which {path / 'train'} has not; give both the same")
        names = tuple(sorted(train))
        images, labels = _read(train, names, image_size)
        test_images, test_labels = _read(test, names, image_size)
        refuse_two_sizes(path, images, test_images)
        return ImageData(
            path.name, images, labels, test_images, test_labels, names, margin=margin_of(images), flip=True
        )
    classes = _classes(path / "train" if (path / "train").is_dir() else path)
    names = tuple(sorted(classes))
    images, labels = _read(classes, names, image_size)
    return split(path.name, images, labels, names, margin=margin_of(images), flip=True)


def stack(pictures: Sequence[tuple[str, bytes | Path]], image_size: int | None) -> Tensor:
    """`image channel y x`, bytes, of named pictures; all grey: one channel, else three.

    Raises:
        ValueError: for an unreadable picture, or pictures of several sizes.
    """
    decoded = [(name, _decode(name, source, image_size)) for name, source in pictures]
    first_name, first = decoded[0]
    for name, picture in decoded:
        if picture.size != first.size:
            raise ValueError(
                f"all images must have one size; {first_name} has {_size(first)} pixels and {name} has "
                f"{_size(picture)}; bring them to one size first, or give image_size"
            )
    mode = "L" if all(picture.mode in ("1", "L") for _, picture in decoded) else "RGB"
    pixels = np.stack([np.asarray(picture.convert(mode)) for _, picture in decoded])
    return torch.from_numpy(pixels.reshape(*pixels.shape[:3], -1)).permute(0, 3, 1, 2).contiguous()


def refuse_two_sizes(path: Path, train: Tensor, test: Tensor) -> None:
    """Raise ValueError if training and test images differ in shape."""
    if train.shape[1:] != test.shape[1:]:
        shapes = [" × ".join(map(str, images.shape[1:])) for images in (train, test)]
        raise ValueError(
            f"all images of {path} must have one shape; training images have {shapes[0]} (channels × height × width) "
            f"and test images {shapes[1]}; bring them to one size and mode"
        )


def margin_of(images: Tensor) -> int:
    return int(min(images.shape[2:]) * MARGIN)


def _classes(path: Path) -> dict[str, list[Path]]:
    """Picture files by class folder."""
    folders = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    classes = {folder.name: _pictures(folder) for folder in folders}
    if not folders:
        what = f"{len(_pictures(path))} pictures but no class folders" if _pictures(path) else "nothing"
        raise ValueError(f"{path} should hold one folder of pictures for each class; it holds {what}")
    for name, files in classes.items():
        if not files:
            raise ValueError(f"{path / name} holds no pictures; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return classes


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def _read(classes: dict[str, list[Path]], names: tuple[str, ...], image_size: int | None) -> tuple[Tensor, Tensor]:
    files = [(file, label) for label, name in enumerate(names) for file in classes.get(name, ())]
    images = stack([(str(file), file) for file, _ in files], image_size)
    return images, torch.tensor([label for _, label in files])


def _decode(name: str, source: bytes | Path, image_size: int | None) -> Image.Image:
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as picture:
            plain = picture if picture.mode in ("1", "L", "RGB") else picture.convert("RGB")
            plain.load()
            return plain.resize((image_size, image_size), Image.Resampling.BILINEAR) if image_size else plain.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the picture {name}: {error}; repair it or take it away") from None


def _size(picture: Image.Image) -> str:
    return f"{picture.height} × {picture.width}"
