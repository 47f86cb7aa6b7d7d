"""Ridge regression with each row left out: both forms are the loop that fits anew without the row."""

import math

import pytest
import torch

from wherefrom import measures
from wherefrom.geometry import PatchGrid


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def error_by_loop(x, y):
    """Fit the other rows with a free intercept, which is not shrunk, and predict the row."""
    rows, width = x.shape
    ridge = float(((x - x.mean(0)) ** 2).mean()) * rows
    errors = []
    for i in range(rows):
        others = [j for j in range(rows) if j != i]
        ones = torch.cat([x[others], torch.ones(rows - 1, 1, dtype=torch.float64)], 1)
        penalty = torch.diag(torch.tensor([ridge] * width + [0.0], dtype=torch.float64))
        weights = torch.linalg.solve(ones.T @ ones + penalty, ones.T @ y[others])
        errors.append(y[i] - torch.cat([x[i], torch.ones(1, dtype=torch.float64)]) @ weights)
    return torch.stack(errors)


@pytest.mark.parametrize("width", [3, 12, 30], ids=["primal", "square", "dual"])
def test_the_closed_form_is_the_loop(width):
    x, y = noise(12, width), noise(12, 2, seed=1)
    expected = error_by_loop(x, y)
    torch.testing.assert_close(measures.ridge_loo(x, y), expected, rtol=0, atol=1e-12)
    for number, target in enumerate(y.T, 1):
        r2 = 1 - float(expected[:, number - 1].square().sum() / (target - target.mean()).square().sum())
        assert float(measures.ridge_r2(x, y)[number]) == pytest.approx(r2, abs=1e-12)


def test_columns_of_zeros_change_the_form_but_with_the_same_constant_not_the_errors():
    x, y = noise(10, 8), noise(10, 2, seed=1)
    wide = torch.cat([x, torch.zeros(10, 8, dtype=torch.float64)], 1) * math.sqrt(2)  # the mean variance is that of x
    primal, dual = measures.ridge_loo(x * math.sqrt(2), y), measures.ridge_loo(wide, y)
    assert not torch.allclose(primal, dual)  # the zeros halve the constant
    equal = error_by_loop(wide, y)
    torch.testing.assert_close(dual, equal, rtol=0, atol=1e-12)


def test_shifting_and_scaling_change_nothing():
    x, y = noise(20, 5), noise(20, 2, seed=1)
    for moved in (x + 7, 3 * x, x @ torch.linalg.qr(noise(5, 5, seed=2)).Q):
        torch.testing.assert_close(measures.ridge_r2(moved, y), measures.ridge_r2(x, y), rtol=0, atol=1e-12)


def stream(images=5, width=4):
    """Tokens that hold their position, times 3, in two features, and noise in all."""
    coordinates = torch.as_tensor(PatchGrid(2, 3).coordinates).double()
    x = noise(images, 6, width)
    x[..., :2] += 3 * coordinates
    return x


@pytest.mark.parametrize(("width", "order"), [(4, None), (40, None), (4, (5, 3, 1, 0, 2, 4))])
def test_position_in_stream_is_what_loops_find(width, order):
    grid = PatchGrid(2, 3, order=order)
    x = stream(width=width)
    rows = [(x[b, i], divmod(i if order is None else order[i], 3)) for b in range(5) for i in range(6)]
    features = torch.stack([row for row, _ in rows])
    places = torch.tensor([place for _, place in rows], dtype=torch.float64)
    left = (places - places.mean(0)).square().sum()
    expected = 1 - float(error_by_loop(features, places).square().sum() / left)
    assert float(measures.position_in_stream(x, grid)) == pytest.approx(expected, abs=1e-12)


def test_positions_are_found_where_they_are_and_contents_tell_nothing():
    grid = PatchGrid(6, 6)
    position = torch.as_tensor(grid.coordinates).double() @ noise(2, 8)
    content = noise(30, 36, 8, seed=3)
    assert measures.position_in_stream(content, grid).abs() < 0.02
    # variance v in each of two of eight features shrinks them to v / (v + v/4); shrunk by a fifth, 1 − 1/25 is left
    only = torch.zeros(30, 36, 8, dtype=torch.float64)
    only[..., :2] = torch.as_tensor(grid.coordinates).double()
    assert float(measures.position_in_stream(only, grid)) == pytest.approx(1 - 1 / 25, abs=0.002)
    both = [float(measures.position_in_stream(s * position + content, grid)) for s in (0.1, 0.3, 1.0, 3.0)]
    assert both == sorted(both)
    assert both[0] < 0.2 < 0.8 < both[-1]


def test_a_single_patch_has_no_position_and_tokens_must_fit_the_grid():
    assert measures.position_in_stream(noise(5, 1, 4), PatchGrid(1, 1)).isnan()
    with pytest.raises(ValueError, match=r"7 tokens an image, but a grid of 2 × 3 has 6 patches"):
        measures.position_in_stream(noise(5, 7, 4), PatchGrid(2, 3))
