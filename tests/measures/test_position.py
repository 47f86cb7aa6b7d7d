"""Position measures: slow twins, laws, planted maps and pure noise."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge

from wherefrom import measures
from wherefrom.geometry import PatchGrid

GRID = PatchGrid(4, 6)


def noise(grid=GRID, width=16, seed=0):
    return torch.randn(grid.num_patches, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planted_map(grid=GRID, width=16, reach=2.0):
    """Embeddings whose inner products fall with distance: a smooth map of the plane."""
    kernel = torch.exp(-(torch.as_tensor(grid.distances) ** 2) / (2 * reach**2))
    values, vectors = torch.linalg.eigh(kernel)
    return (vectors * values.clamp(min=0).sqrt())[:, -width:]


def cosine_by_loop(pos):
    centred = pos - pos.mean(0)
    n = len(pos)
    return np.array(
        [[float(centred[i] @ centred[j] / centred[i].norm() / centred[j].norm()) for j in range(n)] for i in range(n)]
    )


def ranks_by_loop(x):
    """How many are smaller, and half of those that are the same but for rounding."""
    x, width = np.array(x), 1e-9 * np.abs(x).max()
    return [np.sum(x < value - width) + np.sum(np.abs(x - value) <= width) / 2 for value in x]


@pytest.mark.parametrize("pos", [noise(), planted_map()], ids=["noise", "map"])
def test_similarity_and_falloff_are_what_loops_find(pos):
    similarity = cosine_by_loop(pos)
    np.testing.assert_allclose(measures.pos_similarity(pos).numpy(), similarity, atol=1e-12)
    pairs = list(itertools.combinations(range(GRID.num_patches), 2))
    c = [similarity[i, j] for i, j in pairs]
    d = [-math.dist(divmod(i, GRID.width), divmod(j, GRID.width)) for i, j in pairs]
    assert float(measures.similarity_falloff(pos, GRID)) == pytest.approx(scipy.stats.pearsonr(c, d)[0], abs=1e-12)
    spearman = scipy.stats.pearsonr(ranks_by_loop(c), ranks_by_loop(d))[0]
    assert float(measures.similarity_falloff_spearman(pos, GRID)) == pytest.approx(spearman, abs=1e-12)


@pytest.mark.parametrize("pos", [noise(), planted_map()], ids=["noise", "map"])
def test_coordinate_r2_is_ridge_with_each_patch_left_out(pos):
    x, y = pos.numpy(), GRID.coordinates.astype(float)
    ridge = x.var(0).mean() * GRID.num_patches
    residual = np.zeros_like(y)
    for i in range(GRID.num_patches):
        others = np.arange(GRID.num_patches) != i
        residual[i] = y[i] - Ridge(alpha=ridge).fit(x[others], y[others]).predict(x[i : i + 1])[0]
    squares, total = (residual**2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    expected = [1 - squares.sum() / total.sum(), *(1 - squares / total)]
    np.testing.assert_allclose(measures.coordinate_r2(pos, GRID).numpy(), expected, atol=1e-10)


def test_a_planted_map_is_found_and_noise_is_not():
    grid = PatchGrid(8, 8)
    found, nothing = planted_map(grid, 32), noise(grid, 64)
    assert measures.similarity_falloff(found, grid) > 0.7
    assert abs(measures.similarity_falloff(nothing, grid)) < 0.1
    assert measures.coordinate_r2(found, grid)[0] > 0.9
    assert -0.4 < measures.coordinate_r2(nothing, grid)[0] < 0
    assert measures.neighbour_recovery(found, grid) == 1
    assert measures.neighbour_recovery(nothing, grid) < 3 * measures.neighbour_recovery_chance(grid)
    assert measures.near_minus_far(found, grid) > 0.8
    assert abs(measures.near_minus_far(nothing, grid)) < 0.1


def test_neighbour_recovery_counts_patches_whose_best_match_is_a_neighbour():
    pos, similarity, hits = noise(seed=3), cosine_by_loop(noise(seed=3)), 0
    for i in range(GRID.num_patches):
        best = max((j for j in range(GRID.num_patches) if j != i), key=lambda j: similarity[i, j])
        (y, x), (v, u) = divmod(i, GRID.width), divmod(best, GRID.width)
        hits += max(abs(y - v), abs(x - u)) == 1
    assert float(measures.neighbour_recovery(pos, GRID)) == pytest.approx(hits / GRID.num_patches)


def test_chance_of_neighbour_recovery_is_that_of_guessing():
    random = np.random.default_rng(0)
    pairs = GRID.relation_pairs("edge") | GRID.relation_pairs("corner")
    guesses = [random.choice([j for j in range(24) if j != i]) for _ in range(400) for i in range(24)]
    share = np.mean([pairs[i % 24, j] for i, j in enumerate(guesses)])
    assert measures.neighbour_recovery_chance(GRID) == pytest.approx(share, abs=0.02)


def test_effective_rank_counts_equal_directions():
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    assert float(measures.effective_rank(corners)) == pytest.approx(3)
    assert float(measures.effective_rank(corners * torch.tensor([1.0, 0, 0]))) == pytest.approx(1)


def test_mirror_similarity_by_loop_and_on_a_symmetric_table():
    pos, similarity = noise(), cosine_by_loop(noise())
    mirrored = {(i, j) for i in range(24) for j in ((i // 6) * 6 + 5 - i % 6, (3 - i // 6) * 6 + i % 6) if i != j}
    excess = []
    for i, j in mirrored:
        peers = [
            similarity[a, b] for a in range(24) for b in range(24)
            if abs(GRID.distances[a, b] - GRID.distances[i, j]) < 1e-9 and (a, b) not in mirrored
        ]  # fmt: skip
        if peers:
            excess.append(similarity[i, j] - np.mean(peers))
    assert float(measures.mirror_similarity(pos, GRID)) == pytest.approx(np.mean(excess), abs=1e-12)
    symmetric = pos.reshape(4, 6, -1) + pos.reshape(4, 6, -1).flip(1)
    assert measures.mirror_similarity(symmetric.flatten(0, 1), GRID) > 0.3


def test_patch_association_of_planted_sets():
    sets = [[0, 5, 9], [1, 2, 3], [4, 6, 7], [8, 10, 11]]
    pos = torch.zeros(12, 4, dtype=torch.float64)
    for number, group in enumerate(sets):
        pos[group, number] = 1
    assert measures.patch_association(pos + 0.01 * noise(PatchGrid(3, 4), 4), sets) == 1
    pos[[0, 1]] = pos[[1, 0]]  # two patches in the wrong set: their own and their sets' other four patches fail
    assert float(measures.patch_association(pos, sets)) == pytest.approx(0.5)


def test_layout_puts_a_map_back_in_its_place():
    grid = PatchGrid(6, 6)
    places = measures.layout(planted_map(grid, 36, reach=6.0), grid)
    assert float((places - torch.as_tensor(grid.coordinates)).norm(dim=1).mean()) < 0.8
    free = measures.layout(planted_map(grid, 36, reach=6.0))
    between, aligned = torch.pdist(free), torch.pdist(places)
    torch.testing.assert_close(between / between.max(), aligned / aligned.max())  # aligning turns and scales alone


@pytest.mark.parametrize("name", ["similarity_falloff", "near_minus_far", "neighbour_recovery", "mirror_similarity"])
def test_turning_and_scaling_the_embedding_changes_nothing(name):
    pos = planted_map() + 0.3 * noise()
    turn = torch.linalg.qr(noise(PatchGrid(4, 4), 16, seed=2)).Q
    measure = getattr(measures, name)
    torch.testing.assert_close(measure(3 * pos @ turn + 5, GRID), measure(pos, GRID), rtol=1e-9, atol=1e-9)


def test_falloff_can_be_differentiated():
    pos = noise(PatchGrid(3, 3), 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: measures.similarity_falloff(p, PatchGrid(3, 3)), pos)
