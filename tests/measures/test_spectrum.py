"""Spatial frequencies of the position embedding: the sum of cosines, Parseval, planted waves, shuffled rows."""

import math

import pytest
import torch

from wherefrom import measures
from wherefrom.geometry import PatchGrid
from wherefrom.observe.positions import position_arrays, position_measurements

GRID = PatchGrid(3, 5)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def wave(grid, v, u, width=4):
    """A cosine of v half periods down and u across, in each feature with a factor of its own."""
    y, x = torch.as_tensor(grid.coordinates).double().T
    cosine = torch.cos(math.pi * v * (y + 0.5) / grid.height) * torch.cos(math.pi * u * (x + 0.5) / grid.width)
    return cosine[:, None] * noise(width, seed=7)


def spectrum_by_loop(pos, grid):
    height, width = grid.height, grid.width
    energy = [[0.0] * width for _ in range(height)]
    for v in range(height):
        for u in range(width):
            size = math.sqrt((1 if v == 0 else 2) / height * (1 if u == 0 else 2) / width)
            for column in (pos - pos.mean(0)).T.tolist():
                total = 0.0
                for value, (y, x) in zip(column, grid.coordinates.tolist(), strict=True):
                    down = math.cos(math.pi * v * (y + 0.5) / height)
                    total += value * down * math.cos(math.pi * u * (x + 0.5) / width)
                energy[v][u] += (size * total) ** 2
    whole = sum(map(sum, energy))
    return [[value / whole for value in row] for row in energy]


@pytest.mark.parametrize("order", [None, torch.randperm(15, generator=torch.Generator().manual_seed(1)).tolist()])
def test_the_spectrum_is_the_sum_of_cosines(order):
    grid, pos = GRID if order is None else GRID.reordered(order), 2 + noise(15, 6)
    expected = spectrum_by_loop(pos, grid)
    found = measures.pos_spectrum(pos, grid)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    low = sum(expected[v][u] for v in range(3) for u in range(5) if v + u <= 2)
    assert float(measures.low_frequency_share(found)) == pytest.approx(low, abs=1e-12)


def test_energies_sum_to_one_without_the_mean_and_turning_the_features_changes_nothing():
    pos = noise(15, 6)
    found = measures.pos_spectrum(pos, GRID)
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    assert float(found[0, 0]) == pytest.approx(0, abs=1e-12)
    turned = measures.pos_spectrum(3 * pos @ torch.linalg.qr(noise(6, 6, seed=2)).Q + 5, GRID)
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("v", "u"), [(0, 1), (2, 0), (1, 1), (2, 4)])
def test_a_planted_wave_is_the_only_frequency(v, u):
    found = measures.pos_spectrum(wave(GRID, v, u), GRID)
    assert float(found[v, u]) == pytest.approx(1, abs=1e-12)
    assert float(measures.low_frequency_share(found)) == pytest.approx(float(v + u <= 2), abs=1e-12)


def test_shuffled_rows_are_put_at_their_true_positions():
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    pos = wave(GRID, 1, 1)
    shuffled = pos[order]  # position p holds the patch whose true position is order[p]
    true = GRID.reordered(order.tolist())
    assert float(measures.pos_spectrum(shuffled, true)[1, 1]) == pytest.approx(1, abs=1e-12)
    assert float(measures.pos_spectrum(shuffled, GRID)[1, 1]) < 0.5


def test_noise_has_the_same_energy_at_all_frequencies():
    grid = PatchGrid(8, 8)
    share = measures.low_frequency_share(measures.pos_spectrum(noise(64, 4000), grid))
    assert float(share) == pytest.approx(5 / 63, abs=0.005)


def test_a_table_of_zeros_and_a_single_patch_have_no_spectrum():
    assert measures.pos_spectrum(torch.zeros(15, 6), GRID).isnan().all()
    assert measures.pos_spectrum(torch.ones(1, 6), PatchGrid(1, 1)).isnan().all()
    with pytest.raises(ValueError, match="14 rows, but a grid of 3 × 5 has 15 patches"):
        measures.pos_spectrum(noise(14, 6), GRID)


def test_it_is_recorded_on_each_grid():
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1)).tolist()
    grids = {"model": GRID, "true": GRID.reordered(order)}
    pos = wave(GRID, 1, 1)[order]
    rows = {
        row.grid: row.value for row in position_measurements(pos, grids) if row.measure == "pos_low_frequency_share"
    }
    assert rows["true"] == pytest.approx(1, abs=1e-12)
    assert rows["model"] == pytest.approx(
        float(measures.low_frequency_share(measures.pos_spectrum(pos, GRID))), abs=1e-12
    )
    spectrum = position_arrays(pos, grids["true"])["pos_spectrum"]
    assert spectrum.shape == (3, 5)
    assert float(spectrum[1, 1]) == pytest.approx(1, abs=1e-6)
