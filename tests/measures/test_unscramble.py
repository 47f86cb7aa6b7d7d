"""Unscrambling: planted maps are found, noise is not; scores by slow loops."""

import numpy as np
import pytest

from wherefrom.geometry import PatchGrid
from wherefrom.measures.unscramble import (
    arrangement_error,
    border_similarity,
    edge_recovery,
    edge_recovery_chance,
    path_similarity,
    symmetries,
    unscramble,
    upright,
)

SHAPES = [(8, 8), (4, 7), (7, 4), (1, 6)]


def planted(height: int, width: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, PatchGrid]:
    """Likeness that falls with distance on a shuffled grid, with noise on each pair."""
    random = np.random.default_rng(seed)
    grid = PatchGrid(height, width)
    order = random.permutation(grid.num_patches)
    noisy = np.exp(-grid.reordered(order).distances / 1.5) + noise * random.normal(size=(grid.num_patches,) * 2)
    return (noisy + noisy.T) / 2, order, grid


def slow_recovery(order, true_order, grid: PatchGrid) -> float:
    """The definition, pair by pair."""
    kept, pairs = 0, 0
    for i in range(grid.num_patches):
        for j in range(i):
            (y, x), (v, u) = (divmod(int(true_order[p]), grid.width) for p in (i, j))
            if abs(y - v) + abs(x - u) == 1:
                pairs += 1
                (y, x), (v, u) = (divmod(int(order[p]), grid.width) for p in (i, j))
                kept += abs(y - v) + abs(x - u) == 1
    return kept / pairs


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_planted_map_is_recovered_fully(height: int, width: int):
    similarity, order, grid = planted(height, width, noise=0.05)
    found = unscramble(similarity, grid)
    assert edge_recovery(found, order, grid) == 1
    np.testing.assert_array_equal(upright(found, order, grid), order)


def test_noise_is_at_chance():
    grid = PatchGrid(8, 8)
    scores = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        noise = random.normal(size=(64, 64))
        scores.append(edge_recovery(unscramble(noise + noise.T, grid), random.permutation(64), grid))
    assert abs(np.mean(scores) - edge_recovery_chance(grid)) < 0.03


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_score_and_chance_against_slow_loops(height: int, width: int):
    grid, random = PatchGrid(height, width), np.random.default_rng(1)
    true, *others = (random.permutation(grid.num_patches) for _ in range(400))
    assert edge_recovery(others[0], true, grid) == pytest.approx(slow_recovery(others[0], true, grid))
    nearly = true.copy()
    nearly[:2] = nearly[1::-1]
    assert edge_recovery(nearly, true, grid) == pytest.approx(slow_recovery(nearly, true, grid))
    chance = [edge_recovery(other, true, grid) for other in others]
    assert np.mean(chance) == pytest.approx(edge_recovery_chance(grid), abs=5 * np.std(chance) / 20)


@pytest.mark.parametrize(("height", "width", "count"), [(3, 3, 8), (3, 4, 4), (2, 5, 4)])
def test_symmetries_keep_every_distance_and_no_score_sees_them(height: int, width: int, count: int):
    similarity, true, grid = planted(height, width, noise=0.1)
    order = np.random.default_rng(2).permutation(grid.num_patches)
    kept = symmetries(grid)
    assert len({tuple(each) for each in kept}) == count
    for each in kept:
        np.testing.assert_allclose(grid.distances[np.ix_(each, each)], grid.distances)
        assert edge_recovery(each[order], true, grid) == edge_recovery(order, true, grid)
        assert arrangement_error(similarity, each[order], grid) == pytest.approx(
            arrangement_error(similarity, order, grid)
        )


def test_the_error_is_the_sum_of_squares_that_no_function_of_distance_explains():
    similarity, order, grid = planted(2, 3, noise=0.3)
    placed = grid.reordered(order)
    total = 0.0
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    for length in {round(placed.distances[pair], 6) for pair in pairs}:
        values = [similarity[pair] for pair in pairs if round(placed.distances[pair], 6) == length]
        total += sum((value - np.mean(values)) ** 2 for value in values)
    assert arrangement_error(similarity, order, grid) == pytest.approx(total)


def test_an_arrangement_that_is_known_is_never_made_worse():
    similarity, order, grid = planted(6, 6, noise=0.6)
    found = unscramble(similarity, grid, known=[order])
    assert arrangement_error(similarity, found, grid) <= arrangement_error(similarity, order, grid) + 1e-9


def test_path_similarity_is_the_cosine_of_second_differences_and_blind_to_a_steady_drift():
    random = np.random.default_rng(3)
    path = random.normal(size=(5, 4, 3))
    slow = np.zeros((4, 4))
    for t in (1, 2, 3):
        change = np.array([path[t + 1, i] - 2 * path[t, i] + path[t - 1, i] for i in range(4)])
        change -= sum(change) / 4
        for i in range(4):
            for j in range(4):
                slow[i, j] += change[i] @ change[j] / np.sqrt((change[i] @ change[i]) * (change[j] @ change[j])) / 3
    np.testing.assert_allclose(path_similarity(path), slow)
    drift = np.arange(5)[:, None, None] * random.normal(size=(4, 3))
    np.testing.assert_allclose(path_similarity(path + drift), slow)
    with pytest.raises(ValueError, match="at least 3 steps; found 2"):
        path_similarity(path[:2])


def test_borders_of_a_smooth_image_find_the_neighbour():
    random = np.random.default_rng(4)
    columns = np.repeat(random.normal(size=(200, 1, 1, 4)), 3, axis=3)  # 4 stripes of 3 pixels, shifted by one:
    images = np.repeat(np.roll(columns, 1, axis=3)[..., :12], 3, axis=2)  # a border pixel shows the stripe beside it
    similarity = border_similarity(images, PatchGrid(1, 4))
    rights, lefts = images[:, 0, :, 2].ravel(), images[:, 0, :, 3].ravel()
    assert similarity[0, 1] == pytest.approx(np.corrcoef(rights, lefts)[0, 1])
    assert similarity[0, 1] > 0.99
    assert abs(similarity[0, 2]) < 0.3


def test_a_likeness_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="each of 4 patches"):
        unscramble(np.eye(5), PatchGrid(2, 2))
    with pytest.raises(ValueError, match="1 not finite"):
        unscramble(np.where(np.arange(16).reshape(4, 4) == 1, np.nan, 1.0), PatchGrid(2, 2))
