"""Pictures put back together: every patch where the arrangement says, every line what the table says."""

import numpy as np
import pandas as pd
import pytest

from wherefrom import figures
from wherefrom.figures.unscramble import clearest, put_back
from wherefrom.geometry import PatchGrid

GRID = PatchGrid(2, 3)


def test_a_shuffled_image_put_back_is_the_image():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (4, 9, 3), dtype=np.uint8)
    order = random.permutation(6)
    shuffled = np.empty_like(image)
    for place, true in enumerate(order):
        (y, x), (v, u) = divmod(place, 3), divmod(int(true), 3)
        shuffled[2 * y : 2 * y + 2, 3 * x : 3 * x + 3] = image[2 * v : 2 * v + 2, 3 * u : 3 * u + 3]
    np.testing.assert_array_equal(put_back(shuffled, order, GRID), image)
    axes = figures.unscrambled(shuffled, {"shuffled": range(6), "step 9": order}, GRID)
    assert [ax.get_title(loc="left") for ax in axes] == ["shuffled", "step 9"]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), shuffled)
    np.testing.assert_array_equal(axes[1].images[0].get_array(), image)


def test_an_arrangement_that_is_none_is_refused():
    with pytest.raises(ValueError, match="arrangement of the patches of a grid of 2 × 3; found 4 × 9 pixels"):
        put_back(np.zeros((4, 9, 3)), np.zeros(6, int), GRID)


def test_recovery_lines_are_those_of_the_table():
    values = {
        ("edge_recovery", 0): 0.1, ("edge_recovery", 20): 0.3, ("edge_recovery_path", 20): 0.9,
        ("edge_recovery_chance", 0): 0.05, ("edge_recovery_chance", 20): 0.05, ("edge_recovery_pixels", 0): 1.0,
    }  # fmt: skip
    table = pd.DataFrame([{"measure": m, "step": step, "value": v} for (m, step), v in values.items()])
    ax = figures.recovery_over_steps(table)
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert drawn == {
        "path of the position embedding": [0.9], "position embedding as it is": [0.1, 0.3],
        "pixels alone": [1.0, 1.0], "chance": [0.05, 0.05],
    }  # fmt: skip
    with pytest.raises(ValueError, match="holds no edge_recovery"):
        figures.recovery_over_steps(table[:0])


def test_the_clearest_image_is_the_one_whose_patches_differ():
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (4, 9, 3), dtype=np.uint8)
    flat_patches = np.repeat(np.repeat(random.integers(0, 256, (2, 3, 3), dtype=np.uint8), 2, 0), 3, 1)
    assert clearest(np.stack([noise, flat_patches, noise]), GRID) == 1
