"""Images to train on: by name, or from a folder or file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from wherefrom.data.batches import Batches
from wherefrom.data.cifar import cifar10
from wherefrom.data.embedded import digits, mnist, mnist16, photos
from wherefrom.data.folder import image_folder
from wherefrom.data.images import ImageData

__all__ = ["Batches", "ImageData", "describe", "load"]


@dataclass(frozen=True)
class _DataSet:
    load: Callable[[], ImageData]
    images: str
    needs: str


_KNOWN = {
    "mnist16": _DataSet(mnist16, "5,000 handwritten digits, 16 × 16, grey; their layout tells them apart", "nothing"),
    "photos": _DataSet(photos, "32 × 32 crops of 15 photographs; the class is the photograph", "nothing"),
    "mnist": _DataSet(mnist, "5,000 handwritten digits, 28 × 28, grey", "nothing"),
    "digits": _DataSet(digits, "1,797 handwritten digits, 8 × 8, grey", "nothing; try --model.patch-size 1 or 2"),
    "cifar10": _DataSet(cifar10, "60,000 pictures in 10 classes, 32 × 32", "torchvision, and a download of 170 MB"),
}
_PATHS = {
    "a folder": "train/CLASS/… and test/CLASS/…, or CLASS/… alone (a fifth is held out); pictures of one size",
    "a .parquet file": "columns image (struct{bytes, path}) and label; …train….parquet takes …test….parquet beside it",
}


def load(name: str | Path, *, image_size: int | None = None) -> ImageData:
    """The data set of that name, or in that image folder or parquet file.

    Args:
        name: a known name, or a path.
        image_size: bring all pictures of a folder or file to this many pixels square.

    Raises:
        ValueError: for an unknown name or a path without images; the sentence says what is known.
        ImportError: if a data set needs a package that is not installed.
    """
    if str(name) in _KNOWN:
        return _KNOWN[str(name)].load()
    path = Path(name)
    if path.is_dir():
        return image_folder(path, image_size)
    if path.is_file() and path.suffix == ".parquet":
        from wherefrom.data.parquet import parquet  # pyarrow takes a quarter of a second

        return parquet(path, image_size)
    if path.exists():
        raise ValueError(f"{path} is no image folder and no .parquet file; known names: {', '.join(_KNOWN)}")
    near = get_close_matches(str(name), _KNOWN, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"unknown data {str(name)!r}: no data set has that name and no such path exists; {guess}"
        f"known names: {', '.join(_KNOWN)}"
    )


def describe() -> list[dict[str, str]]:
    """What can be loaded, and what each needs: `data`, `images`, `needs`."""
    sets = [{"data": name, "images": known.images, "needs": known.needs} for name, known in _KNOWN.items()]
    return sets + [{"data": kind, "images": "your own", "needs": needs} for kind, needs in _PATHS.items()]
