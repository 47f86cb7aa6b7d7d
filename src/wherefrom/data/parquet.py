"""Parquet files in the Hugging Face layout: `image` struct{bytes, path}, `label`, class names in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from wherefrom.data.folder import TEST_NAMES, margin_of, refuse_two_sizes, stack
from wherefrom.data.images import ImageData, split

IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")


def parquet(path: Path, image_size: int | None = None) -> ImageData:
    """A file of labelled pictures. If its name says `train`, one beside it that says `test` or `val` is the test set.

    Raises:
        ValueError: for a file that is no parquet, lacks a column, or holds an unreadable picture or several sizes.
    """
    images, labels, names = _read(path, image_size)
    others = [path.with_name(path.name.replace("train", name)) for name in TEST_NAMES] if "train" in path.name else []
    test = next((other for other in others if other.is_file()), None)
    if test is None:
        return split(path.stem, images, labels, names, margin=margin_of(images), flip=True)
    test_images, test_labels, test_names = _read(test, image_size)
    refuse_two_sizes(path, images, test_images)
    if len(test_names) > len(names):
        raise ValueError(f"{test} has {len(test_names)} classes and {path} only {len(names)}; give both the same")
    return ImageData(path.stem, images, labels, test_images, test_labels, names, margin=margin_of(images), flip=True)


def _read(path: Path, image_size: int | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"cannot read {path} as parquet: {str(error).splitlines()[0]}") from None
    image, label = _column(path, table, IMAGE_COLUMNS), _column(path, table, LABEL_COLUMNS)
    if not len(table):
        raise ValueError(f"{path} holds no rows; expected labelled pictures")
    cells = table[image].to_pylist()
    if not all(isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes) for cell in cells):
        raise ValueError(
            f"column {image!r} of {path} must hold pictures as struct{{bytes, path}}; found {table[image].type}"
        )
    images = stack([(f"in row {row} of {path}", cell["bytes"]) for row, cell in enumerate(cells)], image_size)
    labels, names = _labels(path, table, label)
    return images, labels, names


def _column(path: Path, table: pa.Table, names: tuple[str, ...]) -> str:
    for name in names:
        if name in table.column_names:
            return name
    raise ValueError(f"{path} has no column {names[0]!r}; it has {', '.join(table.column_names) or 'none'}")


def _labels(path: Path, table: pa.Table, column: str) -> tuple[Tensor, tuple[str, ...]]:
    if not pa.types.is_integer(table.schema.field(column).type) or table[column].null_count:
        raise ValueError(
            f"column {column!r} of {path} must hold a whole number in each row; found {table[column].type}"
        )
    values = torch.tensor(table[column].to_pylist())
    known = _class_names(table, column)
    names = known or tuple(str(label) for label in range(int(values.max()) + 1))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= len(names):
        raise ValueError(f"labels of {path} must lie between 0 and {len(names) - 1}; found {low} to {high}")
    return values, names


def _class_names(table: pa.Table, column: str) -> tuple[str, ...]:
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    features = json.loads(metadata)["info"]["features"] if metadata else {}
    return tuple(features.get(column, {}).get("names", ()))
