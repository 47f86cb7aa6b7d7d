"""Image folders and parquet files: as users have them, and as they are by mistake."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from wherefrom.data import Batches, load


def picture(value: int, mode="RGB", size=(6, 4)) -> Image.Image:
    """Every pixel is `value`, so that a picture is known again."""
    return Image.new(mode, size, value if mode == "L" else (value, value, value))


def folder(root: Path, classes: dict[str, list[Image.Image]]) -> Path:
    for name, pictures in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pictures):
            image.save(root / name / f"{number:02d}.png")
    return root


def encoded(image: Image.Image) -> dict:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def parquet_file(path: Path, pictures: list[Image.Image], labels: list[int], names=None, columns=("image", "label")):
    table = pa.table({columns[0]: [encoded(image) for image in pictures], columns[1]: pa.array(labels, pa.int64())})
    if names:
        info = {"info": {"features": {columns[1]: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path)
    return path


def values(images: torch.Tensor) -> list[int]:
    """The grey value of each even picture."""
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


# ---- folders


def test_folder_without_a_split_holds_out_a_fifth_of_each_class(tmp_path):
    cats, dogs = [picture(v) for v in range(10)], [picture(v) for v in range(100, 120)]
    data = load(folder(tmp_path, {"dog": dogs, "cat": cats}))
    assert data.class_names == ("cat", "dog")
    trained, tested = values(data.train_images), values(data.test_images)
    assert sorted(trained + tested) == [*range(10), *range(100, 120)]  # all, none in both
    assert [sum(v < 50 for v in part) for part in (trained, tested)] == [8, 2]
    for part, labels in ((trained, data.train_labels), (tested, data.test_labels)):
        assert [int(value >= 100) for value in part] == labels.tolist()
    assert data.image_shape == (3, 4, 6)


@pytest.mark.parametrize("test", ["test", "val"])
def test_folder_with_a_split_keeps_it(tmp_path, test):
    folder(tmp_path / "train", {"a": [picture(1), picture(2)], "b": [picture(3)]})
    folder(tmp_path / test, {"b": [picture(13)], "a": [picture(11)]})
    data = load(tmp_path)
    assert (values(data.train_images), data.train_labels.tolist()) == ([1, 2, 3], [0, 0, 1])
    assert (values(data.test_images), data.test_labels.tolist()) == ([11, 13], [0, 1])


def test_grey_and_coloured_pictures_together_become_colour(tmp_path):
    mixed = folder(tmp_path / "mixed", {"a": [picture(1, "L"), picture(2)], "b": [picture(3), picture(4, "L")]})
    assert load(mixed).image_shape == (3, 4, 6)
    grey = folder(tmp_path / "grey", {"a": [picture(v, "L") for v in (1, 2)], "b": [picture(v, "L") for v in (3, 4)]})
    assert load(grey).image_shape == (1, 4, 6)


def test_pictures_are_brought_to_one_size_if_asked(tmp_path):
    sizes = [picture(1), picture(2, size=(9, 9))]
    assert load(folder(tmp_path, {"a": sizes, "b": sizes}), image_size=8).image_shape == (3, 8, 8)


def test_rows_and_columns_of_a_picture_stay_what_they_are(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    data = load(folder(tmp_path, {name: [Image.fromarray(pixels)] * 2 for name in "ab"}))
    np.testing.assert_array_equal(data.test_images[0].permute(1, 2, 0), pixels)


# ---- parquet


def test_parquet_with_class_names(tmp_path):
    pictures = [picture(v) for v in range(10)]
    data = load(parquet_file(tmp_path / "all.parquet", pictures, [0, 1] * 5, names=["cat", "dog"]))
    assert data.class_names == ("cat", "dog")
    assert sorted(values(data.train_images) + values(data.test_images)) == list(range(10))
    assert [value % 2 for value in values(data.train_images)] == data.train_labels.tolist()


def test_parquet_without_class_names_counts_them(tmp_path):
    data = load(
        parquet_file(tmp_path / "x.parquet", [picture(v) for v in range(8)], [0, 2] * 4, None, ("img", "labels"))
    )
    assert data.class_names == ("0", "1", "2")


def test_parquet_takes_its_test_file_from_beside_it(tmp_path):
    parquet_file(tmp_path / "some-train.parquet", [picture(v) for v in range(4)], [0, 1] * 2)
    parquet_file(tmp_path / "some-test.parquet", [picture(v) for v in (50, 51)], [1, 0])
    data = load(str(tmp_path / "some-train.parquet"))
    assert values(data.train_images) == [0, 1, 2, 3]
    assert (values(data.test_images), data.test_labels.tolist()) == ([50, 51], [1, 0])


@pytest.mark.parametrize(("name", "side", "classes"), [("cifar10-test-2k", 32, 10), ("tiny-imagenet-20-val", 64, 20)])
def test_real_files(shared_data, name, side, classes):
    data = load(shared_data / f"{name}.parquet")
    assert data.image_shape == (3, side, side)
    assert len(set(data.train_labels.tolist())) == len(set(data.test_labels.tolist())) == data.num_classes == classes
    images, _ = Batches(data, arm="scrambled", patch_size=8, batch_size=16, seed=0).train(0)
    assert images.shape == (16, 3, side, side)
    assert images.isfinite().all()


# ---- what cannot be


def folder_of_sizes(root):
    return folder(root, {"a": [picture(1), picture(2, size=(8, 4))], "b": [picture(3)]})


def folder_with_text(root):
    folder(root, {"a": [picture(1)], "b": [picture(2)]})
    (root / "b" / "x.png").write_text("no picture")
    return root


def folder_half_written(root):
    folder(root, {"a": [picture(1)], "b": [picture(2, size=(200, 200))]})
    whole = (root / "b" / "00.png").read_bytes()
    (root / "b" / "00.png").write_bytes(whole[: len(whole) // 2])
    return root


def folder_of_more_in_test(root):
    folder(root / "train", {"a": [picture(1)], "b": [picture(2)]})
    folder(root / "test", {"a": [picture(1)], "c": [picture(2)]})
    return root


def folder_of_two_modes(root):
    folder(root / "train", {"a": [picture(1)], "b": [picture(2)]})
    folder(root / "test", {"a": [picture(1, "L")], "b": [picture(2, "L")]})
    return root


def table(root, **columns):
    pq.write_table(pa.table(columns), root / "t.parquet")
    return root / "t.parquet"


def text_file(root, name):
    (root / name).write_text("nothing of the kind")
    return root / name


WRONG = {
    "empty folder": (lambda root: root, "should hold one folder of pictures for each class; it holds nothing"),
    "no classes": (lambda root: folder(root, {".": [picture(1)]}), "1 pictures but no class folders"),
    "empty class": (lambda root: folder(root, {"a": [picture(1)], "b": []}), "b holds no pictures"),
    "one class": (lambda root: folder(root, {"a": [picture(1)] * 5}), r"one class only \(a\)"),
    "one picture a class": (lambda root: folder(root, {"a": [picture(1)], "b": [picture(2)]}), "no held-out images"),
    "several sizes": (folder_of_sizes, "one size.* 4 × 6 pixels and .* 4 × 8"),
    "no picture": (folder_with_text, r"cannot read the picture .*x\.png"),
    "half a picture": (folder_half_written, r"cannot read the picture .*00\.png"),
    "class only in test": (folder_of_more_in_test, "has class 'c'"),
    "grey only in test": (folder_of_two_modes, "one shape; training images have 3 × 4 × 6 .* 1 × 4 × 6"),
    "no parquet": (lambda root: text_file(root, "x.parquet"), "cannot read .*as parquet"),
    "another file": (lambda root: text_file(root, "x.zip"), r"no image folder and no \.parquet file"),
    "no image column": (lambda root: table(root, picture=[1], label=[0]), "no column 'image'; it has picture, label"),
    "no label column": (lambda root: table(root, image=[encoded(picture(1))]), "no column 'label'; it has image"),
    "no rows": (lambda root: table(root, image=pa.array([], pa.string()), label=pa.array([], pa.int64())), "no rows"),
    "images as text": (lambda root: table(root, image=["x"], label=[0]), "must hold pictures as struct"),
    "text labels": (lambda root: table(root, image=[encoded(picture(1))], label=["a"]), "a whole number in each row"),
    "label missing": (lambda root: table(root, image=[encoded(picture(1))] * 2, label=[0, None]), "in each row"),
    "negative label": (lambda root: parquet_file(root / "t.parquet", [picture(1)] * 2, [-1, 1]), "found -1 to 1"),
    "label without a name": (
        lambda root: parquet_file(root / "t.parquet", [picture(1)] * 3, [0, 1, 2], ["a", "b"]),
        "must lie between 0 and 1; found 0 to 2",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(tmp_path, name):
    make, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as found:
        load(make(tmp_path))
    assert "\n" not in str(found.value)
