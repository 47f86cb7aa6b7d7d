"""Batches are a function of (seed, step), and the arms permute patches and nothing else."""

from collections import Counter

import numpy as np
import pytest
import torch

from wherefrom.data import Batches, ImageData
from wherefrom.data.batches import normalised, permute_patches, random_crops

PATCH = 2


def some_images(count=12, shape=(3, 6, 4), **settings) -> ImageData:
    """Every image is a class of its own, so that a label says which image it was."""
    pixels = torch.randint(0, 256, (2 * count, *shape), generator=torch.Generator().manual_seed(0)).byte()
    label = torch.arange(count)
    names = tuple(map(str, range(count)))
    return ImageData("some", pixels[:count], label, pixels[count:], label, names, **settings)


def batches(data=None, arm="natural", seed=0, size=4) -> Batches:
    return Batches(data or some_images(), arm=arm, patch_size=PATCH, batch_size=size, seed=seed)


def patches_of(image: torch.Tensor) -> list[torch.Tensor]:
    """The patches of one image in reading order, cut one at a time."""
    _, height, width = image.shape
    corners = [(y, x) for y in range(0, height, PATCH) for x in range(0, width, PATCH)]
    return [image[:, y : y + PATCH, x : x + PATCH] for y, x in corners]


def same(images: torch.Tensor, others: torch.Tensor) -> bool:
    return torch.equal(images, others)


def close(images: torch.Tensor, others: torch.Tensor) -> bool:
    """Equal but for the order in which pixels are summed."""
    return torch.allclose(images, others, atol=1e-5)


# ---- a function of (seed, step)


@pytest.mark.parametrize("arm", ["natural", "shuffled", "scrambled"])
def test_a_batch_depends_on_seed_and_step_alone(arm):
    data = some_images(margin=1, flip=True)
    used = batches(data, arm)
    for step in (5, 0, 3):  # in any order, many times
        used.train(step)
    fresh = batches(data, arm)
    assert all(same(a, b) for step in (0, 7) for a, b in zip(used.train(step), fresh.train(step), strict=True))
    assert not same(fresh.train(0)[0], fresh.train(1)[0])
    assert not same(fresh.train(0)[0], batches(data, arm, seed=1).train(0)[0])


def test_the_state_of_torch_is_neither_read_nor_moved():
    torch.manual_seed(1)
    first = batches().train(0)[0]
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = batches().train(0)[0]
    torch.manual_seed(1)
    assert same(first, second)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("views", "size"), [(1, 4), (1, 5), (3, 4)])
def test_an_epoch_sees_each_image_once_a_view(views, size):
    made = batches(some_images(views=views), size=size)
    steps = 12 * views // size
    seen = [Counter(torch.cat([made.train(e * steps + s)[1] for s in range(steps)]).tolist()) for e in range(2)]
    for epoch in seen:
        assert max(epoch.values()) <= views
        assert sum(epoch.values()) == steps * size  # what does not fill a batch is left out
    orders = [[made.train(e * steps + s)[1].tolist() for s in range(steps)] for e in range(2)]
    assert orders[0] != orders[1]


def test_labels_are_those_of_their_images():
    data = some_images()
    for images, labels in [batches(data).train(2), next(batches(data).test()), batches(data).probe(5)]:
        source = data.train_images if len(images) == 4 else data.test_images
        assert close(images, normalised(source[labels]))


def test_crops_and_mirror_images_are_drawn_for_each_image():
    row = torch.arange(40, dtype=torch.uint8).expand(8, 1, 4, 40)
    crops = random_crops(row, torch.arange(8), (4, 6), 0, torch.Generator().manual_seed(0))
    starts = crops[:, 0, 0, 0].tolist()
    assert len(set(starts)) > 4
    for start, crop in zip(starts, crops, strict=True):
        assert crop[0].tolist() == [list(range(start, start + 6))] * 4
    data = some_images(flip=True)
    images, labels = batches(data, size=12).train(0)
    straight = normalised(data.train_images)[labels]
    mirrored = [close(image, other.flip(2)) for image, other in zip(images, straight, strict=True)]
    as_it_was = [close(image, other) for image, other in zip(images, straight, strict=True)]
    assert 0 < sum(mirrored) < 12
    assert [not flipped for flipped in mirrored] == as_it_was


def test_crops_that_reach_beyond_the_image_show_0_there():
    ones = torch.ones(50, 1, 4, 4, dtype=torch.uint8)
    crops = random_crops(ones, torch.arange(50), (4, 4), 2, torch.Generator().manual_seed(0))
    sums = crops.sum((1, 2, 3)).tolist()
    assert max(sums) == 16  # some crop lies within
    assert min(sums) == 4  # some crop is off by 2 both ways
    assert set(crops.unique().tolist()) == {0, 1}


def test_each_image_is_normalised_by_itself():
    images = torch.randint(0, 256, (3, 3, 6, 4), generator=torch.Generator().manual_seed(0)).byte()
    for image, given in zip(normalised(images), images, strict=True):
        centred = np.stack([channel - channel.mean() for channel in given.numpy().astype(float)])
        np.testing.assert_allclose(image, centred / np.sqrt((centred**2).mean()), atol=1e-5)
    even = torch.full((1, 3, 6, 4), 200, dtype=torch.uint8)
    assert normalised(even).count_nonzero() == 0  # and no NaN


# ---- the arms


def test_patch_order_says_which_patch_lies_where():
    data = some_images()
    natural, shuffled = batches(data), batches(data, "shuffled")
    order = shuffled.patch_order
    assert sorted(order) == list(range(6))
    assert natural.patch_order is None
    pairs = [(natural.train(3), shuffled.train(3)), (next(natural.test()), next(shuffled.test()))]
    for (straight, _), (permuted, _) in [*pairs, (natural.probe(6), shuffled.probe(6))]:
        for image, moved in zip(straight, permuted, strict=True):
            true, found = patches_of(image), patches_of(moved)
            assert all(same(found[place], true[order[place]]) for place in range(6))


def test_shuffled_order_is_the_seeds_own():
    data = some_images(shape=(1, 8, 8))
    orders = [batches(data, "shuffled", seed).patch_order.tolist() for seed in (0, 0, 1, 2)]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_scrambled_permutes_every_image_anew():
    data = some_images(shape=(1, 8, 8))
    natural, scrambled = batches(data), batches(data, "scrambled")

    def orders(made):
        """Which patch lies where, by finding each of the natural arm's patches."""
        for (straight, _), (moved, _) in made:
            for image, other in zip(straight, moved, strict=True):
                true, found = patches_of(image), patches_of(other)
                yield tuple(next(i for i in range(16) if same(true[i], patch)) for patch in found)

    steps = [(natural.train(step), scrambled.train(step)) for step in range(3)]
    held_out = [(next(natural.test()), next(scrambled.test()))]
    found = list(orders(steps + held_out))
    assert all(sorted(order) == list(range(16)) for order in found)
    assert len(set(found)) == len(found) == 3 * 4 + 12


def test_scrambled_held_out_images_stay_the_same():
    made, again = batches(arm="scrambled"), batches(arm="scrambled")
    made.train(3)
    assert same(next(made.test())[0], next(again.test())[0])
    assert same(made.probe(7)[0], again.probe(7)[0])


def test_permuting_there_and_back():
    images = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    there = permute_patches(images, order, PATCH)
    assert not same(there, images)
    assert same(permute_patches(there, order.argsort(), PATCH), images)


# ---- the probe


def test_the_probe_is_balanced_and_the_same_for_all_seeds():
    data = some_images(shape=(1, 4, 4))
    labels = torch.tensor([0] * 7 + [1] * 4 + [2])
    data = ImageData("some", data.train_images, torch.arange(12) % 3, data.test_images, labels, ("a", "b", "c"))
    images, found = batches(data).probe(7)
    assert Counter(found.tolist()) == {0: 3, 1: 3, 2: 1}
    assert len(images.unique(dim=0)) == 7
    assert same(images, batches(data, seed=5).probe(7)[0])
    assert len(batches(data).probe(100)[0]) == 12


# ---- what cannot be


def test_a_patch_must_divide_the_image():
    with pytest.raises(ValueError, match=r"patch_size must divide .* 6 × 5 pixels and patch_size is 2"):
        batches(some_images(shape=(1, 6, 5)))


def test_a_batch_must_fit_an_epoch():
    with pytest.raises(ValueError, match="batch_size is 13, but some has only 12"):
        batches(size=13)
