"""The data sets that come with installed packages: labels right, nothing held out is trained on."""

import itertools
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from wherefrom.data import describe, embedded, load
from wherefrom.data.images import held_out


def codes(images: torch.Tensor) -> set[int]:
    """Each pixel's three bytes as one number."""
    red, green, blue = images.long().unbind(1)
    return set((red << 16 | green << 8 | blue).flatten().tolist())


def test_no_pixel_of_a_photograph_is_both_trained_on_and_held_out(monkeypatch):
    """Every pixel of every photograph is marked with a number of its own."""
    drawn = []

    def marked(path):
        numbers = torch.arange(160 * 256).reshape(160, 256) + 160 * 256 * len(drawn)
        drawn.append(path)
        return torch.stack([numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255]).byte()

    monkeypatch.setattr(embedded, "_photograph", marked)
    data = embedded.photos()
    trained, tested = codes(data.train_images), codes(data.test_images)
    assert len(trained) == 15 * 160 * 192  # the train stripes, whole
    assert len(tested) == 15 * 160 * 64
    assert not trained & tested


def test_the_class_of_a_crop_is_its_photograph():
    data = load("photos")
    paths = [embedded._package_file(folder, name) for folder, names in embedded.PHOTOGRAPHS.items() for name in names]
    assert data.class_names == tuple(path.stem for path in paths)
    assert Counter(data.train_labels.tolist()) == dict.fromkeys(range(15), 3)
    assert Counter(data.test_labels.tolist()) == dict.fromkeys(range(15), 34)
    with Image.open(paths[4]) as picture:  # coffee.png, 400 × 600: 160 × 256 at a scale of 256 / 600
        assert picture.size == (600, 400)
        stripe = picture.crop((0, 12, 150, 388)).resize((64, 160), Image.Resampling.LANCZOS)
    first = data.train_images[data.train_labels == 4][0]
    assert np.abs(first.int().numpy() - np.asarray(stripe).transpose(2, 0, 1).astype(int)).mean() < 4


def test_scaling_mixes_no_stripe_with_another(tmp_path):
    """A picture of stripes in colours of their own keeps them to the last pixel: nothing leaks over an edge."""
    widths = [64, 32, 64, 32, 64]
    colours = np.repeat(np.array([10, 250, 60, 200, 110], dtype=np.uint8), [3 * width for width in widths])
    Image.fromarray(np.broadcast_to(colours, (480, 768)).copy()).save(tmp_path / "stripes.png")
    pixels = embedded._photograph(tmp_path / "stripes.png")
    assert pixels.shape == (3, 160, 256)
    expected = torch.from_numpy(np.repeat(np.array([10, 250, 60, 200, 110], dtype=np.uint8), widths))
    assert (pixels == expected).all()


@pytest.mark.parametrize(
    ("name", "side", "count", "highest"),
    [("digits", 8, 1797, 183), ("mnist", 28, 5000, 500), ("mnist16", 16, 5000, 500)],
)
def test_digits_are_whole_and_their_labels_fit(name, side, count, highest):
    data = load(name)
    assert data.image_shape == (1, side, side)
    assert data.class_names == tuple("0123456789")
    assert len(data.train_images) + len(data.test_images) == count
    assert int(data.train_images.max()) == 255
    assert max(Counter(torch.cat([data.train_labels, data.test_labels]).tolist()).values()) == highest
    means = torch.stack([data.train_images[data.train_labels == digit].float().mean(0) for digit in range(10)])
    nearest = torch.cdist(data.test_images.float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == data.test_labels).float().mean() > 0.75  # chance is 0.1


def test_averaging_keeps_the_mean_and_weighs_pixels_by_the_area_covered():
    images = torch.arange(2 * 1 * 24 * 24, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(2, 1, 24, 24)
    small = embedded.average_to(images, 16)
    for y, x in itertools.product(
        range(16), repeat=2
    ):  # a new pixel covers 1.5 old ones: each third of one counts once
        fine = [images[0, 0, (3 * y + dy) // 2, (3 * x + dx) // 2] for dy, dx in itertools.product(range(3), repeat=2)]
        assert abs(float(small[0, 0, y, x]) - sum(map(float, fine)) / 9) <= 0.5 + 1e-9
    assert torch.equal(embedded.average_to(images, 24), images)
    even = torch.full((1, 1, 24, 24), 77, dtype=torch.uint8)
    assert torch.equal(embedded.average_to(even, 16), even[..., :16, :16])


def test_loading_twice_gives_the_same():
    first, second = load("digits"), load("digits")
    assert torch.equal(first.test_images, second.test_images)
    assert torch.equal(first.train_labels, second.train_labels)


def test_held_out_is_a_fifth_of_each_class_and_never_all_of_it():
    labels = torch.tensor([0] * 50 + [1] * 4 + [2] * 2 + [3])
    chosen = held_out(labels)
    assert [int(chosen[labels == label].sum()) for label in range(4)] == [10, 1, 1, 0]
    assert torch.equal(chosen, held_out(labels))


def test_a_package_without_its_file_is_named(monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="package sklearn should carry datasets/data/digits"):
        embedded.digits()


def test_every_described_data_set_can_be_loaded_or_says_what_it_needs():
    rows = describe()
    names = [row["data"] for row in rows]
    assert {"photos", "mnist", "digits", "cifar10", "a folder", "a .parquet file"} <= set(names)
    assert all(set(row) == {"data", "images", "needs"} and all(row.values()) for row in rows)
    there = [row["data"] for row in rows if row["needs"].startswith("nothing")]
    assert there == ["mnist16", "photos", "mnist", "digits"]  # each is loaded in a test above


def test_cifar10_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        load("cifar10")
