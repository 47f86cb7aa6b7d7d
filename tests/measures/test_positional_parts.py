"""What the mean scores are made of: the explicit design of N² rows as twin, laws, and heads whose answer is known."""

import itertools

import numpy as np
import pytest
import torch

from wherefrom import measures
from wherefrom.attention import AttentionRecord
from wherefrom.geometry import PatchGrid
from wherefrom.measures.layer import layer_measurements
from wherefrom.measures.positional import gram_root
from wherefrom.measures.sums import layer_sums

GRID = PatchGrid(3, 4)
NAMES = ("positional_offset_share", "positional_key_share", "positional_pair_share")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(scores) -> torch.Tensor:
    """The same scores, `query key`, in both halves."""
    return scores.expand(2, 1, -1, -1)


def designs(grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """A column for each query, then each offset; and with those of each key: `pair column`, by loops."""
    patches = grid.num_patches
    place = grid.coordinates.tolist()
    offsets = sorted({(b[0] - a[0], b[1] - a[1]) for a, b in itertools.product(place, repeat=2)})
    columns = {key: np.zeros(patches**2) for key in (*range(patches), *offsets, *(("key", j) for j in range(patches)))}
    for row, (i, j) in enumerate(itertools.product(range(patches), repeat=2)):
        columns[i][row] = 1
        columns[place[j][0] - place[i][0], place[j][1] - place[i][1]][row] = 1
        columns["key", j][row] = 1
    design = np.stack(list(columns.values()), 1)
    return design[:, : patches + len(offsets)], design


def parts_by_least_squares(halves, grid: PatchGrid) -> list[float]:
    """Both halves' scores fitted pair by pair; h_i is a column of its own, so nothing has to be centred beforehand."""
    first, second = (half.numpy().ravel() for half in halves - halves.mean(-1, keepdim=True))
    total = first @ second
    fits = [design @ np.linalg.lstsq(design, first, rcond=1e-10)[0] for design in designs(grid)]
    offset, joint = (float(fit @ second / total) for fit in fits)
    return [offset, joint - offset, 1 - joint]


@pytest.mark.parametrize("size", [(1, 2), (1, 5), (4, 1), (2, 2), (2, 3), (3, 4), (5, 5)], ids=str)
@pytest.mark.parametrize("reordered", [False, True])
def test_parts_are_those_of_the_explicit_fit(size, reordered):
    grid = PatchGrid(*size)
    if reordered:
        grid = grid.reordered(np.random.default_rng(0).permutation(grid.num_patches))
    patches = grid.num_patches
    halves = normal(1, 1, patches, patches) + 0.3 * normal(2, 1, patches, patches, seed=1)
    found = measures.positional_parts(halves, grid)[:, 0].tolist()
    assert found == pytest.approx(parts_by_least_squares(halves[:, 0], grid), abs=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 6), (2, 2), (3, 4)], ids=str)
def test_gram_matrix_is_that_of_the_centred_columns_and_what_it_cannot_see(size):
    grid = PatchGrid(*size)
    patches = grid.num_patches
    columns = designs(grid)[1][:, patches:].reshape(patches, patches, -1)
    columns = (columns - columns.mean(1, keepdims=True)).reshape(patches**2, -1)
    gram, root = columns.T @ columns, gram_root(*size).numpy()
    pinned = root @ root.T - gram
    assert np.linalg.matrix_rank(gram, tol=1e-9) + np.linalg.matrix_rank(pinned, tol=1e-9) == len(gram)


@pytest.mark.parametrize("tile", [1, 50, 10**6])
@pytest.mark.parametrize("bias", [None, normal(1, 2, 13, 13)], ids=["plain", "biased"])
def test_what_is_recorded_is_the_measure_of_mean_scores(tile, bias, monkeypatch):
    monkeypatch.setattr("wherefrom.attention.TILE_ELEMENTS", tile)
    grid = PatchGrid(3, 4, num_prefix_tokens=1)
    common, own = normal(1, 2, 13, 4), normal(7, 2, 13, 4, seed=1)
    record = AttentionRecord(common + 0.2 * own, common.roll(1, 2) - 0.2 * own, own, 0.5, None, bias)
    true = grid.reordered(np.random.default_rng(0).permutation(12))
    scores = record.scores()[..., 1:, 1:]
    halves = torch.stack([scores[0::2].mean(0), scores[1::2].mean(0)])
    for grids, used in (({"model": grid}, grid), ({"true": true}, true)):
        rows = layer_measurements(layer_sums(record, grids), 0, "probe")
        values = {(row.measure, row.head): row.value for row in rows}
        for head in range(2):
            expected = parts_by_least_squares(halves[:, head], used)
            assert [values[name, head] for name in NAMES] == pytest.approx(expected, abs=1e-12)


def test_parts_sum_to_one_and_rows_and_units_and_halves_do_not_count():
    halves = normal(1, 3, 12, 12) + 0.3 * normal(2, 3, 12, 12, seed=1)
    parts = measures.positional_parts(halves, GRID)
    torch.testing.assert_close(parts.sum(0), torch.ones(3, dtype=torch.float64))
    for same in (halves + normal(2, 3, 12, 1, seed=2), 7 * halves, halves.flip(0)):
        torch.testing.assert_close(measures.positional_parts(same, GRID), parts, rtol=0, atol=1e-12)


def test_a_head_that_knows_offsets_alone():
    by_offset = normal(GRID.num_offsets)
    scores = by_offset[torch.as_tensor(GRID.offset_index)]
    assert measures.positional_parts(both(scores), GRID)[:, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-12)
    reordered = GRID.reordered(np.random.default_rng(1).permutation(12))
    assert float(measures.positional_parts(both(scores), reordered)[2, 0]) > 0.1  # on another grid it is a table


def test_a_head_that_looks_at_one_position_whatever_the_query():
    """No pair term; what offsets can imitate (it shrinks with the grid) is theirs."""
    keys = {}
    for grid in (PatchGrid(3, 3), PatchGrid(9, 9)):
        scores = torch.zeros(grid.num_patches, grid.num_patches, dtype=torch.float64)
        scores[:, grid.num_patches // 2] = 3
        offset, key, pair = measures.positional_parts(both(scores), grid)[:, 0].tolist()
        assert pair == pytest.approx(0, abs=1e-12)
        keys[grid.height] = key
        assert offset > 0
    assert keys[9] > 0.8
    assert keys[9] > keys[3]


def test_a_slope_over_the_image_is_both_and_counts_as_offset():
    """g(key) = row of the key differs from f(offset) = dy by a constant in each row, which softmax does not see."""
    row = torch.as_tensor(GRID.coordinates[:, 0]).double().expand(12, 12)
    assert measures.positional_parts(both(row), GRID)[:, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-12)


def test_a_table_of_pairs_at_random_is_mostly_pairs():
    grid = PatchGrid(6, 6)
    offset, key, pair = measures.positional_parts(both(normal(36, 36)), grid)[:, 0].tolist()
    freedom = 36 * 35  # of a matrix centred within rows; parts are what their columns take of it by chance
    assert offset == pytest.approx(120 / freedom, abs=0.05)
    assert key == pytest.approx((35 - 2) / freedom, abs=0.03)
    assert pair > 0.8


def test_contents_alone_leave_nothing_to_share():
    halves = normal(2, 1, 64, 64) / 30
    assert measures.positional_parts(halves, PatchGrid(8, 8)).isnan().all()
    assert (
        measures.positional_parts(-halves[:1] * torch.tensor([1.0, -1]).view(2, 1, 1, 1), PatchGrid(8, 8)).isnan().all()
    )


def test_noise_of_the_halves_adds_nothing():
    signal = normal(GRID.num_offsets)[torch.as_tensor(GRID.offset_index)]
    shares = [measures.positional_parts(signal + normal(2, 1, 12, 12, seed=seed), GRID)[:, 0] for seed in range(1, 101)]
    mean, error = torch.stack(shares).mean(0), torch.stack(shares).std(0) / 10
    assert (mean - torch.tensor([1.0, 0, 0])).abs().lt(4 * error).all()
    assert (error > 0).all()


def test_grids_too_large_to_fit_are_null():
    grid = PatchGrid(25, 25)
    sums = torch.zeros(2, 1, 49, 49), torch.zeros(2, 1, 625), torch.ones(1, 2, 2)
    assert measures.positional.parts_of_sums(*sums, grid).isnan().all()
