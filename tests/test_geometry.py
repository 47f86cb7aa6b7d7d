"""The grid against loops over pairs, and against published distances of uniform attention."""

import math

import numpy as np
import pytest

from wherefrom.geometry import RELATIONS, PatchGrid


def relation_by_loop(grid: PatchGrid, i: int, j: int) -> str:
    (y, x), (v, u) = (divmod(p, grid.width) for p in (i, j))
    distance = math.hypot(v - y, u - x)
    if i == j:
        return "self"
    if abs(v - y) + abs(u - x) == 1:
        return "edge"
    if abs(v - y) == 1 == abs(u - x):
        return "corner"
    if distance >= grid.mean_distance:
        return "far"
    return "row" if v == y else "column" if u == x else "mid"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (3, 7), (8, 8), (1, 9)])
def test_every_pair_has_the_relation_a_loop_finds(size):
    grid = PatchGrid(*size)
    found = [[RELATIONS[code] for code in row] for row in grid.relations]
    expected = [[relation_by_loop(grid, i, j) for j in range(grid.num_patches)] for i in range(grid.num_patches)]
    assert found == expected


@pytest.mark.parametrize(("side", "distance"), [(4, 2.0080), (7, 3.6095), (8, 4.1365), (14, 7.2808), (16, 8.3261)])
def test_mean_distance_is_the_published_one(side, distance):
    assert PatchGrid(side, side).mean_distance == pytest.approx(distance, abs=5e-5)


def test_offsets_count_all_pairs_once():
    grid = PatchGrid(3, 5)
    counted = np.bincount(grid.offset_index.ravel(), minlength=grid.num_offsets)
    assert (counted == grid.offset_counts.ravel()).all()
    assert counted.sum() == grid.num_patches**2


@pytest.mark.parametrize("size", [(2, 2), (3, 3)])
def test_small_grids_have_nothing_in_between(size):
    assert not PatchGrid(*size).relation_pairs("between").any()


def test_a_reordered_grid_reads_true_places():
    order = [3, 1, 0, 2, 5, 4]
    grid, true = PatchGrid(2, 3), PatchGrid(2, 3).reordered(order)
    for p in range(6):
        for r in range(6):
            assert true.distances[p, r] == grid.distances[order[p], order[r]]
            assert true.relations[p, r] == grid.relations[order[p], order[r]]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PatchGrid(0, 3), "height and width of at least 1"),
        (lambda: PatchGrid(2, 2).reordered([0, 1, 2, 2]), "permutation of the 4 patches"),
        (lambda: PatchGrid(2, 2).relation_pairs("diagonal"), "unknown relation 'diagonal'"),
    ],
)
def test_impossible_grids_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
