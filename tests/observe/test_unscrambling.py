"""Following pos_embed through training: the running sum is the path, a resumed one goes on the same."""

import numpy as np
import torch

from wherefrom import measures
from wherefrom.geometry import PatchGrid
from wherefrom.observe.unscrambling import Unscrambling, follow_places, pixel_measurements

GRID = PatchGrid(4, 5)


def smooth_steps(order: np.ndarray, steps: int) -> torch.Tensor:
    """Steps of a position embedding, alike for places that are near each other, `step patch width`."""
    random = np.random.default_rng(0)
    kernel = np.exp(-GRID.reordered(order).distances / 2)
    return torch.from_numpy(np.linalg.cholesky(kernel) @ random.normal(size=(steps, GRID.num_patches, 16)))


def values(rows) -> dict:
    return {row.measure: row.value for row in rows}


def test_the_path_tells_the_places_where_the_table_does_not_and_resuming_changes_nothing():
    order = np.random.default_rng(1).permutation(GRID.num_patches)
    steps = smooth_steps(order, 60)
    noise = 300 * torch.randn(steps[0].shape, generator=torch.Generator().manual_seed(0)).double()
    pos_embed = torch.nn.Parameter(noise[None])
    whole = Unscrambling(pos_embed, GRID.reordered(order))
    resumed, path = Unscrambling(pos_embed, GRID.reordered(order)), [pos_embed.detach()[0].clone()]
    for number, step in enumerate(steps):
        with torch.no_grad():
            pos_embed += step
        path.append(pos_embed.detach()[0].clone())
        if number == 30:
            state, resumed = resumed.state_dict(), Unscrambling(pos_embed, GRID.reordered(order))
            resumed.load_state_dict(state)
        for each in (whole, resumed):
            each.note()
    np.testing.assert_allclose(whole.total / whole.count, measures.path_similarity(torch.stack(path).numpy()))
    assert torch.equal(whole.total, resumed.total)
    rows, arrays = whole.measurements()
    assert values(rows)["edge_recovery_path"] == 1
    assert values(rows)["edge_recovery"] < 0.5
    np.testing.assert_array_equal(arrays["pos_arrangement_path"], order)
    assert values(resumed.measurements()[0]) == values(rows)


def test_before_the_second_update_there_is_no_path():
    rows, arrays = Unscrambling(torch.randn(1, 20, 4), GRID.reordered(range(20))).measurements()
    assert set(values(rows)) == {"edge_recovery", "edge_recovery_chance"}
    assert set(arrays) == {"pos_arrangement"}


def test_only_a_learned_table_of_shuffled_patches_is_followed():
    learned, true = torch.nn.Parameter(torch.randn(1, 20, 4)), {"model": GRID, "true": GRID.reordered(range(20))}
    assert follow_places(learned, true) is not None
    assert follow_places(learned, {"model": GRID}) is None
    assert follow_places(None, true) is None
    assert follow_places(learned.detach(), true) is None


def test_pixels_of_smooth_images_put_the_grid_together():
    random, order = torch.Generator().manual_seed(0), np.random.default_rng(2).permutation(20)
    smooth = torch.nn.functional.interpolate(
        torch.randn(300, 1, 9, 11, generator=random), size=(16, 20), mode="bilinear"
    )
    patches = smooth.reshape(300, 1, 4, 4, 5, 4).transpose(3, 4).flatten(2, 3)[:, :, order]
    shuffled = patches.unflatten(2, (4, 5)).transpose(3, 4).reshape(300, 1, 16, 20)
    (row,) = pixel_measurements([shuffled[:200], shuffled[200:]], GRID.reordered(order))
    assert (row.measure, row.value) == ("edge_recovery_pixels", 1)
