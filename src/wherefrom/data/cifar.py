"""CIFAR-10 through torchvision, which downloads it once."""

from __future__ import annotations

from pathlib import Path

import torch

from wherefrom.data.images import ImageData

FOLDER = Path.home() / ".cache" / "wherefrom"


def cifar10() -> ImageData:
    """60,000 pictures of 32 × 32 pixels in ten classes (Krizhevsky 2009).

    Raises:
        ImportError: without torchvision.
        ValueError: if it is not there and cannot be downloaded.
    """
    try:
        from torchvision.datasets import CIFAR10  # pyrefly: ignore[missing-import]
    except ImportError:
        raise ImportError("cifar10 is loaded by torchvision, which is not installed: pip install torchvision") from None
    try:
        train, test = (CIFAR10(FOLDER, train=is_train, download=True) for is_train in (True, False))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot download cifar10 ({error}); give the path of a parquet file of it instead") from None
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test)]
    labels = [torch.tensor(part.targets) for part in (train, test)]
    return ImageData("cifar10", images[0], labels[0], images[1], labels[1], tuple(train.classes), margin=4, flip=True)
